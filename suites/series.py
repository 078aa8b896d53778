"""Series of numbers made into arrays of one length: padded at the front, or resampled.

A series is ``[C, L]`` with a length of its own; a network sees ``[N, T, C]``. Answers are read after the last step, so what is too short is
padded at the front, where it does least harm::

    scale = Scale.of(training)                       # mean and deviation per channel, of training data only
    inputs = padded(scale(series), length=29)        # [N, 29, C]
    inputs = padded([resampled(each, 365) for each in scale(series)], 365)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Series = np.ndarray  # [C, L]


@dataclass(frozen=True)
class Scale:
    """Mean and standard deviation of every channel ``[C]``; calling it normalises series."""

    mean: np.ndarray
    deviation: np.ndarray

    @classmethod
    def of(cls, series: Sequence[Series]) -> Scale:
        """Return the statistics over all values of ``series``; a channel that never changes gets the deviation 1."""
        values = np.concatenate(series, axis=1)
        deviation = values.std(axis=1)
        constant = deviation <= 1e-12 * np.abs(values).max(axis=1, initial=1.0)
        return cls(values.mean(axis=1), np.where(constant, 1.0, deviation))

    def __call__(self, series: Sequence[Series]) -> list[Series]:
        """Return the series, each channel less its mean over its deviation."""
        return [(each - self.mean[:, None]) / self.deviation[:, None] for each in series]


def padded(series: Sequence[Series], length: int) -> np.ndarray:
    """Return ``[N, length, C]`` in 32-bit floats, zeros put before what is shorter.

    Raises ValueError for a series that is longer than ``length``.
    """
    found = np.zeros((len(series), length, series[0].shape[0] if series else 0), dtype=np.float32)
    for row, each in zip(found, series, strict=True):
        if each.shape[1] > length:
            raise ValueError(f"a series of {each.shape[1]} steps does not fit into {length}")
        row[length - each.shape[1] :] = each.T
    return found


def resampled(series: Series, length: int) -> Series:
    """Return ``[C, length]``: the means of ``length`` equal parts of ``series [C, L]``, each value taken to last one step.

    Parts need not begin with a step: of a step that two parts share, each counts its share. So no frequency folds down as it would if
    values were picked, the mean is kept exactly, and a multiple of L repeats every value.
    """
    steps = series.shape[1]
    total = np.concatenate([np.zeros((len(series), 1)), np.cumsum(series, axis=1, dtype=np.float64)], axis=1)
    borders = np.arange(length + 1) * (steps / length)
    before = np.stack([np.interp(borders, np.arange(steps + 1), each) for each in total])
    return np.diff(before, axis=1) * (length / steps)


def rank_in_class(labels: np.ndarray) -> np.ndarray:
    """Return for each sample how many of its class ``labels [N]`` come before it."""
    ranks = np.zeros(len(labels), dtype=np.int64)
    for label in np.unique(labels):
        places = np.flatnonzero(labels == label)
        ranks[places] = np.arange(len(places))
    return ranks
