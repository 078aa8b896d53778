"""The turn-off neuron: a spike from the potential of the present step alone; nothing is carried to the next.

For a potential ``v``::

    s = floor(clip(v, 0, 1) + 1/2) = 1[v >= 1/2]          ds/dv := 1 for -edge <= v <= 1 + edge, else 0

The edge is 1e-4 (ours, 0 in the source): where an image is empty, potentials are exactly 0, at the border of the window. Recovered from a
later step they are so up to rounding, by which, without an edge, half of their gradients would be lost.

Source: "High-Performance Temporal Reversible Spiking Neural Networks with O(L) Training Memory and O(1) Inference Cost" (Hu et al., ICML
2024) and its code, whose rounding in evaluation differs at exactly 1/2; one definition serves both here.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

EDGE = 1e-4


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
        if ctx.needs_input_grad[0]:
            ctx.save_for_backward(v.clamp(-EDGE, 1 + EDGE) == v)
        below = 0.5 * (1 - torch.finfo(v.dtype).eps / 2)  # the largest number below 1/2; + 1/2 would round it up to 1
        return v.clamp(0, 1).sub_(below).ceil_()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (window,) = ctx.saved_tensors
        return grads[0] * window
