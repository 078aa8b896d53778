"""From records to tables: which runs make a row, which rows a table, in which order, how they rank, and which are Pareto-optimal."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence, Set
from typing import Any

import numpy as np

from harness.metrics import Metric, as_task_metric, metric
from harness.report.pareto import optimal
from harness.report.table.row import Row
from harness.report.table.table import GROUP, Table
from harness.statistics import Runs, p_value, ranks
from harness.store import Store

DEFAULT_METRICS = (
    "test_accuracy",
    "steps_used",
    "saved_bytes",
    "step_time",
    "epoch_time",
    "total_time",
    "spikes",
    "synops",
    "parameters",
)
COSTS = ("saved_bytes",)  # what Pareto-optimal rows are chosen by, besides the main metric
ROW = {
    "key": "key",
    "label": "label",
    "method": "spec.method",
    "seed": "spec.seed",
    "status": "status",
    "started": "started",
    "metric": "accuracy.metric",
    "settings": "settings",
    "asked_device": "spec.device",
    "correct": "accuracy.correct",
    "items": "accuracy.items",
}


def build(
    store: Store,
    *,
    keys: Set[str] | None = None,
    tasks: Sequence[str] = (),
    methods: Sequence[str] = (),
    suites: Sequence[str] = (),
    metrics: Sequence[str] = DEFAULT_METRICS,
    sort: str = "test_accuracy",
    reasons: Mapping[tuple[str, str], str] | None = None,
    spread: str = "deviation",
    against: str | Mapping[str, str] | None = None,
    extra: Mapping[str, str] | None = None,
    pareto: Sequence[str] = COSTS,
    verified: Set[str] = frozenset(),
) -> tuple[list[Table], list[str]]:
    """Return the tables of the records that fit, and the names of unreadable files.

    ``extra`` names further parts of the records that ``Row.runs`` shall have: name -> dotted path. ``pareto`` are the metrics that, with
    the main one, decide which rows are Pareto-optimal (none: no row is marked), ``verified`` the keys of records that were checked.

    ``reasons`` maps (task, label) to why a method cannot do a task. ``against`` is the label of a row with which all others of its table
    are compared, or for each label that of its own (``harness.report.baselines``): difference of the main metric, with the paired test of
    ``harness.statistics``, not corrected for the number of rows, and ratios of the other figures. Where a seed was run
    under several keys (the code changed), the latest record counts, and records of other settings or code never share a row with it.
    """
    columns = [metric(name) for name in dict.fromkeys([*metrics, sort, "test_accuracy", *pareto])]
    rows, broken = store.select({**GROUP, **ROW, **(extra or {}), **{m.name: m.path for m in columns}})
    sound = [row for row in rows if _sound(row, columns)]
    broken = sorted([*broken, *({row["file"] for row in rows} - {row["file"] for row in sound})])
    chosen = [
        row
        for row in sound
        if (keys is None or row["key"] in keys)
        and (not tasks or row["task"] in tasks)
        and (not suites or row["task"].split("/")[0] in suites)
        and (not methods or row["method"] in methods or row["label"] in methods)
    ]
    groups: dict[tuple, list[dict[str, Any]]] = {}
    for row in chosen:
        row["nameless"] = row["device"] is None  # a process that died before it could say
        row["device"] = row["device"] or row["asked_device"]
        row["kind"] = row["kind"] or row["asked_device"].split(":")[0]
        groups.setdefault(tuple(row[name] for name in GROUP), []).append(row)
    _adopt_failures(groups)
    shown = [m for m in columns if m.name in metrics]
    tables = []
    for group, members in sorted(groups.items(), key=lambda item: tuple(map(str, item[0]))):
        about = dict(zip(GROUP, group, strict=True))
        missing = {label: why for (task, label), why in (reasons or {}).items() if task == about["task"]}
        named = [row["metric"] for row in members if row["metric"]]
        main = statistics.mode(named) if named else "accuracy"
        ordered = _rows(members, as_task_metric(metric(sort), main))
        by = as_task_metric(metric("test_accuracy"), main)
        costs = [as_task_metric(metric(name), main) for name in pareto]
        table = Table(about, ordered, [as_task_metric(m, main) for m in shown], missing, by, spread, costs)
        _rank(table.rows, by)
        _mark(table.rows, [by, *costs] if costs else [])
        rows_by_label = {row.label: row for row in ordered}
        for row in ordered:
            row.verified = bool(row.runs) and all(run["key"] in verified for run in row.runs)
            base = rows_by_label.get(against.get(row.label, "") if isinstance(against, Mapping) else against or "")
            if base is not None and base is not row:
                row.base, row.p = base, p_value(row.found, base.found)
        tables.append(table)
    return tables, broken


def _sound(row: dict[str, Any], columns: Sequence[Metric]) -> bool:
    """Make numbers of a record's figures and an array of its bits; return False for a file in which something else stands there."""
    try:
        for m in columns:
            row[m.name] = None if row[m.name] is None else float(row[m.name])  # "NaN" is a text in JSON
        if row["metric"] == "accuracy" and row["correct"]:  # else items are no measure
            row["correct"] = np.unpackbits(np.frombuffer(bytes.fromhex(row["correct"]), np.uint8))[: row["items"]].astype(bool)
        else:
            row["correct"] = None
    except (TypeError, ValueError, OverflowError):
        return False
    texts = all(row[name] is None or isinstance(row[name], str) for name in ("device", "kind", "metric"))
    return texts and all(isinstance(row[name], (str, int)) for name in ("track", "budget", "precision", "threads"))


def _rank(rows: Sequence[Row], by: Metric) -> None:
    """Rank rows by their main metric. The items decide along with the seeds only where the metric is the share of right items."""
    for row in rows:
        figures = {run["seed"]: run[by.name] for run in row.runs if run[by.name] is not None}
        row.found = Runs(figures, {run["seed"]: run["correct"] for run in row.runs if run["correct"] is not None})
    for row, rank in zip(rows, ranks([row.found for row in rows], by.direction == "higher"), strict=True):
        row.rank = rank


def _mark(rows: Sequence[Row], by: Sequence[Metric]) -> None:
    """Say which rows are Pareto-optimal in the metrics ``by``, of those that have them all."""
    if by:
        points = {place: [row.mean(m.name) for m in by] for place, row in enumerate(rows)}
        usable = [place for place, point in points.items() if all(x is not None and math.isfinite(x) for x in point)]
        best = optimal([points[place] for place in usable], [m.direction for m in by])  # type: ignore[misc]
        for position, place in enumerate(usable):
            rows[place].optimal = position in best


def _adopt_failures(groups: dict[tuple, list[dict[str, Any]]]) -> None:
    """Move runs that died before naming their device to the table of the same task that did, if there is one."""
    device = list(GROUP).index("device")
    for group in list(groups):
        if all(row["nameless"] for row in groups[group]):
            for other in groups:
                same = all(a == b for i, (a, b) in enumerate(zip(group, other, strict=True)) if i != device)
                if other != group and same and any(row["status"] == "ok" for row in groups[other]):
                    groups[other] += groups.pop(group)
                    break


def _rows(members: Sequence[dict[str, Any]], by: Metric) -> list[Row]:
    """Return one row per label and settings (the code hash among them): latest first, then sorted by a metric, best first."""
    latest: dict[tuple[str, int], dict[str, Any]] = {}
    for row in sorted(members, key=lambda row: row["started"]):
        latest[row["label"], row["seed"]] = row
    found: dict[str, list[list[dict[str, Any]]]] = {}
    for row in latest.values():
        row["settings"].pop("time_limit", None)
        versions = found.setdefault(row["label"], [])
        same = next((runs for runs in versions if runs[0]["settings"] == row["settings"]), None)
        if same is None:
            versions.append(same := [])
        same.append(row)
    rows = []
    for label, versions in found.items():
        newest = max(versions, key=lambda runs: max(run["started"] for run in runs))
        failures: dict[str, int] = {}
        for run in newest:
            if run["status"] != "ok":
                failures[run["status"]] = failures.get(run["status"], 0) + 1
        rows.append(Row(label, [run for run in newest if run["status"] == "ok"], failures))
    sign = -1 if by.direction == "higher" else 1

    def rank(row: Row) -> tuple[float, str]:
        value = row.mean(by.name)
        return (math.inf if value is None or not math.isfinite(value) else sign * value, row.label)

    return sorted(rows, key=rank)
