"""The parts a backbone asks a method for. ``methods.base.SpikingMethod`` has a default for each."""

from __future__ import annotations

from typing import Protocol

from torch import nn


class Parts(Protocol):
    """Factories of the parts of a network; each returns a module on ``[T, B, ...]``."""

    def neuron(self, features: int) -> nn.Module:
        """Return the neurons of a layer with ``features`` channels."""

    def norm(self, features: int, scale: float = 1.0) -> nn.Module:
        """Return the normalisation of a layer; ``scale`` is 1/sqrt(2) on each of two branches that are added."""

    def conv(self, features_in: int, features_out: int, kernel: int, stride: int = 1, first: bool = False) -> nn.Module:
        """Return a convolution that keeps the size at stride 1; ``first`` when its input is the data, not spikes."""

    def delay_line(self, features_in: int, features_out: int, taps: int, dilation: int, first: bool = False) -> nn.Module:
        """Return a linear synapse with delays, for sequences."""

    def pool(self, kernel: int) -> nn.Module:
        """Return the spatial pooling between stages."""

    def readout(self, features_in: int, features_out: int) -> nn.Module:
        """Return the linear map to the answers ``[T, B, features_out]``; it does not spike."""

    def readout_conv(self, features_in: int, features_out: int) -> nn.Module:
        """Return the 1x1 convolution to answers at every location; it does not spike."""
