"""One thing compared: what it is, both figures, and what follows. ``REGRESSIONS`` are the statuses that fail."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

Kind = Literal["exact", "timed", "tested"]

STATUSES: dict[str, str] = {
    "worse": "a figure that no noise touches, or a test over items and seeds, says so",
    "slower": "slower by more than threshold and noise, in every pair of processes",
    "failed": "the base can do it, the head cannot",
    "changed": "results differ and no figure is worse",
    "unmeasured": "neither side could do it, or the base could not",
    "unconfirmed": "seemed slower or faster, and in fresh processes did not",
    "better": "a figure is better and none of its case is worse",
    "faster": "faster by more than threshold and noise, in every pair of processes",
    "new": "only the head can do it",
    "same": "no difference, or none beyond threshold and noise",
}
REGRESSIONS = ("worse", "slower", "failed")


@dataclass
class Finding:
    """What came of comparing one metric of one case."""

    case: str  # "static/digits: stbp", "core lif"
    metric: str
    kind: Kind  # compared exactly, timed by turns, or tested over the seeds of records
    status: str
    base: float | str | None  # None: not measured there
    head: float | str | None
    unit: str = ""
    threshold: float | None = None  # relative change that is let pass; of fractions such as accuracy the difference
    change: float | None = None  # relative change from base to head, or of fractions the difference
    interval: tuple[float, float] | None = None  # of the relative change, 95 %
    p: float | None = None  # of being no slower (of "faster": no faster)
    delta: float | None = None  # Cliff's delta: share of pairs in which the head is slower, minus those in which it is faster
    n: int = 0  # seeds, or rounds
    direction: str = "lower"  # which values are better
    note: str = ""

    @property
    def worsening(self) -> float:
        """Return the change, positive where the head is worse; 0 where there is none to tell."""
        return (self.change or 0.0) * (1 if self.direction == "lower" else -1)


@dataclass
class Outcome:
    """All findings of a comparison, and what was compared."""

    base: dict[str, Any]
    head: dict[str, Any]
    findings: list[Finding]
    notes: list[str] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0

    def failing(self) -> list[Finding]:
        """Return the findings that are regressions, changes among them unless they are only to be reported."""
        fail = (*REGRESSIONS, "changed") if self.settings.get("changed", "fail") == "fail" else REGRESSIONS
        return [each for each in self.findings if each.status in fail]

    @property
    def exit_status(self) -> int:
        """Return 1 with a regression, 2 if something could not be measured or nothing be compared, else 0."""
        if self.failing():
            return 1
        statuses = {each.status for each in self.findings}
        return 2 if "unmeasured" in statuses or statuses <= {"new"} else 0
