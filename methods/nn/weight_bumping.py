"""``WeightBumping``: Fast & Deep's remedy for neurons that do not fire.

A silent neuron has no spike time to differentiate. So where the fraction of missing spikes of a layer, over the neurons and samples of
a batch, exceeds its limit, the gradient step is skipped, and a bump is added to all weights of the neurons of the first such layer that
missed a spike for any sample of the batch. The bump starts at ``FIRST`` and doubles as long as the same layer stays in need.

Source: "Fast and energy-efficient neuromorphic deep learning with first-spike times" (Goeltz, Kriener et al., 2021), its code.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

FIRST = 5e-4


class WeightBumping:
    """Looks at the spikes of a batch and bumps weights where too many are missing."""

    def __init__(self, limits: Sequence[float]) -> None:
        """Take the largest fraction of missing spikes of each layer."""
        self.limits = tuple(limits)
        self.needy: int | None = None  # the layer that was bumped last, if nothing was well since
        self.size = FIRST
        self.bumps = 0  # batches spent so

    @torch.no_grad()
    def __call__(self, times: Sequence[Tensor], weights: Sequence[Tensor]) -> bool:
        """Return whether a layer needed a bump, which it has got.

        ``times``: spike times ``[B, M, K]`` of each layer, inf where there is none; ``weights [M, N]`` of each.
        """
        for place, (found, weight, limit) in enumerate(zip(times, weights, self.limits, strict=True)):
            missing = found[:, :, 0].isinf()
            if missing.float().mean() > limit:
                self.size = 2 * self.size if place == self.needy else FIRST
                self.needy = place
                weight[missing.any(0)] += self.size
                self.bumps += 1
                return True
        self.needy = None
        return False
