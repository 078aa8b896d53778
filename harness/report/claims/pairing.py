"""Finds runs that may be compared: runs of two methods that differ in nothing but what the claim is about.

``place`` says what two runs must share: task (with version and data), track, budget, precision, kind of device, training settings, what
was cut down, options beyond those of the claim, and the time steps asked for. Times need more: one session, that is the same code, device
and threads, and a start within ``SESSION`` of each other. Of a seed that was run several times the latest counts.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from harness.plugin import UsageError, written
from harness.spec import parse_variant

SESSION = timedelta(hours=6)
PATHS = {  # what is read from records, besides metrics and figures: name -> path
    "status": "status",
    "started": "started",
    "seed": "spec.seed",
    "method": "spec.method",
    "options": "spec.options",
    "task": "spec.task",
    "track": "spec.track",
    "budget": "spec.budget",
    "precision": "spec.precision",
    "threads": "spec.threads",
    "samples": "spec.samples",
    "depth": "spec.depth",
    "training": "spec.training",
    "asked_steps": "spec.steps",
    "asked_device": "spec.device",
    "tuning": "spec.tuning",
    "probes": "spec.probes",
    "steps": "settings.steps",
    "resolved": "settings.options",
    "trained": "settings.training",
    "backbone": "settings.backbone",
    "train_samples": "settings.train_samples",
    "version": "settings.task_version",
    "data": "settings.data_checksum",
    "commit": "environment.git_commit",
    "device": "environment.device",
    "kind": "environment.device_kind",
}
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Label:
    """A method with options and asked-for time steps: ``ottt[update=online]@T=8``."""

    name: str
    options: Mapping[str, str]
    steps: int | None

    @classmethod
    def of(cls, text: str) -> Label:
        """Read a label; raise UsageError for a text that is none."""
        variant, _, steps = text.partition("@T=")
        name, options = parse_variant(variant)
        if steps and not steps.isdecimal():
            raise UsageError(f"{text!r} is not a method; write name[option=value,...]@T=8")
        return cls(name, options, int(steps) if steps else None)


@dataclass(frozen=True)
class Group:
    """Runs in one place, one of each seed: of one method, or of two (then as many ``others``, seed by seed)."""

    rows: Sequence[Row]
    others: Sequence[Row]
    surplus: Mapping[str, str]  # options beyond those of the claim, the same on both sides
    one_code: bool  # all of one commit


class Pool:
    """The finished runs among rows of a store, by method."""

    def __init__(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Take the rows with status ok; leave out tuned runs, whose settings were chosen for one method each."""
        self._by_method: dict[str, list[dict[str, Any]]] = {}
        for row in rows:
            if row["status"] == "ok" and not row["tuning"] and row["kind"]:
                given = {name: written(value) for name, value in (row["options"] or {}).items()}
                self._by_method.setdefault(row["method"], []).append({**row, "options": given})

    def groups(self, label: str, against: str | None, session: bool = False, free: str = "") -> list[Group]:
        """Return the groups of runs of ``label``, paired with those of ``against`` if given.

        ``session``: only pairs of one session. ``free``: name of what may differ within a group (``steps``, ``depth`` or an option).
        """
        mine = self._places(Label.of(label), session, free, against is not None)
        theirs = self._places(Label.of(against), session, free, True) if against else None
        found = []
        for place, seeds in mine.items():
            surplus, one_code = dict(json.loads(place[-2])), place[-1] is not None
            if theirs is None:
                found.append(Group(list(seeds.values()), [], surplus, one_code))
                continue
            other = theirs.get(place, {})
            pairs = [(seeds[s], other[s]) for s in seeds if s in other and _alike(seeds[s], other[s], session)]
            if pairs:
                found.append(Group([one for one, _ in pairs], [two for _, two in pairs], surplus, one_code))
        return found

    def _places(self, label: Label, session: bool, free: str, paired: bool) -> dict[tuple[Any, ...], dict[Any, dict[str, Any]]]:
        found: dict[tuple[Any, ...], dict[Any, dict[str, Any]]] = {}
        for row in sorted(self._by_method.get(label.name, []), key=lambda row: row["started"]):
            if any(row["options"].get(name) != value for name, value in label.options.items()):
                continue
            if label.steps is not None and row["asked_steps"] != label.steps:
                continue
            surplus = {name: value for name, value in row["options"].items() if name not in label.options and name != free}
            x = axis(row, free) if free else None
            if free and x is None:
                continue
            steps = None if label.steps is not None or free == "steps" else row["asked_steps"]
            depth = None if free == "depth" else row["depth"]
            cut = (row["samples"], depth, _text(row["training"]), row["train_samples"], row["version"], row["data"])
            where = (row["task"], row["track"], row["budget"], row["precision"], row["kind"])
            hardware = (row["device"], row["threads"], _text(row["probes"])) if session else ()
            head = (*where, *cut, steps, *hardware, _text(sorted(surplus.items())))
            for commit in dict.fromkeys((row["commit"], None if not session else row["commit"])):
                if commit is not None or not session:
                    found.setdefault((*head, commit), {})[(row["seed"], x)] = row
        return found


def axis(row: Row, name: str) -> float | None:
    """Return the value of ``steps``, ``depth`` or an option of a run; None where it has none, or none that is a number."""
    value = row["steps"] if name == "steps" else row["depth"] if name == "depth" else row["options"].get(name)
    try:
        return None if value is None else float(value)
    except ValueError:
        return None


def together(rows: Sequence[Row]) -> bool:
    """Return whether all runs started within ``SESSION`` of each other."""
    started = [datetime.fromisoformat(row["started"]) for row in rows]
    return max(started) - min(started) <= SESSION


def _alike(one: Row, other: Row, session: bool) -> bool:
    """Return whether two runs of one place were trained alike: settings that both know are equal (older records lack the newer ones)."""
    if session and not together([one, other]):
        return False
    if one["backbone"] != other["backbone"]:
        return False
    mine, theirs = one["trained"] or {}, other["trained"] or {}
    return one["track"] == "recipe" or all(mine[name] == theirs[name] for name in mine if name in theirs)


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True)
