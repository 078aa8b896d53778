"""Residual networks given as a plan of stages, without max pooling: those for CIFAR and the membrane-shortcut ones for ImageNet.

A plan says of each stage how many blocks it has, how many features, and the stride of its first block::

    plan = ((2, 64, 1), (2, 128, 1), (2, 256, 2), (2, 512, 2))
    StagedResNet((3, 32, 32), plan, parts, block, stem=(64, 3, 1))

The stem is a convolution, its normalisation and neurons; the end is the global average. With ``preactivated`` blocks, which begin with
neurons and pass currents on, the stem has no neurons and there are some after the last stage.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from methods.nn.backbones import Level
from methods.nn.layer import Layer
from methods.nn.parts import Parts
from methods.nn.residual import Block, GlobalAvgPool2d

Plan = Sequence[tuple[int, int, int]]  # of each stage: blocks, features, stride of the first block


class PreactivatedBlock(nn.Module):
    """``norm(conv(neuron(norm(conv(neuron(x)))))) + norm(x)``: neurons before each convolution of the branch, none after the sum.

    Currents ``[T, B, C, H, W]`` in and out; the shortcut has a 1x1 convolution where the shape changes. Both normalisations before the sum
    are scaled by 1/sqrt(2), so that the sum of uncorrelated currents varies as each layer's do.
    """

    def __init__(self, features_in: int, features_out: int, stride: int, parts: Parts) -> None:
        """Make branch and shortcut."""
        super().__init__()
        scale = 2**-0.5
        self.branch = nn.Sequential(
            parts.neuron(features_in),
            Layer(parts.conv(features_in, features_out, 3, stride), parts.norm(features_out), parts.neuron(features_out)),
            Layer(parts.conv(features_out, features_out, 3), parts.norm(features_out, scale), nn.Identity()),
        )
        self.shortcut = parts.norm(features_out, scale)
        if stride != 1 or features_in != features_out:
            self.shortcut = Layer(parts.conv(features_in, features_out, 1, stride), self.shortcut, nn.Identity())

    def forward(self, x: Tensor) -> Tensor:
        """Return the currents ``[T, B, C', H', W']``."""
        return self.branch(x) + self.shortcut(x)


class StagedResNet(nn.Module):
    """Stem, stages by a plan, global average: ``[T, B, C, H, W] -> levels``; see the module's docstring.

    Levels are the stages (of preactivated ones the last, as the others end with currents) and the average. ``stem``: features, kernel and
    stride. Weights of convolutions: Kaiming normal, fan-out.
    """

    def __init__(
        self,
        input_shape: tuple[int, ...],
        plan: Plan,
        parts: Parts,
        block: Block,
        stem: tuple[int, int, int] = (64, 3, 1),
        preactivated: bool = False,
    ) -> None:
        """Make the network; ``block`` makes a block."""
        super().__init__()
        image, height, width = input_shape
        channels, kernel, total = stem
        first = nn.Identity() if preactivated else parts.neuron(channels)
        self.stem = Layer(parts.conv(image, channels, kernel, total, first=True), parts.norm(channels), first)
        self.stages = nn.ModuleList()
        self.levels: list[Level] = []
        height, width = -(-height // total), -(-width // total)
        for count, features, stride in plan:
            modules = [block(features if i else channels, features, 1 if i else stride) for i in range(count)]
            self.stages.append(nn.Sequential(*modules))
            channels, total, height, width = features, total * stride, -(-height // stride), -(-width // stride)
            self.levels.append(Level(features, (height, width), total))
        self.neuron = parts.neuron(channels) if preactivated else nn.Identity()
        self.pool = GlobalAvgPool2d()
        self.levels = [*self.levels[-1 if preactivated else 0 :], Level(channels, (1, 1), max(input_shape[1:]))]
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the features of the levels, each ``[T, B, C, H, W]``."""
        found, x = [], self.stem(x)
        for stage in self.stages:
            x = stage(x)
            found.append(x)
        found[-1] = self.neuron(x)
        return [*found[1 - len(self.levels) :], self.pool(found[-1])]
