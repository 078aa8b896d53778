"""One set of parameters, two forward passes: spiking over T steps, and analog (ReLU) in a single one.

::

    layer = Layer(conv, TwinBatchNorm(16), TwinNeuron(LIF(1.0), ReLU()))
    spikes = layer(sequence)            # [T, B, ...]: the spiking pass is what a network does unless told otherwise
    with analog(layer):
        activations = layer(image)      # [1, B, ...]: the same weights

Nothing is copied and no storage is pointed at another: synapses are one module, so the passes cannot drift apart. Only what must differ is
there twice: the nonlinearity, and the running statistics of normalisations, as activations and spikes have other means and variances.
Source: "Spiking neural networks trained via proxy" (Kheradpisheh et al., IEEE Access 2022) and its notebook, where two networks share
storages; one set of parameters with two modes is ours.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from methods.nn.norm import BatchNorm
from methods.nn.step_norm import StepBatchNorm


class Twin(nn.Module):
    """A part that is another in the spiking than in the analog pass; both map ``[T, B, ...]`` to ``[T, B, ...]``."""

    def __init__(self, spiking: nn.Module, analog: nn.Module) -> None:
        """Join the two; the spiking one is in use."""
        super().__init__()
        self.spiking, self.analog = spiking, analog
        self.is_spiking = True

    def used(self) -> nn.Module:
        """Return the part in use."""
        return self.spiking if self.is_spiking else self.analog

    def forward(self, x: Tensor) -> Tensor:
        """Return what the part in use makes of ``x``."""
        return self.used()(x)


class TwinNeuron(Twin):
    """Spiking neurons, and the activation that stands for them."""


class TwinBatchNorm(Twin):
    """Batch normalisation with one ``weight`` and ``bias``, and two sets of running statistics.

    In training mode the spiking pass normalises every time step by its own batch, and its running statistics are updated at every step;
    currents that are the same at every step (the first layer's, of an image) are normalised once and count once.
    """

    def __init__(self, features: int) -> None:
        """Make a normalisation of ``features`` channels."""
        super().__init__(StepBatchNorm(features), BatchNorm(features))
        self.spiking.weight, self.spiking.bias = self.analog.weight, self.analog.bias

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalised currents ``x [T, B, C, ...]``."""
        if len(x) > 1 and x.stride(0) == 0:
            return self.used()(x[:1]).expand(x.shape)
        return self.used()(x)


@contextmanager
def analog(net: nn.Module) -> Iterator[None]:
    """Let ``net`` do its analog pass inside the context."""
    parts = [module for module in net.modules() if isinstance(module, Twin)]
    before = [part.is_spiking for part in parts]
    for part in parts:
        part.is_spiking = False
    try:
        yield
    finally:
        for part, was in zip(parts, before, strict=True):
            part.is_spiking = was
