"""The page of histories: a metric over commits, per method and task, with change points (``harness.report.history``)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from harness.metrics import format_value, scale_for
from harness.report.history import Series
from harness.report.site.figures import axis, seeds
from harness.report.site.leaderboard import Cell, Grid, Head, number

METRICS = ("test_accuracy", "saved_bytes", "step_time", "total_time", "spikes", "synops", "parameters")


def moving(series: Sequence[Series]) -> list[Series]:
    """Return the series that have two commits or more: one is no history."""
    return [each for each in series if len(each.measured) > 1]


def figure(series: Sequence[Series]) -> dict[str, Any]:
    """Return the plot: menus of task, method and metric, a line of points, and the levels between change points."""
    lines = []
    for each in series:
        points = each.measured
        unit = scale_for(each.metric, [point.mean for point in points])
        lines.append(
            {
                "title": f"{each.title}, {seeds(point.n for point in points)}",
                "menus": [each.about["task"], _name(each), each.metric.title],
                "y": axis(each.metric, unit.unit),
                "commits": [point.name for point in points],
                "texts": [f"{point.when[:10]} {point.subject}".strip() for point in points],
                "ys": [(point.mean or 0.0) / unit.size for point in points],
                "dy": [(point.std or 0.0) / unit.size for point in points],
                "n": [point.n for point in points],
                "changes": [[c.index, c.before / unit.size, c.after / unit.size, c.better] for c in each.changes],
            }
        )
    return {"kind": "history", "title": lines[0]["title"] if lines else "", "menus": ["task", "method", "metric"], "lines": lines}


def _name(each: Series) -> str:
    a = each.about
    name = each.label + (f" ({each.setting})" if each.setting else "")
    return f"{name}, {a['budget']}, {a['track']}, {a['device']}, {a['precision']}, threads {a['threads']}"


def grid(series: Sequence[Series]) -> Grid:
    """Return a line per change point: where, what, from what to what."""
    heads = [Head("task", filters=True), Head("method"), Head("metric", filters=True), Head("commit"), Head("date"), Head("subject")]
    heads += [Head("before", "mean of the commits since the change before", True), Head("after", "until the next", True)]
    heads += [Head("change", "relative to before", True), Head("verdict", filters=True)]
    lines = []
    for each in series:
        for change in each.changes:
            point = each.measured[change.index]
            texts = [each.about["task"], _name(each), each.metric.title, point.name, point.when[:10], point.subject]
            cells = [Cell(text, order=text) for text in texts]
            cells += [Cell(format_value(each.metric, value), order=number(value)) for value in (change.before, change.after)]
            relative = change.relative
            cells.append(Cell("" if relative is None else f"{100 * relative:+.2f} %", order=number(relative)))
            verdict = "better" if change.better else "worse"
            lines.append([*cells, Cell(verdict, order=verdict, style="holds" if change.better else "fails")])
    return Grid(heads, lines)
