"""Damage to event frames ``[T, B, P, H, W]`` (counts per step, polarity and pixel): noise events, lost events, missing frames.

    kinds["noise"](frames, 0.02, generator)

Each is a function of frames, a strength in [0, 1] and a generator on the frames' device, that leaves the frames as they are. Protocols:
ours, for the claim of robustness to noise and incomplete data of the SCTFA paper, whose own were not found.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

Corruption = Callable[[Tensor, float, torch.Generator], Tensor]


def noise(frames: Tensor, probability: float, generator: torch.Generator | None = None) -> Tensor:
    """Return ``frames`` with one more event at each step and pixel with ``probability``, of a random polarity."""
    shape = (*frames.shape[:2], 1, *frames.shape[3:])
    fired = torch.rand(shape, generator=generator, device=frames.device) < probability
    polarity = torch.randint(frames.shape[2], shape, generator=generator, device=frames.device)
    return frames.scatter_add(2, polarity, fired.to(frames.dtype))


def loss(frames: Tensor, probability: float, generator: torch.Generator) -> Tensor:
    """Return ``frames`` without each event with ``probability``; events are lost one by one, so a count becomes binomial."""
    return torch.binomial(frames, torch.full_like(frames, 1 - probability), generator=generator)


def blank(frames: Tensor, fraction: float, generator: torch.Generator) -> Tensor:
    """Return ``frames`` without the events of ``round(fraction * T)`` successive steps, begun anywhere, for each sample its own."""
    steps, batch = frames.shape[:2]
    length = round(fraction * steps)
    start = torch.randint(steps - length + 1, (batch,), generator=generator, device=frames.device)
    time = torch.arange(steps, device=frames.device).unsqueeze(1)
    gone = (time >= start) & (time < start + length)
    return frames.masked_fill(gone.view(steps, batch, *[1] * (frames.dim() - 2)), 0)


kinds: Mapping[str, Corruption] = {"noise": noise, "loss": loss, "blank": blank}


def area(strengths: list[float], scores: list[float]) -> float:
    """Return the mean score over the range of ``strengths``, by the trapezoid rule: the area under the curve, in units of the score."""
    pairs = list(zip(strengths, scores, strict=True))
    whole = sum((b - a) * (y + z) / 2 for (a, y), (b, z) in zip(pairs, pairs[1:], strict=False))
    return whole / (strengths[-1] - strengths[0])
