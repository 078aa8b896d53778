"""Which differences mean something: intervals, paired tests, corrections and ranks, from what records hold.

Two methods that were run on one task with the same seeds are compared in pairs, twice::

    over items    do the two answer the same test items rightly? With one seed this is McNemar's test (exact for few disagreements);
                  with several, the sign-flip permutation test of the differences per item, averaged over seeds
    over seeds    paired t-test of the figures per seed, from three seeds on

A difference counts when both say so (the larger p value decides): it must hold for other test items and for other seeds. P values of all
pairs of a table are corrected by Holm's method. The rank of a method is 1 plus the number of methods that are significantly better, so
methods that cannot be told apart share a rank.

Sources: McNemar, Psychometrika 12, 1947 (exact: Fagerland, Lydersen, Laake, BMC Medical Research Methodology 13:91, 2013); Dietterich,
Neural Computation 10, 1998, for its use on classifiers; Holm, Scandinavian Journal of Statistics 6, 1979; Efron and Tibshirani,
An Introduction to the Bootstrap, 1993.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

ALPHA = 0.05
FEW = 25  # disagreements up to which McNemar's test is exact
FLIPS = 9999  # random sign flips of a permutation test
RESAMPLES = 9999  # of a bootstrap


@dataclass(frozen=True)
class Runs:
    """What the seeds of a method found: seed -> figure, and seed -> correctness of each test item (empty where items are no measure)."""

    figures: Mapping[int, float]
    correct: Mapping[int, Sequence[bool]]


def interval(values: Sequence[float], level: float = 0.95) -> tuple[float, float] | None:
    """Return the bootstrap interval of the mean (bias-corrected, accelerated); None for fewer than three values.

    Few seeds give a rough interval, and equal values give one of no width.
    """
    if len(values) < 3:
        return None
    if len(set(values)) == 1:
        return values[0], values[0]
    from scipy.stats import bootstrap  # takes a while to import

    found = bootstrap((list(values),), np.mean, confidence_level=level, n_resamples=RESAMPLES, method="BCa", rng=np.random.default_rng(0))
    low, high = found.confidence_interval
    return float(low), float(high)


def mcnemar(one: Sequence[bool], other: Sequence[bool]) -> float:
    """Return McNemar's two-sided p value for two answers to the same items: that they are right equally often.

    Exact (binomial) up to ``FEW`` items that one answered rightly and the other wrongly, else chi-squared with continuity correction.
    Raises ValueError if the items are not as many.
    """
    from scipy.stats import binomtest, chi2

    first, second = np.asarray(one, bool), np.asarray(other, bool)
    if first.shape != second.shape:
        raise ValueError(f"{first.size} items cannot be paired with {second.size}")
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    count = only_first + only_second
    if count == 0:
        return 1.0
    if count <= FEW:
        return float(binomtest(only_first, count, 0.5).pvalue)
    return float(chi2.sf((abs(only_first - only_second) - 1) ** 2 / count, 1))


def over_items(one: Runs, other: Runs) -> float | None:
    """Return the p value of the comparison over test items; None where the runs share no seed or have no items to compare."""
    seeds = [seed for seed in one.correct if seed in other.correct and len(one.correct[seed]) == len(other.correct[seed]) > 0]
    if not seeds:
        return None
    if len(seeds) == 1:
        return mcnemar(one.correct[seeds[0]], other.correct[seeds[0]])
    difference = np.mean([np.asarray(one.correct[s], float) - np.asarray(other.correct[s], float) for s in seeds], axis=0)
    difference = difference[difference != 0]
    if not difference.size:
        return 1.0
    random = np.random.default_rng(0)
    wanted, reached = abs(difference.sum()) - 1e-9, 0
    for start in range(0, FLIPS, 1000):  # in parts, for memory
        signs = random.integers(0, 2, (min(1000, FLIPS - start), difference.size), dtype=np.int8) * 2 - 1
        reached += int((np.abs(signs @ difference) >= wanted).sum())
    return (1 + reached) / (1 + FLIPS)


def over_seeds(one: Runs, other: Runs) -> float | None:
    """Return the p value of the paired t-test over seeds; None for fewer than three shared seeds."""
    shared = [seed for seed in one.figures if seed in other.figures]
    differences = np.array([one.figures[seed] - other.figures[seed] for seed in shared])
    if len(differences) < 3:
        return None
    if np.ptp(differences) == 0:  # no spread: the t statistic is 0/0 or infinite
        return 1.0 if differences[0] == 0 else 0.0
    from scipy.stats import ttest_1samp

    return float(ttest_1samp(differences, 0).pvalue)


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
    """Return the rank of each method; None for one without a figure, and for all if no pair can be tested.

    ``higher``: whether a larger figure is better.
    """
    means = [float(np.mean(list(each.figures.values()))) if each.figures else math.nan for each in runs]
    pairs = [(i, j) for i in range(len(runs)) for j in range(i) if not (math.isnan(means[i]) or math.isnan(means[j]))]
    tested = [(i, j, p) for i, j in pairs if (p := p_value(runs[i], runs[j])) is not None]
    if pairs and not tested:
        return [None] * len(runs)
    better = [0] * len(runs)
    for (i, j, _), p in zip(tested, holm([p for *_, p in tested]), strict=True):
        if p < alpha:
            better[i if (means[i] < means[j]) == higher else j] += 1
    return [None if math.isnan(mean) else 1 + count for mean, count in zip(means, better, strict=True)]
