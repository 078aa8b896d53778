"""How a figure grows with T, batch, length or depth: a fitted line, its confidence, and what may be said of it.

``y = intercept + slope * x`` by least squares, with the 95 % interval of the slope (Student's t) and R^2; ``y ~ x^exponent`` by the same
fit of logarithms. What is said follows from the line alone::

    constant    the line changes by no more than 5 % of the mean of y over the range measured
    linear      R^2 is at least 0.99 and the interval of the slope lies above 0
    ~x^p        neither: the exponent tells

A fit is as good as its points: the table shows them all.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from tabulate import tabulate

from harness.metrics import MISSING, Metric, format_value, scale_for

FLAT = 0.05
STRAIGHT = 0.99


@dataclass(frozen=True)
class Fit:
    """A line through ``(x, y)``; ``low`` and ``high`` bound the slope (NaN for two points), ``exponent`` is NaN where y is not positive."""

    slope: float
    low: float
    high: float
    intercept: float
    r2: float
    exponent: float
    verdict: str


def fit(x: Sequence[float], y: Sequence[float]) -> Fit:
    """Return the fit; raise ValueError for fewer than two different x."""
    from scipy.special import stdtrit  # imported where it is needed: many reports fit nothing

    if len(set(x)) < 2:
        raise ValueError(f"a line needs two different values, not {sorted(set(x))}")
    slope, intercept, r2, error = _line(np.asarray(x, float), np.asarray(y, float))
    free = len(x) - 2
    reach = float(stdtrit(free, 0.975)) * error if free else math.nan
    exponent = _line(np.log(x), np.log(y))[0] if min(*x, *y) > 0 else math.nan
    change, mean = abs(slope) * (max(x) - min(x)), abs(float(np.mean(y)))
    if change <= FLAT * mean:
        verdict = "constant"
    elif r2 >= STRAIGHT and (slope - reach > 0 if free else slope > 0):
        verdict = "linear"
    else:
        verdict = "?" if math.isnan(exponent) else f"~x^{exponent:.2f}"
    return Fit(slope, slope - reach, slope + reach, intercept, r2, exponent, verdict)


def _line(x: np.ndarray, y: np.ndarray) -> tuple[float, float, float, float]:
    """Return slope, intercept, R² (NaN where y does not vary) and standard error of the slope (NaN too, or for two points)."""
    of_x, both, _, of_y = np.cov(x, y, bias=True).flat
    slope = float(both / of_x)
    r2 = min(1.0, float(both**2 / (of_x * of_y))) if of_y > 0 else math.nan
    error = math.sqrt((1 - r2) * of_y / of_x / (len(x) - 2)) if len(x) > 2 else math.nan
    return slope, float(y.mean() - slope * x.mean()), r2, error


@dataclass(frozen=True)
class Curve:
    """One figure of one method: ``y`` at each ``x`` (means over seeds; None where a run failed or nothing was measured)."""

    label: str
    metric: Metric
    x: Sequence[float]
    y: Sequence[float | None]

    def fit(self) -> Fit | None:
        """Return the fit to the points that there are; None for fewer than two."""
        points = [(a, b) for a, b in zip(self.x, self.y, strict=True) if b is not None]
        return fit(*zip(*points, strict=True)) if len(points) > 1 else None


def render(curves: Sequence[Curve], over: str, style: str, against: Mapping[str, str] | None = None) -> str:
    """Return a table per metric (rows are methods, columns values of ``over``), or in csv a line per point.

    ``against`` says for labels of curves which other curve they are compared with: the ratio stands behind each value, ``(0.27x)``.
    """
    if style == "csv":
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["metric", "method", over, "value", "slope", "slope_low", "slope_high", "r2", "exponent", "verdict"])
        for curve in curves:
            line = curve.fit()
            rest = [line.slope, line.low, line.high, line.r2, line.exponent, line.verdict] if line else [None] * 6
            writer.writerows([curve.metric.name, curve.label, a, b, *rest] for a, b in zip(curve.x, curve.y, strict=True))
        return text.getvalue().rstrip("\n")
    blocks = []
    for name in dict.fromkeys(curve.metric.name for curve in curves):
        chosen = [curve for curve in curves if curve.metric.name == name]
        unit = scale_for(chosen[0].metric, [value for curve in chosen for value in curve.y])
        rows = []
        for curve in chosen:
            cells = [format_value(curve.metric, value, scale=unit).removesuffix(f" {unit.unit}") for value in curve.y]
            of = (against or {}).get(curve.label)
            base = next((other.y for other in chosen if other.label == of and other is not curve), [None] * len(cells))
            cells = [f"{cell} ({a / b:.2f}x)" if a is not None and b else cell for cell, a, b in zip(cells, curve.y, base, strict=True)]
            line = curve.fit()
            if line is None:
                rows.append([curve.label, *cells, MISSING, MISSING, MISSING])
                continue
            reach = "" if math.isnan(line.low) else f" ± {(line.high - line.low) / 2 / unit.size:.2g}"
            rows.append(
                [
                    curve.label,
                    *cells,
                    f"{line.slope / unit.size:.4g}{reach}",
                    MISSING if math.isnan(line.r2) else f"{line.r2:.4f}",
                    line.verdict,
                ]
            )
        heads = ["method", *(f"{over}={value:g}" for value in chosen[0].x), f"slope per {over}", "R²", "growth"]
        title = f"{chosen[0].metric.title}{f' [{unit.unit}]' if unit.unit else ''}"
        body = tabulate(rows, heads, tablefmt={"terminal": "simple", "github": "github"}[style], disable_numparse=True)
        blocks.append(f"#### {title}\n\n{body}" if style == "github" else f"{title}\n{body}")
    return "\n\n".join(blocks)
