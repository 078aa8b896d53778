"""Where a record says that it comes from: run key, data, settings, code, machine and date, as far as they can be checked.

The run key is a hash of what the record itself holds (``harness.identity``), so a changed setting shows. What the settings should be, and
the checksum of the data, come from planning the same spec with the code that is here; where that cannot be done, from reference records.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Any

from harness.identity import Plan, code_hash, make, plan
from harness.plugin import UsageError
from harness.record import Record, Settings
from harness.registry import Registries
from harness.report.commits import Commits
from harness.verify.candidate import Finding, error, warning

# Wheels of one version call themselves 2.8.0 or 2.8.0+cu126 while their metadata say 2.8.0.
BUILDS = ("", "+cpu", "+xpu", *(f"+cu{number}" for number in range(90, 200)), *(f"+rocm{a}.{b}" for a in range(4, 10) for b in range(10)))
AHEAD = timedelta(hours=1)  # that a clock may be fast
BEFORE = timedelta(minutes=10)  # that a run may have begun before its commit, by clocks that disagree


class Here:
    """What specs resolve to with the code and the data of this machine."""

    def __init__(self, registries: Registries) -> None:
        """Plan with these plugins."""
        self.registries = registries
        self._plans: dict[str, Plan | str] = {}

    def resolve(self, record: Record) -> Settings | str:
        """Return the settings of the record's spec, or why they cannot be told here. Seed and device do not matter."""
        spec = record.spec.model_copy(update={"seed": 0, "device": "cpu"})
        text = spec.model_dump_json()
        if text not in self._plans:
            try:
                self._plans[text] = plan(spec, self.registries)
            except UsageError as problem:
                self._plans[text] = str(problem)
            except Exception as problem:  # options of others may be anything
                self._plans[text] = f"{type(problem).__name__}: {problem}"
        found = self._plans[text]
        if isinstance(found, str):
            return found
        return found.settings or found.skip or "it cannot run"

    def without_data(self, record: Record) -> Settings | None:
        """Return the settings of a record whose data are not here, with no checksum; None if the data decide some of them."""
        try:
            method = make(record.spec.model_copy(update={"seed": 0, "device": "cpu"}), self.registries)
            return Settings(
                options=method.options.model_dump(mode="json"),
                training=asdict(method.training),
                steps=method.steps,
                backbone=asdict(method.task.budget.backbone),
                train_samples=method.task.budget.train_samples,
                time_limit=method.task.budget.time_limit,
                task_version=method.task.version,
                data_checksum="",
                code_hash=code_hash(record.spec, self.registries),
                plugin_file=None,
            )
        except Exception:  # a task may look into its files for anything
            return None


def key_of(raw: dict[str, Any], torch: str, device: str) -> str:
    """Return the run key of a record's JSON for a version of torch and a model of device."""
    decides = {
        "spec": {name: value for name, value in raw["spec"].items() if name not in ("options", "training", "steps")},
        "settings": {name: value for name, value in raw["settings"].items() if name not in ("time_limit", "plugin_file")},
        "torch": torch,
        "device": device,
    }
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:20]


def check(record: Record, raw: dict[str, Any], here: Here, reference: Sequence[Record], commits: Commits) -> Iterator[Finding]:
    """Yield what is wrong with where the record says that it comes from."""
    yield from _key(record, raw)
    if record.label != record.spec.label:
        yield error("key", f"the label is {record.label!r}, and its options say {record.spec.label!r}")
    yield from _settings(record, here, reference)
    yield from _environment(record)
    yield from _origin(record, commits)


def _key(record: Record, raw: dict[str, Any]) -> Iterator[Finding]:
    if record.environment is None:
        yield warning("key", "the run ended before it could say where it ran, so its key cannot be derived")
        return
    version = record.environment.versions.get("torch")
    if not version:
        yield error("key", "without the version of torch the key cannot be derived (environment.versions)")
    elif not any(key_of(raw, version + build, record.environment.device) == record.key for build in BUILDS):
        yield error("key", "the key does not follow from spec, settings, version of torch and device: one of them was changed")


def _settings(record: Record, here: Here, reference: Sequence[Record]) -> Iterator[Finding]:
    own, resolved = record.settings, here.resolve(record)
    if own.plugin_file is not None:
        yield warning("settings", f"of a plugin file ({own.plugin_file}), not of this project's code; it must be handed in as well")
    found = here.without_data(record) if isinstance(resolved, str) else resolved
    if found is None:
        yield warning("settings", f"not compared with what this checkout would run: {resolved}")
    elif own.task_version != found.task_version:
        yield warning("data", f"version {own.task_version} of the task's data; here it is {found.task_version}")
    if isinstance(resolved, str):
        yield from _data_of_reference(record, reference)
    elif own.task_version == resolved.task_version and own.data_checksum != resolved.data_checksum:
        yield error("data", f"checksum of the data {own.data_checksum}; those here have {resolved.data_checksum}")
    differing = differences(own, found) if found is not None else []
    if found is None or not differing:
        return
    told = "; ".join(differing[:4])
    if own.code_hash == found.code_hash:
        yield error("settings", f"the same code resolves the spec to other settings: {told}")
    else:
        yield warning("settings", f"the code here, which is another, resolves the spec to other settings: {told}")


def _data_of_reference(record: Record, reference: Sequence[Record]) -> Iterator[Finding]:
    """Compare the checksum of data that are not here with those of reference records of the task."""
    own = record.settings
    alike = [r.settings for r in reference if (r.spec.task, r.settings.task_version) == (record.spec.task, own.task_version)]
    known = sorted({settings.data_checksum for settings in alike})
    if not known:
        yield warning("data", "the data are not here and no reference record has them: their checksum is not compared")
    elif own.data_checksum not in known:
        yield error("data", f"checksum of the data {own.data_checksum}; reference records of the task have {', '.join(known)}")


def differences(own: Settings, here: Settings) -> list[str]:
    """Return how settings differ, "training.lr 0.1, here 0.01", apart from code, data and what decides nothing.

    What the record does not have came later (a new option), and is no difference.
    """
    found: list[str] = []
    parts = {"options", "training", "steps", "backbone", "train_samples"}
    one, other = (json.loads(each.model_dump_json(include=parts)) for each in (own, here))
    for part, value in one.items():
        if not isinstance(value, dict):
            found += [f"{part} {value}, here {other[part]}"] if value != other[part] else []
            continue
        for name, mine in value.items():
            theirs = other[part].get(name, "no such setting")
            found += [f"{part}.{name} {mine}, here {theirs}"] if mine != theirs else []
    return found


def _environment(record: Record) -> Iterator[Finding]:
    environment = record.environment
    if environment is None:
        return
    for name in ("python", "torch", "numpy"):
        if not environment.versions.get(name):
            yield error("environment", f"the version of {name} is missing")
    if environment.threads != record.spec.threads:
        yield error("environment", f"{environment.threads} threads, and {record.spec.threads} were asked for")
    kind = record.spec.device.partition(":")[0]
    if environment.device_kind != kind:
        yield error("environment", f"ran on {environment.device_kind}, and {record.spec.device} was asked for")
    if kind == "cpu" and environment.device != environment.cpu:
        yield error("environment", f"device {environment.device!r} on a CPU that is called {environment.cpu!r}")
    if (kind == "cuda") != (environment.cuda is not None):
        yield error("environment", f"CUDA version {environment.cuda} on {kind}")
    if record.memory is not None:
        if kind == "cpu" and record.memory.cuda_peak_bytes is not None:
            yield error("environment", "a peak of CUDA memory on the CPU")
        if kind == "cuda" and record.memory.peak_rss_growth_bytes is not None:
            yield error("environment", "growth of resident memory as of the CPU, on CUDA")
    if not environment.deterministic:
        yield warning("environment", "deterministic algorithms were not asked for: a run may not repeat")


def _origin(record: Record, commits: Commits) -> Iterator[Finding]:
    try:
        started = datetime.fromisoformat(record.started)
    except ValueError:
        yield error("environment", f"started {record.started[:40]!r} is no date")
        return
    if started.tzinfo is None:
        yield error("environment", f"started {record.started!r} without a time zone")
        return
    if started > datetime.now(UTC) + AHEAD:
        yield error("environment", f"started {record.started}, which is in the future")
    if record.environment is None:
        return
    name = record.environment.git_commit
    if name is None:
        yield warning("environment", "no commit: the code is known by its hash only")
        return
    if not re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", name):
        yield error("environment", f"{name[:60]!r} is not a commit")
        return
    if record.environment.git_dirty is not False:
        yield warning("environment", f"files of the checkout differed from commit {name[:8]}: the code is known by its hash only")
    commit = commits.find(name)
    if commit is None:
        if commits.known:
            yield warning("environment", f"commit {name[:8]} is not known to this checkout")
    elif started < datetime.fromisoformat(commit.when) - BEFORE:
        yield warning("environment", f"started {record.started}, before its commit {name[:8]} was made ({commit.when})")
