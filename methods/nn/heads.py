"""Heads: from the levels of a backbone to the outputs ``[T, B, ...]`` that a task asks for. Heads do not spike at the end."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from harness.task import Head
from methods.nn.backbones import Level
from methods.nn.layer import Layer
from methods.nn.parts import Parts


class Classify(nn.Module):
    """Flatten the last level and map it linearly to logits ``[T, B, classes]``."""

    def __init__(self, head: Head, levels: list[Level], parts: Parts) -> None:
        """Make the read-out of the last level."""
        super().__init__()
        self.readout = parts.readout(levels[-1].features, head.classes)

    def forward(self, levels: list[Tensor]) -> Tensor:
        """Return the logits at every step."""
        return self.readout(levels[-1].flatten(2))


class Detect(nn.Module):
    """An anchor-free detector (FCOS, Tian et al., ICCV 2019): per level one spiking layer and one 1x1 read-out.

    Outputs ``[T, B, L, 5 + classes]`` in the order of ``harness.task.Head``. The bias of the class logits starts at a prior
    probability of 0.01, as focal loss asks for.
    """

    def __init__(self, head: Head, levels: list[Level], parts: Parts) -> None:
        """Make a branch for every stride of ``head``; raise ValueError if the backbone has no level of that stride."""
        super().__init__()
        by_stride = {level.stride: i for i, level in enumerate(levels)}
        missing = [stride for stride in head.strides if stride not in by_stride]
        if missing:
            raise ValueError(f"the task wants features at stride {missing}, the backbone has {sorted(by_stride)}")
        self.chosen = [by_stride[stride] for stride in head.strides]
        self.towers = nn.ModuleList()
        self.readouts = nn.ModuleList()
        for i in self.chosen:
            channels = levels[i].channels
            self.towers.append(Layer(parts.conv(channels, channels, 3), parts.norm(channels), parts.neuron(channels)))
            readout = parts.readout_conv(channels, 5 + head.classes)
            with torch.no_grad():
                readout.bias[: head.classes] = -math.log((1 - 0.01) / 0.01)
            self.readouts.append(readout)

    def forward(self, levels: list[Tensor]) -> Tensor:
        """Return the answers at every step and location."""
        found = []
        for i, tower, readout in zip(self.chosen, self.towers, self.readouts, strict=True):
            found.append(readout(tower(levels[i])).flatten(3).transpose(2, 3))
        return torch.cat(found, dim=2)


def build(head: Head, levels: list[Level], parts: Parts) -> nn.Module:
    """Return the module for ``head`` on features ``levels``."""
    return {"classify": Classify, "detect": Detect}[head.kind](head, levels, parts)


class Network(nn.Module):
    """A backbone and a head: inputs ``[T, B, ...]`` to outputs ``[T, B, ...]``."""

    def __init__(self, backbone: nn.Module, head: nn.Module) -> None:
        """Join the two."""
        super().__init__()
        self.backbone, self.head = backbone, head

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs at every step."""
        return self.head(self.backbone(x))
