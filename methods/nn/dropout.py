"""Dropout whose mask stays the same over the time steps of a sequence."""

from __future__ import annotations

import torch
from torch import Tensor

from methods.nn.stepping import Stateful


class SequenceDropout(Stateful):
    """Silence neurons with probability ``p`` for all steps of a batch, the others scaled by ``1/(1-p)``: ``[T, B, ...]``.

    Nothing happens in eval mode. Placed after the neuron, so what the neuron emits stays 0/1. Raises ValueError for ``p`` outside [0, 1).
    Source: neuron dropout of "Online Training Through Time for Spiking Neural Networks" (Xiao et al., NeurIPS 2022).
    """

    def __init__(self, p: float) -> None:
        """Make the dropout."""
        super().__init__()
        if not 0 <= p < 1:
            raise ValueError(f"dropout probability {p} is not in [0, 1)")
        self.p = p

    def forward(self, spikes: Tensor) -> Tensor:
        """Return the spikes that are left."""
        if not self.training or self.p == 0:
            return spikes
        state = self.carried()
        mask = state[0] if state else (torch.rand_like(spikes[0]) >= self.p).to(spikes.dtype) / (1 - self.p)
        self.carry(mask)
        return spikes * mask

    def extra_repr(self) -> str:
        """Return the settings for printing."""
        return f"p={self.p:g}"
