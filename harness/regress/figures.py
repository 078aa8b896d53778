"""Figures that no noise touches, of both sides: short seeded runs, operations of a training step, results and costs of neuron cores.

Both sides work at the same time, each in a process of its own. What a side could not do is kept as the reason why; a process that dies
over it is replaced and the rest goes on.
"""

from __future__ import annotations

import hashlib
import json
import statistics
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from harness.metrics import METRICS
from harness.regress.plan import Plan
from harness.regress.side import Side
from harness.regress.worker import Worker, WorkerError

Say = Callable[[str], None]
# What of a record repeats to the last digit: everything but times and resident memory.
EXACT = (
    "test_accuracy",
    "validation_accuracy",
    "steps_used",
    "spikes",
    "synops",
    "synops_dense",
    "updates",
    "state_bytes",
    "saved_bytes",
    "transient_bytes",
    "optimizer_bytes",
    "parameter_bytes",
    "parameters",
    "gradient_cosine",
)


@dataclass
class Figures:
    """Of one case on one side."""

    values: dict[str, float] = field(default_factory=dict)  # means over seeds
    digest: str = ""  # of all results: losses, answers, spikes
    measure: str = ""  # the task's main metric; empty for a core
    seeds: int = 1
    error: str | None = None  # why there is nothing


class _Side:
    """A worker that is replaced when it dies, unless it was stopped."""

    def __init__(self, side: Side) -> None:
        self.side = side
        self.worker = Worker(side)
        self._lock, self._stopped = threading.Lock(), False

    def ask(self, order: dict[str, Any]) -> dict[str, Any]:
        try:
            return self.worker.ask(order)
        except WorkerError as error:
            with self._lock:
                if self._stopped:
                    raise InterruptedError from None
                if error.dead:
                    self.worker.close()
                    self.worker = Worker(self.side)
            raise

    def stop(self) -> None:
        with self._lock:
            self._stopped = True
            self.worker.close()


def of_records(records: Sequence[dict[str, Any]], extra: dict[str, float] | None = None) -> Figures:
    """Return the figures of the records of one case, one per seed (plain JSON); ``error`` if one of them failed."""
    for record in records:
        if record["status"] != "ok":
            said = (record.get("failure") or {}).get("message", "")
            return Figures(error=f"{record['status']}: {said}")
    found = Figures(measure=records[0]["accuracy"]["metric"], seeds=len(records))
    for name in EXACT:
        values = [METRICS[name].read(record) for record in records]
        if all(value is not None for value in values):
            found.values[name] = statistics.fmean(value for value in values if value is not None)
    losses = [[epoch["loss"] for epoch in record["trace"]] for record in records]
    if all(losses):
        found.values["loss"] = statistics.fmean(each[-1] for each in losses)
    found.values |= extra or {}
    results = [
        (
            record["trace"] and [(e["loss"], e["validation"]) for e in record["trace"]],
            record["accuracy"]["test_curve"],
            record["accuracy"]["correct"],
        )
        for record in records
    ]
    activity = [[record["activity"][name] for name in ("spikes_per_sample", "synops_effective")] for record in records]
    found.digest = hashlib.sha256(json.dumps([results, activity]).encode()).hexdigest()[:16]
    return found


def _run(side: _Side, task: str, method: str, plan: Plan) -> Figures:
    order = {"task": task, "method": method, "samples": plan.samples, "epochs": plan.epochs}
    try:
        answers = [side.ask({"do": "run", "seed": seed, **order}) for seed in range(plan.seeds)]
        refused = next((answer["cannot"] for answer in answers if "cannot" in answer), None)
        if refused is not None:
            return Figures(error=refused)
        return of_records([answer["record"] for answer in answers], side.ask({"do": "step", **order}))
    except WorkerError as error:
        return Figures(error=str(error))


def _core(side: _Side, core: str) -> Figures:
    try:
        answer = side.ask({"do": "core", "core": core})
    except WorkerError as error:
        return Figures(error=str(error))
    digest = answer.pop("values")
    return Figures(answer, digest)


def _all(side: _Side, plan: Plan, say: Say) -> dict[str, Figures]:
    found: dict[str, Figures] = {}
    total = len(plan.cores) + len(plan.runs)
    for core in plan.cores:
        found[f"core {core}"] = _core(side, core)
    say(f"{side.side.name}: neuron cores done, {total - len(found)} cases to run")
    for task, method in plan.runs:
        found[f"{task}: {method}"] = _run(side, task, method, plan)
        say(f"{side.side.name}: {task}: {method} ({len(found)} of {total})")
    return found


def measure(plan: Plan, sides: Sequence[Side], say: Say) -> list[dict[str, Figures]]:
    """Return case -> figures for each side. Raises UsageError for a side that cannot be measured at all."""
    started: list[_Side] = []
    try:
        for side in sides:
            started.append(_Side(side))
        with ThreadPoolExecutor(len(sides)) as pool:
            try:
                return list(pool.map(lambda side: _all(side, plan, say), started))
            except BaseException:  # an interrupt: the threads end when what they wait for does
                for each in started:
                    each.stop()
                raise
    finally:
        for each in started:
            each.stop()
