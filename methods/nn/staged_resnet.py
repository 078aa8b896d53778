"""A residual network in stages: what 6n+2 layer networks for CIFAR, those for ImageNet and the suite's small ones have in common.

``stem -> stage 1 -> stage 2 ...``; the first block of a stage changes channels and size. CIFAR: three stages of n blocks of widths f, 2f,
4f, the last two of stride 2, so ``1 + 2 * 3n + 1 = 6n + 2`` layers with stem and classifier.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from methods.nn.backbones import Level
from methods.nn.parts import Parts
from methods.nn.residual import Block, GlobalAvgPool2d


@dataclass(frozen=True)
class Stage:
    """``blocks`` blocks of ``width`` channels; the first has the ``stride``."""

    width: int
    blocks: int
    stride: int = 1


def cifar_stages(blocks: int, width: int) -> tuple[Stage, ...]:
    """Return the stages of a CIFAR network of ``6 * blocks + 2`` layers."""
    return Stage(width, blocks), Stage(2 * width, blocks, 2), Stage(4 * width, blocks, 2)


class StagedResNet(nn.Module):
    """Stem and stages: ``[T, B, C, H, W] -> one level per stage``, and with ``average`` the mean over space of the last.

    ``stem`` gives ``width`` channels at ``stride``; ``resized`` is the size to which it first brings the image, if it does. ``block`` makes
    a block. ``pool``: makes a 2x2 pooling that follows each stage. ``end``: makes what turns the features of a stage, before pooling, into
    those that heads see and later stages do not, from the level and whether it is the last; default: nothing. Raises ValueError if the
    image is too small to be pooled so often.
    """

    def __init__(
        self,
        input_shape: tuple[int, ...],
        stem: nn.Module,
        width: int,
        stages: tuple[Stage, ...],
        block: Block,
        stride: int = 1,
        pool: Callable[[int], nn.Module] | None = None,
        end: Callable[[Level, bool], nn.Module] | None = None,
        average: bool = False,
        resized: tuple[int, int] | None = None,
    ) -> None:
        """Make the stages."""
        super().__init__()
        image = input_shape[1:]
        if pool and min(image) >> len(stages) < 1:
            raise ValueError(f"an image of {image[0]}x{image[1]} cannot be halved {len(stages)} times")
        self.stem = stem
        self.stages, self.ends = nn.ModuleList(), nn.ModuleList()
        self.levels: list[Level] = []
        total = stride * (max(1, image[0] // resized[0]) if resized else 1)
        size = tuple(-(-side // stride) for side in resized or image)
        for number, stage in enumerate(stages):
            size, total = tuple(-(-side // stage.stride) for side in size), total * stage.stride
            shapes = [(width if i == 0 else stage.width, stage.width, stage.stride if i == 0 else 1) for i in range(stage.blocks)]
            if pool:
                size, total = tuple(side // 2 for side in size), total * 2
            width = stage.width
            self.stages.append(nn.Sequential(*[block(*shape) for shape in shapes]))
            self.levels.append(Level(width, size, total))
            self.ends.append(end(self.levels[-1], number == len(stages) - 1) if end else nn.Identity())
        self.pool = pool(2) if pool else nn.Identity()
        self.average = GlobalAvgPool2d() if average else None
        if average:
            self.levels.append(Level(width, (1, 1), max(image)))

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the features of every stage, each ``[T, B, C, H, W]``, and the averaged ones ``[T, B, C, 1, 1]``."""
        found, x = [], self.stem(x)
        for number, (stage, end) in enumerate(zip(self.stages, self.ends, strict=True)):
            x = stage(x)
            seen = end(x)
            found.append(self.pool(seen))
            if seen is x:
                x = found[-1]
            elif number < len(self.stages) - 1:
                x = self.pool(x)
        return found if self.average is None else [*found, self.average(found[-1])]


def spiking_ends(strides: Sequence[int], parts: Parts) -> Callable[[Level, bool], nn.Module]:
    """Return the ``end`` of a network whose blocks pass currents on: neurons where a head looks, at ``strides`` or at the last level."""

    def end(level: Level, last: bool) -> nn.Module:
        return parts.neuron(level.channels) if (level.stride in strides if strides else last) else nn.Identity()

    return end
