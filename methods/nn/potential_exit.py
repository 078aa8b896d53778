"""Exits of a network whose stages end in membrane potentials: from these to the answers of one step.

::

    plain      sWS(average(V))                    sWS a standardised 1x1 convolution
    spiking    sWS(sWS(average(spike(V))))        to classes and from classes to classes: linear, folded into one for inference

Source: the heads of T-RevSNN's official code (Hu et al., ICML 2024). ``DenseExit`` is ours.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from harness.task import Head
from methods.nn import heads
from methods.nn.backbones import Level
from methods.nn.parts import Parts
from methods.nn.scaled_std_conv import ScaledStdConv2d
from methods.nn.turn_off import TurnOff


class PotentialExit(nn.Module):
    """Logits ``[1, B, classes]`` of the last of the potentials ``[1, B, C, H, W]``; plain or ``spiking``."""

    def __init__(self, channels: int, classes: int, spiking: bool) -> None:
        """Make the read-out."""
        super().__init__()
        self.neuron = TurnOff() if spiking else nn.Identity()
        self.readout = ScaledStdConv2d(channels, classes, 1)
        self.second: nn.Module = ScaledStdConv2d(classes, classes, 1) if spiking else nn.Identity()

    def forward(self, states: Sequence[Tensor]) -> Tensor:
        """Return the logits."""
        average = self.neuron(states[-1]).mean((3, 4), keepdim=True)
        return self.second(self.readout(average)).flatten(2)

    @torch.no_grad()
    def fold(self) -> None:
        """Make two layers one, without standardisation."""
        self.readout.fold()
        if not isinstance(self.second, ScaledStdConv2d):
            return
        weight, bias = self.second.effective_weight.flatten(1), self.second.bias
        self.readout.weight.copy_((weight @ self.readout.weight.flatten(1)).view_as(self.readout.weight))
        self.readout.bias.copy_(weight @ self.readout.bias + bias)
        self.second = nn.Identity()


class DenseExit(nn.Module):
    """Answers ``[1, B, ...]`` of a head of ``methods.nn.heads`` on the spikes of all stages, for places in the image."""

    def __init__(self, head: Head, levels: list[Level], parts: Parts) -> None:
        """Make neurons for every stage, and the head."""
        super().__init__()
        self.neurons = nn.ModuleList(TurnOff() for _ in levels)
        self.head = heads.build(head, levels, parts)

    def forward(self, states: Sequence[Tensor]) -> Tensor:
        """Return the answers."""
        return self.head([neuron(v) for neuron, v in zip(self.neurons, states, strict=True)])
