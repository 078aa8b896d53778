"""Residual networks whose blocks spike first and add currents, with one convolution per block: those of the Hoyer networks.

A block of a current ``x``, its shape kept or changed (half the size, other channels)::

    y = BN(conv3x3(spike(x))) + shortcut      basic
    y = f1(f3(f1(x))) + shortcut              bottleneck, fk(x) = conv_kxk(spike(BN(x))); four times the channels, a quarter of them inside
    shortcut = x,  or  conv1x1(spike(BN(maxpool(x)))) where the shape changes

Stem: convolution, BN, spike, convolution, BN, spike, convolution, 3x3 max pooling of stride 2, BN. It ends with spikes of the mean over
space. So these "ResNet-18" (16 one-convolution blocks) and "ResNet-34" are not torchvision's, neither in operations nor in weights.
Source: "Hoyer Regularizer Is All You Need for Ultra Low-Latency Spiking Neural Networks" (Datta, Liu, Beerel, arXiv 2212.10170). Ours:
the channels (64 to 512, as usual), 2x2 max pooling in shortcuts, a stem of stride 2 from images of 64 pixels on, and spikes of every stage
for detectors and segmenters.
"""

from __future__ import annotations

from torch import Tensor, nn

from methods.nn.backbones import Level
from methods.nn.parts import Parts
from methods.nn.residual import MaxPool2d

DEPTHS: dict[str, tuple[tuple[int, ...], bool]] = {  # blocks of each stage, and whether they are bottlenecks
    "resnet18": ((4, 4, 4, 4), False),
    "resnet34": ((6, 8, 12, 6), False),
    "resnet50": ((3, 4, 6, 3), True),
}
DEPTHS_SMALL = DEPTHS | {"resnet34": ((6, 8, 10, 6), False)}  # for CIFAR
LARGE = 64  # pixels from which an image counts as large


class SpikeFirstBlock(nn.Module):
    """One block ``[T, B, C, H, W] -> [T, B, C', H / stride, W / stride]`` (rounded up); currents in, currents out."""

    def __init__(self, features_in: int, features_out: int, stride: int, parts: Parts, bottleneck: bool = False) -> None:
        """Make branch and shortcut."""
        super().__init__()
        if bottleneck:
            inner = features_out // 4
            shapes = [(features_in, inner, 1, 1), (inner, inner, 3, stride), (inner, features_out, 1, 1)]
            layers = [m for i, o, kernel, by in shapes for m in (parts.norm(i), parts.neuron(i), parts.conv(i, o, kernel, by))]
            self.branch = nn.Sequential(*layers)
        else:
            conv = parts.conv(features_in, features_out, 3, stride)
            self.branch = nn.Sequential(parts.neuron(features_in), conv, parts.norm(features_out))
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or features_in != features_out:
            pool = MaxPool2d(stride, ceil_mode=True) if stride != 1 else nn.Identity()
            conv = parts.conv(features_in, features_out, 1)
            self.shortcut = nn.Sequential(pool, parts.norm(features_in), parts.neuron(features_in), conv)

    def forward(self, x: Tensor) -> Tensor:
        """Return the sum of branch and shortcut."""
        return self.branch(x) + self.shortcut(x)


class SpikeFirstResNet(nn.Module):
    """``[T, B, C, H, W] -> [spikes of the mean over space]``, ``[T, B, F]``.

    With ``pyramid`` the levels are the spikes of the stages instead, for detectors; their strides are 2, 4, 8, 16, twice that for large
    images. ``depths``: blocks of each stage; ``width``: channels of the first. Raises ValueError for an input that is no image.
    """

    def __init__(
        self,
        input_shape: tuple[int, ...],
        depths: tuple[int, ...],
        parts: Parts,
        bottleneck: bool = False,
        pyramid: bool = False,
        width: int = 64,
    ) -> None:
        """Make stem and stages."""
        super().__init__()
        if len(input_shape) != 3:
            raise ValueError(f"a residual network is for images [C, H, W], not for samples of shape {list(input_shape)}")
        colours, *size = input_shape
        first = 2 if min(size) >= LARGE else 1
        stem: list[nn.Module] = []
        for number in range(3):
            stem.append(parts.conv(width if number else colours, width, 3, 1 if number else first, first=number == 0))
            stem += [parts.norm(width), parts.neuron(width)] if number < 2 else [MaxPool2d(3, 2, 1), parts.norm(width)]
        self.stem = nn.Sequential(*stem)
        stride, channels = 2 * first, width
        size = [-(-length // stride) for length in size]
        self.stages, self.neurons = nn.ModuleList(), nn.ModuleList()
        self.levels: list[Level] = []
        for depth, count in enumerate(depths):
            features, by = width * 2**depth * (4 if bottleneck else 1), 2 if depth else 1
            blocks = [SpikeFirstBlock(features if i else channels, features, 1 if i else by, parts, bottleneck) for i in range(count)]
            self.stages.append(nn.Sequential(*blocks))
            channels, stride, size = features, stride * by, [-(-length // by) for length in size]
            if pyramid:
                self.neurons.append(parts.neuron(channels))
                self.levels.append(Level(channels, tuple(size), stride))
        if not pyramid:
            self.neurons.append(parts.neuron(channels))
            self.levels.append(Level(channels, (), stride * max(size)))
        self.pyramid = pyramid

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the spikes of every level."""
        currents, x = [], self.stem(x)
        for stage in self.stages:
            x = stage(x)
            currents.append(x)
        if not self.pyramid:
            currents = [x.mean((3, 4))]
        return [neuron(current) for neuron, current in zip(self.neurons, currents, strict=True)]
