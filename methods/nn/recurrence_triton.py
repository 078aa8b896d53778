"""The linear recurrence in Triton, for CUDA: a loop over time where there are many channels, a chunked scan where there are few.

A GPU needs some ten thousand channels to be busy with one loop over time. Where there are fewer and the sequence is long it is cut into
parts, which are worked on at once, twice::

    1. each part finds what it does to a state: h -> products * h + ends         (reads a and b)
    2. the states between parts follow by the same recurrence over the parts     (small)
    3. each part is scanned from its state                                       (reads a and b, writes h)

Backward, ``g_h[t] = g[t] + a[t+1] g_h[t+1]`` is the same recurrence from the end, cut in the same way; the gradient of a constant decay is
summed in double precision, part by part. There is no division, so decays may be 0; the product of the decays of one part must be finite,
as it is for every ``|a| <= 1``. State and arithmetic are float32 for float32, bfloat16 and float16, and float64 for float64. Without parts
the numbers of h are those of the reference bit for bit; with parts, rounding differs where they meet. The chunked scan: Blelloch, "Prefix
sums and their applications" (1990), section 1.4; the backward pass is ours. Tested in Triton's interpreter.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from methods.nn import gpu, recurrence_kernels
from methods.nn.layout import arranged, like, settled, step_like
from methods.nn.recurrence_operator import RecurrenceOperator

REALS = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
BLOCK = 128
PROGRAMS = 8  # per multiprocessor, enough to hide the latency of memory
SHORTEST = 32  # steps of a part: below that, combining the parts costs more than it saves


def why_not(a: Tensor, b: Tensor, state: Tensor | None) -> str | None:
    """Return why the kernels cannot take these tensors, or None if they can."""
    given = [t for t in (a, b, state) if t is not None]
    if b.dtype not in REALS or any(t.dtype != b.dtype for t in given):
        return f"it takes one floating-point type for all, not {', '.join(str(t.dtype) for t in given)}"
    if any(t.device != b.device for t in given):
        return "the tensors are on different devices"
    if any(type(t) is not Tensor and type(t) is not torch.nn.Parameter for t in given):
        return "it cannot look into subclasses of Tensor"
    return gpu.why_not(b.device)


def part_length(steps: int, size: int, multiprocessors: int) -> int:
    """Return how many steps a part has; ``steps`` if the channels alone keep the device busy, or the sequence is short."""
    blocks = triton.cdiv(size, BLOCK)
    parts = min(steps // SHORTEST, PROGRAMS * multiprocessors // max(blocks, 1))
    return triton.cdiv(steps, parts) if parts > 1 else steps


def _real(dtype: torch.dtype) -> tuple[torch.dtype, tl.dtype]:
    return (torch.float64, tl.float64) if dtype is torch.float64 else (torch.float32, tl.float32)


def _strides(a: Tensor, model: Tensor) -> tuple[Tensor, int]:
    a = arranged(a, model)
    return a, a.stride(0) if a.dim() == model.dim() else 0


def _between(products: Tensor, ends: Tensor, state: Tensor | None) -> Tensor:
    """Return the state before each part, ``[parts, size]``, from what each does to a state."""
    starts = torch.empty_like(ends)
    starts[0] = 0 if state is None else state
    parts, size = ends.shape
    _, real = _real(ends.dtype)
    recurrence_kernels.forward[(triton.cdiv(size, BLOCK), 1)](
        products, size, ends, size, starts[:1], starts[1:], None, None, parts - 1, parts - 1, size, REAL=real, BLOCK=BLOCK,
        enable_fp_fusion=False,
    )  # fmt: skip
    return starts


def forward(a: Tensor, b: Tensor, state: Tensor | None, length: int | None = None) -> Tensor:
    """Return ``h`` of ``a [T, B, ...]`` or ``[B, ...]``; ``length``: the steps of a part (None: chosen)."""
    with gpu.device_of(b):
        return _forward(a, settled(b), state, length)


def _forward(a: Tensor, b: Tensor, state: Tensor | None, length: int | None) -> Tensor:
    h = like(b)
    steps, size = len(b), h.numel() // len(b)
    if size == 0:
        return h
    length = length or part_length(steps, size, gpu.multiprocessors(b))
    parts = triton.cdiv(steps, length)
    a, stride = _strides(a, h)
    dtype, real = _real(b.dtype)
    grid = (triton.cdiv(size, BLOCK), parts)
    starts = None if state is None else arranged(state, h)
    common = {"REAL": real, "BLOCK": BLOCK, "enable_fp_fusion": False}
    if parts > 1:
        products, ends = b.new_empty(2, parts, size, dtype=dtype).unbind(0)
        recurrence_kernels.forward[grid](
            a, stride, b, b.stride(0), None, None, products, ends, steps, length, size, **common
        )  # fmt: skip
        starts = _between(products, ends, None if starts is None else _flat(starts))
    recurrence_kernels.forward[grid](a, stride, b, b.stride(0), starts, h, None, None, steps, length, size, **common)
    return h


def _flat(step: Tensor) -> Tensor:
    """Return the numbers of a dense step in the order in which they lie."""
    return step.as_strided((step.numel(),), (1,))


def backward(
    a: Tensor, h: Tensor, state: Tensor | None, g: Tensor, need_a: bool, length: int | None = None
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Return the gradients of b, of a (None unless needed) and of the state (None without one)."""
    with gpu.device_of(h):
        return _backward(a, h, state, g, need_a, length)


def _backward(
    a: Tensor, h: Tensor, state: Tensor | None, g: Tensor, need_a: bool, length: int | None
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    steps, size = len(h), h.numel() // len(h)
    laid, stride = _strides(a, h)
    g = arranged(g, h)
    varying = a.dim() == h.dim()
    g_b, g_state = like(h), None if state is None else step_like(h)
    g_a = like(h) if need_a and varying else None
    if size == 0:
        return g_b, step_like(h) if need_a and not varying else g_a, g_state
    length = length or part_length(steps, size, gpu.multiprocessors(h))
    parts = triton.cdiv(steps, length)
    dtype, real = _real(h.dtype)
    grid = (triton.cdiv(size, BLOCK), parts)
    common = {"REAL": real, "BLOCK": BLOCK, "enable_fp_fusion": False}
    starts = None
    if parts > 1:
        products, ends = h.new_empty(2, parts, size, dtype=dtype).unbind(0)
        recurrence_kernels.backward[grid](
            laid, stride, g, g.stride(0), None, h, None, None, None, None, products, ends, steps, length, size, **common
        )  # fmt: skip
        starts = _between(products.flip(0), ends.flip(0), None).flip(0)
    sums = h.new_empty(parts, size, dtype=torch.float64) if need_a and not varying else None
    recurrence_kernels.backward[grid](
        laid, stride, g, g.stride(0), starts, h, None if state is None else arranged(state, h), g_b, g_a, sums, None, g_state,
        steps, length, size, **common,
    )  # fmt: skip
    if sums is not None:
        g_a = step_like(h)
        _flat(g_a).copy_(sums.sum(0))
    return g_b, g_a, g_state


# ``recurrence(a, b, state, length)``: the length of a part in steps (None: chosen) may be left out.
recurrence = RecurrenceOperator("recurrence_triton", forward, backward)
