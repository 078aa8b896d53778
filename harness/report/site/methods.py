"""What the page of a method shows: its card, its claims, its figures on every task, and its variants beside its baseline."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from harness.metrics import METRICS, MISSING, format_value
from harness.plugin import Card, UsageError
from harness.registry import Registries
from harness.report.claims import Finding
from harness.report.site.leaderboard import Cell, Grid, Head, grid, method_of, number, runs_link
from harness.report.table import Row, Table

PRINTED = ("saved_bytes", "step_time", "total_time", "spikes", "synops")


@dataclass(frozen=True)
class Results:
    """The rows of a method in all tables of one track, budget and device."""

    title: str
    grid: Grid


@dataclass(frozen=True)
class Ablation:
    """The variants of a method in one table, with the rows that they are compared with."""

    table: Table
    place: int  # of the table among those of the site
    grid: Grid


def cards(registries: Registries, recorded: Iterable[str]) -> dict[str, Card | None]:
    """Return the card of every method or probe that is here or in records, by name; None for one that is not here."""
    found: dict[str, Card | None] = dict.fromkeys(recorded)
    for registry in (registries.methods, registries.probes):
        for name in registry.names():
            try:
                found[name] = registry.card(name)
            except UsageError:  # a plugin that cannot be imported is as good as not here
                found.setdefault(name, None)
    return dict(sorted(found.items()))


def rows_of(method: str, tables: Sequence[Table]) -> list[tuple[int, Table, list[Row]]]:
    """Return the tables in which a method has rows, with their places and these rows."""
    found = [(place, table, [row for row in table.rows if method_of(row) == method]) for place, table in enumerate(tables)]
    return [each for each in found if each[2]]


def results(found: Sequence[tuple[int, Table, list[Row]]], task_pages: Mapping[str, str], root: str) -> list[Results]:
    """Return the figures of a method on every task, in tables that mix no track, budget or device."""
    groups: dict[str, list[list[Cell]]] = {}
    for place, table, rows in found:
        a = table.about
        where = f"{a['budget']} budget, {a['track']} track, {a['device']} ({a['kind']}, {a['precision']}, threads {a['threads']})"
        ranked = max((row.rank or 0 for row in table.rows), default=0)
        for row in rows:
            page = f"{root}tasks/{task_pages[a['task']]}.html#t{place}"
            rank = f"of {len(table.rows)}" if ranked and row.rank else ""
            cells = [Cell(a["task"], order=a["task"], href=page), Cell(row.label, order=row.label)]
            cells.append(Cell(str(len(row.runs)), order=number(len(row.runs)), href=runs_link(table, row, root)))
            cells.append(Cell(MISSING if row.rank is None else str(row.rank), rank, number(row.rank)))
            cells += [Cell(table.main.title, order=table.main.title), _figure(row, "test_accuracy", table)]
            cells += [_figure(row, name, table) for name in PRINTED]
            groups.setdefault(where, []).append(cells)
    return [Results(where, Grid(_heads(), lines)) for where, lines in groups.items()]


def _heads() -> list[Head]:
    heads = [Head("task", filters=True), Head("variant"), Head("n", "seeds that finished", True, True)]
    heads += [Head("rank", "1 + methods that are significantly better, of the rows of the task's table", True)]
    heads += [Head("metric", "main metric of the task", filters=True), Head("mean ± deviation", "over seeds", True, True)]
    return heads + [Head(f"{METRICS[name].title} ↓", METRICS[name].description, True) for name in PRINTED]


def _figure(row: Row, name: str, table: Table) -> Cell:
    of = table.main if name == "test_accuracy" else next((m for m in table.metrics if m.name == name), None)
    if of is None:
        return Cell(MISSING)
    text = format_value(of, row.mean(name), row.deviation(name))
    value, sign, beside = text.partition(" ± ")
    return Cell(value, f"± {beside}" if sign else "", number(row.mean(name)))


def ablations(
    found: Sequence[tuple[int, Table, list[Row]]], families: Mapping[str, str], pages: Mapping[str, str], root: str
) -> list[Ablation]:
    """Return the tables that hold two variants of a method, or one and the baseline of its card: differences, p values, ratios."""
    shown = []
    for place, table, rows in found:
        bases = {row.base.label: row.base for row in rows if row.base is not None}
        own = {row.label for row in rows}
        members = [row for row in table.rows if row.label in own or row.label in bases]
        if len(members) > 1:
            part = replace(table, rows=members, reasons={}, costs=())
            shown.append(Ablation(table, place, grid(part, families, pages, root, compared=True)))
    return shown


def refusals(reasons: Mapping[str, str], pages: Mapping[str, str], root: str) -> Grid | None:
    """Return a line per method that cannot do a task, with the reason; None if there is none."""
    heads = [Head("method"), Head("why it cannot do this task")]
    lines = [
        [Cell(name, order=name, href=f"{root}methods/{pages[name]}.html" if name in pages else ""), Cell(why, order=why)]
        for name, why in reasons.items()
    ]
    return Grid(heads, lines) if lines else None


def summary(cards: Mapping[str, Card | None], findings: Sequence[Finding], tables: Sequence[Table], pages: Mapping[str, str]) -> Grid:
    """Return the list of methods: a line each, with where it comes from, its claims, and on how many tasks it was run."""
    heads = [Head("method"), Head("family", filters=True, minor=True), Head("year", numeric=True, descending=True, minor=True)]
    heads += [
        Head("venue", minor=True, wide=True),
        Head("what it is about", wide=True),
        Head("tasks", "that it was run on", True, True),
        Head("runs", "that finished", True, True),
    ]
    heads += [Head("claims", "of the paper, and how many of them hold here or hold in direction", True, True)]
    ran: dict[str, list[tuple[str, int]]] = {}
    for table in tables:
        for row in table.rows:
            ran.setdefault(method_of(row), []).append((table.about["task"], len(row.runs)))
    lines = []
    for name, card in cards.items():
        own = [each for each in findings if each.method == name]
        good = sum(each.verdict in ("holds", "direction holds") for each in own)
        told = f"{good} of {sum(each.verdict != 'not measured' for each in own)} measured" if own else ""
        texts: list[Any] = [card.family, card.year, card.venue, card.summary] if card else ["", "", "", "not among the methods here"]
        where = ran.get(name, [])
        tasks, runs = len({task for task, _ in where}), sum(n for _, n in where)
        cells = [Cell(name, order=name, href=f"methods/{pages[name]}.html"), Cell(texts[0], order=texts[0])]
        cells += [
            Cell(str(texts[1]), order=number(texts[1]) if card else ""),
            Cell(texts[2], order=texts[2]),
            Cell(texts[3], order=texts[3]),
        ]
        cells += [Cell(str(tasks), order=number(tasks)), Cell(str(runs), order=number(runs)), Cell(str(len(own)), told, number(len(own)))]
        lines.append(cells)
    return Grid(heads, lines)
