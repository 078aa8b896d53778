"""Layers of neurons to measure alone: the core of a training step, forward and backward.

core = Core("lif", steps=4)
core.both_ways()          # gradients of the currents and of what the layer learns
core.spikes               # of the last call
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from methods.nn.attentive_lif import AttentiveLIF
from methods.nn.dynamic_decay import DynamicDecay
from methods.nn.glif import GLIF
from methods.nn.neuron import LIF
from methods.nn.psn import PSN, SlidingPSN

SHAPE = (4, 16, 8, 8)  # B, C, H, W: 4,096 neurons
CHANNELS = SHAPE[1]

MAKERS: dict[str, Callable[[int], nn.Module]] = {
    "lif": lambda steps: LIF(),
    "lif, soft reset": lambda steps: LIF(reset="soft"),
    "lif, recompute": lambda steps: LIF(save="recompute"),
    "lif, learnt": lambda steps: LIF(learn=("leak", "threshold"), channels=CHANNELS),
    "lif, reference": lambda steps: LIF(backend="reference"),
    "psn": PSN,
    "sliding psn": lambda steps: SlidingPSN(4),
    "glif, reference": lambda steps: GLIF(steps, CHANNELS, backend="reference"),
    "dynamic decay": lambda steps: DynamicDecay(CHANNELS),
    "attentive lif": lambda steps: AttentiveLIF(CHANNELS),
}


class Core:
    """The layer ``name`` of ``MAKERS`` with random currents ``[T, *SHAPE]``; weights and currents are the same every time."""

    def __init__(self, name: str, steps: int, threads: int = 1) -> None:
        """Make the layer and its input."""
        torch.set_num_threads(threads)
        torch.manual_seed(0)
        self.neuron = MAKERS[name](steps)
        self.current = torch.randn(steps, *SHAPE, requires_grad=True)
        self.gradient = torch.randn(steps, *SHAPE)
        self.spikes = 0

    def both_ways(self) -> tuple[Tensor, ...]:
        """Return the gradients of the currents and of the parameters."""
        outputs = self.neuron(self.current)
        self.spikes = int(outputs.count_nonzero())
        return torch.autograd.grad(outputs, [self.current, *self.neuron.parameters()], self.gradient)
