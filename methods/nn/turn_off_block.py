"""A residual block of turn-off neurons without normalisation, in the shape of ConvNeXt's.

::

    B(v) = v + gamma * DW2(PW2(spike(PW1(DW1(spike(v))))))

DW are depthwise convolutions of ``kernel`` x ``kernel``, PW1 and PW2 1x1 convolutions with standardised weights, to ``expansion`` times the
channels and back; gamma is a learnt number per channel, or 1. ``fold`` takes it into DW2, and the standardisation into the weights.
Source: "High-Performance Temporal Reversible Spiking Neural Networks" (Hu et al., ICML 2024), by its official code.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from methods.nn.scaled_std_conv import ScaledStdConv2d
from methods.nn.synapse import Conv2d
from methods.nn.turn_off import TurnOff


def depthwise(channels: int, kernel: int) -> Conv2d:
    """Return a depthwise convolution with bias that keeps the size; weights truncated normal of deviation 0.02."""
    conv = Conv2d(channels, channels, kernel, padding=kernel // 2, groups=channels)
    nn.init.trunc_normal_(conv.weight, std=0.02)
    nn.init.zeros_(conv.bias)
    return conv


def way_back(channels: int, kernel: int, expansion: int = 4) -> nn.Sequential:
    """Return PW2 and DW2 of a block; several blocks may have the same."""
    return nn.Sequential(ScaledStdConv2d(expansion * channels, channels, 1), depthwise(channels, kernel))


class TurnOffBlock(nn.Module):
    """One block on ``[T, B, C, H, W]``; see the module's docstring.

    ``gamma``: where it starts; None: there is none. ``back``: PW2 and DW2 (``way_back``) that are shared with other blocks; None: its own.
    """

    def __init__(self, channels: int, kernel: int, expansion: int = 4, gamma: float | None = None, back: nn.Module | None = None) -> None:
        """Make the block."""
        super().__init__()
        self.outer, self.inner = TurnOff(), TurnOff()
        self.depthwise, self.pointwise = depthwise(channels, kernel), ScaledStdConv2d(channels, expansion * channels, 1)
        self.back = back if back is not None else way_back(channels, kernel, expansion)
        self.gamma = None if gamma is None else nn.Parameter(torch.full((channels,), float(gamma)))

    def forward(self, v: Tensor) -> Tensor:
        """Return the stream after the block."""
        branch = self.back(self.inner(self.pointwise(self.depthwise(self.outer(v)))))
        return v + (branch if self.gamma is None else branch * self.gamma[:, None, None])

    @torch.no_grad()
    def fold(self) -> None:
        """Take gamma into DW2 and the standardisation into the weights."""
        self.pointwise.fold()
        self.back[0].fold()
        if self.gamma is not None:
            last = self.back[1]
            last.weight.mul_(self.gamma[:, None, None, None])
            last.bias.mul_(self.gamma)
            self.gamma = None
