"""Accuracy as of each time step: a line per method with a band of one standard deviation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.metrics import scale_for
from harness.report.curves import curve_of
from harness.report.plot.figure import FEW, canvas, finish, legend, named, styles
from harness.report.table import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def over_steps(table: Table) -> Figure | None:
    """Return accuracy over time steps; what answers in one step is a horizontal line. None if no row has a curve."""
    found = [(row, curve) for row in table.rows if (curve := curve_of(row)) is not None]
    if not found:
        return None
    figure, (axes,) = canvas(table.title, [legend(row) + ", one step" for row, _ in found])
    unit = scale_for(table.main, [value for _, curve in found for value in curve.mean])
    for (row, curve), style in zip(found, styles(), strict=False):
        y = [value / unit.size for value in curve.mean]
        label = legend(row)
        if len(curve.steps) == 1:
            axes.axhline(y[0], color=style["color"], linestyle=style["linestyle"], linewidth=1, label=f"{label}, one step")
            continue
        reach = [value / unit.size for value in curve.deviation]
        every = max(1, len(y) // 12)
        axes.plot(curve.steps, y, **style, markersize=4, markevery=every, linewidth=1.3, label=label)
        axes.fill_between(
            curve.steps,
            [a - b for a, b in zip(y, reach, strict=True)],
            [a + b for a, b in zip(y, reach, strict=True)],
            color=style["color"],
            alpha=0.15 if len(found) <= FEW else 0.05,
            linewidth=0,
        )
    if max(curve.steps[-1] for _, curve in found) > 8:
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter("{x:g}")
    finish(axes, "time steps", named(table.main, unit.unit))
    return figure
