"""Tables of ``harness.report.table`` as templates show them: the same texts to the last digit, each with the number to sort by.

Everything here is plain text and numbers; escaping is the templates' work.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from urllib.parse import quote

from harness.metrics import MISSING, format_value
from harness.report.site.runs import Runs
from harness.report.table import Row, Table
from harness.report.table.table import OPTIMAL, VERIFIED

BUDGETS = ("paper", "laptop", "smoke")


@dataclass(frozen=True)
class Head:
    """A heading: its text, what it means, and whether its column sorts by numbers (and which end is the better)."""

    text: str
    note: str = ""
    numeric: bool = False
    descending: bool = False  # larger is better: the first click brings the largest to the top
    filters: bool = False  # the column has few values, and a menu to choose one
    minor: bool = False  # left out where the window is narrow
    wide: bool = False  # sentences
    style: str = ""  # a further class of the style sheet: line (never broken), roomy, hidden (only to filter by, and to search in)


@dataclass(frozen=True)
class Cell:
    """A text, what stands beside it smaller (``± 0.3``), the number or text to sort by, and where it leads."""

    text: str
    beside: str = ""
    order: str = ""
    href: str = ""
    marks: tuple[tuple[str, str], ...] = ()  # signs behind the text, each with its meaning
    style: str = ""  # a class of the style sheet: holds, direction, fails, unknown
    command: str = ""  # folded away below the text, to be copied


@dataclass(frozen=True)
class Grid:
    """A table of a page."""

    heads: list[Head]
    lines: list[list[Cell]]


def number(value: float | None) -> str:
    """Return a number with all its digits, as cells keep it to be sorted by; empty where there is none, and they come last."""
    return "" if value is None or math.isnan(value) else repr(float(value))


def grid(table: Table, families: Mapping[str, str], pages: Mapping[str, str], root: str, compared: bool = False) -> Grid:
    """Return a table as ``spikebench table`` prints it, with families of methods; ``compared`` as with ``--against``.

    ``pages``: method -> file name of its page. ``root``: where the site's root is from the page, e.g. ``"../"``.
    """
    if not compared:
        table = replace(table, rows=[replace(row, base=None, p=None) for row in table.rows])
    texts, lines = table.cells()
    fixed = 4 if table.contested else 3  # columns before those of metrics
    heads = [Head("method"), Head("family", "of the method's card", filters=True, minor=True)]
    heads += [Head("n", "seeds that finished", True, True), Head("rank", "1 + methods that are significantly better", True)]
    heads += [Head(text, m.description, True, m.direction == "higher") for text, m in zip(texts[fixed:], table.metrics, strict=False)]
    heads += [Head(text) for text in texts[fixed + len(table.metrics) :]]
    found = []
    for row, line in zip(table.rows, lines, strict=True):
        name = method_of(row)
        href = f"{root}methods/{pages[name]}.html" if name in pages else ""
        cells = [
            Cell(row.label, order=row.label, href=href, marks=_marks(row, table.contested)),
            Cell(families.get(name, ""), order=families.get(name, "")),
        ]
        cells += [Cell(line[1], order=line[1], href=runs_link(table, row, root)), Cell(line[2], order=number(row.rank))]
        for text, m in zip(line[fixed:], table.metrics, strict=False):
            value, _, beside = text.partition(" ")
            cells.append(Cell(value, beside, number(row.mean(m.name))))
        cells += [Cell(text, order=text) for text in line[fixed + len(table.metrics) :]]
        found.append(cells)
    return Grid(heads, found)


def _marks(row: Row, contested: bool) -> tuple[tuple[str, str], ...]:
    marks = [(OPTIMAL, "Pareto-optimal: see below the table")] if row.optimal and contested else []
    return (*marks, *([(VERIFIED, "checked by `spikebench verify`: see below the table")] if row.verified else []))


def method_of(row: Row) -> str:
    """Return the name of the method without its options."""
    return row.runs[0]["method"] if row.runs else row.label.partition("[")[0].partition("@")[0]


def runs_link(table: Table, row: Row, root: str) -> str:
    """Return where the runs of a row are listed."""
    chosen = {"label": row.label, **{name: table.about[name] for name in ("task", "budget", "track")}}
    return f"{root}runs.html#" + "&".join(f"{name}={quote(str(value), safe='')}" for name, value in chosen.items())


def provenance(table: Table, runs: Runs) -> str:
    """Return what the runs of a table were made with: versions and commits, and when."""
    found = [runs.by_key[run["key"]] for row in table.rows for run in row.runs if run["key"] in runs.by_key]
    if not found:
        return ""
    versions = {name: sorted({run.versions[name] for run in found if name in run.versions}) for name in ("torch", "python")}
    parts = [f"{name} {', '.join(values)}" for name, values in versions.items() if values]
    commits = sorted({run.commit[:8] for run in found if run.commit})
    parts.append(
        f"commits {', '.join(commits[:4])}{f' and {len(commits) - 4} more' if len(commits) > 4 else ''}" if commits else "no commit"
    )
    days = sorted({run.started[:10] for run in found})
    parts.append(days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}")
    return f"{len(found)} runs; " + "; ".join(parts)


def leaders(table: Table) -> list[Row]:
    """Return the rows that share the first rank; the best row where ranks cannot be told."""
    first = [row for row in table.rows if row.rank == 1]
    best = [row for row in table.rows if row.mean("test_accuracy") is not None]
    return first or best[:1]


def overview(tables: Sequence[Table], task_pages: Mapping[str, str]) -> Grid:
    """Return a line per table: what it is about, how many methods and runs it has, and the best figure with all that share its rank."""
    heads = [
        Head("task"),
        Head("suite", filters=True, style="hidden"),  # the task's name has it
        Head("budget", "how much a run may spend", filters=True),
        Head("track", "matched: settings shared by all; recipe: each method's own", filters=True, minor=True),
        Head("device", filters=True, minor=True, style="roomy"),
        Head("methods", "rows of the table; options make rows of their own", True, True, minor=True),
        Head("runs", "that finished", True, True, minor=True),
        Head("best", "mean over seeds of the task's main metric", style="line"),
        Head("first rank", "methods that no other beats significantly, by their figure", wide=True),
    ]
    lines = []
    for place, table in enumerate(tables):
        a = table.about
        suite = a["task"].partition("/")[0]
        device = f"{a['device']}, {a['precision']}, {a['threads']} thread{'s' if a['threads'] != 1 else ''}"
        href = f"tasks/{task_pages[a['task']]}.html#t{place}"
        first = leaders(table)
        best = _best(table)
        names = ", ".join(row.label for row in first[:4]) + (f" and {len(first) - 4} more" if len(first) > 4 else "")
        runs = sum(len(row.runs) for row in table.rows)
        cells = [
            Cell(a["task"], order=a["task"], href=href),
            *(Cell(text, order=text) for text in (suite, a["budget"], a["track"], device)),
        ]
        cells += [Cell(str(len(table.rows)), order=number(len(table.rows))), Cell(str(runs), order=number(runs))]
        cells += [Cell(best, table.main.title if best != MISSING else "", best), Cell(names or MISSING, order=names)]
        lines.append(cells)
    return Grid(heads, lines)


def _best(table: Table) -> str:
    """Return the text of the best mean of the main metric, which is in every table of the site."""
    means = [value for row in table.rows if (value := row.mean("test_accuracy")) is not None and math.isfinite(value)]
    if not means:
        return MISSING
    return format_value(table.main, max(means) if table.main.direction == "higher" else min(means))


def ordered(tables: Iterable[Table]) -> list[Table]:
    """Return tables by task, and those of a task with the largest budget first; else in the order that they come in."""
    budgets = {name: place for place, name in enumerate(BUDGETS)}
    return sorted(tables, key=lambda table: (str(table.about["task"]), budgets.get(table.about["budget"], len(budgets))))


def by_task(tables: Sequence[Table]) -> dict[str, list[tuple[int, Table]]]:
    """Return task -> its tables with their places, which are their names on pages."""
    found: dict[str, list[tuple[int, Table]]] = {}
    for place, table in enumerate(tables):
        found.setdefault(table.about["task"], []).append((place, table))
    return found
