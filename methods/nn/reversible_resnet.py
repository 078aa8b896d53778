"""RevSResNet: a residual network whose stages are reversible sequences.

With SN neurons, BN normalisations and the halves ``[x1, x2]`` of the channels::

    stem   conv BN                                           currents
    stage  [x1, x2] -> blocks (methods.nn.reversible) -> [y1, y2],   f, g = SN conv3x3 BN SN conv3x3 BN
    next   SN average-pool conv1x1 BN                        between stages: an ordinary layer that keeps its activations
    end    SN average-pool

Spikes are made inside the branches and what is added are currents, so f and g are branches of ``methods.nn.membrane_block``.
Source: "Memory-Efficient Reversible Spiking Neural Networks" (Zhang, Zhang, AAAI 2024).
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from methods.nn.backbones import Level
from methods.nn.layer import Layer
from methods.nn.membrane_block import MembraneBlock
from methods.nn.parts import Parts
from methods.nn.residual import GlobalAvgPool2d
from methods.nn.reversible import ReversibleBlock, ReversibleSequence, halves, joined
from methods.nn.synapse import AvgPool2d


class RevSResNet(nn.Module):
    """Stem and reversible stages: ``[T, B, C, H, W]`` to the pooled spikes of every stage.

    ``stem`` gives currents of ``width`` channels at ``stride``; ``stages`` are (channels, blocks). ``average`` pools 3x3 with stride 2
    between stages and over all of space at the end (the paper's nets); otherwise every stage ends with 2x2 pooling. Raises ValueError for
    an odd number of channels, or an image too small for so many poolings.
    """

    def __init__(
        self,
        input_shape: tuple[int, ...],
        stem: nn.Module,
        width: int,
        stride: int,
        stages: Sequence[tuple[int, int]],
        parts: Parts,
        average: bool = False,
        reversible: bool = True,
    ) -> None:
        """Make the stages."""
        super().__init__()
        image = input_shape[1:]
        size, total = tuple(-(-side // stride) for side in image), stride
        if not average and min(size) >> len(stages) < 1:
            raise ValueError(f"an image of {image[0]}x{image[1]} cannot be halved {len(stages)} times")
        self.stem = stem
        self.stages = nn.ModuleList()
        self.levels: list[Level] = []
        for number, (features, blocks) in enumerate(stages):
            last = average and number == len(stages) - 1
            change: nn.Module = nn.Identity()
            if number or features != width:
                change = Layer(parts.conv(width, features, 1), parts.norm(features), nn.Identity())
            pool = GlobalAvgPool2d() if last else AvgPool2d(3, 2, 1) if average else parts.pool(2)
            self.stages.append(_Stage(features, blocks, change, pool, parts, reversible))
            size, total = tuple(-(-side // 2) if average else side // 2 for side in size), 2 * total
            self.levels.append(Level(features, (1, 1), max(image)) if last else Level(features, size, total))
            width = features

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the pooled spikes of every stage."""
        found, x = [], self.stem(x)
        for stage in self.stages:
            x = stage(x)
            found.append(x)
        return found


class _Stage(nn.Module):
    """A change of channels, reversible blocks, neurons, and a pooling."""

    def __init__(self, features: int, blocks: int, change: nn.Module, pool: nn.Module, parts: Parts, reversible: bool) -> None:
        super().__init__()
        if features % 2:
            raise ValueError(f"{features} channels cannot be split into two streams; allowed: even numbers")

        def branch() -> nn.Module:
            return MembraneBlock(features // 2, features // 2, 1, parts, zero_init=False).branch

        self.change, self.pool, self.neuron = change, pool, parts.neuron(features)
        self.blocks = ReversibleSequence([ReversibleBlock(branch(), branch()) for _ in range(blocks)], reversible)

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(self.neuron(joined(*self.blocks(*halves(self.change(x))))))
