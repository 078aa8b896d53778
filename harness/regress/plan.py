"""What is measured: the matrix of ``suites/regress.toml``, or the methods and tasks that were chosen, with the neuron cores always."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from harness.matrix import canonical
from harness.plugin import UsageError
from harness.registry import Registries
from harness.spec import parse_variant


@dataclass(frozen=True)
class Timing:
    """Something that is timed: a metric of ``settings.TIMES``, the case, and what the worker must know to do it."""

    metric: str
    case: str
    order: dict[str, Any] = field(hash=False)

    @property
    def name(self) -> str:
        """Return what tells it from the others."""
        return f"{self.metric} of {self.case}"


@dataclass(frozen=True)
class Plan:
    """Runs and cores that are compared exactly, and timings."""

    runs: list[tuple[str, str]]  # task, method
    cores: list[str]
    timings: list[Timing]
    seeds: int
    samples: int
    epochs: int
    notes: list[str]


def contents() -> dict[str, Any]:
    """Return what ``suites/regress.toml`` says."""
    spec = find_spec("suites")
    if spec is None or not spec.submodule_search_locations:
        raise UsageError("the package `suites` with regress.toml, which says what to measure, is not here")
    return tomllib.loads((Path(spec.submodule_search_locations[0]) / "regress.toml").read_text(encoding="utf-8"))


def make(methods: Sequence[str] = (), tasks: Sequence[str] = (), timed: bool = True) -> Plan:
    """Return the plan for ``methods`` and ``tasks`` (default: those of the file).

    Raises UsageError for a name that is not there, for tasks whose data are not here, and if no method can do any task.
    """
    told = contents()
    pairs = [(task, method) for task, row in told["runs"].items() for method in row]
    timings = [_timing(metric, text) for metric, texts in told["times"].items() for text in texts]
    notes: list[str] = []
    if methods or tasks:
        pairs, notes = _chosen(methods, tasks, told["runs"])
        named = [f"{task}: {method}" for task, method in pairs]
        timings = [each for each in timings if each.metric == "core_time"]
        timings += [_timing(metric, name) for name in named for metric in ("step_time", "answer_time")]
        timings += [_timing("loader_time", task) for task in dict.fromkeys(task for task, _ in pairs)]
    cores = [each.order["core"] for each in timings if each.metric == "core_time"]
    return Plan(pairs, cores, timings if timed else [], told["seeds"], told["samples"], told["epochs"], notes)


def _timing(metric: str, text: str) -> Timing:
    if metric == "core_time":
        return Timing(metric, f"core {text}", {"core": text})
    task, _, method = text.partition(": ")
    return Timing(metric, text, {"task": task, "method": method})


def _chosen(methods: Sequence[str], tasks: Sequence[str], rows: dict[str, list[str]]) -> tuple[list[tuple[str, str]], list[str]]:
    registries = Registries()
    found, notes = [], []
    for task in [canonical(name, registries) for name in tasks] or list(rows):
        bound = registries.task(task, "smoke")
        if reason := bound.unavailable():
            raise UsageError(f"{task} cannot be measured: {reason}")
        for text in methods or rows.get(task) or dict.fromkeys(name for row in rows.values() for name in row):
            name, options = parse_variant(text)
            kind = registries.methods.load(name)
            kind.parse_options(options)
            if reason := kind.supports(bound):
                notes.append(f"{text} is not measured on {task}: {reason}")
            else:
                found.append((task, text))
    if not found:
        raise UsageError("nothing to measure: " + "; ".join(notes))
    return found, notes
