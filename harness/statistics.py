"""Which differences mean something: intervals, paired tests, corrections and ranks, from what records hold.

Two methods that were run on one task with the same seeds are compared in pairs, twice::

    over items    do the two answer the same test items rightly? The sign-flip permutation test of the differences per item, summed over
                  seeds; with one seed that is McNemar's test. Exact, of whole numbers: no random draw (see ``sign_flip``)
    over seeds    paired t-test of the figures per seed, from three seeds on

A difference counts when both say so (the larger p value decides): it must hold for other test items and for other seeds. P values of all
pairs of a table are corrected by Holm's method. The rank of a method is 1 plus the number of methods that are significantly better, so
methods that cannot be told apart share a rank.

Sources: McNemar, Psychometrika 12, 1947 (exact: Fagerland, Lydersen, Laake, BMC Medical Research Methodology 13:91, 2013); Dietterich,
Neural Computation 10, 1998, for its use on classifiers; Fisher, The Design of Experiments, 1935, for the permutation test; Holm,
Scandinavian Journal of Statistics 6, 1979; Efron and Tibshirani, An Introduction to the Bootstrap, 1993.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np

ALPHA = 0.05
RESAMPLES = 9999  # of a bootstrap
EXACT = 20_000  # sum of the differences of items up to which the permutation test is exact
CELLS = 1_000_000  # numbers that are held at a time


@dataclass(frozen=True)
class Runs:
    """What the seeds of a method found: seed -> figure, and seed -> correctness of each test item (empty where items are no measure)."""

    figures: Mapping[int, float]
    correct: Mapping[int, Any]  # a list or array of bools each


def interval(values: Sequence[float], level: float = 0.95) -> tuple[float, float] | None:
    """Return the bootstrap interval of the mean (bias-corrected, accelerated); None for fewer than three values.

    Few seeds give a rough interval, and equal values give one of no width.
    """
    if len(values) < 3:
        return None
    if len(set(values)) == 1:
        return values[0], values[0]
    found = np.asarray(values, float)
    size, mean = len(found), found.mean()
    drawn = found[np.random.default_rng(0).integers(0, size, (RESAMPLES, size))].mean(1)
    normal = NormalDist()
    below = float(np.mean(drawn < mean) + np.mean(drawn <= mean)) / 2
    bias = normal.inv_cdf(min(max(below, 1 / RESAMPLES), 1 - 1 / RESAMPLES))
    pulls = found - mean  # proportional to those of the means that lack one value each
    pulls /= np.abs(pulls).max()
    acceleration = (pulls**3).sum() / (6 * (pulls**2).sum() ** 1.5)
    ends = [bias + normal.inv_cdf(part) for part in ((1 - level) / 2, (1 + level) / 2)]
    low, high = np.quantile(drawn, [normal.cdf(bias + end / (1 - acceleration * end)) for end in ends])
    return float(low), float(high)


def sign_flip(counts: np.ndarray, sums: np.ndarray) -> np.ndarray:
    """Return the two-sided p values of permutation tests of paired differences that are whole numbers.

    ``counts [P, K]`` says of how many items the difference is 1, 2 ... K (either sign), ``sums [P]`` what all differences sum to. If signs
    are random, a sum T has the characteristic function prod_k cos(k u)^counts_k and is N = sum_k k counts_k or less by an even number, so
    the finite Fourier sum over u_j = pi j / M, M > N, gives P(|T| < |sum|) exactly (errors are those of floating point, about 1e-12).
    Beyond ``EXACT`` = N, T is taken for normal, with continuity correction: then the two differ by less than 1e-4.
    """
    counts, reached = np.asarray(counts, np.int64), np.abs(np.asarray(sums, np.int64))
    size = counts @ np.arange(1, counts.shape[1] + 1)
    found = np.ones(len(counts))
    large = (size > EXACT) & (reached > 0)
    variance = counts[large] @ np.arange(1, counts.shape[1] + 1) ** 2
    found[large] = [math.erfc(x) for x in (reached[large] - 1) / np.sqrt(2 * variance)]
    places = np.flatnonzero((size <= EXACT) & (reached > 0))
    places = places[np.argsort(size[places])]  # like with like: the largest of a part says how many terms it takes
    while places.size:
        now = max(1, int(np.searchsorted(np.cumsum(size[places] + 1), CELLS)))
        found[places[:now]] = _inverted(counts[places[:now]], reached[places[:now]], int(size[places[:now]].max()))
        places = places[now:]
    return np.clip(found, 0.0, 1.0)


def _inverted(counts: np.ndarray, reached: np.ndarray, size: int) -> np.ndarray:
    """Return 1 - P(|T| < reached) by the Fourier sum; terms are the same around pi / 2, so half of them are added up twice."""
    points = 2 * (size // 2 + 1)
    u = np.pi * np.arange(points // 2 + 1) / points
    cosines = np.cos(np.outer(np.arange(1, counts.shape[1] + 1), u))
    cosines[np.abs(cosines) < 1e-300] = 1e-300
    characteristic = np.exp(counts @ np.log(np.abs(cosines)))
    characteristic *= 1 - 2 * ((counts % 2) @ (cosines < 0) % 2)
    weights = np.full(u.size, 2.0)
    weights[[0, -1]] = 1.0
    with np.errstate(invalid="ignore"):
        kernel = np.sin(np.outer(reached - 1, u)) / np.sin(u)
    kernel[:, 0] = reached - 1
    return 1 - (characteristic * kernel) @ weights / points


def over_items(one: Runs, other: Runs) -> float | None:
    """Return the p value of the comparison over test items; None where the runs share no seed or have no items to compare."""
    return _over_items([(one, other)])[0]


def _over_items(pairs: Sequence[tuple[Runs, Runs]]) -> list[float | None]:
    sums: dict[tuple, np.ndarray] = {}  # of rightly answered seeds, item by item

    def answered(runs: Runs, seeds: tuple[int, ...]) -> np.ndarray:
        if (id(runs), seeds) not in sums:
            sums[id(runs), seeds] = np.sum([np.asarray(runs.correct[seed], bool) for seed in seeds], axis=0, dtype=np.int32)
        return sums[id(runs), seeds]

    tested, counts, totals = [], [], []
    for place, (one, other) in enumerate(pairs):
        seeds = [seed for seed in one.correct if seed in other.correct and len(one.correct[seed]) == len(other.correct[seed]) > 0]
        seeds = [seed for seed in seeds if len(one.correct[seed]) == len(one.correct[seeds[0]])]
        if seeds:
            differences = answered(one, tuple(seeds)) - answered(other, tuple(seeds))
            tested.append(place)
            counts.append(np.bincount(np.abs(differences), minlength=len(seeds) + 1)[1:])
            totals.append(differences.sum())
    found: list[float | None] = [None] * len(pairs)
    if tested:
        table = np.zeros((len(tested), max(map(len, counts))), np.int64)
        for row, count in zip(table, counts, strict=True):
            row[: len(count)] = count
        for place, p in zip(tested, sign_flip(table, np.array(totals)), strict=True):
            found[place] = float(p)
    return found


def over_seeds(one: Runs, other: Runs) -> float | None:
    """Return the p value of the paired t-test over seeds; None for fewer than three shared seeds, or figures that are not finite."""
    return _over_seeds([(one, other)])[0]


def _over_seeds(pairs: Sequence[tuple[Runs, Runs]]) -> list[float | None]:
    from scipy.special import stdtr  # imported where it is needed: many reports test nothing

    shared = [[seed for seed in one.figures if seed in other.figures] for one, other in pairs]
    found: list[float | None] = [None] * len(pairs)
    for n in {len(seeds) for seeds in shared if len(seeds) > 2}:
        places = [place for place, seeds in enumerate(shared) if len(seeds) == n]
        table = np.array([[[runs.figures[seed] for seed in shared[place]] for runs in pairs[place]] for place in places], float)
        places = [place for place, finite in zip(places, np.isfinite(table).all((1, 2)), strict=True) if finite]
        differences = np.subtract(*table[np.isfinite(table).all((1, 2))].transpose(1, 0, 2))
        mean, level = differences.mean(1), np.ptp(differences, 1) == 0
        with np.errstate(divide="ignore", invalid="ignore"):  # no spread: the t statistic is 0/0 or infinite
            statistic = np.abs(mean) / (differences.std(1, ddof=1) / math.sqrt(n))
        p = np.where(level, np.where(mean == 0, 1.0, 0.0), 2 * stdtr(n - 1, -np.where(level, 0, statistic)))
        for place, value in zip(places, p, strict=True):
            found[place] = float(value)
    return found


def p_value(one: Runs, other: Runs) -> float | None:
    """Return the larger of the p values over items and over seeds; None if neither can be had."""
    found = [p for p in (over_items(one, other), over_seeds(one, other)) if p is not None]
    return max(found) if found else None


def holm(values: Sequence[float]) -> list[float]:
    """Return p values corrected for their number by Holm's step-down method, in the order given."""
    corrected, largest = [0.0] * len(values), 0.0
    for rank, place in enumerate(sorted(range(len(values)), key=lambda i: values[i])):
        largest = max(largest, min(1.0, values[place] * (len(values) - rank)))
        corrected[place] = largest
    return corrected


def ranks(runs: Sequence[Runs], higher: bool = True, alpha: float = ALPHA) -> list[int | None]:
    """Return the rank of each method; None for one without a finite figure, and for all if no pair can be tested.

    ``higher``: whether a larger figure is better.
    """
    means = [float(np.mean(list(each.figures.values()))) if each.figures else math.nan for each in runs]
    pairs = [(i, j) for i in range(len(runs)) for j in range(i) if math.isfinite(means[i]) and math.isfinite(means[j])]
    found = _p_values([(runs[i], runs[j]) for i, j in pairs], alpha)
    tested = [(i, j, p) for (i, j), p in zip(pairs, found, strict=True) if p is not None]
    if pairs and not tested:
        return [None] * len(runs)
    better = [0] * len(runs)
    for (i, j, _), p in zip(tested, holm([p for *_, p in tested]), strict=True):
        if p < alpha:
            better[i if (means[i] < means[j]) == higher else j] += 1
    return [1 + count if math.isfinite(mean) else None for mean, count in zip(means, better, strict=True)]


def _p_values(pairs: Sequence[tuple[Runs, Runs]], alpha: float) -> list[float | None]:
    """Return ``p_value`` of each pair where it is below ``alpha``; of others perhaps a smaller one that is not below ``alpha`` either.

    A pair that the seeds do not tell apart is not tested over items: neither can p values that are alpha or more become significant by
    Holm's method, which never lowers any, nor do they change what becomes of smaller ones, which only their number does.
    """
    found = _over_seeds(pairs)
    left = [place for place, p in enumerate(found) if p is None or p < alpha]
    for place, p in zip(left, _over_items([pairs[place] for place in left]), strict=True):
        found[place] = max((each for each in (found[place], p) if each is not None), default=None)
    return found
