"""What papers claim beside what was measured: every claim of every card, from records alone.

A ratio or difference is measured where method and baseline stand in one table (``harness.report.table``: one task, device, track and
budget): on the paper's task if it was run, else on the table with most seeds, which is named. Seeds are paired; the interval is the
bootstrap's of their mean (from three seeds on). A value is measured on the paper's task only. A property is measured where its claim says
what is expected: of the metric against a baseline, or of its growth over time steps or depth (``harness.report.scaling``). Verdicts::

    holds               the paper's figure lies in the interval, or ours is within 5 % of it (one point of a share) or goes further
    direction holds     on the same side of no difference, with its whole interval
    does not hold       neither
    not measured        with the reason

Bytes of the CUDA allocator are measured on CUDA; without such records the bytes saved for backward stand in for them, and that is said.
"""

from __future__ import annotations

import csv
import io
import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tabulate import tabulate

from harness.metrics import METRICS, MISSING, Metric, format_value
from harness.plugin import Claim
from harness.registry import Registries
from harness.report.scaling import Fit, fit
from harness.report.table import FORMATS, Row, Table, build
from harness.spec import parse_variant
from harness.statistics import interval
from harness.store import Store

HOLDS, DIRECTION, FAILS, UNKNOWN = "holds", "direction holds", "does not hold", "not measured"
STANDS_IN = {"cuda_bytes": "saved_bytes"}
BUDGETS = ("paper", "laptop", "smoke")
CLOSE = 0.05  # relative, of ratios and values; of shares ``POINT``
POINT = 0.01
GROWTH = {  # what grows over what is read from these records: name -> path
    "method": "spec.method",
    "options": "spec.options",
    "task": "spec.task",
    "budget": "spec.budget",
    "kind": "environment.device_kind",
    "samples": "spec.samples",
    "training": "spec.training",
    "steps": "settings.steps",
    "depth": "spec.depth",
    "status": "status",
}


@dataclass(frozen=True)
class Finding:
    """A claim and what came of it. ``measured`` and ``low``, ``high`` (the interval, if there is one) are in the unit of the claim."""

    method: str
    claim: Claim
    verdict: str
    measured: float | None = None
    low: float | None = None
    high: float | None = None
    n: int = 0  # seeds
    where: str = ""  # task, budget, track and device of the measurement, and what stands in for what
    reason: str = ""  # why there is no measurement
    command: str = ""  # what measures it

    @property
    def paper_text(self) -> str:
        """Return the paper's figure, or what its property expects, as a person reads it."""
        return self.claim.expect or "in words" if self.claim.value is None else _shown(self.claim, self.claim.value)

    @property
    def measured_text(self) -> str:
        """Return our figure with its interval; a dash where nothing was measured."""
        if self.measured is None:
            return MISSING
        ends = "" if self.low is None else f" [{_shown(self.claim, self.low)}, {_shown(self.claim, self.high)}]"
        return _shown(self.claim, self.measured) + ends


def collect(store: Store, registries: Registries, methods: Sequence[str] = ()) -> list[Finding]:
    """Return a finding for every claim of the cards of ``methods`` (default: all), from the records of a store that reads sub-folders."""
    metrics = needed(registries)
    tables, _ = build(store, metrics=metrics)
    growth, _ = store.select({**GROWTH, **{name: METRICS[name].path for name in metrics}})
    return find(registries, tables, growth, methods)


def find(
    registries: Registries, tables: Sequence[Table], growth: Sequence[Mapping[str, Any]], methods: Sequence[str] = ()
) -> list[Finding]:
    """Return a finding for every claim of the methods (default: of all), in the order of names and cards.

    ``tables`` must have the metrics ``needed``; ``growth`` are rows with ``GROWTH`` and the metrics of claims about growth.
    """
    return [
        _find(name, claim, tables, growth)
        for name in registries.methods.names()
        if not methods or name in methods
        for claim in registries.methods.load(name).card.claims
    ]


def needed(registries: Registries) -> tuple[str, ...]:
    """Return the metrics that claims are about, and those that stand in for them."""
    claimed = {claim.metric for name in registries.methods.names() for claim in registries.methods.load(name).card.claims}
    return tuple(name for name in METRICS if name in claimed | {STANDS_IN.get(each, each) for each in claimed} | {"test_accuracy"})


def _find(method: str, claim: Claim, tables: Sequence[Table], growth: Sequence[Mapping[str, Any]]) -> Finding:
    label = claim.variant or method
    if claim.kind == "property" and not claim.expect:
        return Finding(method, claim, UNKNOWN, reason="a statement in words; its tests are in the method's test module")
    if claim.expect.endswith(("over steps", "over depth")):
        return _grown(method, claim, label, growth)
    if claim.kind == "value":
        return _value(method, claim, label, tables)
    assert claim.against is not None
    command = f"spikebench run -t {_task(claim, tables, label)} -m {label},{claim.against} --seeds 3"
    pairs = [(table, *rows) for table in tables if (rows := _rows(table, label, claim.against))]
    for name in dict.fromkeys((claim.metric, STANDS_IN.get(claim.metric, claim.metric))):
        usable = [(table, *found) for table, one, other in pairs if (found := _paired(one, other, name, claim.kind))]
        if usable:
            table, values = max(usable, key=lambda each: _worth(each[0], claim, len(each[1])))
            said = "" if name == claim.metric else f"; {METRICS[name].title} in place of {METRICS[claim.metric].title}"
            return _judged(method, claim, values, METRICS[name], table.title + said, f"{command} --budget {table.about['budget']}")
    reason = f"no record has {METRICS[claim.metric].title} of both" if pairs else f"no records of {label} and {claim.against} on one task"
    return Finding(method, claim, UNKNOWN, reason=reason, command=command)


def _task(claim: Claim, tables: Sequence[Table], label: str) -> str:
    """Return the task to measure on: where both are already, else the paper's, else the smallest that is embedded."""
    found = [table.about["task"] for table in tables if claim.against and _rows(table, label, claim.against)]
    return claim.task if claim.task in found else found[0] if found else "static/digits" if claim.task == "any" else claim.task


def _rows(table: Table, label: str, against: str) -> tuple[Row, Row] | None:
    rows = {row.label: row for row in table.rows if row.runs}
    return (rows[label], rows[against]) if label in rows and against in rows else None


def _worth(table: Table, claim: Claim, seeds: int) -> tuple[bool, bool, int, int]:
    budget = table.about["budget"]
    rank = len(BUDGETS) - BUDGETS.index(budget) if budget in BUDGETS else 0
    return table.about["task"] == claim.task, table.about["track"] == "matched", min(seeds, 3), rank


def _paired(one: Row, other: Row, name: str, kind: str) -> tuple[list[float]] | None:
    """Return per seed the ratio (of properties and ratios) or difference that both rows have; None if there is none."""
    mine, theirs = ({run["seed"]: run[name] for run in row.runs if run[name] is not None} for row in (one, other))
    shared = [seed for seed in mine if seed in theirs]
    ratio = kind == "ratio" or (kind == "property" and METRICS[name].unit != "fraction")
    values = [mine[s] / theirs[s] if ratio else mine[s] - theirs[s] for s in shared if theirs[s] or not ratio]
    values = [value for value in values if math.isfinite(value)]
    return (values,) if values else None


def _judged(method: str, claim: Claim, values: list[float], metric: Metric, where: str, command: str) -> Finding:
    mean, ends = statistics.fmean(values), interval(values)
    low, high = ends or (None, None)
    found = {"measured": mean, "low": low, "high": high, "n": len(values), "where": where, "command": command}
    ratio = claim.kind == "ratio" or (claim.kind == "property" and metric.unit != "fraction")
    none = 1.0 if ratio else 0.0
    bottom, top = ends or (mean, mean)
    if claim.kind == "property":
        margin = CLOSE if ratio else POINT
        passed = {
            "higher": mean > none,
            "lower": mean < none,
            "not lower": mean >= none - margin or top >= none,
            "not higher": mean <= none + margin or bottom <= none,
        }[claim.expect]
        clear = {"higher": bottom > none, "lower": top < none}.get(claim.expect, passed)
        return Finding(method, claim, HOLDS if passed and clear else FAILS, **found)  # type: ignore[arg-type]
    assert claim.value is not None
    near = abs(mean - claim.value) <= (CLOSE * abs(claim.value) if ratio else POINT)
    below = claim.value < none
    further = mean <= claim.value if below else mean >= claim.value
    same_side = top < none if below else bottom > none
    if near or bottom <= claim.value <= top or (further and claim.value != none):
        return Finding(method, claim, HOLDS, **found)  # type: ignore[arg-type]
    return Finding(method, claim, DIRECTION if same_side else FAILS, **found)  # type: ignore[arg-type]


def _value(method: str, claim: Claim, label: str, tables: Sequence[Table]) -> Finding:
    command = f"spikebench run -t {claim.task} -m {label} --track recipe --budget paper --seeds 3"
    found = [
        (table, row.values(claim.metric))
        for table in tables
        if table.about["task"] == claim.task
        for row in table.rows
        if row.label == label and row.values(claim.metric)
    ]
    if not found:
        return Finding(method, claim, UNKNOWN, reason=f"no record of {label} on {claim.task}", command=command)
    table, values = max(found, key=lambda each: (each[0].about["track"] == "recipe", _worth(each[0], claim, len(each[1]))))
    mean, ends = statistics.fmean(values), interval(values)
    low, high = ends or (None, None)
    assert claim.value is not None
    metric = METRICS[claim.metric]
    close = POINT if metric.unit == "fraction" else CLOSE * abs(claim.value)
    reached = abs(mean - claim.value) <= close or metric.better(mean, claim.value)
    return Finding(method, claim, HOLDS if reached else FAILS, mean, low, high, len(values), table.title, command=command)


def _grown(method: str, claim: Claim, label: str, growth: Sequence[Mapping[str, Any]]) -> Finding:
    word, _, over = claim.expect.split()
    name, options = parse_variant(label)
    axis, fixed = ("steps", "depth") if over == "steps" else ("depth", "steps")
    command = f'spikebench scale -t static/digits -m "{label}" --over {over} --values {"2,4,8,16" if over == "steps" else "1,2,4,8"}'
    points: dict[str, dict[float, list[float]]] = {}
    for row in growth:
        same = row["method"] == name and {k: str(v) for k, v in (row["options"] or {}).items()} == options and row["status"] == "ok"
        if same and row[axis] is not None and row[claim.metric] is not None and row["samples"] is not None:
            group = {key: row[key] for key in ("task", "budget", "kind", "samples", "training", fixed)}
            points.setdefault(json.dumps(group, sort_keys=True), {}).setdefault(float(row[axis]), []).append(float(row[claim.metric]))
    curves = {group: {x: statistics.fmean(y) for x, y in sorted(found.items())} for group, found in points.items() if len(found) > 2}
    if not curves:
        return Finding(method, claim, UNKNOWN, reason=f"no records of {label} at three values of {over}", command=command)
    group, curve = max(curves.items(), key=lambda item: len(item[1]))
    line: Fit = fit(list(curve), list(curve.values()))
    about = json.loads(group)
    where = f"{about['task']}, {about['budget']} budget, {axis} {', '.join(f'{x:g}' for x in curve)} ({about['kind']}): {line.verdict}"
    change = curve[max(curve)] / curve[min(curve)] if curve[min(curve)] else math.nan
    return Finding(method, claim, HOLDS if line.verdict == word else FAILS, change, n=1, where=where, command=command)


def render(findings: Sequence[Finding], style: str) -> str:
    """Return the findings as text: one of ``harness.report.table.FORMATS``; in csv with all digits."""
    if style == "csv":
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        names = ("metric", "kind", "value", "expect", "against", "task", "setting", "source")
        heads = ("measured", "low", "high", "n", "verdict", "where", "reason", "command")
        writer.writerow(["method", *names, *heads])
        for each in findings:
            writer.writerow([each.method, *(getattr(each.claim, name) for name in names), *(getattr(each, name) for name in heads)])
        return text.getvalue().rstrip("\n")
    counts = {verdict: sum(each.verdict == verdict for each in findings) for verdict in (HOLDS, DIRECTION, FAILS, UNKNOWN)}
    summary = f"{len(findings)} claims: " + ", ".join(f"{count} {verdict}" for verdict, count in counts.items())
    rows = [_cells(each) for each in findings]
    if style == "github":
        rows = [[cell.replace("|", r"\|") for cell in row] for row in rows]
    heads = ("method", "claim", "paper", "here", "n", "verdict", "measured on, or why not", "measured by")
    body = tabulate(rows, heads, tablefmt=FORMATS[style], disable_numparse=True, maxcolwidths=TERMINAL if style == "terminal" else None)
    return f"{summary}\n\n{body}"


TERMINAL = [18, 34, 12, 18, None, 10, 34, 40]  # widths of the columns on a terminal


def _cells(each: Finding) -> list[str]:
    claim = each.claim
    about = (
        f"{METRICS[claim.metric].title}, {claim.task}: {claim.setting}" if claim.setting else f"{METRICS[claim.metric].title}, {claim.task}"
    )
    against = f" (against {claim.against})" if claim.against else ""
    name = claim.variant or each.method
    command = f"`{each.command}`" if each.command else MISSING
    return [name, about + against, each.paper_text, each.measured_text, str(each.n or MISSING), each.verdict, each.where or each.reason, command]


def _shown(claim: Claim, value: float | None) -> str:
    if value is None or not math.isfinite(value):
        return MISSING
    metric = METRICS[claim.metric]
    grown = claim.expect.endswith(("over steps", "over depth"))
    if claim.kind == "ratio" or grown or (claim.kind == "property" and metric.unit != "fraction"):
        return f"{value:.3g}x"
    if claim.kind in ("difference", "property"):
        return f"{100 * value:+.2f} points" if metric.unit == "fraction" else f"{value:+.4g}"
    return format_value(metric, value)
