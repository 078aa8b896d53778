"""``Pair``: what passes through a network whose spiking branch and ANN branch share their weights, layer by layer.

The ANN branch of a layer sees how often the spiking branch fired, not what the ANN before it answered; gradients flow through the ANN::

    pair = Pair(sequence, over_time(sequence))   # spike trains [T, B, ...], counts [1, B, ...]
    pair = Layer(PairedConv2d(...), Identity(), PairedNeuron(LIF(...)))(pair)

A network whose parts know pairs (``PairedConv2d``, ``PairedNeuron``, ``PairedLinear``, ``Both``) answers a tensor ``[T, B, ...]`` as the
spiking network that it is, and a pair by its ANN branch, ``[1, B, ...]``. The spiking branch of a pair never has a graph, so that what is
kept for the backward pass does not depend on T, and of the spike trains only those of the layer at work are alive.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


def over_time(sequence: Tensor) -> Tensor:
    """Return the sum over time ``[1, B, ...]`` of ``sequence [T, B, ...]``, laid out as a step of it.

    Torch's sum alone would lay images out with channels first, which is slow there and in all that follows (0.25 ms instead of 0.08 ms for
    5 steps of 64 x 24 x 8 x 8).
    """
    if sequence.dim() == 5 and sequence.stride(2) == 1:
        return sequence.movedim(2, -1).sum(0, keepdim=True).movedim(-1, 2)
    return sequence.sum(0, keepdim=True)


class Pair:
    """Both branches between two modules: ``spikes [T, B, ...]`` (or currents) without a graph, and ``counts [1, B, ...]`` (or their ANN's).

    It has the few operations that backbones and heads do between modules; each acts on both branches.
    """

    def __init__(self, spikes: Tensor, counts: Tensor) -> None:
        """Join the two."""
        self.spikes, self.counts = spikes.detach(), counts

    def map(self, change: Callable[[Tensor], Tensor]) -> Pair:
        """Return the pair with ``change`` done to both branches; it must not mix time steps."""
        with torch.no_grad():
            spikes = change(self.spikes)
        return Pair(spikes, change(self.counts))

    @property
    def shape(self) -> torch.Size:
        """Shape of the ANN branch, ``[1, B, ...]``."""
        return self.counts.shape

    def flatten(self, *dims: int) -> Pair:
        """Return the pair with the dimensions from the first to the second (default: the last) made one."""
        return self.map(lambda x: x.flatten(*dims))

    def mean(self, *args: Any, **kwargs: Any) -> Pair:
        """Return the means, as ``Tensor.mean``."""
        return self.map(lambda x: x.mean(*args, **kwargs))

    def __getitem__(self, index: Any) -> Pair:
        return self.map(lambda x: x[index])

    def __add__(self, other: Pair) -> Pair:
        return Pair(self.spikes + other.spikes, self.counts + other.counts)


class Both(nn.Module):
    """A stateless module on tensors ``[T, B, ...]``, done to both branches of a pair: pooling, say."""

    def __init__(self, module: nn.Module) -> None:
        """Wrap ``module``."""
        super().__init__()
        self.module = module

    def forward(self, x: Tensor | Pair) -> Tensor | Pair:
        """Return what the module makes of ``x``."""
        return x.map(self.module) if isinstance(x, Pair) else self.module(x)


class BranchDropout(nn.Dropout):
    """Dropout of the ANN branch of a pair, in training mode; spikes stay as they are."""

    def forward(self, x: Tensor | Pair) -> Tensor | Pair:  # type: ignore[override]
        """Return ``x`` with the counts dropped out."""
        return Pair(x.spikes, super().forward(x.counts)) if isinstance(x, Pair) else x
