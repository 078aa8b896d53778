"""The non-spiking reference: the same network with ReLU for LIF and ordinary batch normalisation for tdBN.

One pass for static images (T = 1). For data with a time axis every step is seen by the same ReLU network and the answers are averaged
(sequences: the delays give it memory). It is the lossless limit of conversion methods and the twin of every spiking network.
"""

from __future__ import annotations

from torch import nn

from harness.plugin import Card
from harness.task import Task
from methods.base import SpikingMethod
from methods.nn.neuron import ReLU
from methods.nn.norm import BatchNorm


class Ann(SpikingMethod):
    """The ReLU twin of ``stbp``."""

    card = Card(
        name="ann",
        title="Plain ANN baseline of the STBP card",
        authors="-",
        venue="-",
        year=2018,
        family="reference",
        summary="The same module graph with ReLU and batch normalisation, one pass: what spiking costs and gains is measured against it.",
    )
    spikes = "none"

    def time_steps(self, task: Task, asked: int | None) -> int:
        """Return 1 for static data, whatever was asked: there is no time in a ReLU network."""
        return task.steps if task.temporal else 1

    def neuron(self, features: int) -> nn.Module:
        """Return ReLU."""
        return ReLU()

    def norm(self, features: int, scale: float = 1.0) -> nn.Module:
        """Return batch normalisation."""
        return BatchNorm(features)
