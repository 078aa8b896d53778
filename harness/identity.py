"""From a spec to what it resolves to, and to the run key: the hash of everything that decides the outcome.

Into the key go: the spec, every option and setting as resolved, the data's checksum and version, the source text of the plugin, of the
task, of the runner and of all project modules that these import, the version of torch, and the model of the device. A finished key need
not be run again; a change of any of these gives another key.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path

import torch

from harness.environment import device_model
from harness.method import Method
from harness.plugin import UnfitError, UsageError, did_you_mean
from harness.record import Settings
from harness.registry import Registries
from harness.spec import RunSpec, parse_variant
from harness.task import SPLITS, Task

PROJECT = ("harness", "methods", "suites")


@dataclass(frozen=True)
class Plan:
    """A spec with what it resolves to. ``skip`` says why it cannot run; then ``key`` and ``settings`` are None."""

    spec: RunSpec
    key: str | None
    settings: Settings | None
    skip: str | None = None


@cache
def _module_file(name: str) -> Path | None:
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, AttributeError, ValueError):
        return None
    return Path(spec.origin) if spec and spec.origin and spec.origin.endswith(".py") else None


@cache
def _imports(path: Path, package: str) -> frozenset[str]:
    """Return the names of the modules that a file may import (``from a import b`` gives a and a.b)."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                base = importlib.util.resolve_name("." * node.level + base, package)
            names |= {base} | {f"{base}.{alias.name}" for alias in node.names}
    return frozenset(names)


def source_files(starts: Iterable[tuple[Path, str]], packages: Iterable[str]) -> list[Path]:
    """Return the files ``starts`` (path, module name) and all modules of ``packages`` that they import, directly or not."""
    packages = set(packages)
    found: dict[Path, None] = {}
    todo = list(starts)
    while todo:
        path, module = todo.pop()
        if path in found:
            continue
        found[path] = None
        package = module if path.name == "__init__.py" else module.rpartition(".")[0]
        for name in _imports(path, package):
            if name.partition(".")[0] in packages and (file := _module_file(name)) is not None:
                todo.append((file, name))
    return sorted(found)


def code_hash(spec: RunSpec, registries: Registries) -> str:
    """Return the hash of the source that a run depends on, independent of where it lies."""
    starts, packages = [], set(PROJECT)
    entries = [registries.methods.entry(spec.method), registries.tasks.entry(parse_variant(spec.task)[0])]
    entries += [registries.probes.entry(parse_variant(name, "probe")[0]) for name in spec.probes]
    for entry in entries:
        path = entry.path or _module_file(entry.module)
        if path is not None:
            starts.append((path, entry.module))
            packages.add(entry.module.partition(".")[0])
    runner = _module_file("harness.runner")
    assert runner is not None
    starts.append((runner, "harness.runner"))
    digests = sorted(hashlib.sha256(path.read_bytes()).hexdigest() for path in source_files(starts, packages))
    return hashlib.sha256("".join(digests).encode()).hexdigest()[:16]


def check_device(name: str) -> torch.device:
    """Return the device; raise UsageError if there is no such device here."""
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UsageError(f"unknown device {name!r}; allowed: cpu, cuda, cuda:N") from None
    if device.type not in ("cpu", "cuda"):
        raise UsageError(f"device {name!r} is not supported; allowed: cpu, cuda, cuda:N")
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise UsageError(f"device {name!r} is not there: torch finds no CUDA device on this machine; use --device cpu")
        if (device.index or 0) >= torch.cuda.device_count():
            raise UsageError(f"device {name!r} is not there: this machine has {torch.cuda.device_count()} CUDA devices")
    return device


def bind_task(spec: RunSpec, registries: Registries) -> Task:
    """Return the task as the spec asks for it. Raises UsageError for a device that is not here."""
    task = registries.task(spec.task, spec.budget, check_device(spec.device))
    if spec.samples is not None:
        task.budget = replace(task.budget, **{f"{split}_samples": spec.samples for split in SPLITS})
    if spec.depth is not None:
        task.budget = replace(task.budget, backbone=replace(task.budget.backbone, depth=spec.depth))
    return task


def make(spec: RunSpec, registries: Registries) -> Method:
    """Return the method bound to its task, as the spec asks. Raises UsageError where the spec does not fit them."""
    task = bind_task(spec, registries)
    method = registries.methods.load(spec.method)
    return method(task, spec.options, spec.track, spec.steps, spec.training)


def plan(spec: RunSpec, registries: Registries) -> Plan:
    """Resolve a spec; a pair that cannot run gives a plan with the reason."""
    budgets = registries.tasks.load(parse_variant(spec.task)[0]).budgets
    if spec.budget not in budgets:
        return Plan(spec, None, None, f"it has no budget {spec.budget!r}{did_you_mean(spec.budget, budgets)}")
    task = bind_task(spec, registries)
    reason = task.unavailable() or registries.methods.load(spec.method).supports(task)
    if reason:
        return Plan(spec, None, None, reason)
    try:
        method = make(spec, registries)
    except UnfitError as unfit:
        return Plan(spec, None, None, str(unfit))
    files = [registries.methods.entry(spec.method), registries.tasks.entry(parse_variant(spec.task)[0])]
    own = [e.path.name for e in files if e.path is not None and e.module.startswith("spikebench_plugin_")]
    settings = Settings(
        options=method.options.model_dump(mode="json"),
        training=asdict(method.training),
        steps=method.steps,
        backbone=asdict(task.budget.backbone),
        train_samples=task.budget.train_samples,
        time_limit=task.budget.time_limit,
        task_version=task.version,
        data_checksum=task.checksum(),
        code_hash=code_hash(spec, registries),
        plugin_file=own[0] if own else None,
    )
    decides = {
        "spec": spec.model_dump(mode="json", exclude={"options", "training", "steps"}),
        "settings": settings.model_dump(mode="json", exclude={"time_limit", "plugin_file"}),
        "torch": torch.__version__,
        "device": device_model(task.device),
    }
    key = hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:20]
    return Plan(spec, key, settings)
