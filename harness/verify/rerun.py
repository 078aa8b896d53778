"""Runs records again on this machine and compares: what is deterministic must agree, times are only told.

With the same code, versions and device, figures must be equal; where a processor rounds in another way, or the code is another, they must
agree within bounds: accuracy within noise (3 points, or a paired test that does not tell the two apart), saved bytes within 1 %, spikes and
operations within 10 %. Only the spec of a record is used, never a file that came with it.
"""

from __future__ import annotations

import hashlib
import random
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.engines.local import LocalEngine
from harness.environment import git_state
from harness.identity import Plan, plan
from harness.metrics import as_task_metric, metric
from harness.plugin import UsageError
from harness.record import Record, decode_bits
from harness.registry import Registries
from harness.statistics import ALPHA, Runs, over_items
from harness.store import Store
from harness.verify.candidate import Candidate, Finding, error, warning
from harness.verify.provenance import differences

POINTS = 0.03  # of a share of right answers
RELATIVE = {"saved_bytes": 0.01, "spikes": 0.1, "synops": 0.1}  # metric -> relative difference that is allowed
ERROR_RELATIVE = 0.1  # of other main metrics: perplexity, squared errors
TIMES = ("step_time", "total_time", "latency")
HERE = ("out_of_memory", "timeout", "killed")  # ends of a run that may be this machine's doing


@dataclass
class Outcome:
    """What came of running a record again: ``reason`` says why it did not run; ``times`` are those of the record and those here."""

    candidate: Candidate
    reason: str = ""
    times: dict[str, tuple[float, float]] = field(default_factory=dict)
    exact: bool = False


def seed_of(candidates: Sequence[Candidate]) -> int:
    """Return the seed that records are drawn with: of their contents, and of this checkout's commit.

    The commit is there because a submitter knows the contents, and could change a digit until the draw suits.
    """
    text = "".join(sorted(each.sha256 for each in candidates)) + (git_state()[0] or "")
    return int(hashlib.sha256(text.encode()).hexdigest()[:8], 16)


def plan_here(candidate: Candidate, registries: Registries) -> Plan | str:
    """Return how the record would run here, or why it cannot be compared."""
    record = candidate.record
    if record is None or record.status != "ok":
        return "it is no record of a run that succeeded"
    try:
        found = plan(record.spec, registries)
    except UsageError as problem:
        if record.settings.plugin_file is not None:
            return f"{problem} (of a plugin file: name it with --plugin)"
        return str(problem)
    except Exception as problem:  # options of others may be anything
        return f"{type(problem).__name__}: {problem}"
    if found.settings is None:
        return found.skip or "it cannot run here"
    if found.settings.data_checksum != record.settings.data_checksum:
        return "the data here are others"
    differing = differences(record.settings, found.settings)
    if differing:
        return f"the code here resolves it to other settings: {'; '.join(differing[:3])}"
    return found


def choose(candidates: Sequence[Candidate], count: int, keys: Sequence[str]) -> list[Candidate]:
    """Return the candidates to run again: those named, and ``count`` more in an order drawn by ``seed_of``, all that could come to it.

    Raises UsageError for a beginning of a key that no record, or more than one, has.
    """
    named = []
    for key in keys:
        found = [each for each in candidates if each.record is not None and each.record.key.startswith(key)]
        if len(found) != 1:
            raise UsageError(f"--key {key!r}: {len(found) or 'no'} records of the folder have a key that starts so")
        named += [each for each in found if each not in named]
    if not count:
        return named
    taken = {id(each) for each in named}
    rest = [each for each in candidates if id(each) not in taken and each.record is not None and each.record.status == "ok"]
    rest.sort(key=lambda each: each.sha256)
    random.Random(seed_of(candidates)).shuffle(rest)
    return named + rest


def run_again(
    chosen: Sequence[Candidate], count: int, registries: Registries, plugin_files: Sequence[Path], tell: Callable[[str], None]
) -> list[Outcome]:
    """Run the first ``count`` of ``chosen`` that can run here; add findings to them, and return what came of each that was tried.

    ``tell`` gets a line before each run. KeyboardInterrupt ends the run in flight and is raised again.
    """
    outcomes: list[Outcome] = []
    done = 0
    for each in chosen:
        if done == count:
            break
        found = plan_here(each, registries)
        outcome = Outcome(each)
        outcomes.append(outcome)
        if isinstance(found, str):
            outcome.reason = found
            continue
        done += 1
        assert each.record is not None
        tell(f"running again: {each.name} (took {each.record.duration:.0f} s)")
        with tempfile.TemporaryDirectory(prefix="spikebench-verify-") as folder:
            store = Store(folder)
            store.prepare()
            (again,) = LocalEngine(store, plugin_files).run([found], lambda plan, event: None)
        if again.status in HERE:
            message = again.failure.message if again.failure else ""
            outcome.reason = f"it ended here as {again.status}: {message}"
            continue
        findings, outcome.exact = compare(each.record, again)
        each.findings += findings
        each.rerun = not any(finding.severity == "error" for finding in findings)
        outcome.times = {name: (a, b) for name in TIMES if (a := _read(each.record, name)) and (b := _read(again, name))}
    return outcomes


def _read(record: Record, name: str) -> float | None:
    return metric(name).read(record.model_dump(include={metric(name).path.partition(".")[0]}))


def compare(record: Record, again: Record) -> tuple[list[Finding], bool]:
    """Return what differs between a record and its second run, and whether all that is deterministic is equal."""
    if again.status != "ok":
        message = again.failure.message if again.failure else ""
        return [error("run again", f"run again it ended as {again.status}: {message}")], False
    exact = _deterministic(record) == _deterministic(again)
    if exact:
        return [], True
    findings = [*_accuracy(record, again), *_others(record, again)]
    if not findings and _same_ground(record, again):
        places = [name for name, value in _deterministic(record).items() if _deterministic(again)[name] != value]
        text = f"the same code, versions and device gave other figures, within bounds: {', '.join(places[:4])}"
        findings.append(warning("run again", text))
    return findings, False


def _deterministic(record: Record) -> dict[str, Any]:
    a, m, s = record.accuracy, record.memory, record.activity
    return {
        "accuracy": (a.test, a.validation) if a else None,
        "answers": a.correct if a else None,
        "losses": [epoch.loss for epoch in record.trace],
        "saved bytes": m.saved_bytes if m else None,
        "parameters": m.parameter_count if m else None,
        "spikes": s.spikes_per_sample if s else None,
        "operations": s.synops_effective if s else None,
    }


def _same_ground(record: Record, again: Record) -> bool:
    one, other = record.environment, again.environment
    if one is None or other is None or record.settings.code_hash != again.settings.code_hash:
        return False
    return (one.versions, one.system, one.cpu, one.device) == (other.versions, other.system, other.cpu, other.device)


def _accuracy(record: Record, again: Record) -> Iterator[Finding]:
    one, other = record.accuracy, again.accuracy
    if one is None or other is None:
        return
    shown = as_task_metric(metric("test_accuracy"), one.metric)
    text = f"{shown.title} {one.test:.4g}, run again {other.test:.4g}"
    if shown.unit != "fraction":
        if abs(one.test - other.test) > ERROR_RELATIVE * abs(other.test):
            yield error("run again", text)
        return
    if abs(one.test - other.test) <= POINTS:
        return
    if one.metric == "accuracy" and one.items == other.items:
        p = over_items(*(Runs({0: a.test}, {0: decode_bits(a.correct, a.items)}) for a in (one, other))) or 0.0
        if p >= ALPHA:
            return
        text += f" (paired test: p = {p:.2g})"
    yield error("run again", text)


def _others(record: Record, again: Record) -> Iterator[Finding]:
    for name, allowed in RELATIVE.items():
        one, other = _read(record, name), _read(again, name)
        if (one is None) != (other is None) or (one is not None and other is not None and abs(one - other) > allowed * abs(other)):
            yield error("run again", f"{metric(name).title} {one}, run again {other} ({100 * allowed:g} % are allowed)")
    if record.memory and again.memory and record.memory.parameter_count != again.memory.parameter_count:
        yield error("run again", f"{record.memory.parameter_count} parameters, run again {again.memory.parameter_count}")
