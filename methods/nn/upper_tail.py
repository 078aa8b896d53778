"""Any quantile of a stream of activations near the top, from one pass.

A search over the quantile that normalises a network asks for many of them on the same images; only the largest values are kept for it::

    tail = UpperTail(lowest=0.95, most=images * neurons)
    tail.add(activations)
    tail.quantile(0.999)

Quantiles are of all values, zeros included, with linear interpolation (as ``torch.quantile``); ``methods.nn.calibration.Percentile`` has
one percentile, of the positive values only.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


class UpperTail:
    """The largest values of a layer, or of each of its channels; values are ``[T, B, C, ...]``."""

    def __init__(self, lowest: float, most: int, per_channel: bool = False) -> None:
        """Prepare for quantiles from ``lowest`` to 1 of at most ``most`` values (per channel)."""
        self.lowest, self.count, self.per_channel = lowest, 0, per_channel
        self._keep = math.ceil(most * (1 - lowest)) + 2
        self._largest: Tensor | None = None  # [rows, kept], falling

    def add(self, values: Tensor) -> None:
        """Add values."""
        rows = values.transpose(0, 2).flatten(1) if self.per_channel else values.reshape(1, -1)
        self.count += rows.shape[1]
        largest = rows.topk(min(self._keep, rows.shape[1])).values
        if self._largest is not None:
            largest = torch.cat([self._largest, largest], 1)
            largest = largest.topk(min(self._keep, largest.shape[1])).values
        self._largest = largest

    def quantile(self, q: float) -> Tensor:
        """Return the quantile: a scalar, or one per channel ``[C]``; raise ValueError for one below ``lowest`` or without values."""
        if self._largest is None or not self.lowest <= q <= 1:
            given = "no values" if self._largest is None else f"quantile {q:g}"
            raise ValueError(f"{given} given; a quantile from {self.lowest:g} to 1 of some values is needed")
        rank = (1 - q) * (self.count - 1)  # from the top
        above = math.floor(rank)
        share = rank - above
        found = self._largest[:, above] * (1 - share)
        if share:
            found = found + self._largest[:, above + 1] * share
        return found if self.per_channel else found[0]
