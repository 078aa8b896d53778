"""The main metric on validation data after each epoch: a line per method."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

from harness.metrics import scale_for
from harness.report.plot.figure import canvas, finish, legend, named, styles
from harness.report.table import Row, Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def training(table: Table) -> Figure | None:
    """Return the main metric on validation data after each epoch, phases in a row, mean over seeds. None if nothing was trained."""
    found = [(row, values) for row in table.rows if (values := _validation(row))]
    if not found:
        return None
    figure, (axes,) = canvas(table.title, [legend(row) for row, _ in found])
    unit = scale_for(table.main, [value for _, values in found for value in values])
    for (row, values), style in zip(found, styles(), strict=False):
        every = max(1, len(values) // 12)
        y = [value / unit.size for value in values]
        axes.plot(range(1, len(y) + 1), y, **style, markersize=4, markevery=every, linewidth=1.3, label=legend(row))
    finish(axes, "epochs, phases in a row", f"validation {named(table.main, unit.unit)}")
    return figure


def _validation(row: Row) -> list[float]:
    """Return the mean over seeds after each epoch that all runs of a row have."""
    traces = [[float(epoch["validation"]) for epoch in run["trace"] or []] for run in row.runs]
    return [statistics.fmean(values) for values in zip(*traces, strict=False)] if all(traces) else []
