"""Residual spiking networks: one block, five ways to join its branch with the shortcut, and two backbones made of it.

A block joins a branch ``A`` of its input with the shortcut ``S`` (the input, or a 1x1 layer of it where the shape changes)::

    add      A + S            A ends with neurons; identity at A = 0; values are whole numbers, not clipped
    and      A * S            A ends with neurons; identity at A = 1
    iand     (1 - A) * S      A ends with neurons; identity at A = 0
    vanilla  SN(A + S)        A ends with a normalisation, so the sum passes one more layer of neurons (Spiking ResNet)
    plain    A                A ends with neurons; no shortcut

Basic branch: two 3x3 layers, the first with the stride. Bottleneck: 1x1, 3x3 with the stride, 1x1, a quarter of the channels inside.
Source: "Deep Residual Learning in Spiking Neural Networks" (Fang et al., NeurIPS 2021) and its official code.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from methods.nn.backbones import Level
from methods.nn.layer import Layer
from methods.nn.parts import Parts

Connect = Literal["add", "and", "iand", "vanilla", "plain"]
Block = Callable[[int, int, int], nn.Module]  # (features in, features out, stride) -> a block

DEPTHS: dict[str, tuple[tuple[int, ...], bool]] = {  # blocks of each stage, and whether they are bottlenecks
    "18": ((2, 2, 2, 2), False),
    "34": ((3, 4, 6, 3), False),
    "50": ((3, 4, 6, 3), True),
    "101": ((3, 4, 23, 3), True),
    "152": ((3, 8, 36, 3), True),
}


class MaxPool2d(nn.MaxPool2d):
    """``nn.MaxPool2d`` on ``[T, B, C, H, W]``: whole numbers stay whole numbers."""

    def forward(self, x: Tensor) -> Tensor:
        """Return ``[T, B, C, H', W']``."""
        return super().forward(x.flatten(0, 1)).unflatten(0, x.shape[:2])


class GlobalAvgPool2d(nn.Module):
    """Mean over space: ``[T, B, C, H, W] -> [T, B, C, 1, 1]``."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the mean of every channel."""
        return x.mean((3, 4), keepdim=True)


class ResidualBlock(nn.Module):
    """One block on ``[T, B, C, H, W]``; see the module's docstring for ``connect``.

    ``zero_init`` sets weight and bias of the branch's last normalisation to 0 (``and``: bias 1), which makes the block an identity
    for binary inputs where the shape is kept; ``and`` and ``vanilla`` need integrate-and-fire neurons of threshold 1 for that. Without
    ``spiking_shortcut`` a shortcut that changes the shape has no neurons, so that reals are joined (that of ``vanilla`` never has).
    ``norm_identity`` normalises the shortcut of a vanilla block also where it has no convolution. Raises ValueError for an unknown
    ``connect``, channels that a bottleneck cannot quarter, or ``zero_init`` with ``plain``.
    """

    def __init__(
        self,
        features_in: int,
        features_out: int,
        stride: int,
        parts: Parts,
        connect: Connect = "add",
        bottleneck: bool = False,
        zero_init: bool = False,
        spiking_shortcut: bool = True,
        norm_identity: bool = False,
    ) -> None:
        """Make branch and shortcut."""
        super().__init__()
        if connect not in get_args(Connect):
            raise ValueError(f"connect {connect!r} is unknown; allowed: {', '.join(get_args(Connect))}")
        if zero_init and connect == "plain":
            raise ValueError("a plain block has no shortcut, so zero_init would silence it")
        if bottleneck and features_out % 4:
            raise ValueError(f"a bottleneck has a quarter of its {features_out} channels inside; allowed: multiples of 4")
        self.connect = connect
        vanilla = connect == "vanilla"
        inner = features_out // 4
        shapes = [(features_in, features_out, 3, stride), (features_out, features_out, 3, 1)]
        if bottleneck:
            shapes = [(features_in, inner, 1, 1), (inner, inner, 3, stride), (inner, features_out, 1, 1)]
        layers = [Layer(parts.conv(i, o, kernel, by), parts.norm(o), parts.neuron(o)) for i, o, kernel, by in shapes[:-1]]
        i, o, kernel, by = shapes[-1]
        # Where two currents are added before the neurons, each branch has half of the variance.
        scale = 2**-0.5 if vanilla else 1.0
        layers.append(Layer(parts.conv(i, o, kernel, by), parts.norm(o, scale), nn.Identity() if vanilla else parts.neuron(o)))
        self.branch = nn.Sequential(*layers)
        self.shortcut: nn.Module = parts.norm(features_out, scale) if norm_identity and vanilla else nn.Identity()
        if connect != "plain" and (stride != 1 or features_in != features_out):
            ends = parts.neuron(features_out) if spiking_shortcut and not vanilla else nn.Identity()
            self.shortcut = Layer(parts.conv(features_in, features_out, 1, stride), parts.norm(features_out, scale), ends)
        self.neuron = parts.neuron(features_out) if vanilla else nn.Identity()
        if zero_init:
            self._start_as_identity(layers[-1].norm)

    def _start_as_identity(self, norm: nn.Module) -> None:
        weight, bias = getattr(norm, "weight", None), getattr(norm, "bias", None)
        if not isinstance(weight, Tensor) or not isinstance(bias, Tensor):
            raise ValueError(f"zero_init needs a normalisation with weight and bias, not {type(norm).__name__}")
        nn.init.zeros_(weight)
        nn.init.constant_(bias, 1.0 if self.connect == "and" else 0.0)

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output ``[T, B, C', H', W']``."""
        branch = self.branch(x)
        if self.connect == "plain":
            return branch
        shortcut = self.shortcut(x)
        if self.connect == "and":
            return branch * shortcut
        if self.connect == "iand":
            return (1 - branch) * shortcut
        return self.neuron(branch + shortcut)

    def extra_repr(self) -> str:
        """Return the connection for printing."""
        return f"connect={self.connect}"


class ResNet(nn.Module):
    """A stage per width: a layer that changes the channels (if they change), ``blocks`` blocks, a 2x2 pooling.

    ``[T, B, C, H, W] -> one level per stage`` with strides 2, 4, 8..., as those of ``ConvNet``. ``kernels``: of the first layer, which sees
    the data, and of later changes of channels. ``pooled``: the stages (from 0) that end with the pooling; None: all. Raises ValueError if
    the image is too small for so many poolings.
    """

    def __init__(
        self,
        input_shape: tuple[int, ...],
        widths: tuple[int, ...],
        parts: Parts,
        block: Block,
        blocks: int = 1,
        kernels: tuple[int, int] = (3, 1),
        pooled: Collection[int] | None = None,
    ) -> None:
        """Make the stages; ``block`` makes a block."""
        super().__init__()
        channels, height, width = input_shape
        pooled = range(len(widths)) if pooled is None else pooled
        if min(height, width) >> len(pooled) < 1:
            raise ValueError(f"an image of {height}x{width} cannot be halved {len(pooled)} times")
        stride = 1
        self.stages = nn.ModuleList()
        self.levels: list[Level] = []
        for depth, features in enumerate(widths):
            modules: list[nn.Module] = []
            if features != channels or depth == 0:
                conv = parts.conv(channels, features, kernels[depth > 0], first=depth == 0)
                modules.append(Layer(conv, parts.norm(features), parts.neuron(features)))
            modules += [block(features, features, 1) for _ in range(blocks)]
            if depth in pooled:
                modules.append(parts.pool(2))
                height, width, stride = height // 2, width // 2, 2 * stride
            self.stages.append(nn.Sequential(*modules))
            channels = features
            self.levels.append(Level(features, (height, width), stride))

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the features of every stage, each ``[T, B, C, H, W]``."""
        found = []
        for stage in self.stages:
            x = stage(x)
            found.append(x)
        return found


class DeepResNet(nn.Module):
    """The network for ImageNet: 7x7 stem of stride 2, 3x3 max pooling, four stages of blocks, global average pooling.

    ``[T, B, C, H, W] -> levels`` of strides 4, 8, 16, 32 and the pooled one, which a classifier reads. ``depths``: blocks of each stage. An
    image repeated in time is convolved once; normalising the repeats is normalising the image, as the official code does. Weights of
    convolutions: Kaiming normal, fan-out.
    """

    def __init__(self, input_shape: tuple[int, ...], depths: tuple[int, ...], parts: Parts, block: Block, expansion: int = 1) -> None:
        """Make stem and stages; ``expansion`` is 4 with bottlenecks."""
        super().__init__()
        channels, height, width = input_shape
        layer = Layer(parts.conv(channels, 64, 7, 2, first=True), parts.norm(64), parts.neuron(64))
        self.stem = nn.Sequential(layer, MaxPool2d(3, 2, 1))
        self.stages = nn.ModuleList()
        self.levels: list[Level] = []
        channels, height, width = 64, -(-height // 4), -(-width // 4)
        for depth, count in enumerate(depths):
            features = 64 * 2**depth * expansion
            stride = 1 if depth == 0 else 2
            self.stages.append(nn.Sequential(*[block(features if i else channels, features, 1 if i else stride) for i in range(count)]))
            channels, height, width = features, -(-height // stride), -(-width // stride)
            self.levels.append(Level(features, (height, width), 4 * 2**depth))
        self.pool = GlobalAvgPool2d()
        self.levels.append(Level(channels, (1, 1), max(input_shape[1:])))
        start_by_fan_out(self)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the features of every stage, each ``[T, B, C, H, W]``, and the global average of the last."""
        found, x = [], self.stem(x)
        for stage in self.stages:
            x = stage(x)
            found.append(x)
        return [*found, self.pool(x)]


def fraction_not_binary(x: Tensor) -> float:
    """Return the fraction of ``x`` that is neither 0 nor 1: what an energy count for binary spikes would miss."""
    return float(torch.logical_and(x != 0, x != 1).double().mean())


def start_by_fan_out(net: nn.Module) -> None:
    """Draw the weights of all convolutions of ``net`` anew: Kaiming normal, fan-out."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
