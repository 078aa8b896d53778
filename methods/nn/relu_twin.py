"""The ReLU network behind a spiking one: the same weights, and for each layer of neurons a ReLU.

An integrate-and-fire neuron of threshold ``theta`` under a constant current I fires at the rate ``max(0, I) / theta`` (up to one spike per
step), so ``ReLU(I) / theta`` is put in its place. Normalisations, poolings and read-outs stay. Of a converted network whose layers differ
from the original's by positive factors alone this is the original network, so that its answers have the same largest class. For neurons
with a leak, with gates or without a threshold of that name (which then counts as 1) it is an approximation (ours)::

    twin = relu_twin(net)        # net is left as it is
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from methods.nn.event_layer import EventLayer

SPIKING = ("binary", "graded")


class Rate(nn.Module):
    """``ReLU(current) / threshold`` on ``[T, B, C, ...]``; ``threshold``: one number, one per channel ``[C]``, or one per neuron."""

    spike_kind = "none"

    def __init__(self, threshold: float | Tensor = 1.0) -> None:
        """Keep the ``threshold``."""
        super().__init__()
        self.register_buffer("threshold", torch.as_tensor(threshold).detach().clone())

    def forward(self, current: Tensor) -> Tensor:
        """Return the rates."""
        per_channel = self.threshold.dim() == 1
        return F.relu(current) / (self.threshold.view(-1, *[1] * (current.dim() - 3)) if per_channel else self.threshold)


def relu_twin(net: nn.Module) -> nn.Module:
    """Return a copy of ``net`` with ReLU for spikes; raise ValueError where neurons take spike times instead of currents."""
    if any(isinstance(module, EventLayer) for module in net.modules()):
        raise ValueError("its neurons map spike times to spike times; they have no current that a ReLU could take")
    twin = copy.deepcopy(net)
    for parent in list(twin.modules()):
        if getattr(parent, "spike_kind", None) in SPIKING:
            continue  # what is inside of a neuron goes with it
        for name, child in list(parent.named_children()):
            if getattr(child, "spike_kind", None) in SPIKING:
                threshold = getattr(child, "threshold", 1.0)
                setattr(parent, name, Rate(threshold if isinstance(threshold, (int, float, Tensor)) else 1.0))
    return twin
