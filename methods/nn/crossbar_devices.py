"""Memristive devices: what conductances a weight becomes, and what goes wrong when they are programmed.

A weight is a pair of conductances, with ``scale = max |W|`` of the layer::

    G+ = off + (on - off) max(W, 0) / scale      G- = off + (on - off) max(-W, 0) / scale      W = (G+ - G-) scale / (on - off)

Programming rounds them to ``levels`` even levels from off to on, varies each device, ``G <- max(G (1 + variation n), off / 10)`` with ``n ~
N(0, 1)``, and leaves a share ``stuck_on`` of all devices at on and ``stuck_off`` at off. What was drawn stays until the next programming;
noise that is redrawn at every read takes the same form with its own deviation (``varied``).

Values: on 20 kohm and off 200 kohm are those of SpikeSim, the rest is ours. Devices are linear; the surrogate networks that GENIEx trains
on circuit simulations to have their non-linearity are not public.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

LEAST = 0.1  # of off: no device conducts less


@dataclass(frozen=True)
class Devices:
    """Conductances in siemens; ``variation`` is relative, ``stuck_on`` and ``stuck_off`` are shares; ``levels`` 0 means any."""

    on: float = 1 / 20e3
    off: float = 1 / 200e3
    levels: int = 0
    variation: float = 0.0
    stuck_on: float = 0.0
    stuck_off: float = 0.0

    @property
    def ideal(self) -> bool:
        """Whether devices keep exactly what they should."""
        return not (self.random or self.levels)

    @property
    def random(self) -> bool:
        """Whether two programmings differ."""
        return bool(self.variation or self.stuck_on or self.stuck_off)

    def conductances(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Return ``G [2, ...]`` (plus, minus) of ``weight [...]`` in double precision, and ``scale``, which is 1 for zeros."""
        weight = weight.double()
        scale = weight.abs().amax()
        scale = torch.where(scale > 0, scale, 1.0)
        share = torch.stack([weight, -weight]).clamp(min=0) / scale
        if self.levels:
            share = (share * (self.levels - 1)).round() / (self.levels - 1)
        return self.off + (self.on - self.off) * share, scale

    def weights(self, conductances: Tensor, scale: Tensor) -> Tensor:
        """Return the weight ``[...]`` that a pair ``[2, ...]`` stands for."""
        return (conductances[0] - conductances[1]) * scale / (self.on - self.off)

    def programmed(self, conductances: Tensor, generator: torch.Generator) -> Tensor:
        """Return what programming makes of ``conductances``; draws are from ``generator`` (on the CPU), the same for any ``variation``."""
        found = self.varied(conductances, self.variation, generator)
        if self.stuck_on or self.stuck_off:
            fate = torch.rand(conductances.shape, generator=generator, dtype=torch.float64).to(conductances.device)
            found = found.masked_fill(fate < self.stuck_on, self.on).masked_fill(fate >= 1 - self.stuck_off, self.off)
        return found

    def varied(self, conductances: Tensor, deviation: float, generator: torch.Generator) -> Tensor:
        """Return ``conductances`` with Gaussian factors of mean 1 and this relative ``deviation``, at least ``off / 10``."""
        if not deviation:
            return conductances
        noise = torch.randn(conductances.shape, generator=generator, dtype=torch.float64).to(conductances.device)
        return (conductances * (1 + deviation * noise)).clamp(min=LEAST * self.off)
