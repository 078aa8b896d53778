"""Accuracy over time steps: what a method answers as of each step, mean over seeds, and when it comes near the network it was made of.

Rows come from ``harness.report.table.build`` with ``PATHS`` as extra figures, so that the same rules say what is in one table.
"""

from __future__ import annotations

import csv
import io
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from harness.metrics import MISSING, format_value, metric, scale_for
from harness.report.formats import block
from harness.report.table import GROUP, Row, Table

PATHS = {"curve": "accuracy.test_curve", "curve_steps": "accuracy.curve_steps", "steps_to_ann": "report.steps_to_ann"}


@dataclass(frozen=True)
class Curve:
    """The main metric of a row as of each of ``steps`` (from 1): ``mean`` and ``deviation`` (n - 1; 0 for one seed) over ``n`` seeds."""

    label: str
    steps: list[int]
    mean: list[float]
    deviation: list[float]
    n: int


def curve_of(row: Row) -> Curve | None:
    """Return the curve of a row; None where there is none or where its runs have different steps."""
    runs = [run for run in row.runs if run["curve"]]
    if not runs or len(runs) < len(row.runs):
        return None
    at = [[int(step) + 1 for step in run["curve_steps"] or range(len(run["curve"]))] for run in runs]
    if any(steps != at[0] for steps in at):
        return None
    points = list(zip(*(map(float, run["curve"]) for run in runs), strict=True))
    deviations = [statistics.stdev(values) if len(values) > 1 else 0.0 for values in points]
    return Curve(row.label, at[0], [statistics.fmean(values) for values in points], deviations, len(runs))


def columns(curves: Sequence[Curve]) -> list[int]:
    """Return the steps to show: 1, 2, 4, 8 ... and the last of every curve."""
    last = max(curve.steps[-1] for curve in curves)
    return sorted({2**k for k in range(last.bit_length()) if 2**k <= last} | {curve.steps[-1] for curve in curves})


def render(tables: Sequence[Table], style: str, width: int | None = None) -> str:
    """Return a table of accuracy by time step for each of ``tables``; in csv a line per method and step. ``width`` as for ``block``."""
    if style == "csv":
        return _csv(tables)
    return "\n\n".join(text for table in tables if (text := _text(table, style, width)))


def _text(table: Table, style: str, width: int | None) -> str:
    curves = {row.label: curve for row in table.rows if (curve := curve_of(row)) is not None}
    if not curves:
        return ""
    shown = columns(list(curves.values()))
    unit = scale_for(table.main, [value for curve in curves.values() for value in curve.mean])
    near = metric("steps_to_ann")
    known = any(row.values("steps_to_ann") for row in table.rows)
    lines = []
    for row in table.rows:
        if (curve := curves.get(row.label)) is None:
            continue
        found = dict(zip(curve.steps, zip(curve.mean, curve.deviation, strict=True), strict=True))
        cells = [
            format_value(table.main, *found[step] if curve.n > 1 else found[step][:1], scale=unit).removesuffix(f" {unit.unit}")
            if step in found
            else ""
            for step in shown
        ]
        lines.append([row.label, str(curve.n), *cells])
        if known:
            mean = row.mean("steps_to_ann")
            lines[-1].append(MISSING if mean is None else format_value(near, mean, row.deviation("steps_to_ann")))
    heads = ["method", "n", *(f"T={step}" for step in shown), *([near.title] if known else [])]
    what = f"{table.main.title}{f' [{unit.unit}]' if unit.unit else ''} of the answer as of each time step"
    return block(f"{what}: {table.title}", heads, lines, [], style, width=width)


def _csv(tables: Sequence[Table]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*GROUP, "method", "n", "step", "value", "std"])
    for table in tables:
        for curve in filter(None, map(curve_of, table.rows)):
            for step, mean, deviation in zip(curve.steps, curve.mean, curve.deviation, strict=True):
                std = deviation if curve.n > 1 and math.isfinite(deviation) else None
                writer.writerow([*table.about.values(), curve.label, curve.n, step, mean, std])
    return text.getvalue().rstrip("\n")
