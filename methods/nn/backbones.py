"""Reference networks of the matched track, built from a method's parts.

A backbone maps ``[T, B, ...]`` to a list of feature levels, coarser and coarser; ``levels`` describes them, so that heads fit.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from torch import Tensor, nn

from harness.task import Backbone as BackboneSpec
from methods.nn.layer import Layer
from methods.nn.parts import Parts


@dataclass(frozen=True)
class Level:
    """One level of features: its ``channels``, spatial ``size`` (empty for sequences), and input pixels per location."""

    channels: int
    size: tuple[int, ...] = ()
    stride: int = 1

    @property
    def features(self) -> int:
        """Numbers per step and sample."""
        return self.channels * prod(self.size)


class ConvNet(nn.Module):
    """Stages of two 3x3 convolution layers and a 2x2 average pooling: ``[T, B, C, H, W] -> one level per stage``.

    With widths (16, 32) this is the 16-16-AP-32-32-AP network of the cards.
    """

    def __init__(self, input_shape: tuple[int, ...], widths: tuple[int, ...], parts: Parts, depth: int = 1) -> None:
        """Make a stage per width, of ``2 * depth`` layers; raise ValueError if the image is too small for so many stages."""
        super().__init__()
        channels, height, width = input_shape
        if min(height, width) >> len(widths) < 1:
            raise ValueError(f"an image of {height}x{width} cannot be halved {len(widths)} times")
        self.stages = nn.ModuleList()
        self.levels: list[Level] = []
        for number, features in enumerate(widths):
            first = parts.conv(channels, features, 3, first=number == 0)
            layers = [Layer(first, parts.norm(features), parts.neuron(features))]
            for _ in range(2 * depth - 1):
                layers.append(Layer(parts.conv(features, features, 3), parts.norm(features), parts.neuron(features)))
            self.stages.append(nn.Sequential(*layers, parts.pool(2)))
            channels, height, width = features, height // 2, width // 2
            self.levels.append(Level(features, (height, width), 2 ** (number + 1)))

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the features of every stage, each ``[T, B, C, H, W]``."""
        found = []
        for stage in self.stages:
            x = stage(x)
            found.append(x)
        return found


class SequenceNet(nn.Module):
    """Layers with delays, dilation growing fourfold: ``[T, B, C] -> [T, B, F]``, a view of ``4^layers`` steps back."""

    taps = 4

    def __init__(self, input_shape: tuple[int, ...], widths: tuple[int, ...], parts: Parts, depth: int = 1) -> None:
        """Make ``depth`` layers of the same delays per width."""
        super().__init__()
        (channels,) = input_shape
        layers: list[nn.Module] = []
        for number, features in enumerate(widths):
            for _ in range(depth):
                synapse = parts.delay_line(channels, features, self.taps, self.taps**number, first=not layers)
                layers.append(Layer(synapse, parts.norm(features), parts.neuron(features)))
                channels = features
        self.layers = nn.Sequential(*layers)
        self.levels = [Level(channels)]

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the features of the last layer, as the only level."""
        return [self.layers(x)]


def build(spec: BackboneSpec, input_shape: tuple[int, ...], parts: Parts) -> nn.Module:
    """Return the backbone that ``spec`` asks for; raise ValueError for an unknown kind.

    ``vgg`` has one 3x3 layer in each of the first two stages and two in later ones (with widths 64, 128, 256, 512, 512 the convolutions of
    VGG-11); ``resnet`` a spiking residual block per stage, currents added before the neurons (as in tdBN's ResNet).
    """
    if spec.kind == "vgg":
        from methods.nn.vgg import Vgg  # imports this module

        plan = [entry for number, width in enumerate(spec.widths) for entry in (*[width] * spec.depth * (1 if number < 2 else 2), "P")]
        return Vgg(input_shape, plan, parts)
    if spec.kind == "resnet":
        from methods.nn.residual import ResidualBlock, ResNet

        def block(features_in: int, features_out: int, stride: int) -> nn.Module:
            return ResidualBlock(features_in, features_out, stride, parts, connect="vanilla")

        return ResNet(input_shape, spec.widths, parts, block, blocks=spec.depth)
    kinds = {"conv": ConvNet, "sequence": SequenceNet}
    if spec.kind not in kinds:
        raise ValueError(f"backbone {spec.kind!r} is unknown; allowed: {', '.join([*kinds, 'vgg', 'resnet'])}")
    return kinds[spec.kind](input_shape, spec.widths, parts, spec.depth)
