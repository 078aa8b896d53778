"""The linear recurrence ``h[t] = a[t] * h[t-1] + b[t]``: traces, dynamic decay, linear state spaces.

    h, last = recurrence(a, b)                  # a [C]: constant decay; a [T, B, C]: a decay per step
    h, last = recurrence(a, more, state=last)   # the next piece of the same sequence

Backward, with ``g[t]`` the gradient of ``h[t]`` (that of the last state adds to ``g[T-1]``)::

    g_h[t] = g[t] + a[t+1] * g_h[t+1]
    g_b[t] = g_h[t]      g_a[t] = g_h[t] * h[t-1]      g_state = a[0] * g_h[0]

A constant decay collects ``g_a`` over time, in double precision. There is no division and no power of ``a``, so nothing overflows at any
length as long as h itself does not. The native backend (CPU, float32 and float64) saves h, and a where it varies: one pass over time each
way, against one autograd node per step for the reference. 1024 channels, forward + backward, 2 cores, reference and native, minima in ms:
constant decay 22, 1.3 (T = 1024), 119, 6.9 (4096), 842, 80 (16384); varying 28, 1.8; 162, 7.3; 1336, 99.
"triton" does the same on CUDA (``methods.nn.recurrence_triton``), tested in Triton's interpreter.
Derivation: ours, the adjoint of the recurrence.
"""

from __future__ import annotations

import ctypes
from typing import Literal, get_args

import torch
from torch import Tensor

from methods.nn import gpu, native
from methods.nn.layout import arranged, like, settled, step_like
from methods.nn.recurrence_operator import RecurrenceOperator

Backend = Literal["auto", "reference", "native", "triton"]


def recurrence(a: Tensor, b: Tensor, state: Tensor | None = None, backend: Backend = "auto") -> tuple[Tensor, Tensor]:
    """Return ``h [T, B, ...]`` and its last step ``[B, ...]``.

    ``b [T, B, ...]``; ``a`` has as many dimensions as ``b`` and varies over time, or fewer and is constant; it broadcasts against ``b`` or
    ``b[t]``. ``state [B, ...]`` is h before the first step (None: zeros). Raises ValueError for shapes that do not fit or an unknown
    backend, RuntimeError when "native" cannot do what is asked.
    """
    if backend not in get_args(Backend):
        raise ValueError(f"backend {backend!r} is unknown; allowed: {', '.join(get_args(Backend))}")
    _check(a, b, state)
    if backend == "triton":
        reason = why_not_triton(a, b, state)
        if reason is None:
            return _triton(a, b, state)
        raise RuntimeError(f"the triton backend cannot be used: {reason}")
    if backend != "reference":
        reason = why_not_native(a, b, state)
        if reason is None:
            return _native(a, b, state)
        if backend == "native":
            raise RuntimeError(f"the native backend cannot be used: {reason}")
    return _reference(a, b, state)


def why_not_triton(a: Tensor, b: Tensor, state: Tensor | None = None) -> str | None:
    """Return why the Triton backend cannot take these tensors, or None if it can."""
    reason = gpu.why_not(b.device)
    if reason is None:
        from methods.nn import recurrence_triton  # importing Triton takes a while, and it is not everywhere

        reason = recurrence_triton.why_not(a, b, state)
    return reason


def why_not_native(a: Tensor, b: Tensor, state: Tensor | None = None) -> str | None:
    """Return why the native backend cannot take these tensors, or None if it can."""
    given = [t for t in (a, b, state) if t is not None]
    if any(t.device.type != "cpu" for t in given):
        return "it runs on the CPU"
    if b.dtype not in native.REALS or any(t.dtype != b.dtype for t in given):
        return f"it takes float32 or float64 for all, not {', '.join(str(t.dtype) for t in given)}"
    if any(type(t) is not Tensor and type(t) is not torch.nn.Parameter for t in given):
        return "it cannot look into subclasses of Tensor"
    return None if native.available(b.dtype) else native.describe()


def _check(a: Tensor, b: Tensor, state: Tensor | None) -> None:
    if b.dim() < 1 or len(b) == 0:
        raise ValueError(f"b must have at least one time step, its shape is {list(b.shape)}")
    target = b.shape if a.dim() == b.dim() else b.shape[1:]
    fits = a.dim() <= b.dim() and all(n in (1, m) for n, m in zip(reversed(a.shape), reversed(target), strict=False))
    if not fits:
        raise ValueError(f"a of shape {list(a.shape)} does not broadcast against {list(target)}")
    if state is not None and state.shape != b.shape[1:]:
        raise ValueError(f"the state must have the shape of a step, {list(b.shape[1:])}, not {list(state.shape)}")


def _reference(a: Tensor, b: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
    factors = a.expand_as(b).unbind(0) if a.dim() == b.dim() else [a] * len(b)
    h = torch.zeros_like(b[0]) if state is None else state
    found = []
    for factor, now in zip(factors, b.unbind(0), strict=True):
        h = factor * h + now
        found.append(h)
    return torch.stack(found), h


def _triton(a: Tensor, b: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
    from methods.nn import recurrence_triton

    h = recurrence_triton.recurrence(a.expand_as(b) if a.dim() == b.dim() else a.expand(b.shape[1:]), b, state)
    return h, h[-1]


def _native(a: Tensor, b: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
    # A constant decay is spread over one step; autograd sums its gradient back over the batch.
    a = a.expand_as(b) if a.dim() == b.dim() else a.expand(b.shape[1:])
    h = _operation(a, b, state)
    return h, h[-1]


def _factors(a: Tensor, model: Tensor) -> tuple[Tensor, int]:
    """Return ``a`` laid out as ``model``, and the distance of its steps: 0 if it is constant."""
    a = arranged(a, model)
    return a, a.stride(0) if a.dim() == model.dim() else 0


def _address(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def forward(a: Tensor, b: Tensor, state: Tensor | None) -> Tensor:
    """Return ``h`` of ``a [T, B, ...]`` or ``[B, ...]``, by the native kernel."""
    b = settled(b)
    h = like(b)
    grid = native.grid(len(b), h.numel() // len(b))
    a, stride = _factors(a, h)
    start = None if state is None else arranged(state, h)
    native.load(b.dtype).recurrence_forward(
        ctypes.byref(grid), a.data_ptr(), stride, b.data_ptr(), b.stride(0), _address(start), h.data_ptr()
    )
    return h


def backward(a: Tensor, h: Tensor, state: Tensor | None, g: Tensor, need_a: bool) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Return the gradients of b, of a (None unless needed) and of the state (None without one), by the native kernel."""
    grid = native.grid(len(h), h.numel() // len(h))
    laid, stride = _factors(a, h)
    g = arranged(g, h)
    g_b, g_state = like(h), None if state is None else step_like(h)
    varying = a.dim() == h.dim()
    g_a = like(h) if need_a and varying else None
    total = step_like(h).double() if need_a and not varying else None
    start = None if state is None else arranged(state, h)
    native.load(h.dtype).recurrence_backward(
        ctypes.byref(grid), laid.data_ptr(), stride, h.data_ptr(), _address(start), g.data_ptr(), g.stride(0),
        g_b.data_ptr(), _address(g_a), _address(total), _address(g_state),
    )  # fmt: skip
    return g_b, g_a if varying or total is None else total.to(h.dtype), g_state


_operation = RecurrenceOperator("recurrence", forward, backward, "cpu")
operator = _operation.operator
