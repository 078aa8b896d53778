"""The matrix of a synapse, cut into the tiles that crossbars hold.

A weight ``[K, C, ...]`` is a matrix of ``C * (taps)`` rows, the inputs, in the order of ``unfold``, and K columns, the outputs; a
convolution of g groups is g matrices. Tiles are ``size x size``; those at the edges are smaller (ours). Currents of tiles above each other
are added digitally.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor


def as_matrices(weight: Tensor, groups: int = 1) -> Tensor:
    """Return ``[groups, rows, columns]`` of a synapse's ``weight [K, C / groups, ...]``."""
    return weight.flatten(1).unflatten(0, (groups, -1)).mT


def as_weight(matrices: Tensor, like: Tensor) -> Tensor:
    """Return matrices ``[groups, rows, columns]`` as a weight of the shape, type and layout of ``like``."""
    return torch.empty_like(like).copy_(matrices.mT.reshape(like.shape))


def tilewise(cells: Tensor, size: int, change: Callable[[Tensor], Tensor]) -> Tensor:
    """Return ``cells [..., rows, columns]`` with each tile changed by ``change([tiles, rows, columns]) -> same shape``."""
    found = torch.empty_like(cells)
    for above, height in _spans(cells.shape[-2], size):
        for left, width in _spans(cells.shape[-1], size):
            part = cells[..., above, left].unflatten(-2, (-1, height)).unflatten(-1, (-1, width)).transpose(-3, -2)
            changed = change(part.reshape(-1, height, width)).view(part.shape)
            found[..., above, left] = changed.transpose(-3, -2).flatten(-2).flatten(-3, -2)
    return found


def _spans(length: int, size: int) -> list[tuple[slice, int]]:
    """Return the places that whole tiles take, and those of the rest, with the length of a tile in each."""
    whole = length // size * size
    spans = [(slice(0, whole), size), (slice(whole, length), length - whole)]
    return [(places, side) for places, side in spans if places.start < places.stop]


def count_tiles(cells: Tensor, size: int) -> int:
    """Return into how many tiles ``cells [..., rows, columns]`` are cut."""
    return cells[..., 0, 0].numel() * -(-cells.shape[-2] // size) * -(-cells.shape[-1] // size)


def by_tile(rows: Tensor, size: int, dim: int = -2) -> Tensor:
    """Return ``rows`` with dimension ``dim`` (negative) cut into ``[tiles, size]``, padded with zeros at the end."""
    padding = [0, 0] * (-dim - 1) + [0, -rows.shape[dim] % size]
    return F.pad(rows, padding).unflatten(dim, (-1, size))
