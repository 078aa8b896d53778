"""The NF-ResNets for ImageNet: a 7x7 stem with average pooling and no neurons, four stages of normaliser-free blocks, spikes at the end.

::

    x = avgpool3x3_stride2(conv7x7_stride2(image))        blocks of methods.nn.nf_block, strides 1, 2, 2, 2, 64 to 512 channels
    features = mean over space of LIF(x / beta)           beta: the deviation that is expected after the last block

Depths 34, 50 and 101. Sources: for 34 "Online Training Through Time for Spiking Neural Networks" (Xiao et al., NeurIPS 2022), by its
official code; "Towards Memory- and Time-Efficient Backpropagation for Training Spiking Neural Networks" (Meng et al., ICCV 2023) has the
same, and 50 and 101, whose bottleneck blocks are reconstructed from "Characterizing signal propagation to close the performance gap in
unnormalized ResNets" (Brock et al., ICLR 2021). Stochastic depth, off by default, rises linearly with depth as in that paper; the branches
that are left are scaled up here (``methods.nn.drop_path``).
"""

from __future__ import annotations

import math
from collections.abc import Collection

from torch import Tensor, nn

from methods.nn.backbones import Level
from methods.nn.nf_block import NormaliserFreeBlock
from methods.nn.parts import Parts
from methods.nn.residual import DEPTHS
from methods.nn.staged_resnet import Stage, StagedResNet
from methods.nn.synapse import AvgPool2d

WIDTH = 64


class Shrunk(nn.Module):
    """``neuron(x / beta)``: spikes of a current that is first brought to the standard deviation 1 that is expected of it."""

    def __init__(self, beta: float, neuron: nn.Module) -> None:
        """Keep ``beta``."""
        super().__init__()
        self.beta, self.neuron = beta, neuron

    def forward(self, x: Tensor) -> Tensor:
        """Return the spikes of ``x [T, B, C, H, W]``."""
        return self.neuron(x / self.beta)

    def extra_repr(self) -> str:
        """Return the settings for printing."""
        return f"beta={self.beta:.4g}"


class DeepNormaliserFreeResNet(StagedResNet):
    """``[T, B, C, H, W] -> one level per stage`` (strides 4, 8, 16, 32) ``and the mean over space``, which a classifier reads.

    ``depth`` is "34", "50" or "101" layers, or the blocks of each stage (basic ones). ``stochastic_depth``: the chance with which the last
    block's branch would be left out, for a block in the middle half of it. Levels at ``strides``, where heads look, and the last are
    spikes. Raises ValueError for an input that is no image and an unknown depth.
    """

    def __init__(
        self,
        input_shape: tuple[int, ...],
        depth: str | tuple[int, ...],
        parts: Parts,
        stochastic_depth: float = 0.0,
        strides: Collection[int] = (),
    ) -> None:
        """Make stem and stages from the sWS synapses and neurons of ``parts``."""
        if len(input_shape) != 3:
            raise ValueError(f"a residual network is for images [C, H, W], not for samples of shape {list(input_shape)}")
        if isinstance(depth, str) and depth not in DEPTHS:
            raise ValueError(f"a residual network of {depth} layers is unknown; allowed: {', '.join(DEPTHS)}")
        counts, bottleneck = DEPTHS[depth] if isinstance(depth, str) else (depth, False)
        expected = [1.0]  # variance after the stem and after each block
        total = sum(counts)

        def block(features_in: int, features_out: int, stride: int) -> nn.Module:
            drop = stochastic_depth * (len(expected) - 1) / total
            made = NormaliserFreeBlock(features_in, features_out, stride, expected[-1], parts, bottleneck, drop)
            expected.append(made.variance_out)
            return made

        def end(level: Level, last: bool) -> nn.Module:
            if not last and level.stride not in strides:
                return nn.Identity()
            return Shrunk(math.sqrt(expected[-1]), parts.neuron(level.channels))

        widths = [WIDTH * 2**number * (4 if bottleneck else 1) for number in range(len(counts))]
        stages = tuple(Stage(width, count, 2 if number else 1) for number, (width, count) in enumerate(zip(widths, counts, strict=True)))
        stem = nn.Sequential(parts.conv(input_shape[0], WIDTH, 7, 2, first=True), AvgPool2d(3, 2, 1))
        super().__init__(input_shape, stem, WIDTH, stages, block, stride=4, end=end, average=True)
