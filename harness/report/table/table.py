"""One comparison table: what it is about, its rows, its columns, and the same cells for every format."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from harness.metrics import MISSING, Metric, Scale, format_value, scale_for
from harness.record import STATUSES
from harness.report.formats import block
from harness.report.table.row import Row

# What makes a table: name -> path in the record.
GROUP = {
    "task": "spec.task",
    "track": "spec.track",
    "budget": "spec.budget",
    "device": "environment.device",
    "kind": "environment.device_kind",
    "precision": "spec.precision",
    "threads": "spec.threads",
}
SPREADS = ("deviation", "interval")  # what stands beside a mean: ± the standard deviation, or the bootstrap interval of the mean
OPTIMAL, VERIFIED = "*", "✓"


@dataclass
class Table:
    """One table: what it is about, its rows (best first), its columns, and the methods that are not in it, with the reason."""

    about: dict[str, Any]
    rows: list[Row]
    metrics: list[Metric]
    reasons: dict[str, str]
    main: Metric  # main metric of the task
    spread: str = "deviation"  # one of ``SPREADS``
    costs: Sequence[Metric] = ()  # besides the main metric, what decides which rows are Pareto-optimal

    @property
    def title(self) -> str:
        """Return what the table is about, in one line."""
        a = self.about
        where = f"{a['device']} ({a['kind']}, {a['precision']}, threads {a['threads']})"
        return f"{a['task']}, {a['budget']} budget, {a['track']} track, on {where}"

    @property
    def contested(self) -> bool:
        """Return whether there are two rows to tell which is Pareto-optimal."""
        return sum(row.optimal is not None for row in self.rows) > 1

    def cells(self) -> tuple[list[str], list[list[str]]]:
        """Return headings and rows of text."""
        compared = any(row.base for row in self.rows)
        columns = [self.column(m) for m in self.metrics]
        heads = ["method", "n", "rank", *(["Pareto"] if self.contested else []), *(head for head, _ in columns)]
        heads += [f"{self.main.title}, difference to"] if compared else []
        lines = []
        for place, row in enumerate(self.rows):
            label = f"{row.label} {VERIFIED}" if row.verified else row.label
            line = [label, str(len(row.runs)), MISSING if row.rank is None else str(row.rank)]
            line += [OPTIMAL if row.optimal else ""] if self.contested else []
            line += [texts[place] for _, texts in columns]
            lines.append([*line, self._difference(row)] if compared else line)
        return heads, lines

    def column(self, m: Metric) -> tuple[str, list[str]]:
        """Return the heading of a metric with the unit that all rows share, and the text of each row."""
        means = [row.mean(m.name) for row in self.rows]
        scale = scale_for(m, means)
        texts = [self._cell(row, m, mean, scale) for row, mean in zip(self.rows, means, strict=True)]
        return f"{m.title} {f'[{scale.unit}] ' if scale.unit else ''}{'↑' if m.direction == 'higher' else '↓'}", texts

    def _cell(self, row: Row, m: Metric, mean: float | None, scale: Scale) -> str:
        def number(value: float | None, deviation: float | None = None) -> str:
            return format_value(m, value, deviation, scale=scale).removesuffix(f" {scale.unit}")

        text = number(mean, row.deviation(m.name) if self.spread == "deviation" else None)
        ends = row.interval(m.name) if self.spread == "interval" and mean is not None else None
        if ends is not None:
            text += f" [{number(ends[0])}, {number(ends[1])}]"
        base = row.base.mean(m.name) if row.base else None  # what is a share is compared by its difference
        return text + (f" ({mean / base:.2f}x)" if mean is not None and base and base > 0 and m.unit != "fraction" else "")

    def _difference(self, row: Row) -> str:
        mean, base = row.mean("test_accuracy"), row.base.mean("test_accuracy") if row.base else None
        if row.base is None or mean is None or base is None:
            return MISSING
        percent = self.main.unit == "fraction"
        text = f"{100 * (mean - base):+.2f} points" if percent else f"{mean - base:+.4g}"
        return f"{row.base.label}: {text}" + (f" (p = {row.p:.3f})" if row.p is not None else "")

    def notes(self) -> list[str]:
        """Return a line for every method that failed or cannot do the task."""
        failed = [
            f"{row.label}: {count} run(s) {status} ({STATUSES.get(status, 'unknown status')})"
            for row in self.rows
            for status, count in row.failures.items()
        ]
        return failed + [f"{label}: cannot run here: {' '.join(reason.split())}" for label, reason in self.reasons.items()]

    def legend(self) -> list[str]:
        """Return a line for every mark in the cells: what it means."""
        names = [self.main.title, *(m.title for m in self.costs)]
        mark = f"Pareto {OPTIMAL}: no other row is at least as good in {' and '.join(names)}, and better in one"
        lines = [mark] if self.contested else []
        if any(row.verified for row in self.rows):
            lines.append(f"{VERIFIED}: every record of the row was checked by `spikebench verify`, and is as it was then")
        return lines

    def render(self, style: str = "terminal", width: int | None = None) -> str:
        """Return the table as text in one of ``FORMATS`` (but csv, for which see ``render``); ``width`` as for ``formats.block``."""
        heads, lines = self.cells()
        return block(self.title, heads, lines, [*self.legend(), *self.notes()], style, width=width)


def render(tables: Sequence[Table], style: str, width: int | None = None) -> str:
    """Return all tables as text.

    In csv they are one: a line per row, with means and standard deviations in the metrics' own units and all digits, and the ends of 95 %
    intervals if a table's spread is the interval.
    """
    if style != "csv":
        return "\n\n".join(table.render(style, width) for table in tables)
    columns = list(dict.fromkeys(m.name for table in tables for m in table.metrics))
    ends = any(table.spread == "interval" for table in tables)
    parts = ("", "_std", "_low", "_high") if ends else ("", "_std")
    fixed = ("method", "n", "failed", "rank", "pareto", "verified", "against", "p")
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")  # None is an empty cell
    writer.writerow([*GROUP, *fixed, *(f"{name}{part}" for name in columns for part in parts)])
    for table in tables:
        for row in table.rows:
            against = row.base.label if row.base else None
            optimal = None if row.optimal is None else str(row.optimal).lower()
            line = [row.label, len(row.runs), sum(row.failures.values()), row.rank, optimal, str(row.verified).lower(), against, row.p]
            for name in columns:
                line += [row.mean(name), row.deviation(name), *((row.interval(name) or (None, None)) if ends else ())]
            writer.writerow([*table.about.values(), *line])
    return text.getvalue().rstrip("\n")
