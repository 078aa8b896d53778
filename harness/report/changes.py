"""Change points of a metric over commits: where its level changed by more than its noise.

    changes([Level(0.90, 0.01, 3), ...], higher=True)   # a list of Change: which point, from what, to what, better or worse

Noise is the larger of two estimates: of the seeds' spread within commits (over the root of their number), and of the differences between
neighbours (their median size, which a few changes do not touch). Where there is none (the seeds of every commit agree to the last digit,
or most neighbours do, or the metric is exact by what it is), every difference is a change. Else the series is cut by PELT with the sum of
absolute deviations from the median as its cost and at least two points in a part, so that one stray point is no change, however far it
lies; the penalty of a cut is such that of a hundred series of nothing but noise about two show one.

Sources: Killick, Fearnhead, Eckley, "Optimal detection of changepoints with a linear computational cost", JASA 107, 2012 (PELT);
Truong, Oudre, Vayatis, "Selective review of offline change point detection methods", Signal Processing 167, 2020 (ruptures).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

PENALTY = 6.0  # of a cut, in units of the noise
UNSURE = 20.0  # added over the number of points where the noise is known from neighbours alone
NORMAL = 1.4826  # standard deviation over median absolute deviation, of a normal distribution
FEWEST = 4  # points of a series with noise: two parts of two


@dataclass(frozen=True)
class Level:
    """The figure of one commit: mean and standard deviation over ``n`` seeds; ``floor``: noise of the mean that is known otherwise."""

    mean: float
    std: float | None
    n: int
    floor: float = 0.0


@dataclass(frozen=True)
class Change:
    """The level of a series changes with the point ``index``, the first of the new one."""

    index: int
    before: float  # mean of the points since the change before this one
    after: float  # mean of the points until the next
    better: bool

    @property
    def relative(self) -> float | None:
        """Return the change over the level before: 0.1 for a tenth more; None where that is zero."""
        return (self.after - self.before) / abs(self.before) if self.before else None


def noise(levels: Sequence[Level], exact: bool = False) -> tuple[float, bool]:
    """Return the standard deviation of a mean that nothing changed, and whether it is known from seeds.

    ``exact``: there is none, unless seeds say otherwise.
    """
    known = [level for level in levels if level.std is not None]
    spread = statistics.fmean((level.std or 0.0) ** 2 for level in known) ** 0.5 if known else None
    if spread == 0 or (exact and spread is None):  # seeds agree to the last digit: nothing is left to chance
        return 0.0, True
    steps = [abs(b.mean - a.mean) for a, b in zip(levels, levels[1:], strict=False)]
    jitter = NORMAL * statistics.median(steps) / math.sqrt(2) if steps else 0.0
    of_seeds = spread / math.sqrt(statistics.fmean(level.n for level in known)) if spread is not None else 0.0
    return max(jitter, of_seeds, statistics.median(level.floor for level in levels) if levels else 0.0), bool(known)


def changes(levels: Sequence[Level], higher: bool, exact: bool = False) -> list[Change]:
    """Return where the level changes, in order. Values must be finite.

    ``higher``: whether larger values are better; ``exact``: the metric has no noise by what it is.
    """
    values = [level.mean for level in levels]
    if len(values) < 2:
        return []
    size, from_seeds = noise(levels, exact)
    if size == 0:
        cuts = [i for i in range(1, len(values)) if values[i] != values[i - 1]]
    elif len(values) < FEWEST:
        cuts = []
    else:
        cuts = _cuts([value / size for value in values], PENALTY + (0.0 if from_seeds else UNSURE / len(values)))
    ends = [0, *cuts, len(values)]
    parts = [statistics.fmean(values[a:b]) for a, b in zip(ends, ends[1:], strict=False)]
    return [Change(cut, a, b, (b > a) == higher) for cut, a, b in zip(cuts, parts, parts[1:], strict=False)]


def _cuts(values: Sequence[float], penalty: float) -> list[int]:
    import numpy as np
    import ruptures  # takes a while to import

    signal = np.asarray(values, float)
    found = ruptures.Pelt(model="l1", min_size=2, jump=1).fit((signal - np.median(signal)).reshape(-1, 1))
    return [int(cut) for cut in found.predict(pen=penalty)[:-1]]
