"""A read-out of spikes: every class has a few neurons of its own, whose mean is its answer."""

from __future__ import annotations

from torch import Tensor, nn

from methods.nn.synapse import Linear


class PopulationReadout(nn.Module):
    """``[T, B, F] -> [T, B, classes]``: spikes of ``size`` neurons per class, averaged over them; between 0 and 1, no potential leaves it.

    Neurons ``size * k`` to ``size * k + size - 1`` are those of class k.
    """

    def __init__(self, features: int, classes: int, neurons: nn.Module, size: int = 5) -> None:
        """Make the synapses, with a bias, of ``size * classes`` ``neurons``."""
        super().__init__()
        self.size = size
        self.synapse, self.neurons = Linear(features, size * classes), neurons

    def forward(self, x: Tensor) -> Tensor:
        """Return the mean spikes of every class at every step."""
        return self.neurons(self.synapse(x)).unflatten(-1, (-1, self.size)).mean(-1)
