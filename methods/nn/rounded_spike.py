"""Integer spikes: ``S = clip(round(H), 0, N)``, the sum of N binary spikes ``b_j = [S > j]``, ``j = 0 .. N - 1``.

    fire = RoundedSpike(levels=4)          # N
    S = fire(H)                            # whole numbers 0..4; halves go to the even neighbour: 0.5 -> 0, 1.5 -> 2
    planes(S, 4).sum(0)                    # S again; a linear layer on S is the sum of that layer, without bias, on the planes

The gradient of rounding is taken as 1 for ``0 <= H <= N`` and 0 elsewhere (rect). Binary spikes (``levels=1``) may have a surrogate
gradient around their threshold of 1/2 instead. Source: "Parallel Training in Spiking Neural Networks" (Huang et al., 2026).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from methods.nn.surrogate import Surrogate


@dataclass(frozen=True)
class RoundedSpike:
    """``levels`` is N; ``surrogate`` a function of ``H - 1/2``, for N = 1 only, None for rect. Raises ValueError for what does not fit."""

    levels: int = 4
    surrogate: Surrogate | None = None

    def __post_init__(self) -> None:
        """Check."""
        if self.levels < 1:
            raise ValueError(f"levels is the largest spike, 1 or more, not {self.levels}")
        if self.surrogate is not None and self.levels != 1:
            raise ValueError(f"a surrogate is for binary spikes, levels=1, not {self.levels}; integer spikes have surrogate=None")

    def value(self, h: Tensor) -> Tensor:
        """Return the spikes of potentials ``h``; NaN stays NaN."""
        return h.round().clamp_(0, self.levels)

    def slope(self, h: Tensor) -> Tensor:
        """Return what stands for dS/dH."""
        if self.surrogate is None:
            return ((h >= 0) & (h <= self.levels)).to(h.dtype)
        return self.surrogate(h - 0.5)

    def __call__(self, h: Tensor) -> Tensor:
        """Return the spikes of ``h``, with ``slope`` as derivative."""
        return _Rounded.apply(h, self)


class _Rounded(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, h: Tensor, rule: RoundedSpike) -> Tensor:
        ctx.save_for_backward(h)
        ctx.rule = rule
        return rule.value(h)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0] * ctx.rule.slope(ctx.saved_tensors[0]), None


def planes(spikes: Tensor, levels: int) -> Tensor:
    """Return the binary spikes ``[levels, *spikes.shape]`` whose sum integer ``spikes`` are; NaN is in all of them."""
    if levels < 1 or not math.isfinite(levels):
        raise ValueError(f"levels is the largest spike, 1 or more, not {levels}")
    heights = torch.arange(levels, device=spikes.device, dtype=spikes.dtype).view(-1, *[1] * spikes.dim())
    return (spikes > heights).to(spikes.dtype).masked_fill_(spikes.isnan(), math.nan)
