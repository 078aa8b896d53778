"""Which runs exist: from filters to specs, from specs to plans. How they run is the engines' business."""

from __future__ import annotations

import math
import os
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from pydantic import ValidationError

from harness.identity import Plan, plan
from harness.plugin import UsageError, did_you_mean
from harness.registry import Registries
from harness.spec import OWN, RunSpec, parse_variant
from harness.store import Store
from harness.task import Task, Training, named


@dataclass
class Selection:
    """What the user asked to run. ``methods`` may carry options: ``ottt[update=online]``; empty lists mean all."""

    methods: Sequence[str] = ()
    tasks: Sequence[str] = ()
    suites: Sequence[str] = ()
    families: Sequence[str] = ()
    seeds: int = 1
    track: Literal["matched", "recipe"] = "matched"
    budget: str = "smoke"
    steps: int | None = None
    device: str = "cpu"
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    samples: int | None = None
    depth: int | None = None
    tuning: str | None = None
    threads: int | None = None
    jobs: int = 1
    settings: dict[str, str] = field(default_factory=dict)
    probes: Sequence[str] = ()
    against: str = ""  # a method to run besides, or "own": the baseline of each method's card


def choose_threads(selection: Selection) -> int:
    """Return CPU threads per run: as asked; else 1 for the smoke budget (its tensors are too small to share), else an equal part."""
    if selection.threads:
        return selection.threads
    return 1 if selection.budget == "smoke" else max(1, (os.cpu_count() or 1) // max(1, selection.jobs))


def specs(selection: Selection, registries: Registries) -> list[RunSpec]:
    """Return the specs of a selection: tasks, methods and seeds in this order. Raises UsageError for a name that is not there."""
    tasks = _tasks(selection, registries)
    offered = {name: registries.tasks.load(parse_variant(name)[0]).budgets for name in tasks}
    if tasks and not any(selection.budget in budgets for budgets in offered.values()):
        raise UsageError(f"{tasks[0]} has no budget {selection.budget!r}{did_you_mean(selection.budget, offered[tasks[0]])}")
    methods, alone = _methods(selection, registries)
    if selection.families:
        families = {registries.methods.load(name).card.family for name in registries.methods.names()}
        for family in selection.families:
            if family not in families:
                raise UsageError(f"unknown family {family!r}{did_you_mean(family, families)}")
        methods = [(name, o) for name, o in methods if registries.methods.load(name).card.family in selection.families]
    methods += _baselines(selection.against, methods, registries)
    cells = [_Cell(name, options, (), selection.steps) for name, options in methods]
    attached = [_probe(text, registries) for text in selection.probes]
    training_fields = set(Training.__dataclass_fields__)
    used: set[str] = set()
    found = []
    for task in tasks:
        for cell in cells + _at_steps(alone, registries.task(task, next(iter(offered[task]))), selection.steps):
            name = cell.method
            fields = registries.methods.load(name).Options.model_fields
            options, training = dict(cell.options), {}
            for key, value in selection.settings.items():
                if key in fields:
                    options[key] = value
                elif key in training_fields:
                    training[key] = value
                else:
                    continue
                used.add(key)
            parsed = registries.methods.load(name).parse_options(options)
            changed = {key: value for key, value in parsed.model_dump(mode="json").items() if key in options}
            probes = tuple(dict.fromkeys([*attached, *cell.probes]))
            chosen = replace(selection, probes=probes, steps=cell.steps)
            for seed in range(selection.seeds):
                found.append(_spec(chosen, name, changed, task, _typed(training), seed))
    unknown = set(selection.settings) - used
    if unknown:
        key = sorted(unknown)[0]
        names = training_fields.union(
            *(registries.methods.load(name).Options.model_fields for name in {cell.method for cell in cells + alone})
        )
        raise UsageError(f"--set {key}: no chosen method has such an option and training has no such setting{did_you_mean(key, names)}")
    return found


@dataclass(frozen=True)
class _Cell:
    """A method of the matrix with what is attached to it alone."""

    method: str
    options: dict[str, str] = field(hash=False)
    probes: tuple[str, ...]
    steps: int | None


def _methods(selection: Selection, registries: Registries) -> tuple[list[tuple[str, dict[str, str]]], list[_Cell]]:
    """Return the methods that were named, and the cells of probes that were named in place of a method."""
    methods, alone = [], []
    for text in dict.fromkeys(selection.methods or registries.methods.names()):
        name, options = parse_variant(text)
        if name in registries.methods.names() or name not in registries.probes.names():
            methods.append((name, options))
            continue
        probe, card = _probe(text, registries), registries.probes.load(name).card
        on, variant = parse_variant(card.applied_to)
        alone += [_Cell(on, variant, (probe,), each) for each in card.at_steps or (None,)]
    return methods, alone


def _at_steps(alone: Sequence[_Cell], task: Task, asked: int | None) -> list[_Cell]:
    """Return the cells of probes on a task: with the steps asked for if any were, and once only where the data have their own time axis."""
    return list(alone) if asked is None and not task.temporal else list(dict.fromkeys(replace(cell, steps=asked) for cell in alone))


def _probe(text: str, registries: Registries) -> str:
    """Return a probe's name with its options as the run key knows them: checked, sorted, defaults left out."""
    name, options = parse_variant(text, "probe")
    return named(name, registries.probes.load(name).parse_options(options))


def _baselines(against: str, methods: Sequence[tuple[str, dict[str, str]]], registries: Registries) -> list[tuple[str, dict[str, str]]]:
    """Return what the methods are to be compared with and that is not among them."""
    cards = [registries.methods.load(name).card for name, _ in methods]
    names = [card.baseline for card in cards] if against == OWN else [against]
    added = [parse_variant(name) for name in dict.fromkeys(names) if name]
    return [each for each in added if each not in methods]


def _tasks(selection: Selection, registries: Registries) -> list[str]:
    names = registries.tasks.names()
    chosen = [canonical(name, registries) for name in selection.tasks]
    suites = {name.split("/")[0] for name in names}
    for suite in selection.suites:
        if suite not in suites:
            raise UsageError(f"unknown suite {suite!r}{did_you_mean(suite, suites)}")
    if selection.suites:
        inside = [name for name in names if name.split("/")[0] in selection.suites]
        return [name for name in chosen if name.split("/")[0] in selection.suites] if chosen else inside
    return list(dict.fromkeys(chosen)) or names


def canonical(name: str, registries: Registries) -> str:
    """Return a task's name with its options as the run key knows them: checked, sorted, defaults left out."""
    base, options = parse_variant(name, "task")
    kind = registries.tasks.load(base)
    return named(base, kind.parse_options(options))


def _typed(training: dict[str, str]) -> dict[str, Any]:
    """Return settings with the types of ``Training``; raise UsageError for a value that does not fit."""
    from pydantic import TypeAdapter

    adapter = TypeAdapter(Training)
    try:
        given = {key: value.split(",") if key == "milestones" and isinstance(value, str) else value for key, value in training.items()}
        parsed = adapter.validate_python({"epochs": 1, **given})
    except ValidationError as error:
        first = error.errors()[0]
        name = first["loc"][0]
        raise UsageError(f"--set {name}={training[name]}: {first['msg']}") from None
    for key in ("epochs", "batch_size", "lr"):
        if key in training and getattr(parsed, key) <= 0:
            raise UsageError(f"--set {key}={training[key]}: must be above 0")
    if not all(0 <= share <= 1 for share in parsed.milestones):
        raise UsageError(f"--set milestones={training['milestones']}: must be shares of the epochs, from 0 to 1")
    for key in training:
        value = getattr(parsed, key)
        if isinstance(value, (int, float)) and not 0 <= value < math.inf:
            raise UsageError(f"--set {key}={training[key]}: must be a finite number that is not negative")
    return {key: getattr(parsed, key) for key in training}


def _spec(selection: Selection, method: str, options: dict[str, Any], task: str, training: dict[str, Any], seed: int) -> RunSpec:
    try:
        return RunSpec(
            method=method,
            options=options,
            task=task,
            track=selection.track,
            budget=selection.budget,
            steps=selection.steps,
            seed=seed,
            device=selection.device,
            precision=selection.precision,
            samples=selection.samples,
            depth=selection.depth,
            tuning=selection.tuning,
            training=training,
            threads=choose_threads(selection),
            probes=tuple(selection.probes),
        )
    except ValidationError as error:
        first = error.errors()[0]
        raise UsageError(f"{first['loc'][0]} = {first['input']!r}: {first['msg']}") from None


def plans(wanted: Iterable[RunSpec], registries: Registries) -> list[Plan]:
    """Return a plan for each spec."""
    return [plan(spec, registries) for spec in wanted]


def estimate(planned: Plan, history: Sequence[dict[str, Any]]) -> float | None:
    """Return the seconds a run may take: the median of earlier runs of the method on the task and budget, else None."""
    spec = planned.spec
    took = [
        row["duration"]
        for row in history
        if (row["method"], row["task"], row["budget"]) == (spec.method, spec.task, spec.budget) and row["duration"]
    ]
    return statistics.median(took) if took else None


def history(store: Store) -> list[dict[str, Any]]:
    """Return method, task, budget and duration of the finished records of a store."""
    paths = {"method": "spec.method", "task": "spec.task", "budget": "spec.budget", "duration": "duration", "status": "status"}
    rows, _ = store.select(paths)
    return [row for row in rows if row["status"] == "ok"]
