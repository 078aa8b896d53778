"""Verdicts. ``docs/claims.md`` states these rules in words; they are meant to be fair to papers: only a measurement as claimed can refute.

``ends`` are those of the interval over seeds; of figures that cannot vary by chance the smallest and largest; None for fewer than three
seeds, and then a direction needs every seed beyond the margin.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from harness.metrics import Metric
from harness.plugin import EXPECTED, Claim
from harness.report.claims.finding import DIRECTION, FAILS, HOLDS, UNSEEN, reading_of

CLOSE = 0.05  # relative, of ratios and values
POINT = 0.01  # of shares: a point, and half of one for values
ABOUT = 3  # times as far for ratios and values that the paper gives as "about"


def margin(claim: Claim, metric: Metric, of: float) -> float:
    """Return how far from ``of`` a figure may lie and still count as the same."""
    if metric.unit == "fraction" and reading_of(claim) != "ratio" and abs(of) <= 1:
        return POINT / 2 if claim.kind == "value" else POINT
    return (ABOUT if "about" in claim.setting else 1) * CLOSE * abs(of)


def verdict(claim: Claim, metric: Metric, values: Sequence[float], ends: tuple[float, float] | None, as_claimed: bool) -> str:
    """Return the verdict on values per seed, of a claim with a figure or one that expects more, less or a bound."""
    expected = EXPECTED.fullmatch(claim.expect) if claim.expect else None
    none = 1.0 if reading_of(claim) == "ratio" else 0.0
    if expected and expected["bound"]:
        met = all(_within(value, expected["bound"], float(expected["value"])) for value in values)
        return (HOLDS if met else FAILS) if as_claimed else (DIRECTION if met else UNSEEN)
    few = ends is None
    low, high = ends or (min(values), max(values))
    if expected:
        upward = expected["than"] in ("higher", "not lower")
        reach = margin(claim, metric, none) if few or expected["than"].startswith("not") else 0.0
        line = none - reach if upward == expected["than"].startswith("not") else none + reach
        met, refuted = (low > line, high < line) if upward else (high < line, low > line)
        if expected["than"].startswith("not"):
            met, refuted = (low >= line, high < line) if upward else (high <= line, low > line)
        return _said(met, refuted and not few, as_claimed, few)
    assert claim.value is not None
    return _figure(claim, metric, statistics.fmean(values), (low, high), few, as_claimed)


def _figure(claim: Claim, metric: Metric, mean: float, ends: tuple[float, float], few: bool, as_claimed: bool) -> str:
    """Return the verdict on a claim with a figure. Larger and smaller are turned so that more is better."""
    assert claim.value is not None
    sign = 1.0 if metric.direction == "higher" else -1.0
    value, none, reach = sign * claim.value, sign * (1.0 if claim.kind == "ratio" else 0.0), margin(claim, metric, claim.value)
    low, high = sorted((sign * ends[0], sign * ends[1]))
    mean *= sign
    reached = mean >= value - reach or low <= value <= high
    if claim.kind == "value":
        return _said(reached if as_claimed else low >= value - reach, not reached, as_claimed, few)
    slack = margin(claim, metric, abs(none)) if few else 0.0
    if value > none:  # a gain: that there is one is the direction
        gain = low > none + slack
        if as_claimed and not few and reached and gain:
            return HOLDS
        if gain:
            return DIRECTION
        return FAILS if as_claimed and not few and high < value and not reached else UNSEEN
    return _said(
        reached if as_claimed else low >= value - reach, high < value - reach and not few, as_claimed, few
    )  # a cost: no more than said


def _said(met: bool, refuted: bool, as_claimed: bool, few: bool) -> str:
    if met:
        return HOLDS if as_claimed and not few else DIRECTION
    return FAILS if refuted and as_claimed and not few else UNSEEN


def _within(value: float, word: str, bound: float) -> bool:
    if word == "equal":
        return math.isclose(value, bound, rel_tol=1e-9)
    return value <= bound * (1 + 1e-9) if word == "at most" else value >= bound * (1 - 1e-9)
