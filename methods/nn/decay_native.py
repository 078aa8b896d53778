"""The native neuron with a dynamic decay: gate, scan and spikes in one pass over time each way, on the CPU.

Symbols and recursion: ``methods.nn.dynamic_decay`` and ``decay_charge``. Between passes X, alpha and H are kept, and nothing else of the
size of the sequence is made but spikes and gradients. Gradients of the gate's weights are summed in double precision, in an order that does
not depend on the number of threads.
"""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from methods.nn import native
from methods.nn.layout import arranged, like, settled, step_like
from methods.nn.lif_settings import coefficients
from methods.nn.rounded_spike import RoundedSpike
from methods.nn.surrogate import Arctan

BLOCK, TAPS = 512, 8  # as in kernels.c
LARGEST = 1 << 20  # spikes that rounding by adding a large number still gets right


class _Decay(ctypes.Structure):
    """``Decay`` of kernels.c."""

    _fields_ = [("past", ctypes.c_ssize_t), ("taps", ctypes.c_ssize_t), ("arctan", ctypes.c_int32)] + [
        (name, ctypes.c_double) for name in ("tau", "levels", "c0", "c1")
    ]


def why_not(x: Tensor, parameters: tuple[Tensor, ...], fire: RoundedSpike) -> str | None:
    """Return why the kernels cannot take currents ``x`` and these parameters and state, or None if they can."""
    if x.device.type != "cpu":
        return f"it runs on the CPU, the current is on {x.device}"
    if x.dtype not in native.REALS or any(p.dtype != x.dtype for p in parameters):
        return f"it takes float32 or float64 for all, not {', '.join(str(t.dtype) for t in (x, *parameters))}"
    if type(x) is not Tensor and type(x) is not torch.nn.Parameter:
        return f"the current is a {type(x).__name__}, which kernels cannot look into"
    if fire.surrogate is not None and type(fire.surrogate) is not Arctan:
        return f"it does not know the surrogate {type(fire.surrogate).__name__}"
    if fire.levels > LARGEST:
        return f"it knows spikes up to {LARGEST}, not {fire.levels}"
    return None if native.available(x.dtype) else native.describe()


def charge(
    x: Tensor, weight: Tensor, bias: Tensor, z: Tensor | None, state: Tensor | None, past: int, tau: float, fire: RoundedSpike
) -> tuple[Tensor, Tensor]:
    """Return spikes and potentials ``[T, B, C, ...]`` of currents ``x [past + T, B, C, ...]`` and ``state [B, C, ...]`` or None.

    The gate is depthwise, of ``weight [k, C]``, k at most ``TAPS``, and ``bias [C]``; or it is given, ``z [T, B, C, ...]``.
    """
    return _NativeCharge.apply(x, weight, bias, z, state, past, tau, fire, torch.is_grad_enabled())


def _address(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def _settings(x: Tensor, weight: Tensor, past: int, tau: float, fire: RoundedSpike) -> tuple[native.Grid, _Decay]:
    steps = len(x) - past
    channels = x.shape[2]
    grid = native.grid(steps, x[0].numel(), channels=channels, inner=max(x.stride(2), 1) if channels > 1 else 1)
    grid.block = min(grid.block, BLOCK)
    curve = (0.0, 0.0) if fire.surrogate is None else (coefficients(fire.surrogate) or (0, 0.0, 0.0))[1:3]
    return grid, _Decay(past, len(weight), fire.surrogate is not None, tau, fire.levels, *curve)


class _NativeCharge(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        z: Tensor | None,
        state: Tensor | None,
        past: int,
        tau: float,
        fire: RoundedSpike,
        keep: bool,
    ) -> tuple[Tensor, Tensor]:
        x, weight, bias = settled(x), weight.contiguous(), bias.contiguous()
        grid, decay = _settings(x, weight, past, tau, fire)
        h = like(x[past:])
        spikes, alpha = like(h), like(h) if keep else None
        gate, start = None if z is None else arranged(z, h), None if state is None else arranged(state, h)
        if h.numel():
            native.load(x.dtype).decay_forward(
                ctypes.byref(grid), ctypes.byref(decay), x.data_ptr(), x.stride(0), _address(gate), 0 if gate is None else gate.stride(0),
                weight.data_ptr(), bias.data_ptr(), _address(start), _address(alpha), h.data_ptr(), spikes.data_ptr(),
            )  # fmt: skip
        ctx.save_for_backward(x, weight, alpha, h, state)
        ctx.settings = past, tau, fire, z is not None
        ctx.set_materialize_grads(False)
        return spikes, h

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g_s: Tensor | None, g_h: Tensor | None) -> tuple[Tensor | None, ...]:
        if g_s is None and g_h is None:
            return (None,) * 9
        x, weight, alpha, h, state = ctx.saved_tensors
        past, tau, fire, given = ctx.settings
        grid, decay = _settings(x, weight, past, tau, fire)
        g_x, g_z = like(x), like(h) if given else None
        sums = None if given else torch.zeros(native.blocks(grid), len(weight) + 1, x.shape[2], dtype=torch.float64)
        g_state = None if state is None else step_like(h)
        g_s, g_h, start = (None if part is None else arranged(part, h) for part in (g_s, g_h, state))
        if h.numel():
            native.load(x.dtype).decay_backward(
                ctypes.byref(grid), ctypes.byref(decay), x.data_ptr(), x.stride(0), weight.data_ptr(), alpha.data_ptr(), h.data_ptr(),
                _address(start), _address(g_s), 0 if g_s is None else g_s.stride(0), _address(g_h), 0 if g_h is None else g_h.stride(0),
                g_x.data_ptr(), _address(g_z), _address(sums), _address(g_state),
            )  # fmt: skip
        if sums is None:
            return g_x, None, None, g_z, g_state, None, None, None, None
        total = sums.sum(0).to(x.dtype)
        return g_x, total[:-1], total[-1], None, g_state, None, None, None, None
