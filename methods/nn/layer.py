"""A layer of a spiking network: synapse, normalisation, neuron."""

from __future__ import annotations

from torch import Tensor, nn


class Layer(nn.Module):
    """``neuron(norm(synapse(x)))`` on ``[T, B, ...]``. The three parts are what methods exchange and conversion rewrites."""

    def __init__(self, synapse: nn.Module, norm: nn.Module, neuron: nn.Module) -> None:
        """Join the three parts."""
        super().__init__()
        self.synapse, self.norm, self.neuron = synapse, norm, neuron

    def forward(self, x: Tensor) -> Tensor:
        """Return the spikes ``[T, B, ...]``."""
        return self.neuron(self.norm(self.synapse(x)))
