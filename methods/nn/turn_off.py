"""The turn-off neuron: a spike from the potential of the present step alone; nothing is carried to the next.

For a potential ``v``::

    s = floor(clip(v, 0, 1) + 1/2) = 1[v >= 1/2]          ds/dv := 1 for 0 <= v <= 1, else 0

Source: "High-Performance Temporal Reversible Spiking Neural Networks with O(L) Training Memory and O(1) Inference Cost" (Hu et al., ICML
2024) and its code, whose rounding in evaluation differs at exactly 1/2; one definition serves both here.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class TurnOff(nn.Module):
    """Spikes of potentials of the same shape ``[T, B, ...]``; it has no state. NaN stays NaN."""

    spike_kind = "binary"

    def forward(self, v: Tensor) -> Tensor:
        """Return the spikes."""
        return _Spike.apply(v)


class _Spike(torch.autograd.Function):
    """Keeps a byte per neuron for the backward pass: whether its potential is in the window."""

    @staticmethod
    def forward(ctx: Any, v: Tensor) -> Tensor:
        clipped = v.clamp(0, 1)
        if ctx.needs_input_grad[0]:
            ctx.save_for_backward(clipped == v)
        below = 0.5 * (1 - torch.finfo(v.dtype).eps / 2)  # the largest number below 1/2; + 1/2 would round it up to 1
        return clipped.sub_(below).ceil_()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (window,) = ctx.saved_tensors
        return grads[0] * window
