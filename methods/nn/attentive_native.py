"""The native backend of ``methods.nn.attentive_lif.AttentiveLIF``: kernels on the CPU, one pass over time each way, sample by sample.

Symbols are those of ``methods.nn.attentive_lif``. A sample's state stays in the cache from step to step, which PyTorch's operations, each
over the whole batch, cannot do. Kept for the backward pass: the potentials, as for the LIF, and the gates (``1/C + (2 + 1/r)/P`` of their
size).
Backward, with ``q`` the gradient of ``u[t]`` and ``z`` the argument of a sigmoid or rectifier::

    q            = (g + g_s - g_v u [unless detach_reset]) H'(u - threshold) + g_v (1 - s)
    z_Sp         = leak Sp (1 - Sp) sum_c q v' Ch          v', s': the state before the step
    z_Ch         = leak Ch (1 - Ch) sum_p q v' Sp          z_relu = (W2^T z_Ch) [relu > 0]
    g_v', g_s'   = leak A q,  w z_Sp + W1^T z_relu / P
"""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from methods.nn import native
from methods.nn.lif_settings import coefficients
from methods.nn.surrogate import Surrogate


class _Field(ctypes.Structure):
    """``Field`` of kernels.c."""

    _fields_ = [(name, ctypes.c_ssize_t) for name in ("steps", "samples", "places", "channels", "hidden")] + [
        ("spatial", ctypes.c_int32), ("threads", ctypes.c_int32), ("leak", ctypes.c_double), ("threshold", ctypes.c_double)
    ]  # fmt: skip


class _Pointers(ctypes.Structure):
    """``Gates`` or ``Opened`` of kernels.c: four addresses."""

    _fields_ = [(name, ctypes.c_void_p) for name in ("one", "two", "three", "four")]


def why_not(current: Tensor, surrogate: Surrogate) -> str | None:
    """Return why the kernels cannot take ``current [T, B, P, C]``, or None if they can."""
    if type(current) is not Tensor:
        return f"the current is a {type(current).__name__}, which kernels cannot look into"
    if current.device.type != "cpu" or current.dtype not in native.REALS:
        return f"it is for float32 and float64 on the CPU, the current is {current.dtype} on {current.device}"
    if coefficients(surrogate) is None:
        return f"it does not know the surrogate {type(surrogate).__name__}"
    return None if native.available(current.dtype) else native.describe()


def _settings(current: Tensor, gates: tuple[Tensor | None, ...], rule: Any) -> tuple[native.Neuron, _Field]:
    steps, samples, places, channels = current.shape
    weight, _, squeeze, _ = gates
    kind, *shape = coefficients(rule.surrogate) or (0, 0.0, 0.0, 0.0)
    neuron = native.Neuron(0, int(not rule.detach_reset), int(rule.strict), kind, 0, 0, 0, 0.0, *shape)
    threads = min(torch.get_num_threads(), max(1, current.numel() // native.GRAIN))
    hidden = 0 if squeeze is None else len(squeeze)
    return neuron, _Field(steps, samples, places, channels, hidden, weight is not None, threads, rule.leak, rule.threshold)


def _address(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def _pointers(tensors: Any) -> Any:
    return ctypes.byref(_Pointers(*(_address(tensor) for tensor in tensors)))


def forward(
    current: Tensor, v: Tensor | None, s: Tensor | None, gates: tuple[Tensor | None, ...], rule: Any, keep: bool, carry: bool
) -> tuple[Tensor, Tensor | None, list[Tensor]]:
    """Return spikes ``[T, B, P, C]``, the potential after the last step where wanted, and what the backward pass needs."""
    current = current.detach().contiguous()
    neuron, field = _settings(current, gates, rule)
    spikes, after = torch.empty_like(current), torch.empty_like(current[0]) if carry else None
    rows = len(current) if keep else 1
    sizes = (field.places, field.channels, field.channels, field.hidden)
    opened = [current.new_zeros(rows, field.samples, size) for size in sizes]
    potentials = torch.empty_like(current[:rows])
    start = [None if part is None else part.detach().contiguous() for part in (v, s)]
    scaled = current.new_empty(field.samples, field.channels)
    native.load(current.dtype).attentive_forward(
        ctypes.byref(neuron), ctypes.byref(field), _pointers(gates), current.data_ptr(), *map(_address, start), int(keep),
        spikes.data_ptr(), potentials.data_ptr(), _pointers(opened), scaled.data_ptr(), _address(after),
    )  # fmt: skip
    return spikes, after, [potentials, *opened]


class Attentive(torch.autograd.Function):
    """``Attentive.apply(current, v, s, weight, bias, squeeze, excite, rule, carry)``: spikes ``[T, B, P, C]`` and the potential after."""

    @staticmethod
    def forward(
        ctx: Any,
        current: Tensor,
        v: Tensor | None,
        s: Tensor | None,
        weight: Any,
        bias: Any,
        squeeze: Any,
        excite: Any,
        rule: Any,
        carry: bool,
    ) -> tuple[Tensor, Tensor | None]:
        """Run the kernel and keep what the backward pass needs."""
        gates = (weight, bias, squeeze, excite)
        spikes, after, kept = forward(current, v, s, gates, rule, True, carry)
        ctx.save_for_backward(v, s, *gates, *kept)
        ctx.rule = rule
        ctx.set_materialize_grads(False)
        return spikes, after

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        """Return the gradients of currents, state and gates."""
        v, s, weight, bias, squeeze, excite, u, space, channel, pooled, inner = ctx.saved_tensors
        gates, opened = (weight, bias, squeeze, excite), (space, channel, pooled, inner)
        neuron, field = _settings(u, gates, ctx.rule)
        g = torch.zeros_like(u) if grads[0] is None else grads[0].contiguous()
        gx, slope = torch.empty_like(u), u.new_zeros(field.samples, field.channels)
        gv = torch.empty_like(u[0]) if grads[1] is None else grads[1].clone(memory_format=torch.contiguous_format)
        gs = torch.empty_like(gv)
        at_space, at_channel, at_inner = (torch.zeros_like(part) for part in (space, channel, inner))
        scratch = u.new_empty(field.samples, 2 * (field.places + 1) * field.channels)
        start = [None if part is None else part.contiguous() for part in (v, s)]
        native.load(u.dtype).attentive_backward(
            ctypes.byref(neuron), ctypes.byref(field), _pointers(gates), u.data_ptr(), *map(_address, start), _pointers(opened),
            g.data_ptr(), int(grads[1] is not None), gx.data_ptr(), gv.data_ptr(), gs.data_ptr(), slope.data_ptr(),
            at_space.data_ptr(), at_channel.data_ptr(), at_inner.data_ptr(), scratch.data_ptr(),
        )  # fmt: skip
        by_space = (None, None) if weight is None else (slope.sum(0), at_space.sum())
        by_channel = (None, None) if squeeze is None else (_outer(at_inner, pooled), _outer(at_channel, inner))
        before = (None, None) if v is None else (gv, gs)
        return gx, *before, *by_space, *by_channel, None, None


def _outer(a: Tensor, b: Tensor) -> Tensor:
    """Return ``sum over T, B of a b^T`` for ``a [T, B, m]`` and ``b [T, B, n]``."""
    return a.flatten(0, 1).T @ b.flatten(0, 1)
