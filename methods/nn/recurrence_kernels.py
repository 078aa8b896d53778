"""The Triton kernels of the linear recurrence: one program per block of channels and part of the sequence. See ``recurrence_triton``."""

from __future__ import annotations

import triton
import triton.language as tl

STAGES = tl.constexpr(4)  # rows that are on their way from memory while one is worked on


@triton.jit(do_not_specialize=["steps", "length"])
def forward(a, a_stride, b, b_stride, starts, h, products, ends, steps, length, size, REAL: tl.constexpr, BLOCK: tl.constexpr):
    """Scan ``length`` steps from ``starts [parts, size]`` (None: zeros); write ``h``, or only what the part does to a state.

    That is ``state -> products * state + ends``, both ``[parts, size]``.
    """
    part = tl.program_id(1).to(tl.int64)
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < size
    first = part * length
    count = tl.minimum(steps - first, length).to(tl.int32)
    v = tl.zeros([BLOCK], REAL)
    if starts is not None:
        v = tl.load(starts + part * size + at, mask=inside, other=0.0).to(REAL)
    product = tl.zeros([BLOCK], REAL) + 1.0
    a += at + first * a_stride
    b += at + first * b_stride
    if h is not None:
        h += at + first * size
    for _ in tl.range(0, count, num_stages=STAGES):
        factor = tl.load(a, mask=inside, other=0.0).to(REAL)
        v = factor * v + tl.load(b, mask=inside, other=0.0).to(REAL)
        if h is not None:
            tl.store(h, v.to(h.dtype.element_ty), mask=inside)
            h += size
        else:
            product = product * factor
        a += a_stride
        b += b_stride
    if ends is not None:
        tl.store(products + part * size + at, product, mask=inside)
        tl.store(ends + part * size + at, v, mask=inside)


@triton.jit(do_not_specialize=["steps", "length"])
def backward(
    a, a_stride, g, g_stride, starts, h, h0, g_b, g_a, sums, products, ends, steps, length, size, REAL: tl.constexpr, BLOCK: tl.constexpr
):
    """Scan ``length`` steps of ``g_h[t] = g[t] + w[t]``, ``w[t-1] = a[t] g_h[t]``, last step first, with ``starts`` the last w of a part.

    Write ``g_b``, and where given ``g_a`` or its sum over the part, ``sums [parts, size]``; or only what the part does to w: its last w
    becomes ``products * w + ends``. ``ends`` alone is the w that is left, the gradient of the state.
    """
    part = tl.program_id(1).to(tl.int64)
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < size
    first = part * length
    count = tl.minimum(steps - first, length).to(tl.int32)
    last = first + count - 1
    w = tl.zeros([BLOCK], REAL)
    if starts is not None:
        w = tl.load(starts + part * size + at, mask=inside, other=0.0).to(REAL)
    product = tl.zeros([BLOCK], REAL) + 1.0
    total = tl.zeros([BLOCK], tl.float64)
    a += at + last * a_stride
    g += at + last * g_stride
    if g_b is not None:
        g_b += at + last * size
        h += at + (last - 1) * size
    if g_a is not None:
        g_a += at + last * size
    for back in tl.range(0, count, num_stages=STAGES):
        factor = tl.load(a, mask=inside, other=0.0).to(REAL)
        now = tl.load(g, mask=inside, other=0.0).to(REAL) + w
        if g_b is not None:
            tl.store(g_b, now.to(g_b.dtype.element_ty), mask=inside)
            g_b -= size
            if g_a is not None or sums is not None:
                t = last - back
                before = tl.load(h, mask=at < tl.where(t > 0, size, 0), other=0.0).to(REAL)
                if h0 is not None:
                    before += tl.load(h0 + at, mask=at < tl.where(t > 0, 0, size), other=0.0).to(REAL)
                if g_a is not None:
                    tl.store(g_a, (now * before).to(g_a.dtype.element_ty), mask=inside)
                    g_a -= size
                else:
                    total += now.to(tl.float64) * before.to(tl.float64)
                h -= size
        else:
            product = product * factor
        w = factor * now
        a -= a_stride
        g -= g_stride
    if sums is not None:
        tl.store(sums + part * size + at, total, mask=inside)
    if products is not None:
        tl.store(products + part * size + at, product, mask=inside)
        tl.store(ends + part * size + at, w, mask=inside)
    elif ends is not None:
        tl.store(ends + at, w.to(ends.dtype.element_ty), mask=at < tl.where(part == 0, size, 0))
