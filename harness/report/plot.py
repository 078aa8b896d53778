"""Plots of records with matplotlib: accuracy over time steps, accuracy against what it costs, training curves.

A plot shows what one table shows (``harness.report.table``): one task, device, track and budget, named in its title; the legend says how
many seeds a line or point stands for::

    tables, _ = build(store, extra=CURVES)
    save(over_steps(tables[0]), Path("plots/curves"), ("svg", "png"))

Nothing is drawn on a screen; colours are those of Okabe and Ito, which people with colour-blindness tell apart.
"""

from __future__ import annotations

import math
import re
import statistics
import textwrap
from collections.abc import Iterable, Sequence
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.metrics import Metric, scale_for
from harness.report.curves import PATHS, curve_of
from harness.report.table import Row, Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CURVES = {**PATHS, "trace": "trace"}  # what ``build`` must read for these plots
FORMATS = ("svg", "png", "pdf")
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "osD^vP*Xh"
LINES = ("-", "--", "-.", ":")
FEW = 8  # lines; the bands of more would hide each other


def _figure(table: Table) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure  # not pyplot: no display and no global state

    figure = Figure(figsize=(10, 5.5), layout="constrained")
    axes = figure.add_subplot()
    axes.set_title("\n".join(textwrap.wrap(_plain(table.title), 80)), fontsize=9, loc="left")
    axes.grid(alpha=0.3)
    return figure, axes


def _styles() -> Iterable[dict[str, Any]]:
    for number in cycle(range(len(COLOURS) * len(LINES))):
        yield {
            "color": COLOURS[number % len(COLOURS)],
            "linestyle": LINES[number // len(COLOURS)],
            "marker": MARKERS[number % len(MARKERS)],
        }


def _finish(axes: Axes, x: str, y: str) -> None:
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    if axes.get_legend_handles_labels()[0]:
        axes.get_figure().legend(loc="outside right upper", fontsize=8)  # type: ignore[union-attr]


def _plain(text: str) -> str:
    """Return text as it is: between dollar signs matplotlib would read mathematics, and records are not to be trusted."""
    return text.replace("$", r"\$")


def _legend(row: Row) -> str:
    return _plain(f"{row.label} (n = {len(row.runs)})")


def _named(metric: Metric, unit: str) -> str:
    return f"{metric.title} [{unit}]" if unit else metric.title


def over_steps(table: Table) -> Figure | None:
    """Return accuracy over time steps; what answers in one step is a horizontal line. None if no row has a curve."""
    found = [(row, curve) for row in table.rows if (curve := curve_of(row)) is not None]
    if not found:
        return None
    figure, axes = _figure(table)
    unit = scale_for(table.main, [value for _, curve in found for value in curve.mean])
    for (row, curve), style in zip(found, _styles(), strict=False):
        y = [value / unit.size for value in curve.mean]
        label = _legend(row)
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
    _finish(axes, "time steps", _named(table.main, unit.unit))
    return figure


def front(points: Sequence[tuple[float, float]], higher: bool, lower_cost: bool = True) -> list[int]:
    """Return the positions of the Pareto-optimal ``(cost, quality)``: none other is at least as good in both and better in one."""
    sign, cost = (1 if higher else -1), (1 if lower_cost else -1)

    def beaten(i: int) -> bool:
        a, b = points[i]
        return any(cost * c <= cost * a and sign * d >= sign * b and (c, d) != (a, b) for j, (c, d) in enumerate(points) if j != i)

    return [i for i in range(len(points)) if not beaten(i)]


def against(table: Table, cost: Metric) -> Figure | None:
    """Return the main metric against ``cost``, one point per row with deviations, and the Pareto front. None if nothing has both."""
    rows = [row for row in table.rows if _finite(row.mean(cost.name)) and _finite(row.mean("test_accuracy"))]
    if not rows:
        return None
    figure, axes = _figure(table)
    points = [(row.mean(cost.name), row.mean("test_accuracy")) for row in rows]
    ux, uy = scale_for(cost, [x for x, _ in points]), scale_for(table.main, [y for _, y in points])
    for row, (x, y), style in zip(rows, points, _styles(), strict=False):
        axes.errorbar(
            x / ux.size,
            y / uy.size,
            xerr=(row.deviation(cost.name) or 0) / ux.size,
            yerr=(row.deviation("test_accuracy") or 0) / uy.size,
            color=style["color"],
            marker=style["marker"],
            linestyle="none",
            capsize=2,
            label=_legend(row),
        )
    best = sorted(points[i] for i in front(points, table.main.direction == "higher", cost.direction == "lower"))
    axes.plot(
        [x / ux.size for x, _ in best],
        [y / uy.size for _, y in best],
        color="0.5",
        linestyle="--",
        linewidth=1,
        zorder=0,
        label="Pareto front",
    )
    if all(x > 0 for x, _ in points) and max(x for x, _ in points) > 10 * min(x for x, _ in points):
        axes.set_xscale("log")
    _finish(axes, _named(cost, ux.unit), _named(table.main, uy.unit))
    return figure


def _finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def training(table: Table) -> Figure | None:
    """Return the main metric on validation data after each epoch, phases in a row, mean over seeds. None if nothing was trained."""
    found = [(row, values) for row in table.rows if (values := _validation(row))]
    if not found:
        return None
    figure, axes = _figure(table)
    unit = scale_for(table.main, [value for _, values in found for value in values])
    for (row, values), style in zip(found, _styles(), strict=False):
        every = max(1, len(values) // 12)
        y = [value / unit.size for value in values]
        axes.plot(range(1, len(y) + 1), y, **style, markersize=4, markevery=every, linewidth=1.3, label=_legend(row))
    _finish(axes, "epochs, phases in a row", f"validation {_named(table.main, unit.unit)}")
    return figure


def _validation(row: Row) -> list[float]:
    """Return the mean over seeds after each epoch that all runs of a row have."""
    traces = [[float(epoch["validation"]) for epoch in run["trace"] or []] for run in row.runs]
    return [statistics.fmean(values) for values in zip(*traces, strict=False)] if all(traces) else []


def file_name(kind: str, table: Table) -> str:
    """Return a file name (without ending) that tells what the plot is about."""
    parts = [kind, *(str(table.about[name]) for name in ("task", "budget", "track", "kind", "precision"))]
    return re.sub(r"[^A-Za-z0-9.=_-]+", "-", "-".join(parts)).strip("-")


def save(figure: Figure, path: Path, formats: Sequence[str]) -> list[Path]:
    """Write ``figure`` as ``path`` with the ending of each format; return the files. The same records give the same bytes in svg."""
    import matplotlib

    path.parent.mkdir(parents=True, exist_ok=True)
    files = [path.with_name(f"{path.name}.{ending}") for ending in formats]
    with matplotlib.rc_context({"svg.hashsalt": "spikebench"}):
        for file in files:
            metadata = {"Date": None} if file.suffix == ".svg" else {"CreationDate": None} if file.suffix == ".pdf" else {}
            figure.savefig(file, dpi=150, metadata=metadata)
    return files
