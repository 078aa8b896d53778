"""Two folders of records compared: no code runs.

Records are matched by label, task, track, budget, precision, device, threads and seed. Of what matches:

- memory in bytes and numbers of parameters are compared exactly, where the settings agree;
- so are spikes, operations and results, where device, versions of the packages and number of threads agree too; otherwise these depend on
  rounding and are left to the tests;
- accuracy is judged by the paired tests of ``harness.statistics`` (over items and over seeds), corrected for the number of cases;
- times of a training step and latencies by a rank test over the seeds (Mann-Whitney, one-sided), from four seeds on each side and on the
  same device, runs whose own record doubts its times left out.
"""

from __future__ import annotations

import json
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from harness.metrics import METRICS, as_task_metric
from harness.plugin import UsageError
from harness.record import Record, decode_bits
from harness.regress import exact
from harness.regress.figures import of_records
from harness.regress.finding import Finding, Outcome
from harness.regress.settings import Settings
from harness.regress.timing import cliffs_delta
from harness.statistics import Runs, holm, p_value
from harness.store import Store

Cell = tuple[Any, ...]
Runs_ = dict[int, Record]
BYTES = ("saved_bytes", "transient_bytes", "optimizer_bytes", "parameter_bytes", "parameters", "state_bytes", "synops_dense")
TESTED = ("test_accuracy", "validation_accuracy", "loss")  # not exact: the seeds are a sample
TIMES = ("step_time", "latency")
FEW = 4  # seeds a side needs for a rank test over them
ALPHA = 0.05  # of the paired tests, as in tables
DOUBT = "times are not to be trusted"


def read(folder: Path) -> tuple[dict[Cell, Runs_], list[str]]:
    """Return cell -> seed -> newest record of a folder and those below it, and the files that are no readable record."""
    found: dict[Cell, Runs_] = defaultdict(dict)
    broken = []
    for name in Store(folder, deep=True).files():
        try:
            record = Record.model_validate_json((folder / name).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, ValidationError):
            broken.append(name)
            continue
        spec = record.spec
        cell = (record.label, spec.task, spec.track, spec.budget, spec.precision, spec.device.partition(":")[0], spec.threads)
        earlier = found[cell].get(spec.seed)
        if earlier is None or earlier.started < record.started:
            found[cell][spec.seed] = record
    return dict(found), broken


def compare(base: Path, head: Path, settings: Settings, methods: Sequence[str] = (), tasks: Sequence[str] = ()) -> Outcome:
    """Return what came of two folders. Raises UsageError if nothing of them can be matched."""
    notes, sides = [], []
    for folder in (base, head):
        cells, broken = read(folder)
        if broken:
            notes.append(
                f"{len(broken)} file(s) of {folder} are no readable record: {', '.join(broken[:3])}{'...' if len(broken) > 3 else ''}"
            )
        sides.append({cell: runs for cell, runs in cells.items() if _wanted(cell, methods, tasks)})
    before, after = sides
    pairs = {cell: sorted(before[cell].keys() & after[cell].keys()) for cell in before if cell in after}
    pairs = {cell: seeds for cell, seeds in pairs.items() if seeds}
    if not pairs:
        raise UsageError(f"no record of {head} matches one of {base} (label, task, track, budget, precision, device, threads, seed)")
    for folder, one, other in ((base, before, after), (head, after, before)):
        alone = sum(len(runs.keys() - other.get(cell, {}).keys()) for cell, runs in one.items())
        if alone:
            notes.append(f"{alone} record(s) of {folder} have no counterpart")
    names = _names(pairs)
    found: list[Finding] = []
    tested: list[tuple[Finding, float]] = []
    for cell, seeds in pairs.items():
        one, other = ([side[cell][seed] for seed in seeds] for side in (before, after))
        findings, maybe = _cell(names[cell], one, other, settings, notes)
        found += findings
        tested += maybe
    for (finding, _), corrected in zip(tested, holm([p for _, p in tested]), strict=True):
        timed = finding.metric in TIMES
        finding.p = corrected
        if corrected < (settings.alpha if timed else ALPHA):
            if finding.worsening > (finding.threshold or 0.0):
                finding.status = "slower" if timed else "worse"
            elif finding.worsening < 0 and not timed:
                finding.status = "better"
    gained = {each.case for each, _ in tested if each.status == "better"}
    for each in found:
        if each.status == "changed" and each.case in gained:
            each.status = "better"
    told = {"records": sum(len(seeds) for seeds in pairs.values()), **settings.plain()}
    plain = [
        {"given": str(folder), "title": str(folder), "records": sum(map(len, side.values()))}
        for folder, side in zip((base, head), sides, strict=True)
    ]
    return Outcome(plain[0], plain[1], found + [each for each, _ in tested], notes, told)


def _wanted(cell: Cell, methods: Sequence[str], tasks: Sequence[str]) -> bool:
    return (not methods or cell[0] in methods or cell[0].partition("[")[0] in methods) and (not tasks or cell[1] in tasks)


def _names(cells: Mapping[Cell, Any]) -> dict[Cell, str]:
    """Return what findings call each cell: task and method, and whatever else tells it from the others."""
    told = [place for place in range(2, 7) if len({cell[place] for cell in cells}) > 1]
    return {cell: f"{cell[1]}: {cell[0]}" + "".join(f", {cell[place]}" for place in told[:4]) for cell in cells}


def _cell(
    case: str, one: list[Record], other: list[Record], settings: Settings, notes: list[str]
) -> tuple[list[Finding], list[tuple[Finding, float]]]:
    plain = [[json.loads(record.model_dump_json()) for record in side] for side in (one, other)]
    base, head = (of_records(side) for side in plain)
    if base.error or head.error:
        return exact.compare(case, base, head, settings), []
    if any(not _agree(a, b) for a, b in zip(one, other, strict=True)):
        notes.append(f"{case}: settings or data differ, so only accuracy is compared")
        return [], _accuracy(case, one, other, settings)
    alike = all(_machine(a) == _machine(b) for a, b in zip(one, other, strict=True))
    for side in (base, head):
        kept = set(side.values) - set(TESTED) if alike else set(side.values) & set(BYTES)
        side.values = {name: side.values[name] for name in sorted(kept)}
    found = exact.compare(case, base, head, settings)
    if not alike:
        notes.append(f"{case}: made on different machines or with different packages, so spikes, results and times are not compared")
        found = [each for each in found if each.metric != exact.RESULTS]
    return found, _accuracy(case, one, other, settings) + (_times(case, one, other, settings) if alike else [])


def _agree(one: Record, other: Record) -> bool:
    ours, theirs = (record.settings.model_dump(exclude={"time_limit", "code_hash", "plugin_file"}) for record in (one, other))
    return ours == theirs


def _machine(record: Record) -> Any:
    place = record.environment
    return None if place is None else (place.device, place.cpu, place.system, place.threads, place.cuda, sorted(place.versions.items()))


def _accuracy(case: str, one: Sequence[Record], other: Sequence[Record], settings: Settings) -> list[tuple[Finding, float]]:
    runs, means = [], []
    for side in (one, other):
        figures = {record.spec.seed: record.accuracy.test for record in side if record.accuracy}
        bits = {
            record.spec.seed: decode_bits(record.accuracy.correct, record.accuracy.items)
            for record in side
            if record.accuracy and record.accuracy.items and record.accuracy.metric == "accuracy"
        }
        runs.append(Runs(figures, bits))
        means.append(statistics.fmean(figures.values()))
    p = p_value(*runs)
    if p is None:
        return []
    assert one[0].accuracy is not None
    metric = as_task_metric(METRICS["test_accuracy"], one[0].accuracy.metric)
    moved = exact.change(means[0], means[1], metric.unit)
    threshold = settings.threshold("test_accuracy")
    finding = Finding(
        case, "test_accuracy", "tested", "same", *means, metric.unit, threshold, moved, n=len(one), direction=metric.direction
    )
    return [(finding, p)]


def _times(case: str, one: Sequence[Record], other: Sequence[Record], settings: Settings) -> list[tuple[Finding, float]]:
    found = []
    for name in TIMES:
        sides = [
            [value for record in side if not _doubtful(record) and (value := METRICS[name].read(record.model_dump())) is not None]
            for side in (one, other)
        ]
        if min(map(len, sides)) < FEW:
            continue
        from scipy.stats import mannwhitneyu

        p = float(mannwhitneyu(sides[1], sides[0], alternative="greater").pvalue)
        before, after = map(statistics.median, sides)
        allowed = settings.threshold("step_time" if name == "step_time" else "answer_time")
        found.append(
            (
                Finding(
                    case,
                    name,
                    "tested",
                    "same",
                    before,
                    after,
                    "s",
                    allowed,
                    after / before - 1,
                    delta=cliffs_delta(*sides),
                    n=min(map(len, sides)),
                ),
                p,
            )
        )
    return found


def _doubtful(record: Record) -> bool:
    return any(DOUBT in warning for warning in record.warnings)
