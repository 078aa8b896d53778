"""Memory and time over T, length, depth or batch: measured points, the fit through them, and what it says in the legend."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from harness.metrics import scale_for
from harness.report.growth import AXES, Growth
from harness.report.plot.figure import canvas, literal, named, numbered, styles
from harness.report.scaling import Curve

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def growth(found: Growth) -> Figure:
    """Return a panel per metric on logarithmic axes; below each, the slopes of the linear and of the log-log fit of every curve."""
    metrics = list(dict.fromkeys(curve.metric for curve in found.curves))
    entries = [(curve, _entry(curve, n, found.axis)) for curve, n in zip(found.curves, found.seeds, strict=True)]
    columns = [[(curve, text) for curve, text in entries if curve.metric == m] for m in metrics]
    longest = max(columns, key=len)
    widest = max((text for _, text in entries), key=len)
    figure, panels = canvas(found.title, panels=len(metrics), below=[widest, *(text for _, text in longest[1:])])
    same = dict(zip(dict.fromkeys(curve.label for curve in found.curves), styles(), strict=False))  # a method looks alike in all panels
    for m, axes, chosen in zip(metrics, panels, columns, strict=True):
        unit = scale_for(m, [y for curve, _ in chosen for y in curve.y])
        for curve, text in chosen:
            points = [(x, y / unit.size) for x, y in zip(curve.x, curve.y, strict=True) if y is not None]
            style = same[curve.label]
            axes.plot(*zip(*points, strict=True), linestyle="none", marker=style["marker"], color=style["color"], markersize=5, label=text)
            x = np.geomspace(points[0][0], points[-1][0], 100)
            axes.plot(x, _fitted(curve, x) / unit.size, color=style["color"], linestyle=style["linestyle"], linewidth=1.2)
        _scaled(axes, [curve for curve, _ in chosen])
        axes.set_xlabel(AXES[found.axis])
        axes.set_ylabel(named(m, unit.unit))
        axes.legend(loc="upper left", bbox_to_anchor=(0, -0.13), fontsize=8, frameon=False, borderaxespad=0)
    return figure


def _entry(curve: Curve, n: int, axis: str) -> str:
    """Return what the legend says: method, seeds, what the fit found, the slope of the line, and the exponent of the power law."""
    line = curve.fit()
    assert line is not None
    points = sum(y is not None for y in curve.y)
    verdict = "two points" if points == 2 else "neither linear nor constant" if line.verdict.startswith(("~", "?")) else line.verdict
    unit = scale_for(curve.metric, [line.slope])
    slope = f"{line.slope / unit.size:.3g}{f' {unit.unit}' if unit.unit else ''} per {'step' if axis == 'steps' else axis}"
    exponent = "" if np.isnan(line.exponent) else f", exponent {line.exponent + 0.0:.2f}"
    return literal(f"{curve.label} (n = {n}): {verdict}, {slope}{exponent}")


def _fitted(curve: Curve, x: np.ndarray) -> np.ndarray:
    """Return the line where it was found to be one, else the power law through the middle of the logarithms."""
    line = curve.fit()
    assert line is not None
    if not line.verdict.startswith("~"):
        return np.asarray(line.intercept + line.slope * x)
    points = np.log([(a, b) for a, b in zip(curve.x, curve.y, strict=True) if b is not None])
    middle = points.mean(0)
    return np.exp(middle[1] + line.exponent * (np.log(x) - middle[0]))


def _scaled(axes: Axes, curves: list[Curve]) -> None:
    from matplotlib.ticker import FixedLocator, NullLocator

    at = sorted({x for curve in curves for x in curve.x})
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_locator(FixedLocator(at))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter("{x:g}")
    values = [y for curve in curves for y in curve.y if y is not None]
    if min(values) > 0 and max(values) > 3 * min(values):
        axes.set_yscale("log")
        numbered(axes.yaxis)
    elif min(values) >= 0:
        axes.set_ylim(0, None)
