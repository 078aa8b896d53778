"""How many numbers an event-exact network keeps for its backward pass, per spike."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from harness.meters.memory import SavedTensors
from methods.nn.event_layer import EventLayer
from methods.nn.spike_times import fired
from methods.nn.watch import Watch


def stored_floats_per_spike(net: nn.Module, times: Tensor) -> float:
    """Return the numbers saved for the backward pass of input ``times [B, ..., K]`` over the spikes there are, inputs included.

    Slots without a spike, of which a tensor of spike times has some, are stored too; weights are not counted.
    """
    layers = [module for module in net.modules() if isinstance(module, EventLayer)]
    with torch.enable_grad(), SavedTensors(net) as saved, Watch(layers) as seen:
        output = net(times)
    spikes = fired(times).sum() + sum(fired(found).sum() for part, found in zip(layers, seen.outputs, strict=True) if part.spiking)
    return saved.peak / output.element_size() / max(float(spikes), 1.0)
