"""Residual networks that normalise and spike before they convolve, with a shortcut that branches off after the first spikes.

A block of a current ``x``, with neurons ``SN`` and normalisations ``N``::

    h = SN(N(x))
    y = conv3x3(dropout(SN(N(conv3x3_stride(h))))) + shortcut     shortcut: x, or conv1x1_stride(h) where the shape changes

The stem is a 3x3 convolution without neurons; after the last block come N, SN and the mean over space. With blocks (2, 2, 2, 2) and widths
64, 128, 256, 512 it is the pre-activation ResNet-18 for CIFAR of "Towards Memory- and Time-Efficient Backpropagation for Training Spiking
Neural Networks" (Meng et al., ICCV 2023), by its official code, whose 4x4 average pooling is the mean over space at 32x32 pixels.
"""

from __future__ import annotations

from collections.abc import Collection

from torch import Tensor, nn

from methods.nn.backbones import Level
from methods.nn.dropout import SequenceDropout
from methods.nn.parts import Parts
from methods.nn.staged_resnet import Stage, StagedResNet


class PreActivationBlock(nn.Module):
    """One block ``[T, B, C, H, W] -> [T, B, C', H / stride, W / stride]`` (rounded up); currents in, currents out."""

    def __init__(self, features_in: int, features_out: int, stride: int, parts: Parts, dropout: float = 0.0) -> None:
        """Make branch and shortcut; ``dropout`` silences that share of the second neurons for a whole batch."""
        super().__init__()
        changes = stride != 1 or features_in != features_out
        self.first = nn.Sequential(parts.norm(features_in), parts.neuron(features_in))
        self.conv1 = parts.conv(features_in, features_out, 3, stride)
        self.second = nn.Sequential(parts.norm(features_out), parts.neuron(features_out), SequenceDropout(dropout))
        self.conv2 = parts.conv(features_out, features_out, 3)
        self.shortcut = parts.conv(features_in, features_out, 1, stride) if changes else None

    def forward(self, x: Tensor) -> Tensor:
        """Return the sum of branch and shortcut."""
        spikes = self.first(x)
        return self.conv2(self.second(self.conv1(spikes))) + (x if self.shortcut is None else self.shortcut(spikes))


class PreActivationResNet(StagedResNet):
    """``[T, B, C, H, W] -> one level per stage`` (strides 1, 2, 4, 8) ``and the mean over space``, which a classifier reads.

    Levels at ``strides``, where heads look, and the last are spikes; the others, which no head reads, are the currents between the stages.
    Raises ValueError for an input that is no image.
    """

    def __init__(
        self,
        input_shape: tuple[int, ...],
        parts: Parts,
        blocks: tuple[int, ...] = (2, 2, 2, 2),
        width: int = 64,
        dropout: float = 0.0,
        strides: Collection[int] = (),
    ) -> None:
        """Make a stage of so many ``blocks`` each, the first of ``width`` channels, later ones of twice as many as the one before."""
        if len(input_shape) != 3:
            raise ValueError(f"a residual network is for images [C, H, W], not for samples of shape {list(input_shape)}")

        def block(features_in: int, features_out: int, stride: int) -> nn.Module:
            return PreActivationBlock(features_in, features_out, stride, parts, dropout)

        def end(level: Level, last: bool) -> nn.Module:
            if not last and level.stride not in strides:
                return nn.Identity()
            return nn.Sequential(parts.norm(level.channels), parts.neuron(level.channels))

        stages = tuple(Stage(width * 2**number, count, 1 if number == 0 else 2) for number, count in enumerate(blocks))
        stem = parts.conv(input_shape[0], width, 3, first=True)
        super().__init__(input_shape, stem, width, stages, block, end=end, average=True)
