"""A network whose answer is how often each of its output neurons fires: integrate-and-fire neurons behind the head.

For currents ``I[t]`` of the head, threshold ``theta``, no leak, hard reset::

    u[t] = v[t-1] + I[t]      s[t] = 1[u[t] >= theta]      v[t] = u[t] (1 - s[t])      count[t] = s[1] + ... + s[t]

Counts tie often. ``v[t]``, the potential that the last spike has left, says which of two neurons was nearer to its next one.
In the analog pass (``methods.nn.twin``) the answer is the head's own.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from methods.nn.heads import Network
from methods.nn.neuron import LIF
from methods.nn.twin import TwinNeuron


class CountedNetwork(Network):
    """Backbone, head, output neurons: ``[T, B, ...]`` to spikes ``[T, B, K, ...]``, or in the analog pass to numbers ``[1, B, K, ...]``."""

    def __init__(self, backbone: nn.Module, head: nn.Module, threshold: float) -> None:
        """Join the three; the output neurons have the given ``threshold``."""
        super().__init__(backbone, head)
        self.output = TwinNeuron(LIF(1.0, threshold, "hard"), nn.Identity())

    def forward(self, x: Tensor) -> Tensor:
        """Return the output spikes at every step."""
        return self.output(super().forward(x))

    def counts(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the counts as of every step and the potentials left, each ``[T, B, K, ...]``; from rest, so not while stepping."""
        currents = super().forward(x)
        spikes = self.output(currents)
        return spikes.cumsum(0), potentials(currents, spikes)


def potentials(currents: Tensor, spikes: Tensor) -> Tensor:
    """Return the potentials ``[T, ...]`` that ``currents`` leave without leak and with a hard reset to 0 at each of ``spikes``.

    They are the sums of the currents since the last spike.
    """
    total = currents.cumsum(0)
    steps = torch.arange(1, len(spikes) + 1, device=spikes.device).view(-1, *[1] * (spikes.dim() - 1))
    last = torch.where(spikes > 0, steps, 0).cummax(0).values  # step of the last spike, 0 before the first
    return total - torch.cat([torch.zeros_like(total[:1]), total]).gather(0, last)
