"""Spikes as times: what event-driven layers exchange instead of sequences of 0 and 1.

A tensor ``times [B, ..., K]`` holds up to K spikes of every neuron, in seconds, earliest first; a slot without a spike is ``+inf``, and all
such slots come last. Neurons of dense layers are ``[B, N, K]``, those of images ``[B, C, H, W, K]``::

    times = latency(pixels, window=0.1)        # one spike per pixel, black pixels silent
    times = frame_times(frames, window=0.1)    # one spike per frame in which a pixel saw an event
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

SILENT = float("inf")


def latency(intensity: Tensor, window: float) -> Tensor:
    """Return the spikes ``[B, ..., 1]`` at ``window (1 - x)`` seconds of ``intensity [B, ...]`` in [0, 1]; where x <= 0 there is none.

    Source: latency code of "Exact Error Backpropagation Through Spikes..." (Bacho, Chu, 2022), with a window of 0.1 s.
    """
    return torch.where(intensity > 0, window * (1 - intensity), SILENT).unsqueeze(-1)


def frame_times(frames: Tensor, window: float) -> Tensor:
    """Return the spikes ``[B, ..., K]`` of event counts ``frames [T, B, ...]``: one at the middle of each frame with a count above 0.

    Frames share ``window`` seconds evenly. K is the largest number of such frames of one pixel, at least 1.
    """
    middles = (torch.arange(len(frames), device=frames.device, dtype=frames.dtype) + 0.5) * (window / len(frames))
    found = torch.where(frames > 0, middles.view(-1, *[1] * (frames.dim() - 1)), SILENT)
    return ordered(found.movedim(0, -1))


def ordered(times: Tensor) -> Tensor:
    """Return ``times [B, ..., K]`` sorted along K, without the slots that no neuron uses (at least one is left)."""
    return trimmed(times.sort(-1).values)


def trimmed(times: Tensor) -> Tensor:
    """Return sorted ``times [B, ..., K]`` without the last slots that no neuron uses; at least one is left."""
    used = int(torch.isfinite(times).sum(-1).max()) if times.numel() else 0
    return times[..., : max(used, 1)]


def merged(times: Tensor, dim: int) -> Tensor:
    """Return the trains along ``dim`` of ``times [..., M, ..., K]`` joined into one each, sorted: ``[..., M K]``.

    Differentiable: an error goes back to the slot that its time came from, by the permutation of the sort.
    """
    return times.movedim(dim, -2).flatten(-2).sort(-1).values


def fired(times: Tensor) -> Tensor:
    """Return 1 for each slot of ``times`` that has a spike, else 0, in the dtype of ``times``."""
    return torch.isfinite(times).to(times.dtype)


def first(times: Tensor) -> Tensor:
    """Return the first spike time ``[B, ...]`` of sorted ``times [B, ..., K]``; ``+inf`` for a silent neuron."""
    return times[..., 0]


def counts(times: Tensor, until: Tensor | None = None) -> Tensor:
    """Return the spikes of each neuron ``[B, ...]``, or those not later than each of the instants ``until [T]``: ``[T, B, ...]``."""
    if until is None:
        return fired(times).sum(-1)
    return torch.stack([(times <= instant).sum(-1).to(times.dtype) for instant in until])


class Events(NamedTuple):
    """The input spikes of each sample in the order of their times; samples with fewer than S are padded at the end."""

    times: Tensor  # [B, S], +inf where padded
    slot: Tensor  # [B, S], int64: position in the flattened ``[N * K]`` slots of the sample
    neuron: Tensor  # [B, S], int64: which of the N input neurons; 0 where padded


def events(times: Tensor, start: float = -SILENT, end: float = SILENT) -> Events:
    """Return the spikes of ``times [B, N, K]`` with ``start <= t < end``, sample by sample in order of time.

    S is the largest number of them in a sample (it may be 0). Spikes at one time keep the order of their neurons.
    """
    batch, _, slots = times.shape
    flat = times.detach().flatten(1)
    row, slot = ((flat >= start) & (flat < end)).nonzero(as_tuple=True)
    per_row = torch.bincount(row, minlength=batch)
    most = int(per_row.max()) if batch else 0
    place = torch.arange(len(row), device=row.device) - (per_row.cumsum(0) - per_row)[row]
    found = flat.new_full((batch, most), SILENT)
    found[row, place] = flat[row, slot]
    slots_of = slot.new_zeros(batch, most)
    slots_of[row, place] = slot
    found, order = found.sort(dim=1, stable=True)
    slots_of = slots_of.gather(1, order)
    return Events(found, slots_of, slots_of // slots)
