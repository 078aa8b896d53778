"""Accuracy against what it costs: a point per method with deviations, and the Pareto front."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from harness.metrics import Metric, scale_for
from harness.report.pareto import front
from harness.report.plot.figure import canvas, finish, legend, named, numbered, styles
from harness.report.table import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def against(table: Table, cost: Metric) -> Figure | None:
    """Return the main metric against ``cost``, one point per row with deviations, and the Pareto front. None if nothing has both."""
    rows = [row for row in table.rows if _finite(row.mean(cost.name)) and _finite(row.mean("test_accuracy"))]
    if not rows:
        return None
    figure, (axes,) = canvas(table.title, list(map(legend, rows)))
    points = [(row.mean(cost.name), row.mean("test_accuracy")) for row in rows]
    ux, uy = scale_for(cost, [x for x, _ in points]), scale_for(table.main, [y for _, y in points])
    for row, (x, y), style in zip(rows, points, styles(), strict=False):
        axes.errorbar(
            x / ux.size,
            y / uy.size,
            xerr=(row.deviation(cost.name) or 0) / ux.size,
            yerr=(row.deviation("test_accuracy") or 0) / uy.size,
            color=style["color"],
            linestyle="none",
            linewidth=1,
            alpha=0.6,
            capsize=2,
        )
        axes.plot(x / ux.size, y / uy.size, color=style["color"], marker=style["marker"], linestyle="none", label=legend(row))
    best = sorted(points[i] for i in front(points, table.main.direction == "higher", cost.direction == "lower"))
    axes.plot(
        [x / ux.size for x, _ in best],
        [y / uy.size for _, y in best],
        color="0.4",
        linestyle="--",
        linewidth=1.2,
        drawstyle="steps-post" if cost.direction == "lower" else "steps-pre",  # what lies between two points can be had from one of them
        zorder=0,
        label="Pareto front",
    )
    if all(x > 0 for x, _ in points) and max(x for x, _ in points) > 5 * min(x for x, _ in points):
        axes.set_xscale("log")
        numbered(axes.xaxis)
    finish(axes, named(cost, ux.unit), named(table.main, uy.unit))
    return figure


def _finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)
