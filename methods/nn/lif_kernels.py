"""The Triton kernels of the LIF: one program per block of neurons, with the loop over time inside. Symbols: ``methods.nn.neuron``.

State and arithmetic are in single precision whatever the type of the currents. Launched without contraction of products and sums
(``enable_fp_fusion=False``), so that potentials have the bits of PyTorch's separate operations. Launchers: ``methods.nn.lif_triton``.

Rows of a sequence are ``size`` numbers in any order; successive rows are a stride apart. Pointers that are None switch at compile time.
"""

from __future__ import annotations

import triton
import triton.language as tl

HARD, SOFT = tl.constexpr(0), tl.constexpr(1)  # as in methods.nn.lif_native.RESETS
RECTANGLE, LINEAR, SIGMOID = tl.constexpr(0), tl.constexpr(1), tl.constexpr(2)  # as its ``coefficients``
GAUSS, ARCTAN = tl.constexpr(3), tl.constexpr(4)
STAGES = tl.constexpr(4)  # rows that are on their way from memory while one is worked on


@triton.jit
def fire(d, STRICT: tl.constexpr):
    """Return 1 where the distance from the threshold says so; NaN stays NaN."""
    fired = d > 0 if STRICT else d >= 0
    return tl.where(d == d, fired.to(tl.float32), d)


@triton.jit
def after(u, s, threshold, RESET: tl.constexpr):
    """Return the state after potential ``u`` and spike ``s``."""
    if RESET == HARD:
        return u * (1.0 - s)
    elif RESET == SOFT:
        return u - threshold * s
    else:
        return u


@triton.jit
def derivative(d, c0, c1, c2, SURROGATE: tl.constexpr):
    """Return the surrogate's ``h(d)``."""
    if SURROGATE == RECTANGLE:
        return tl.where(tl.abs(d) < c0, c1, 0.0)
    elif SURROGATE == LINEAR:
        h = c0 - c1 * tl.abs(d)
        return tl.where(h < 0, 0.0, h) * c2  # a maximum would lose NaN
    elif SURROGATE == SIGMOID:
        s = 1.0 / (1.0 + tl.exp(-c0 * d))
        return c0 * s * (1.0 - s)
    elif SURROGATE == GAUSS:
        return tl.exp(-d * d * c0) * c1
    elif SURROGATE == ARCTAN:
        z = c0 * d
        return c1 / (1.0 + z * z)
    else:  # the fast sigmoid
        z = 1.0 + c0 * tl.abs(d)
        return c1 / (z * z)


@triton.jit
def rest(v0, v_init, at, inside, BLOCK: tl.constexpr):
    """Return the state before the first step."""
    if v0 is not None:
        return tl.load(v0 + at, mask=inside, other=0.0).to(tl.float32)
    else:
        return tl.zeros([BLOCK], tl.float32) + v_init


@triton.jit(do_not_specialize=["steps"])
def forward(
    x, x_stride, v0, learnt, s, u, v1, steps, size, leak, gain, threshold, v_init,
    RESET: tl.constexpr, STRICT: tl.constexpr, SCALED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Write the spikes ``s`` of the currents ``x``; ``u`` (potentials), ``v1`` (state after) where given."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < size
    if learnt is not None:
        leak = tl.load(learnt).to(tl.float32)
        gain = 1.0 - leak
    v = rest(v0, v_init, at, inside, BLOCK)
    x += at
    s += at
    if u is not None:
        u += at
    for _ in tl.range(0, steps, num_stages=STAGES):
        now = tl.load(x, mask=inside, other=0.0).to(tl.float32)
        if SCALED:
            now = gain * now
        potential = leak * v + now
        spike = fire(potential - threshold, STRICT)
        tl.store(s, spike.to(s.dtype.element_ty), mask=inside)
        if u is not None:
            tl.store(u, potential, mask=inside)
            u += size
        v = after(potential, spike, threshold, RESET)
        x += x_stride
        s += size
    if v1 is not None:
        tl.store(v1 + at, v, mask=inside)


@triton.jit(do_not_specialize=["steps", "rounds"])
def backward(
    u, x, x_stride, v0, g, g_stride, g_v1, learnt, scratch, g_x, g_v0, g_leak,
    rounds, steps, size, leak, gain, threshold, v_init, c0, c1, c2,
    RESET: tl.constexpr, ATTACHED: tl.constexpr, STRICT: tl.constexpr, SURROGATE: tl.constexpr, SCALED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Write the gradients of the currents (``g_x``), of the state before (``g_v0``) and, per block, of the leak (``g_leak``).

    Each program works on every n-th block, for ``rounds`` rounds. Without potentials ``u`` it computes those of a block again, into its
    part of ``scratch [programs, steps, BLOCK]``, which is meant to stay in the second-level cache.
    """
    program = tl.program_id(0).to(tl.int64)
    lane = tl.arange(0, BLOCK)
    if learnt is not None:
        leak = tl.load(learnt).to(tl.float32)
        gain = 1.0 - leak
    for round in tl.range(0, rounds):
        block = program + round * tl.num_programs(0)
        at = block * BLOCK + lane
        inside = at < size
        start = rest(v0, v_init, at, inside, BLOCK)
        if u is None:
            mine = scratch + program * steps * BLOCK + lane
            tl.debug_barrier()  # the block before has been read
            v = start
            row = x + at
            kept = mine
            for _ in tl.range(0, steps, num_stages=STAGES):
                now = tl.load(row, mask=inside, other=0.0).to(tl.float32)
                if SCALED:
                    now = gain * now
                potential = leak * v + now
                tl.store(kept, potential)
                v = after(potential, fire(potential - threshold, STRICT), threshold, RESET)
                row += x_stride
                kept += BLOCK
            tl.debug_barrier()
            u_row = mine + (steps - 1).to(tl.int64) * BLOCK
        else:
            u_row = u + at + (steps - 1).to(tl.int64) * size
        last = (steps - 1).to(tl.int64)
        g_row = g + at + last * g_stride
        g_x_row = g_x + at + last * size
        if g_v1 is not None:  # noqa: SIM108 - decided at compile time
            gv = tl.load(g_v1 + at, mask=inside, other=0.0).to(tl.float32)
        else:
            gv = tl.zeros([BLOCK], tl.float32)
        if g_leak is not None:
            total = tl.zeros([BLOCK], tl.float64)
            if SCALED:
                x_row = x + at + last * x_stride
        for back in tl.range(0, steps, num_stages=STAGES):
            t = steps - 1 - back
            potential = tl.load(u_row, mask=inside, other=0.0)
            if u is None:
                u_row -= BLOCK
            else:
                u_row -= size
            at_spike = tl.load(g_row, mask=inside, other=0.0).to(tl.float32)
            d = potential - threshold
            through = gv
            if RESET == HARD:
                through = gv * (1.0 - fire(d, STRICT))
            # After the last step the state has no gradient at all, unless it is carried on: 0 times infinity must not appear.
            joined = (t < steps - 1) | (g_v1 is not None)
            if ATTACHED:
                if RESET == HARD:
                    at_spike = at_spike - tl.where(joined, gv * potential, 0.0)
                elif RESET == SOFT:
                    at_spike = at_spike - tl.where(joined, gv * threshold, 0.0)
            gu = at_spike * derivative(d, c0, c1, c2, SURROGATE) + tl.where(joined, through, 0.0)
            if g_leak is not None:
                before = tl.load(u_row, mask=at < tl.where(t > 0, size, 0), other=0.0)  # nothing lies before the first step
                v = tl.where(t > 0, after(before, fire(before - threshold, STRICT), threshold, RESET), start)
                total += gu.to(tl.float64) * v.to(tl.float64)
                if SCALED:
                    total -= gu.to(tl.float64) * tl.load(x_row, mask=inside, other=0.0).to(tl.float64)
                    x_row -= x_stride
            out = gu
            if SCALED:
                out = gain * gu
            tl.store(g_x_row, out.to(g_x.dtype.element_ty), mask=inside)
            gv = leak * gu
            g_row -= g_stride
            g_x_row -= size
        if g_v0 is not None:
            tl.store(g_v0 + at, gv.to(g_v0.dtype.element_ty), mask=inside)
        if g_leak is not None:
            # Per block and in one order, so that the sum does not depend on which program came first.
            tl.store(g_leak + block, tl.sum(tl.where(inside, total, 0.0), 0), mask=block * BLOCK < size)
