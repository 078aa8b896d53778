"""What probes found (``harness.report.probes``), as the pages of probes show it: figures as ``spikebench table --probe`` prints them."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from harness.metrics import MISSING
from harness.report.probes import ProbeTable, shown
from harness.report.site.leaderboard import Cell, Grid, Head, number


def by_probe(tables: Sequence[ProbeTable]) -> dict[str, list[ProbeTable]]:
    """Return name of a probe, without options -> its tables."""
    found: dict[str, list[ProbeTable]] = {}
    for table in tables:
        found.setdefault(table.name, []).append(table)
    return found


def grid(table: ProbeTable, pages: Mapping[str, str], root: str) -> Grid:
    """Return a line per method and what its figures are about: means over seeds beside their deviation."""
    texts, numbers = table.columns()
    heads = [Head("method"), Head("n", "seeds", True, True)]
    heads += [Head(_title(table, name), filters=True) for name in texts] + [Head(_title(table, name), numeric=True) for name in numbers]
    lines = []
    for line in table.lines:
        name = line.label.partition("[")[0].partition("@")[0]
        cells = [Cell(line.label, order=line.label, href=f"{root}methods/{pages[name]}.html" if name in pages else "")]
        cells.append(Cell(str(line.runs), order=number(line.runs)))
        cells += [Cell(text, order=text) for text in (line.about.get(name, MISSING) for name in texts)]
        for values in (line.figures.get(name, []) for name in numbers):
            value, sign, beside = shown(values).partition(" ± ")
            cells.append(Cell(value, f"± {beside}" if sign else "", number(statistics.fmean(values) if values else None)))
        lines.append(cells)
    return Grid(heads, lines)


def _title(table: ProbeTable, name: str) -> str:
    return table.headings.get(name, name.replace("_", " "))
