"""Random changes of training recordings, on frames ``[B, T, P, H, W]`` where that is the same as on events, and much faster.

On frames: dropping events (each one on its own, so a count n becomes binomial), noise events, moving and mirroring the picture. These equal
the same change of the events followed by framing in windows of time; with windows of equal counts, the windows stay those of the
unchanged recording. On events, which are then framed again: jitter of the times, since frames do not know where in a window an event was.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


def generator_like(generator: torch.Generator, device: torch.device) -> torch.Generator:
    """Return a generator for ``device``, seeded by the next number of ``generator``."""
    return torch.Generator(device).manual_seed(int(torch.randint(2**62, (), generator=generator)))


def dropped(frames: Tensor, probability: float, generator: torch.Generator) -> Tensor:
    """Return ``frames`` (counts) without each event with ``probability``."""
    return torch.binomial(frames, torch.full_like(frames, 1 - probability), generator=generator_like(generator, frames.device))


def noisy(frames: Tensor, events: int, generator: torch.Generator) -> Tensor:
    """Return ``frames [B, ...]`` with ``events`` more events per sample, each at a random step, polarity and pixel."""
    flat = frames.flatten(1)
    random = generator_like(generator, frames.device)
    places = torch.randint(flat.shape[1], (len(flat), events), generator=random, device=frames.device)
    return flat.scatter_add(1, places, torch.ones_like(places, dtype=flat.dtype)).view_as(frames)


def slid(frames: Tensor, most: int, generator: torch.Generator) -> Tensor:
    """Return ``frames [B, T, C]``, each sample moved by its own whole number of channels in ``[-most, most]``."""
    channels = frames.shape[2]
    offset = torch.randint(0, 2 * most + 1, (len(frames), 1, 1), generator=generator)
    source = (offset + torch.arange(channels)).to(frames.device).expand(*frames.shape)
    return F.pad(frames, (most, most)).gather(2, source)


def mirrored(frames: Tensor, generator: torch.Generator) -> Tensor:
    """Return ``frames``, each sample mirrored left to right with probability 1/2, all its steps alike."""
    chosen = torch.rand(len(frames), generator=generator).to(frames.device) < 0.5
    return torch.where(chosen.view(-1, *[1] * (frames.dim() - 1)), frames.flip(-1), frames)


def jittered(events: np.ndarray, deviation: float, random: np.random.Generator) -> np.ndarray:
    """Return ``events`` with normal noise of ``deviation`` microseconds on their times, in order again, within the recording's time."""
    moved = events.copy()
    noise = np.rint(random.normal(0.0, deviation, len(events))).astype(np.int64)
    moved["t"] = np.clip(events["t"] + noise, events["t"][0], events["t"][-1])
    return moved[np.argsort(moved["t"], kind="stable")]
