"""One row of a comparison table: a method, its runs, and their figures over seeds."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass, field
from typing import Any

from harness.statistics import Runs, interval


@dataclass
class Row:
    """A method in a table: the runs of one label and one set of settings, which differ in nothing but the seed."""

    label: str
    runs: list[dict[str, Any]]  # records with status ok, one per seed
    failures: dict[str, int] = field(default_factory=dict)  # status -> number of runs
    found: Runs = field(default_factory=lambda: Runs({}, {}))  # main metric per seed, and which items were right
    base: Row | None = None  # the row that it is compared with, if one is asked for and there
    p: float | None = None  # of the paired test against ``base``; not corrected for the number of rows
    rank: int | None = None  # 1 + number of methods in the table that are significantly better; None where that cannot be tested
    optimal: bool | None = None  # whether it is Pareto-optimal in its table; None where it has not all figures that decide
    verified: bool = False  # whether ``spikebench verify`` has checked the record of every run, as it is now

    def values(self, name: str) -> list[float]:
        """Return the values of a metric over seeds; those not measured are left out."""
        return [run[name] for run in self.runs if run[name] is not None]

    def mean(self, name: str) -> float | None:
        """Return the mean over seeds; None where a seed has no value (a missing cell makes an average missing)."""
        values = self.values(name)
        return statistics.fmean(values) if values and len(values) == len(self.runs) else None

    def deviation(self, name: str) -> float | None:
        """Return the standard deviation over seeds (n - 1); None for fewer than two."""
        values = self.values(name)
        if len(values) > 1 and len(set(values)) == 1 and math.isfinite(values[0]):
            return 0.0  # what the next line gives too, at length
        return statistics.stdev(values) if len(values) > 1 else None

    def interval(self, name: str) -> tuple[float, float] | None:
        """Return the 95 % bootstrap interval of the mean over seeds; None for fewer than three finite values."""
        values = self.values(name)
        return interval(values) if all(map(math.isfinite, values)) else None
