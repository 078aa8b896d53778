"""Comparison tables from records: rows are methods, columns metrics, cells mean ± standard deviation over seeds.

One table holds one task, device, track, budget and precision only; these are never mixed. Runs of one row differ in nothing but the seed.
Methods whose main metric cannot be told apart share a rank (``harness.statistics``).
"""

from __future__ import annotations

import csv
import io
import itertools
import math
import re
import statistics
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from html import escape
from typing import Any

from tabulate import tabulate

from harness.metrics import MISSING, Metric, as_task_metric, format_value, metric, scale_for
from harness.record import STATUSES, decode_bits
from harness.statistics import Runs, interval, p_value, ranks
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
SPREADS = ("deviation", "interval")  # what stands beside a mean: ± the standard deviation, or the bootstrap interval of the mean
FORMATS = {"terminal": "simple", "github": "github", "latex": "latex_booktabs", "csv": "csv", "html": "html"}

# What makes a table, and what a row carries besides metrics: name -> path in the record.
GROUP = {
    "task": "spec.task",
    "track": "spec.track",
    "budget": "spec.budget",
    "device": "environment.device",
    "kind": "environment.device_kind",
    "precision": "spec.precision",
    "threads": "spec.threads",
}
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


@dataclass
class Row:
    """A method in a table."""

    label: str
    runs: list[dict[str, Any]]  # records with status ok, one per seed
    failures: dict[str, int] = field(default_factory=dict)  # status -> number of runs
    found: Runs = field(default_factory=lambda: Runs({}, {}))  # main metric per seed, and which items were right
    base: Row | None = None  # the row that it is compared with, if one is asked for and there
    p: float | None = None  # of the paired test against ``base``; not corrected for the number of rows
    rank: int | None = None  # 1 + number of methods in the table that are significantly better; None where that cannot be tested

    def values(self, name: str) -> list[float]:
        """Return the values of a metric over seeds; those not measured are left out."""
        return [run[name] for run in self.runs if run[name] is not None]

    def mean(self, name: str) -> float | None:
        """Return the mean over seeds; None where a seed has no value (a missing cell makes an average missing)."""
        values = self.values(name)
        return statistics.fmean(values) if values and len(values) == len(self.runs) else None

    def deviation(self, name: str) -> float | None:
        """Return the standard deviation over seeds (n - 1); None for fewer than two."""
        values = self.values(name)
        return statistics.stdev(values) if len(values) > 1 else None

    def interval(self, name: str) -> tuple[float, float] | None:
        """Return the 95 % bootstrap interval of the mean over seeds; None for fewer than three finite values."""
        values = self.values(name)
        return interval(values) if all(map(math.isfinite, values)) else None


@dataclass
class Table:
    """One table: what it is about, its rows (best first), its columns, and the methods that are not in it, with the reason."""

    about: dict[str, Any]
    rows: list[Row]
    metrics: list[Metric]
    reasons: dict[str, str]
    main: Metric  # main metric of the task
    spread: str = "deviation"  # one of ``SPREADS``

    @property
    def title(self) -> str:
        """Return what the table is about, in one line."""
        a = self.about
        where = f"{a['device']} ({a['kind']}, {a['precision']}, threads {a['threads']})"
        return f"{a['task']}, {a['budget']} budget, {a['track']} track, on {where}"

    def cells(self) -> tuple[list[str], list[list[str]]]:
        """Return headings and rows of text."""
        scales = {m.name: scale_for(m, [row.mean(m.name) for row in self.rows]) for m in self.metrics}
        heads = ["method", "n", "rank", *(self._heading(m, scales[m.name].unit) for m in self.metrics)]
        compared = any(row.base for row in self.rows)
        heads += [f"{self.main.title}, difference to"] if compared else []
        lines = []
        for row in self.rows:
            cells = []
            for m in self.metrics:
                scale = scales[m.name]
                deviation = row.deviation(m.name) if self.spread == "deviation" else None
                text = format_value(m, row.mean(m.name), deviation, scale=scale).removesuffix(f" {scale.unit}")
                ends = row.interval(m.name) if self.spread == "interval" else None
                if ends is not None and row.mean(m.name) is not None:
                    text += " [{}, {}]".format(*(format_value(m, end, scale=scale).removesuffix(f" {scale.unit}") for end in ends))
                cells.append(text + self._ratio(row, m))
            lines.append([row.label, str(len(row.runs)), MISSING if row.rank is None else str(row.rank), *cells])
            if compared:
                lines[-1].append(self._difference(row))
        return heads, lines

    def _ratio(self, row: Row, m: Metric) -> str:
        """Return " (0.27x)" for a figure that is 0.27 times that of the row compared with; shares are compared by differences."""
        mean, base = row.mean(m.name), row.base.mean(m.name) if row.base else None
        return f" ({mean / base:.2f}x)" if mean is not None and base and base > 0 and m.unit != "fraction" else ""

    def _difference(self, row: Row) -> str:
        mean, base = row.mean("test_accuracy"), row.base.mean("test_accuracy") if row.base else None
        if row.base is None or mean is None or base is None:
            return MISSING
        percent = self.main.unit == "fraction"
        text = f"{100 * (mean - base):+.2f} points" if percent else f"{mean - base:+.4g}"
        return f"{row.base.label}: {text}" + (f" (p = {row.p:.3f})" if row.p is not None else "")

    def _heading(self, m: Metric, unit: str) -> str:
        arrow = "↑" if m.direction == "higher" else "↓"
        return f"{m.title} {f'[{unit}] ' if unit else ''}{arrow}"

    def notes(self) -> list[str]:
        """Return a line for every method that failed or cannot do the task."""
        failed = [
            f"{row.label}: {count} run(s) {status} ({STATUSES.get(status, 'unknown status')})"
            for row in self.rows
            for status, count in row.failures.items()
        ]
        return failed + [f"{label}: cannot run here: {' '.join(reason.split())}" for label, reason in self.reasons.items()]

    def render(self, style: str = "terminal") -> str:
        """Return the table as text in one of ``FORMATS`` (but csv, for which see ``render``)."""
        heads, lines = self.cells()
        notes = self.notes()
        if style == "github":
            lines = [[cell.replace("|", r"\|") for cell in line] for line in lines]
        if style == "terminal":  # narrow: the unit goes below the name
            heads = [re.sub(r" (\[\S+\] )?([↑↓])$", lambda found: f"\n{found[1] or ''}{found[2]}", head) for head in heads]
        body = tabulate(lines, heads, tablefmt=FORMATS[style], disable_numparse=True, colalign=["left"] + ["right"] * (len(heads) - 1))
        if style == "latex":
            # ↑ and ↓ are not in the default fonts of LaTeX.
            body = body.replace("↑", r"$\uparrow$").replace("↓", r"$\downarrow$").replace("±", r"$\pm$").replace("µ", r"$\mu$")
            body = body.replace("∞", r"$\infty$")
            return "\n".join([f"% {self.title}", body, *(f"% {note}" for note in notes)])
        if style == "html":
            listed = "".join(f"<li>{escape(note)}</li>" for note in notes)
            return f"<h3>{escape(self.title)}</h3>\n{body}" + (f"\n<ul>{listed}</ul>" if notes else "")
        title = f"### {self.title}\n" if style == "github" else self.title
        mark = "- " if style == "github" else "  "
        return "\n".join([title, body, *([""] if notes and style == "github" else []), *(f"{mark}{note}" for note in notes)])


def render(tables: Sequence[Table], style: str) -> str:
    """Return all tables as text.

    In csv they are one: a line per row, with means, standard deviations and ends of 95 % intervals in the metrics' own units.
    """
    if style != "csv":
        return "\n\n".join(table.render(style) for table in tables)
    columns = list(dict.fromkeys(m.name for table in tables for m in table.metrics))
    lines: list[list[Any]] = [
        [
            *GROUP,
            "method",
            "n",
            "failed",
            "rank",
            "against",
            "p",
            *(f"{c}{part}" for c in columns for part in ("", "_std", "_low", "_high")),
        ]
    ]
    for table in tables:
        for row in table.rows:
            against = row.base.label if row.base else None
            figures = [value for c in columns for value in (row.mean(c), row.deviation(c), *(row.interval(c) or (None, None)))]
            lines.append([*table.about.values(), row.label, len(row.runs), sum(row.failures.values()), row.rank, against, row.p, *figures])
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)  # None is an empty cell
    return text.getvalue().rstrip("\n")


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
) -> tuple[list[Table], list[str]]:
    """Return the tables of the records that fit, and the names of unreadable files.

    ``extra`` names further parts of the records that ``Row.runs`` shall have: name -> dotted path.

    ``reasons`` maps (task, label) to why a method cannot do a task. ``against`` is the label of a row with which all others of its table
    are compared, or for each label that of its own (``harness.report.baselines``): difference of the main metric, with the paired test of
    ``harness.statistics``, not corrected for the number of rows, and ratios of the other figures. Where a seed was run
    under several keys (the code changed), the latest record counts, and records of other settings or code never share a row with it.
    """
    columns = [metric(name) for name in dict.fromkeys([*metrics, sort, "test_accuracy"])]
    rows, broken = store.select({**GROUP, **ROW, **(extra or {}), **{m.name: m.path for m in columns}})
    for row, m in itertools.product(rows, columns):
        row[m.name] = None if row[m.name] is None else float(row[m.name])  # "NaN" is a text in JSON
    chosen = [
        row
        for row in rows
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
        main = named[0] if named else "accuracy"
        ordered = _rows(members, as_task_metric(metric(sort), main))
        by = as_task_metric(metric("test_accuracy"), main)
        table = Table(about, ordered, [as_task_metric(m, main) for m in shown], missing, by, spread)
        _rank(table.rows, by, main)
        rows_by_label = {row.label: row for row in ordered}
        for row in ordered:
            base = rows_by_label.get(against.get(row.label, "") if isinstance(against, Mapping) else against or "")
            if base is not None and base is not row:
                row.base, row.p = base, p_value(row.found, base.found)
        tables.append(table)
    return tables, broken


def _rank(rows: Sequence[Row], by: Metric, main: str) -> None:
    """Rank rows by their main metric. The items decide along with the seeds only where the metric is the share of right items."""
    for row in rows:
        bits = {run["seed"]: decode_bits(run["correct"], run["items"]) for run in row.runs if run["correct"]} if main == "accuracy" else {}
        row.found = Runs({run["seed"]: run[by.name] for run in row.runs if run[by.name] is not None}, bits)
    for row, rank in zip(rows, ranks([row.found for row in rows], by.direction == "higher"), strict=True):
        row.rank = rank


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
    found: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for row in latest.values():
        settings = {k: v for k, v in row["settings"].items() if k != "time_limit"}
        found.setdefault(row["label"], {}).setdefault(str(settings), []).append(row)
    rows = []
    for label, versions in found.items():
        newest = max(versions.values(), key=lambda runs: max(run["started"] for run in runs))
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
