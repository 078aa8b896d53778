"""The Triton kernels of the LIF: one program per block of neurons, with the loop over time inside. Symbols: ``methods.nn.neuron``.

State and arithmetic are in single precision whatever the type of the currents. Launched without contraction of products and sums
(``enable_fp_fusion=False``), so that potentials have the bits of PyTorch's separate operations. Launchers: ``methods.nn.lif_triton``.

Rows of a sequence are ``size`` numbers in any order; successive rows are a stride apart. Pointers that are None switch at compile time.
"""

from __future__ import annotations

import triton
import triton.language as tl

HARD, SOFT = tl.constexpr(0), tl.constexpr(1)  # as in methods.nn.lif_settings.RESETS
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


@triton.jit
def own(values, at, inside, inner, channels, CHANNELS: tl.constexpr):
    """Return what is learnt: one number, or for each neuron that of its channel."""
    if CHANNELS:
        return tl.load(values + (at // inner) % channels, mask=inside, other=0.0).to(tl.float32)
    else:
        return tl.load(values).to(tl.float32)


@triton.jit(do_not_specialize=["steps"])
def forward(
    x, x_stride, v0, learnt, levels, s, u, v1, steps, size, channels, inner, leak, gain, threshold, v_init,
    RESET: tl.constexpr, STRICT: tl.constexpr, SCALED: tl.constexpr, CHANNELS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Write the spikes ``s`` of the currents ``x``; ``u`` (potentials), ``v1`` (state after) where given.

    ``learnt`` and ``levels`` are leak and threshold where they are tensors; neuron i is of channel i // inner % channels.
    """
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < size
    if learnt is not None:
        leak = own(learnt, at, inside, inner, channels, CHANNELS)
        gain = 1.0 - leak
    if levels is not None:
        threshold = own(levels, at, inside, inner, channels, CHANNELS)
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


@triton.jit
def collect(to, total, at, block, inside, size, CHANNELS: tl.constexpr, BLOCK: tl.constexpr):
    """Write the sums of a block: per block and in one order, so that the sum does not depend on which program came first."""
    if CHANNELS:
        tl.store(to + at, total, mask=inside)
    else:
        tl.store(to + block, tl.sum(tl.where(inside, total, 0.0), 0), mask=block * BLOCK < size)


@triton.jit(do_not_specialize=["steps", "rounds"])
def backward(
    u, x, x_stride, v0, g, g_stride, g_v1, learnt, levels, scratch, g_x, g_v0, g_leak, g_level,
    rounds, steps, size, channels, inner, leak, gain, threshold, v_init, c0, c1, c2,
    RESET: tl.constexpr, ATTACHED: tl.constexpr, STRICT: tl.constexpr, SURROGATE: tl.constexpr, SCALED: tl.constexpr,
    CHANNELS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Write the gradients of the currents (``g_x``), of the state before (``g_v0``), of leak and threshold (``g_leak``, ``g_level``).

    The last two are sums per block, or with channels per neuron.

    Each program works on every n-th block, for ``rounds`` rounds. Without potentials ``u`` it computes those of a block again, into its
    part of ``scratch [programs, steps, BLOCK]``, which is meant to stay in the second-level cache.
    """
    program = tl.program_id(0).to(tl.int64)
    lane = tl.arange(0, BLOCK)
    for round in tl.range(0, rounds):
        block = program + round * tl.num_programs(0)
        at = block * BLOCK + lane
        inside = at < size
        if learnt is not None:
            beta = own(learnt, at, inside, inner, channels, CHANNELS)
            gamma = 1.0 - beta
        else:
            beta = leak
            gamma = gain
        theta = own(levels, at, inside, inner, channels, CHANNELS) if levels is not None else threshold
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
                    now = gamma * now
                potential = beta * v + now
                tl.store(kept, potential)
                v = after(potential, fire(potential - theta, STRICT), theta, RESET)
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
        if g_level is not None:
            level = tl.zeros([BLOCK], tl.float64)
        for back in tl.range(0, steps, num_stages=STAGES):
            t = steps - 1 - back
            potential = tl.load(u_row, mask=inside, other=0.0)
            if u is None:
                u_row -= BLOCK
            else:
                u_row -= size
            at_spike = tl.load(g_row, mask=inside, other=0.0).to(tl.float32)
            d = potential - theta
            through = gv
            if RESET == HARD:
                through = gv * (1.0 - fire(d, STRICT))
            # After the last step the state has no gradient at all, unless it is carried on: 0 times infinity must not appear.
            joined = (t < steps - 1) | (g_v1 is not None)
            if ATTACHED:
                if RESET == HARD:
                    at_spike = at_spike - tl.where(joined, gv * potential, 0.0)
                elif RESET == SOFT:
                    at_spike = at_spike - tl.where(joined, gv * theta, 0.0)
            spiked = at_spike * derivative(d, c0, c1, c2, SURROGATE)
            if g_level is not None:
                level -= spiked.to(tl.float64)
                if RESET == SOFT:
                    level -= tl.where(joined, gv * fire(d, STRICT), 0.0).to(tl.float64)
            gu = spiked + tl.where(joined, through, 0.0)
            if g_leak is not None:
                before = tl.load(u_row, mask=at < tl.where(t > 0, size, 0), other=0.0)  # nothing lies before the first step
                v = tl.where(t > 0, after(before, fire(before - theta, STRICT), theta, RESET), start)
                total += gu.to(tl.float64) * v.to(tl.float64)
                if SCALED:
                    total -= gu.to(tl.float64) * tl.load(x_row, mask=inside, other=0.0).to(tl.float64)
                    x_row -= x_stride
            out = gu
            if SCALED:
                out = gamma * gu
            tl.store(g_x_row, out.to(g_x.dtype.element_ty), mask=inside)
            gv = beta * gu
            g_row -= g_stride
            g_x_row -= size
        if g_v0 is not None:
            tl.store(g_v0 + at, gv.to(g_v0.dtype.element_ty), mask=inside)
        if g_leak is not None:
            collect(g_leak, total, at, block, inside, size, CHANNELS, BLOCK)
        if g_level is not None:
            collect(g_level, level, at, block, inside, size, CHANNELS, BLOCK)
