"""Neurons of two branches: the count of the spiking branch takes the place of the ANN's activation, its gradient stays ReLU's.

For currents ``I[t]`` of the spiking branch and ``z`` of the ANN branch::

    s = neuron(I)       N = sum_t s[t]
    forward             x = N, or rectified N * 1[z > 0]
    backward            dL/dz = dL/dx * 1[z > 0]

Source: "A Tandem Learning Rule..." (Wu et al., IEEE TNNLS 34(1), 2023), the first; "SNN2ANN" (Tang et al., arXiv 2206.09449), both.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from methods.nn.pair import Pair, over_time


class _Count(torch.autograd.Function):
    """The count instead of ``ReLU(z)``; keeps one byte per neuron."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, count: Tensor, rectified: bool) -> Tensor:
        on = z > 0
        ctx.save_for_backward(on)
        return count * on if rectified else count.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (on,) = ctx.saved_tensors
        return grads[0] * on, None, None


def counted(z: Tensor, count: Tensor, rectified: bool = False) -> Tensor:
    """Return ``count``, where ``rectified`` only where ``z > 0``; its gradient goes to ``z`` as that of ``ReLU(z)``. Shapes are equal."""
    return _Count.apply(z, count, rectified)


class PairedNeuron(nn.Module):
    """Spiking neurons; of a ``Pair`` of currents and z the spikes and the counts in place of ``ReLU(z)``.

    With ``relu`` set the layer belongs to an ANN: ``ReLU(x)`` of a tensor.
    """

    def __init__(self, neuron: nn.Module, rectified: bool = False) -> None:
        """Wrap ``neuron``, which maps currents ``[T, B, ...]`` to spikes."""
        super().__init__()
        self.neuron, self.rectified = neuron, rectified
        self.relu = False

    def forward(self, x: Tensor | Pair) -> Tensor | Pair:
        """Return spikes ``[T, B, ...]``, or a pair of them and of counts."""
        if not isinstance(x, Pair):
            return F.relu(x) if self.relu else self.neuron(x)
        with torch.no_grad():
            spikes = self.neuron(x.spikes)
            count = over_time(spikes)
            self.compare(x.counts, count)
        return Pair(spikes, counted(x.counts, count, self.rectified))

    def compare(self, z: Tensor, count: Tensor) -> None:
        """Look at both branches of a batch, ``[1, B, ...]``, without a graph; default: nothing."""
