"""Figures over time steps, batch size, length or depth, from the records of ``spikebench scale``, with the lines fitted to them.

Records belong together when nothing but the one number differs, and when they are as short as ``scale`` makes runs: of one epoch, on a
number of samples that was asked for. At least ``FEWEST`` values make a curve.
"""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.metrics import MISSING, format_value, metric, scale_for
from harness.plugin import UsageError
from harness.report.scaling import Curve
from harness.report.site.figures import axis, seeds
from harness.report.site.leaderboard import Cell, Grid, Head, number
from harness.report.table import GROUP
from harness.spec import RunSpec, parse_variant
from harness.store import Store

METRICS = ("saved_bytes", "transient_bytes", "rss_bytes", "cuda_bytes", "step_time")
OVER = {"steps": "time steps", "batch": "batch size", "length": "length of the sequences", "depth": "times deeper"}
FEWEST = 3
PATHS = {**GROUP, "key": "key", "status": "status", "started": "started", "spec": "spec"}


@dataclass(frozen=True)
class Study:
    """Curves of one task, device, track and budget over one number."""

    about: dict[str, Any]
    over: str  # one of ``OVER``
    curves: list[Curve]
    n: tuple[int, ...]  # seeds at each point

    @property
    def title(self) -> str:
        """Return what the study is about, in one line."""
        a = self.about
        where = f"{a['device']} ({a['kind']}, {a['precision']}, threads {a['threads']})"
        return f"{a['task']} over {OVER[self.over]}, {a['budget']} budget, {a['track']} track, on {where}, {seeds(self.n)}"


def studies(store: Store, keys: set[str]) -> list[Study]:
    """Return the studies of the records of ``keys``, those of most curves first."""
    rows, _ = store.select({**PATHS, **{name: metric(name).path for name in METRICS}})
    points: dict[tuple, dict[str, dict[float, dict[int, Mapping[str, Any]]]]] = {}
    for row in sorted(rows, key=lambda row: str(row["started"])):
        if row["key"] not in keys or row["status"] != "ok" or row["spec"].get("samples") is None:
            continue
        spec = RunSpec.model_validate(row["spec"])
        if str(spec.training.get("epochs")) != "1":
            continue
        for over, (value, rest) in _axes(spec).items():
            group = (over, rest.task, *(row[name] for name in GROUP if name != "task"))
            points.setdefault(group, {}).setdefault(_label(rest), {}).setdefault(value, {})[spec.seed] = row
    found = []
    for (over, *about), labels in points.items():
        whole = _named({label: at for label, at in labels.items() if len(at) >= FEWEST})
        if whole:
            curves = [curve for name in METRICS for label, at in sorted(whole.items()) if (curve := _curve(label, name, at)) is not None]
            n = tuple(len(runs) for at in whole.values() for runs in at.values())
            found.append(Study(dict(zip(GROUP, about, strict=True)), over, curves, n))
    return sorted((each for each in found if each.curves), key=lambda each: (-len(each.curves), each.title))


def _axes(spec: RunSpec) -> dict[str, tuple[float, RunSpec]]:
    """Return for each number that may be scaled over its value and the spec without it."""
    found: dict[str, tuple[float, RunSpec]] = {}
    if spec.steps is not None:
        found["steps"] = (float(spec.steps), spec.model_copy(update={"steps": None}))
    if spec.depth is not None:
        found["depth"] = (float(spec.depth), spec.model_copy(update={"depth": None}))
    batch = spec.training.get("batch_size")
    if isinstance(batch, int) and not isinstance(batch, bool):
        training = {name: value for name, value in spec.training.items() if name != "batch_size"}
        found["batch"] = (float(batch), spec.model_copy(update={"training": training, "samples": None}))
    try:
        name, options = parse_variant(spec.task, "task")
    except UsageError:
        return found
    length = options.pop("length", "")
    if length.isdecimal():
        inside = ",".join(f"{key}={text}" for key, text in options.items())
        found["length"] = (float(length), spec.model_copy(update={"task": name + (f"[{inside}]" if inside else "")}))
    return found


def _label(spec: RunSpec) -> str:
    """Return the method's label without what every run of ``scale`` has."""
    training = {name: value for name, value in spec.training.items() if name != "epochs"}
    return spec.model_copy(update={"samples": None, "training": training}).label


def _named(curves: dict[str, Any]) -> dict[str, Any]:
    """Return curves by shorter labels, without the batch size, where these still tell them apart."""
    short = {label: re.sub(r"batch_size=\d+,?", "", label).replace(",]", "]").replace("[]", "") for label in curves}
    return {short[label]: at for label, at in curves.items()} if len(set(short.values())) == len(short) else curves


def _curve(label: str, name: str, at: Mapping[float, Mapping[int, Mapping[str, Any]]]) -> Curve | None:
    means = {x: _mean([row[name] for row in seeds.values()]) for x, seeds in sorted(at.items())}
    if sum(value is not None for value in means.values()) < FEWEST:
        return None
    return Curve(label, metric(name), list(means), list(means.values()))


def _mean(values: Sequence[Any]) -> float | None:
    numbers = [float(value) for value in values if value is not None]
    mean = statistics.fmean(numbers) if numbers and len(numbers) == len(values) else math.nan
    return mean if math.isfinite(mean) else None


def figure(study: Study) -> dict[str, Any]:
    """Return the plot of a study: a choice of metric, a line per method, and the line fitted to it."""
    choices = []
    for name in dict.fromkeys(curve.metric.name for curve in study.curves):
        curves = [curve for curve in study.curves if curve.metric.name == name]
        unit = scale_for(curves[0].metric, [value for curve in curves for value in curve.y])
        lines = []
        for curve in curves:
            line = curve.fit()
            fitted = [] if line is None else [(line.intercept + line.slope * x) / unit.size for x in curve.x]
            ys = [None if y is None else y / unit.size for y in curve.y]
            lines.append({"label": curve.label, "xs": list(curve.x), "ys": ys, "fit": fitted, "growth": line.verdict if line else ""})
        choices.append({"name": curves[0].metric.title, "y": axis(curves[0].metric, unit.unit), "lines": lines})
    return {"kind": "scaling", "title": study.title, "x": OVER[study.over], "choices": choices}


def grid(study: Study) -> Grid:
    """Return the table of a study: a line per metric and method with its value at every point, slope, R^2 and what may be said."""
    xs = sorted({x for curve in study.curves for x in curve.x})
    heads = [Head("metric", filters=True), Head("method"), *(Head(f"{study.over}={x:g}", numeric=True) for x in xs)]
    heads += [Head(f"slope per {study.over}", "of a line by least squares, with half its 95 % interval", True)]
    heads += [Head("R²", "share of the variance that the line explains", True, True), Head("growth", "what may be said of the line")]
    lines = []
    for curve in study.curves:
        unit = scale_for(curve.metric, [y for each in study.curves if each.metric is curve.metric for y in each.y])
        values = dict(zip(curve.x, curve.y, strict=True))
        cells = [Cell(axis(curve.metric, unit.unit), order=axis(curve.metric, unit.unit)), Cell(curve.label, order=curve.label)]
        for x in xs:
            value = values.get(x)
            text = format_value(curve.metric, value, scale=unit).removesuffix(f" {unit.unit}") if x in values else ""
            cells.append(Cell(text, order=number(value)))
        line = curve.fit()
        if line is None:
            cells += [Cell(MISSING)] * 3
        else:
            reach = "" if math.isnan(line.low) else f"± {(line.high - line.low) / 2 / unit.size:.2g}"
            cells.append(Cell(f"{line.slope / unit.size:.4g}", reach, number(line.slope)))
            cells.append(Cell(MISSING if math.isnan(line.r2) else f"{line.r2:.4f}", order=number(line.r2)))
            cells.append(Cell(line.verdict, order=line.verdict))
        lines.append(cells)
    return Grid(heads, lines)
