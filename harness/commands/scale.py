"""``spikebench scale``: memory and time of methods at several T, batch sizes, lengths or depths, with fitted slopes.

Each point is an ordinary run of one short epoch, with a record: enough steps for the memory figures and a median of times. What it
learned is not tried on longer sequences.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import typer

from harness.commands.execute import execute
from harness.identity import Plan
from harness.matrix import Selection, plans, specs
from harness.metrics import metric
from harness.plugin import UsageError, did_you_mean
from harness.registry import Registries
from harness.report.baselines import baselines
from harness.report.scaling import Curve, render
from harness.spec import OWN, RunSpec, parse_variant
from harness.store import Store

OVER = ("steps", "batch", "length", "depth")
DEFAULT_METRICS = ("saved_bytes", "transient_bytes", "rss_bytes", "cuda_bytes", "step_time")
BATCHES = 14  # of an epoch: those that measure memory, those that warm up, and some to time


def scale(
    selection: Selection,
    over: str,
    values: Sequence[int],
    metrics: Sequence[str],
    style: str,
    folder: Path,
    plugin_files: Sequence[Path],
    resume: str,
    *,
    force: bool,
) -> None:
    """Run every method at every value and print a table per metric, with ratios to ``selection.against``. Exit 1 if a run failed."""
    if over not in OVER:
        raise UsageError(f"cannot scale over {over!r}{did_you_mean(over, OVER)}")
    if style not in ("terminal", "github", "csv"):
        raise UsageError(f"unknown format {style!r}{did_you_mean(style, ('terminal', 'github', 'csv'))}")
    if len(set(values)) < 2 or min(values) < 1:
        raise UsageError(f"--values needs two different whole numbers above 0, for example 2,4,8; given: {list(values)}")
    chosen = [metric(name) for name in metrics or DEFAULT_METRICS]
    if len(selection.tasks) != 1:
        raise UsageError("scale takes one task: --task static/digits")
    against = selection.against
    if against == OWN:
        raise UsageError("--against own is for `run` and `table`; here name one method")
    registries = Registries(plugin_files)
    points = {value: plans(specs(at(selection, over, value, registries), registries), registries) for value in sorted(set(values))}
    every = [plan for found in points.values() for plan in found]
    if all(plan.skip for plan in every):
        raise UsageError(f"{every[0].spec.method} cannot run on {every[0].spec.task}: {every[0].skip}" if every else "nothing to run")
    records = execute(every, folder, plugin_files, selection.jobs, None, force, resume)
    paths = {"key": "key", "status": "status", "device": "environment.device"} | {m.name: m.path for m in chosen}
    rows, _ = Store(folder).select(paths)
    by_key = {row["key"]: row for row in rows if row["status"] == "ok"}
    curves = []
    for m in chosen:
        for label in dict.fromkeys(plain_label(plan.spec, over) for plan in every if not plan.skip):
            y = [_mean([by_key[p.key][m.name] for p in points[v] if _is(p, label, over) and p.key in by_key]) for v in points]
            if any(value is not None for value in y):
                curves.append(Curve(label, m, list(points), y))
    if curves:
        device = next((row["device"] for row in by_key.values()), "")
        if style != "csv":
            typer.echo(f"{selection.tasks[0]}, {selection.budget} budget, {selection.track} track, over {over}, on {device}\n")
        typer.echo(render(curves, over, style, baselines(against, [curve.label for curve in curves], registries)))
    for reason in dict.fromkeys(f"  {p.spec.method}: cannot run here: {p.skip}" for p in every if p.skip):
        typer.echo(reason, err=True)
    if any(record.status != "ok" for record in records):
        raise typer.Exit(1)


def at(selection: Selection, over: str, value: int, registries: Registries) -> Selection:
    """Return the selection for one value; raise UsageError where the task does not have what is to be scaled."""
    name, options = parse_variant(selection.tasks[0], "task")
    task = registries.task(selection.tasks[0], selection.budget)
    settings = {"epochs": "1", **selection.settings}
    given = settings.get("batch_size", str(task.budget.training.batch_size))
    if not given.isdecimal() or int(given) < 2:
        raise UsageError(f"--set batch_size={given}: must be a whole number of at least 2")
    batch = value if over == "batch" else int(given)
    short = replace(selection, settings={**settings, "batch_size": str(batch)}, samples=selection.samples or batch * BATCHES)
    if over == "steps":
        if task.temporal:
            raise UsageError(
                f"{name} brings its own time axis; scale over batch or depth, or over length where the task has such an option"
            )
        return replace(short, steps=value)
    if over == "length":
        if "length" not in type(task).Options.model_fields:
            free = [each for each in registries.tasks.names() if "length" in registries.tasks.load(each).Options.model_fields]
            raise UsageError(f"{name} has no option 'length'; tasks that have it: {', '.join(free) or 'none'}")
        inside = ",".join(f"{key}={text}" for key, text in {**options, "length": str(value)}.items())
        return replace(short, tasks=[f"{name}[{inside}]"])
    return replace(short, depth=value) if over == "depth" else short


def plain_label(spec: RunSpec, over: str) -> str:
    """Return the method's label without what is the same in all points, or scaled over."""
    given: dict[str, Any] = {"samples": None, "training": {k: v for k, v in spec.training.items() if k not in ("epochs", "batch_size")}}
    if over == "steps":
        given["steps"] = None
    if over == "depth":
        given["depth"] = None
    return spec.model_copy(update=given).label


def _is(plan: Plan, label: str, over: str) -> bool:
    return plan.key is not None and plain_label(plan.spec, over) == label


def _mean(values: Sequence[Any]) -> float | None:
    numbers = [float(value) for value in values if value is not None]
    return statistics.fmean(numbers) if numbers and len(numbers) == len(values) else None
