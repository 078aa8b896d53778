"""A claim and what came of it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from harness.metrics import METRICS, MISSING, format_value
from harness.plugin import EXPECTED, Claim

VERDICTS = {
    "holds": "measured as claimed: the paper's figure, or its property, is there",
    "direction holds": "the whole interval on the claimed side of no difference; the figure is another, or the setting is",
    "does not hold": "measured as claimed, and neither",
    "not seen here": "measured elsewhere (another task, smaller, other T), or the interval leaves it open: no refutation",
    "not measured": "no such runs among the records, or nothing that records could show",
}
HOLDS, DIRECTION, FAILS, UNSEEN, UNKNOWN = VERDICTS


@dataclass(frozen=True)
class Finding:
    """A claim and what came of it. ``measured`` and ``low``, ``high`` (the interval, if there is one) are in the unit of the claim."""

    method: str  # or probe
    claim: Claim
    verdict: str  # one of ``VERDICTS``
    measured: float | None = None
    low: float | None = None
    high: float | None = None
    n: int = 0  # seeds
    where: str = ""  # task, budget, track, T, device and code of the measurement
    reason: str = ""  # what of that is not the paper's setting, or why there is no measurement
    command: str = ""  # what measures it, or would
    keys: tuple[str, ...] = ()  # of the records that it was measured on

    @property
    def label(self) -> str:
        """Return the method with the options that the claim is about."""
        return self.claim.variant or self.method

    @property
    def about(self) -> str:
        """Return what the claim is about, in one line: metric, setting, task and what it is compared with."""
        claim = self.claim
        where = "" if claim.task == "any" else f" ({claim.task})"
        against = f", against {claim.against}" if claim.against else ""
        what = "" if claim.figure else f"{METRICS[claim.metric].title}: "  # a figure of a report or probe: its setting names it
        return f"{what}{claim.setting}{where}{against}"

    @property
    def paper_text(self) -> str:
        """Return the paper's figure, or what its property expects, as a person reads it."""
        return self.claim.expect or "in words" if self.claim.value is None else self._shown(self.claim.value)

    @property
    def measured_text(self) -> str:
        """Return our figure with its interval; a dash where nothing was measured."""
        if self.measured is None:
            return MISSING
        ends = "" if self.low is None or self.high is None else f" [{self._shown(self.low)}, {self._shown(self.high)}]"
        return self._shown(self.measured) + ends

    def _shown(self, value: float) -> str:
        if not math.isfinite(value):
            return MISSING
        metric, reading = METRICS[self.claim.metric], reading_of(self.claim)
        if reading == "ratio":
            return f"{value:.3g}x"
        if reading == "difference":
            return f"{100 * value:+.2f} points" if metric.unit == "fraction" else f"{value:+.4g}"
        if self.claim.figure:
            return f"{value:.4g}"
        return format_value(metric, value) if value <= 1 or metric.unit != "fraction" else f"{value:g}"


def reading_of(claim: Claim) -> str:
    """Return how measurements for a claim are to be read: ``value``, ``ratio`` or ``difference``. Shares are compared by differences."""
    if claim.kind != "property":
        return claim.kind
    expected = EXPECTED.fullmatch(claim.expect)
    if expected and expected["bound"]:
        return "value"
    return "difference" if METRICS[claim.metric].unit == "fraction" else "ratio"
