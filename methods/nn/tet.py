"""Temporal efficient training (TET): the mean over time of the losses at each step, in place of the loss of the mean over time."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor


def tet(outputs: Tensor, targets: Tensor, loss: Callable[[Tensor, Tensor], Tensor], share: float = 0.0, target: float = 1.0) -> Tensor:
    """Return ``(1 - share) mean_t loss(outputs[t], targets) + share mean (outputs - target)^2``.

    ``outputs [T, B, classes]``, ``targets [B]``; ``loss`` is a mean over samples. Source: "Temporal Efficient Training of Spiking Neural
    Network via Gradient Re-weighting" (Deng et al., ICLR 2022).
    """
    errors = loss(outputs.flatten(0, 1), targets.repeat(len(outputs)))
    return (1 - share) * errors + share * (outputs - target).square().mean() if share else errors
