"""Every record of a store, read once: what tables do not say about a run, and the files that the page of a run shows it from.

A record goes through ``thinned`` and into a shard of ``SHARD`` neighbours (same task, same method), in which equal parts lie side by side,
so that ten thousand records take some megabytes::

    runs = read(Store("results/reference", deep=True))
    for name, text in runs.shards(): ...
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pydantic_core
from pydantic import ValidationError

from harness.metrics import METRICS
from harness.record import Record
from harness.report.site.packed import as_json
from harness.store import Store

SHARD = 40  # records per file
POINTS = 100  # of a list of numbers that a page draws
EPOCHS = 300  # of a trace
INDEX = ("test_accuracy", "saved_bytes", "step_time", "total_time", "spikes", "synops")  # metrics in the list of runs


@dataclass(frozen=True)
class Run:
    """A record without its bulk."""

    key: str
    label: str
    method: str
    task: str
    track: str
    budget: str
    precision: str
    threads: int
    seed: int
    status: str
    started: str
    device: str
    kind: str
    commit: str
    versions: dict[str, str]
    metric: str  # main metric of the task
    figures: tuple[float | None, ...]  # of ``INDEX``
    short: bool  # cut to a number of samples that was asked for, as `spikebench scale` does
    loss: tuple[float, ...]  # per epoch, phases in a row
    validation: tuple[float, ...]

    @property
    def order(self) -> tuple:
        """Return what runs are sorted by: those of one task and method stand together."""
        return self.task, self.budget, self.track, self.device, self.label, self.seed, self.started, self.key


@dataclass
class Runs:
    """All runs of a store, in order; a key that was read twice counts once. ``broken`` are files that hold no readable record."""

    runs: list[Run]
    broken: list[str] = field(default_factory=list)
    texts: dict[str, bytes] = field(default_factory=dict, repr=False)  # key -> the thinned record, packed

    def __post_init__(self) -> None:
        """Sort the runs and index them."""
        self.runs = sorted(self.runs, key=lambda run: run.order)
        self.by_key = {run.key: run for run in self.runs}

    def shards(self) -> Iterator[tuple[str, bytes]]:
        """Yield name and JSON of each shard: part of a record -> that part of every record in it."""
        for start in range(0, len(self.runs), SHARD):
            rows = [zlib.decompress(self.texts[run.key]).split(b"\n") for run in self.runs[start : start + SHARD]]
            columns = (as_json(name) + b":[" + b",".join(parts) + b"]" for name, parts in zip(PARTS, zip(*rows, strict=True), strict=True))
            yield f"records-{start // SHARD:03d}", b"{" + b",".join(columns) + b"}"


PARTS = tuple(Record.model_fields)


def read(store: Store) -> Runs:
    """Return the runs of a store; of two files with one key the later run counts."""
    found: dict[str, Run] = {}
    texts: dict[str, bytes] = {}
    broken = []
    shared: dict[Any, Any] = {}
    for name in store.files():
        try:
            text = (store.folder / name).read_bytes()
            Record.model_validate_json(text)
            record = pydantic_core.from_json(text)
        except (OSError, ValidationError, ValueError):
            broken.append(name)
            continue
        run = _run(record, shared)
        if run.key not in found or found[run.key].started <= run.started:
            found[run.key] = run
            shown = thinned(record)
            texts[run.key] = zlib.compress(b"\n".join(as_json(shown.get(name)) for name in PARTS), 1)
    return Runs(list(found.values()), broken, texts)


def _run(record: dict[str, Any], shared: dict[Any, Any]) -> Run:
    spec, environment = record["spec"], record.get("environment") or {}
    versions = environment.get("versions") or {}
    asked = spec.get("device", "cpu")
    trace = record.get("trace") or []
    return Run(
        key=record["key"],
        label=record["label"],
        method=spec["method"],
        task=spec["task"],
        track=spec.get("track", "matched"),
        budget=spec.get("budget", "smoke"),
        precision=spec.get("precision", "fp32"),
        threads=int(spec.get("threads", 1)),
        seed=int(spec.get("seed", 0)),
        status=record["status"],
        started=record["started"],
        device=environment.get("device") or asked,
        kind=environment.get("device_kind") or asked.split(":")[0],
        commit=environment.get("git_commit") or "",
        versions=shared.setdefault(tuple(sorted(versions.items())), versions),
        metric=(record.get("accuracy") or {}).get("metric", ""),
        figures=tuple(METRICS[name].read(record) for name in INDEX),
        short=spec.get("samples") is not None,
        loss=tuple(float(epoch["loss"]) for epoch in trace),
        validation=tuple(float(epoch["validation"]) for epoch in trace),
    )


def thinned(record: dict[str, Any]) -> dict[str, Any]:
    """Return a record for the page of a run: at most ``POINTS`` of each list of numbers, figures in lists rounded to four digits.

    Correctness bits are left out, and of step times the parts stand as medians: files of records have them all.
    """
    shown = dict(record)
    if accuracy := record.get("accuracy"):
        shown["accuracy"] = {name: value for name, value in accuracy.items() if name != "correct"}
        steps = accuracy.get("curve_steps") or range(len(accuracy["test_curve"]))
        shown["accuracy"]["curve_steps"] = list(steps)  # thinned like the curves that belong to it
    if time := record.get("time"):
        shown["time"] = {**time, "phases": [_phase(phase) for phase in time["phases"]]}
    shown["trace"] = every(record.get("trace") or [], EPOCHS)
    return _walked(shown)  # type: ignore[no-any-return]


def _phase(phase: dict[str, Any]) -> dict[str, Any]:
    middle = {name: sorted(phase[name])[len(phase[name]) // 2] if phase[name] else None for name in ("forward", "backward", "optimizer")}
    return {"phase": phase["phase"], "steps": len(phase["total"]), "total": phase["total"], **middle}


def _walked(value: dict | list, listed: bool = False) -> Any:
    # Numbers are dealt with where they stand: a call for each of some thousands per record would take longer than all else.
    if isinstance(value, dict):
        return {
            name: _walked(part, listed) if isinstance(part, (dict, list)) else _rounded(part) if listed and type(part) is float else part
            for name, part in value.items()
        }
    if value and not isinstance(value[0], (dict, list)):
        return [float(f"{part:.4g}") if type(part) is float else part for part in every(value)]
    return [_walked(part, True) if isinstance(part, (dict, list)) else part for part in value]


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")


def every(values: Sequence[Any], points: int = POINTS) -> list[Any]:
    """Return at most ``points`` of ``values``, evenly spread, the first and the last among them."""
    if len(values) <= points:
        return list(values)
    return [values[round(k * (len(values) - 1) / (points - 1))] for k in range(points)]
