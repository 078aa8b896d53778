"""Heads: from the levels of a backbone to the outputs ``[T, B, ...]`` that a task asks for. Heads do not spike at the end."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from harness.task import Head
from methods.nn.backbones import Level
from methods.nn.layer import Layer
from methods.nn.layout import channels_last
from methods.nn.parts import Parts


class Classify(nn.Module):
    """Flatten the last level and map it linearly to logits ``[T, B, classes]``; likewise answers per step, and numbers."""

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

    Levels share no weights (FCOS shares its head over a feature pyramid): each learns the classes from the objects of its own size only.
    """

    def __init__(self, head: Head, levels: list[Level], parts: Parts) -> None:
        """Make a branch for every stride of ``head``; raise ValueError if the backbone has no level of that stride."""
        super().__init__()
        self.chosen = matching(head.strides, levels)
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


class Segment(nn.Module):
    """A fully convolutional segmenter (FCN, Long, Shelhamer, Darrell, CVPR 2015): per level one spiking layer and one 1x1 read-out.

    The read-outs of all levels, enlarged to the size of the image by bilinear interpolation, are added: logits ``[T, B, classes, H, W]``.
    """

    def __init__(self, head: Head, levels: list[Level], parts: Parts) -> None:
        """Make a branch for every stride of ``head``; raise ValueError if the backbone has no level of that stride."""
        super().__init__()
        self.chosen = matching(head.strides, levels)
        self.towers = nn.ModuleList()
        self.readouts = nn.ModuleList()
        for i in self.chosen:
            channels = levels[i].channels
            self.towers.append(Layer(parts.conv(channels, channels, 3), parts.norm(channels), parts.neuron(channels)))
            self.readouts.append(parts.readout_conv(channels, head.classes))
        finest = levels[self.chosen[0]]
        self.size = tuple(side * finest.stride for side in finest.size)

    def forward(self, levels: list[Tensor]) -> Tensor:
        """Return the logits of every pixel at every step."""
        total: Tensor | None = None
        for i, tower, readout in zip(self.chosen, self.towers, self.readouts, strict=True):
            found = readout(tower(levels[i]))
            enlarged = nn.functional.interpolate(found.flatten(0, 1), size=self.size, mode="bilinear", align_corners=False)
            total = enlarged if total is None else total + enlarged
        assert total is not None
        return total.unflatten(0, levels[0].shape[:2])


def matching(strides: tuple[int, ...], levels: list[Level]) -> list[int]:
    """Return the positions of the levels that have ``strides``; raise ValueError if the backbone lacks one or none is asked for."""
    by_stride = {level.stride: i for i, level in enumerate(levels)}
    missing = [stride for stride in strides if stride not in by_stride]
    if missing or not strides:
        raise ValueError(f"the task wants features at stride {missing or 'none'}, the backbone has {sorted(by_stride)}")
    return [by_stride[stride] for stride in strides]


def build(head: Head, levels: list[Level], parts: Parts) -> nn.Module:
    """Return the module for ``head`` on features ``levels``."""
    kinds = {"classify": Classify, "detect": Detect, "segment": Segment, "per_step": Classify, "regress": Classify}
    return kinds[head.kind](head, levels, parts)


class Network(nn.Module):
    """A backbone and a head: inputs ``[T, B, ...]`` to outputs ``[T, B, ...]``.

    On the CPU images are laid out channels-last, which makes a training step of the reference networks 1.1 to 1.3 times as fast (stbp and
    ann, static/digits, static/mnist, events/digits-saccade, detection/digit-scenes, on 1 and 2 threads). Not tried on a GPU.
    """

    def __init__(self, backbone: nn.Module, head: nn.Module) -> None:
        """Join the two."""
        super().__init__()
        self.backbone, self.head = backbone, head

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs at every step."""
        if x.dim() == 5 and x.device.type == "cpu":
            x = channels_last(x)
        return self.head(self.backbone(x))
