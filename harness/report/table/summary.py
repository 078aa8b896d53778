"""One table per suite: rows are methods, columns the tasks' main metrics with ranks, and each method's mean rank over tasks.

Made of the tables that ``build`` gives; only those of one budget, track, device and precision come together. A mean rank is over the tasks
on which the method has a rank; methods with more tasks stand first, since mean ranks over other tasks are no match for each other.
"""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from harness.metrics import MISSING
from harness.report.formats import block
from harness.report.table.row import Row
from harness.report.table.table import GROUP, VERIFIED, Table


@dataclass
class Summary:
    """The tables of one suite that were made under the same conditions, one per task."""

    suite: str
    about: dict[str, Any]  # as of ``Table``, without the task
    tables: list[Table]

    @property
    def title(self) -> str:
        """Return what the table is about, in one line."""
        a = self.about
        where = f"{a['device']} ({a['kind']}, {a['precision']}, threads {a['threads']})"
        return f"suite {self.suite}, {a['budget']} budget, {a['track']} track, on {where}"

    def labels(self) -> list[str]:
        """Return the methods: those with ranks on most tasks first, then by their mean ranks."""

        def place(label: str) -> tuple[int, float, str]:
            ranks = self.ranks(label)
            return -len(ranks), statistics.fmean(ranks) if ranks else 0.0, label

        return sorted({row.label for table in self.tables for row in table.rows}, key=place)

    def row(self, label: str, table: Table) -> Row | None:
        """Return a method's row in the table of one task; None where it has none."""
        return next((row for row in table.rows if row.label == label), None)

    def ranks(self, label: str) -> list[int]:
        """Return the ranks of a method on the tasks where it has one."""
        found = [self.row(label, table) for table in self.tables]
        return [row.rank for row in found if row is not None and row.rank is not None]

    def cells(self) -> tuple[list[str], list[list[str]]]:
        """Return headings and rows of text; behind each figure its rank, and the number of runs where it is not the same in all."""
        columns = [(table, *table.column(table.main)) for table in self.tables]
        texts = {id(row): text for table, _, shown in columns for row, text in zip(table.rows, shown, strict=True)}
        heads = ["method", "n", *(f"{table.about['task'].split('/', 1)[-1]}: {head}" for table, head, _ in columns), "tasks", "mean rank ↓"]
        lines = []
        for label in self.labels():
            found = [self.row(label, table) for table in self.tables]
            runs = sorted({len(row.runs) for row in found if row is not None and row.runs}) or [0]
            figures = [MISSING if row is None or not row.runs else f"{texts[id(row)]} ({row.rank or MISSING})" for row in found]
            ranks = self.ranks(label)
            checked = all(row.verified for row in found if row is not None and row.runs) and any(row and row.runs for row in found)
            line = [f"{label} {VERIFIED}" if checked else label, "-".join(map(str, dict.fromkeys((runs[0], runs[-1]))))]
            mean = f"{statistics.fmean(ranks):.2f}" if ranks else MISSING
            lines.append([*line, *figures, f"{len(ranks)}/{len(self.tables)}", mean])
        return heads, lines

    def render(self, style: str, width: int | None = None) -> str:
        """Return the table as text in one of ``FORMATS`` but csv; ``width`` as for ``formats.block``."""
        heads, lines = self.cells()
        legend = ["in parentheses: the rank on the task; mean rank: over the tasks on which the method has one"]
        legend += [line for line in dict.fromkeys(line for table in self.tables for line in table.legend()) if line.startswith(VERIFIED)]
        return block(self.title, heads, lines, legend, style, width=width)


def summarise(tables: Sequence[Table]) -> list[Summary]:
    """Return one summary per suite and conditions, in the order of the tables."""
    found: dict[tuple, Summary] = {}
    for table in tables:
        suite = table.about["task"].split("/")[0]
        about = {name: value for name, value in table.about.items() if name != "task"}
        found.setdefault((suite, *about.values()), Summary(suite, about, [])).tables.append(table)
    return list(found.values())


def render_summaries(summaries: Sequence[Summary], style: str, width: int | None = None) -> str:
    """Return all summaries as text; in csv a line per method and task, with the means in the metrics' own units and all digits."""
    if style != "csv":
        return "\n\n".join(summary.render(style, width) for summary in summaries)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    conditions = [name for name in GROUP if name != "task"]
    writer.writerow(["suite", *conditions, "task", "metric", "method", "n", "mean", "std", "rank", "verified", "tasks", "mean_rank"])
    for summary in summaries:
        for label in summary.labels():
            ranks = summary.ranks(label)
            for table in summary.tables:
                row, name = summary.row(label, table), table.main.name
                if row is not None:
                    figures = [len(row.runs), row.mean(name), row.deviation(name), row.rank, str(row.verified).lower()]
                    overall = [len(ranks), statistics.fmean(ranks) if ranks else None]
                    writer.writerow(
                        [summary.suite, *summary.about.values(), table.about["task"], table.main.title, label, *figures, *overall]
                    )
    return text.getvalue().rstrip("\n")
