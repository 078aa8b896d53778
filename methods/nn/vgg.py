"""VGG networks from a method's parts: a row of 3x3 convolution layers with average pooling between, as a plan of channels and ``"P"``."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from torch import Tensor, nn

from methods.nn.backbones import Level
from methods.nn.layer import Layer
from methods.nn.parts import Parts

Plan = Sequence[int | str]  # channels of a layer, or "P" for a pooling
VGG16: Plan = (64, 64, "P", 128, 128, "P", 256, 256, 256, "P", 512, 512, 512, "P", 512, 512, 512, "P")


class _GlobalPool(nn.Module):
    """Mean over space: ``[T, B, C, H, W] -> [T, B, C, 1, 1]``."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the means."""
        return x.mean((-2, -1), keepdim=True)


class _AdaptivePool(nn.AdaptiveAvgPool2d):
    """Averages over so many places each way: ``[T, B, C, H, W] -> [T, B, C, places, places]``."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the averages."""
        return super().forward(x.flatten(0, 1)).unflatten(0, x.shape[:2])


class _Flatten(nn.Module):
    """Space into channels: ``[T, B, C, H, W] -> [T, B, C*H*W, 1, 1]``, so that a 1x1 convolution is a fully connected layer."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the same numbers in one column."""
        return x.flatten(2)[..., None, None]


class Vgg(nn.Module):
    """``Vgg((3, 32, 32), (64, "P", 128), parts)``: ``[T, B, C, H, W] -> one level per pooling, and the last``.

    ``global_pool`` ends with the mean over space, ``places`` with averages over so many places each way (as ``nn.AdaptiveAvgPool2d``, which
    repeats a map that is smaller); ``hidden`` adds a fully connected spiking layer of so many neurons. Raises ValueError for an input that
    is no image or too small for the poolings.
    """

    def __init__(
        self, input_shape: tuple[int, ...], plan: Plan, parts: Parts, global_pool: bool = False, hidden: int = 0, places: int = 0
    ) -> None:
        """Make the layers of ``plan``."""
        super().__init__()
        if len(input_shape) != 3:
            raise ValueError(f"a VGG is for images [C, H, W], not for samples of shape {list(input_shape)}")
        channels, *size = input_shape
        if min(size) >> plan.count("P") < 1:
            raise ValueError(f"an image of {size[0]}x{size[1]} cannot be halved {plan.count('P')} times")
        self.levels: list[Level] = []
        self.stages = nn.ModuleList()
        stage: list[nn.Module] = []
        stride, first = 1, True
        for entry in plan:
            if isinstance(entry, str):
                size, stride = [length // 2 for length in size], 2 * stride
                self._close([*stage, parts.pool(2)], Level(channels, tuple(size), stride))
                stage = []
                continue
            stage.append(Layer(parts.conv(channels, entry, 3, first=first), parts.norm(entry), parts.neuron(entry)))
            channels, first = entry, False
        if global_pool:
            stage.append(_GlobalPool())
            stride, size = stride * max(size), [1, 1]
        elif places:
            stage.append(_AdaptivePool(places))
            stride, size = stride * max(size), [places, places]
        if hidden:
            stage += [_Flatten(), Layer(parts.conv(channels * prod(size), hidden, 1), parts.norm(hidden), parts.neuron(hidden))]
            channels, stride, size = hidden, stride * max(size), [1, 1]
        if stage:
            self._close(stage, Level(channels, tuple(size), stride))

    def _close(self, stage: list[nn.Module], level: Level) -> None:
        self.stages.append(nn.Sequential(*stage))
        self.levels.append(level)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the features of every level, each ``[T, B, C, H, W]``."""
        found = []
        for stage in self.stages:
            x = stage(x)
            found.append(x)
        return found
