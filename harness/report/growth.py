"""Which records form a curve over T, batch, length or depth: runs that differ in this one thing, and in the seed, alone.

Any records will do, not only those of ``spikebench scale``::

    for found in grown(store, ("steps",), [metric("saved_bytes")]):
        print(found.title, [curve.label for curve in found.curves])
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from harness.metrics import Metric
from harness.plugin import UsageError, written
from harness.report.scaling import Curve
from harness.report.table.table import GROUP
from harness.spec import parse_variant
from harness.store import Store

AXES = {"steps": "time steps T", "length": "length of the sequence", "depth": "depth of the network", "batch": "batch size"}
RUN = {
    "method": "spec.method",
    "label": "label",
    "options": "spec.options",
    "training": "spec.training",
    "samples": "spec.samples",
    "tuning": "spec.tuning",
    "asked_steps": "spec.steps",
    "asked_depth": "spec.depth",
    "seed": "spec.seed",
    "status": "status",
    "started": "started",
    "settings": "settings",
}


@dataclass
class Growth:
    """The curves of one task and axis under the same conditions; ``seeds`` are the fewest runs behind a point, curve by curve."""

    about: dict[str, Any]
    axis: str
    curves: list[Curve] = field(default_factory=list)
    seeds: list[int] = field(default_factory=list)

    @property
    def title(self) -> str:
        """Return what the curves are about, in one line."""
        a = self.about
        where = f"{a['device']} ({a['kind']}, {a['precision']}, threads {a['threads']})"
        return f"{a['task']} over {self.axis}, {a['budget']} budget, {a['track']} track, on {where}"


def grown(
    store: Store,
    axes: Iterable[str],
    metrics: Sequence[Metric],
    *,
    tasks: Sequence[str] = (),
    methods: Sequence[str] = (),
    suites: Sequence[str] = (),
) -> tuple[list[Growth], list[str]]:
    """Return the curves with at least two points of each of ``axes``, task by task, and the names of unreadable files.

    Of a seed that was run several times the latest record counts; of several curves of one label, the one with most points.
    """
    rows, broken = store.select({**GROUP, **RUN, **{m.name: m.path for m in metrics}})
    fits = [
        row
        for row in rows
        if row["status"] == "ok"
        and (not tasks or row["task"] in tasks or row["task"].split("[")[0] in tasks)
        and (not suites or row["task"].split("/")[0] in suites)
        and (not methods or row["method"] in methods or row["label"] in methods)
    ]
    found: dict[tuple, Growth] = {}
    for axis in axes:
        sets: dict[tuple, dict[str, dict[tuple[float, int], dict[str, Any]]]] = {}
        for row in sorted(fits, key=lambda row: row["started"]):
            try:
                if (place := _place(row, axis)) is None:
                    continue
                about, label, same, x = place
                figures = {m.name: None if row[m.name] is None else float(row[m.name]) for m in metrics}
            except (UsageError, TypeError, ValueError, KeyError, AttributeError):  # no record that this program wrote
                if row["file"] not in broken:
                    broken.append(row["file"])
                continue
            sets.setdefault((axis, about, label), {}).setdefault(same, {})[x, row["seed"]] = figures
        for (_, about, label), versions in sorted(sets.items()):
            runs = max(versions.values(), key=lambda runs: len({x for x, _ in runs}))
            if len({x for x, _ in runs}) > 1:
                growth = found.setdefault((axis, about), Growth(dict(zip(GROUP, json.loads(about), strict=True)), axis))
                for curve, seeds in _curves(label, runs, metrics):
                    growth.curves.append(curve)
                    growth.seeds.append(seeds)
    return [growth for growth in found.values() if growth.curves], broken


def _place(row: dict[str, Any], axis: str) -> tuple[str, str, str, float] | None:
    """Return table, label, everything else that decides, and the value on the axis; None for a run that has no place on it."""
    base, given = parse_variant(row["task"], "task")
    settings = row["settings"]
    training, backbone = dict(settings["training"]), dict(settings["backbone"])
    about = {name: row[name] for name in GROUP}
    steps, samples = settings["steps"], row["samples"]
    if axis == "steps":
        x, steps = steps, None
    elif axis == "batch":
        x, samples = training.pop("batch_size", None), None
    elif axis == "depth":
        x = backbone.pop("depth", None)
    else:
        x, steps, backbone = given.pop("length", None), None, {}  # time steps, and the depth that they ask for, follow from the length
        about["task"] = base + (f"[{','.join(f'{k}={v}' for k, v in given.items())}]" if given else "")
    if x is None or not math.isfinite(float(x)) or float(x) <= 0:
        return None
    shown = {**row["options"], **{k: v for k, v in row["training"].items() if k not in ("epochs", "batch_size")}}
    if axis != "depth" and row["asked_depth"]:
        shown["depth"] = row["asked_depth"]
    inside = ",".join(f"{k}={written(v)}" for k, v in sorted(shown.items()))
    label = row["method"] + (f"[{inside}]" if inside else "")
    label += f"@T={row['asked_steps']}" if axis not in ("steps", "length") and row["asked_steps"] else ""
    same = [settings["options"], training, backbone, steps, samples, settings["code_hash"], row["tuning"]]
    return json.dumps(list(about.values())), label, json.dumps(same, sort_keys=True), float(x)


def _curves(label: str, runs: dict[tuple[float, int], dict[str, float | None]], metrics: Sequence[Metric]) -> Iterable[tuple[Curve, int]]:
    """Yield a curve of means over seeds for each metric that was measured at two points, with the fewest seeds of a point."""
    at = sorted({x for x, _ in runs})
    for m in metrics:
        values = [[figures[m.name] for (x, _), figures in runs.items() if x == each] for each in at]
        finite = [[y for y in ys if y is not None and math.isfinite(y)] for ys in values]
        means = [statistics.fmean(ys) if len(ys) == len(all_) else None for ys, all_ in zip(finite, values, strict=True)]
        if sum(mean is not None for mean in means) > 1:
            yield Curve(label, m, at, means), min(len(ys) for ys, mean in zip(values, means, strict=True) if mean is not None)
