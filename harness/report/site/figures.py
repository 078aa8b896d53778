"""What the plots of a page are drawn from: plain lists, in the units of their axes, with the texts that a pointer shows.

``static/plots.js`` draws them with plotly. Points and lines are those of ``harness.report.plot``, which draws with matplotlib.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from harness.metrics import Metric, format_value, metric, scale_for
from harness.report.curves import Curve, curve_of
from harness.report.pareto import front
from harness.report.site.runs import Runs, every
from harness.report.table import Row, Table

COSTS = (  # metrics that accuracy is drawn against
    "saved_bytes",
    "spikes",
    "synops",
    "energy",
    "steps_used",
    "step_time",
    "total_time",
    "latency",
    "transient_bytes",
    "parameters",
)
POINTS = 100  # of a line


def pareto(table: Table) -> dict[str, Any] | None:
    """Return accuracy against each cost that was measured, with the Pareto front; None if no row has both."""
    costs = [found for name in COSTS if (found := _against(table, metric(name)))]
    return {"kind": "pareto", "title": _title(table), "choices": costs} if costs else None


def _title(table: Table) -> str:
    return f"{table.title}, {seeds(len(row.runs) for row in table.rows if row.runs)}"


def seeds(counts: Iterable[int]) -> str:
    """Return how many seeds lines or points are means of: ``n = 3``, or ``n = 1 to 3``."""
    found = sorted(set(counts))
    return f"n = {found[0]}" if len(found) == 1 else f"n = {found[0]} to {found[-1]}" if found else "n = 0"


def _against(table: Table, cost: Metric) -> dict[str, Any] | None:
    rows = [row for row in table.rows if _finite(row.mean(cost.name)) and _finite(row.mean("test_accuracy"))]
    points = [(row.mean(cost.name) or 0.0, row.mean("test_accuracy") or 0.0) for row in rows]
    if len({x for x, _ in points}) < 2:
        return None
    ux, uy = scale_for(cost, [x for x, _ in points]), scale_for(table.main, [y for _, y in points])
    best = front(points, table.main.direction == "higher", cost.direction == "lower")
    return {
        "name": cost.title,
        "x": axis(cost, ux.unit),
        "y": axis(table.main, uy.unit),
        "log": all(x > 0 for x, _ in points) and max(x for x, _ in points) > 10 * min(x for x, _ in points),
        "labels": [row.label for row in rows],
        "n": [len(row.runs) for row in rows],
        "xs": [x / ux.size for x, _ in points],
        "ys": [y / uy.size for _, y in points],
        "dx": [(row.deviation(cost.name) or 0) / ux.size for row in rows],
        "dy": [(row.deviation("test_accuracy") or 0) / uy.size for row in rows],
        "texts": [[_shown(row, table.main, "test_accuracy"), _shown(row, cost, cost.name)] for row in rows],
        "front": sorted(best, key=lambda i: points[i]),
        "shape": "hv" if cost.direction == "lower" else "vh",  # what lies between two points can be had from one of them
    }


def _shown(row: Row, of: Metric, name: str) -> str:
    return format_value(of, row.mean(name), row.deviation(name), n=len(row.runs))


def axis(of: Metric, unit: str) -> str:
    """Return what an axis says."""
    return f"{of.title} [{unit}]" if unit else of.title


def _finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def over_steps(table: Table) -> dict[str, Any] | None:
    """Return accuracy over time steps; None unless a row answers at two steps or more."""
    found = [curve for row in table.rows if (curve := curve_of(_thinned(row))) is not None]
    if not any(len(curve.steps) > 1 for curve in found):
        return None
    unit = scale_for(table.main, [value for curve in found for value in curve.mean])
    return {
        "kind": "lines",
        "title": _title(table),
        "x": "time steps",
        "y": axis(table.main, unit.unit),
        "log": max(curve.steps[-1] for curve in found) > 8,
        "lines": [_line(curve, unit.size) for curve in found],
    }


def _thinned(row: Row) -> Row:
    """Return a row whose runs have no more points of their curves than a plot shows."""
    runs = []
    for run in row.runs:
        curve = run["curve"] or []
        steps = run["curve_steps"] or range(len(curve))
        runs.append({**run, "curve": every(curve, POINTS), "curve_steps": every(steps, POINTS)})
    return replace(row, runs=runs)


def _line(curve: Curve, size: float) -> dict[str, Any]:
    return {
        "label": curve.label,
        "n": curve.n,
        "xs": curve.steps,
        "ys": [_short(value / size) for value in curve.mean],
        "dy": [_short(value / size) for value in curve.deviation] if curve.n > 1 else [],
    }


def training(table: Table, runs: Runs) -> dict[str, Any] | None:
    """Return loss and validation figure after each epoch, means over seeds, phases in a row; None where nothing was trained."""
    choices = []
    unit = scale_for(table.main, [1.0])
    for name, title, size in (
        ("validation", axis(table.main, unit.unit), unit.size),
        ("loss", "training loss", 1.0),
    ):
        lines = []
        for row in table.rows:
            traces = [getattr(runs.by_key[run["key"]], name) for run in row.runs if run["key"] in runs.by_key]
            means = [statistics.fmean(values) / size for values in zip(*traces, strict=False)] if traces and all(traces) else []
            if len(means) > 1:
                at = every(range(len(means)), POINTS)
                ys = [_short(means[i]) for i in at]
                lines.append({"label": row.label, "n": len(row.runs), "xs": [i + 1 for i in at], "ys": ys, "dy": []})
        if lines:
            choices.append({"name": "validation" if name == "validation" else "loss", "y": title, "lines": lines})
    return {"kind": "training", "title": _title(table), "x": "epochs, phases in a row", "choices": choices} if choices else None


def _short(value: float) -> float | None:
    """Return five digits of a point, which no screen shows more of; None where it is not finite, which leaves a gap."""
    return float(f"{value:.5g}") if math.isfinite(value) else None
