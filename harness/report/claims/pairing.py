"""Finds runs that may be compared: runs of two methods that differ in nothing but what the claim is about.

``place`` says what two runs must share: task (with version and data), track, budget, precision, kind of device, training settings, what
was cut down, options beyond those of the claim, and the time steps asked for. Times need more: one session, that is the same code, device
and threads, and a start within ``SESSION`` of each other. Of a seed that was run several times the latest counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from harness.plugin import UsageError, written
from harness.record import Settings
from harness.spec import RunSpec, parse_variant

SESSION = timedelta(hours=6)
PATHS = {  # what is read from records, besides metrics and figures: name -> path. Whole parts are read faster than their fields
    "key": "key",
    "status": "status",
    "started": "started",
    "spec": "spec",
    "settings": "settings",
    "learned": "memory.parameter_count",
    "measure": "accuracy.metric",
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
        """Take the rows with status ok."""
        self._read: dict[str, list[Mapping[str, Any]]] = {}
        self._rows: dict[str, list[dict[str, Any]]] = {}
        self._found: dict[tuple[Any, ...], dict[tuple[Any, ...], dict[Any, dict[str, Any]]]] = {}
        for row in rows:
            if row["status"] == "ok" and isinstance(row["spec"], dict):
                self._read.setdefault(str(row["spec"].get("method")), []).append(row)

    def groups(self, label: str, against: str | None, session: bool = False, free: str = "") -> list[Group]:
        """Return the groups of runs of ``label``, paired with those of ``against`` if given.

        ``session``: only pairs of one session. ``free``: name of what may differ within a group (``steps``, ``depth`` or an option).
        """
        mine = self._places(label, session, free)
        theirs = self._places(against, session, free) if against else None
        found = []
        for place, seeds in mine.items():
            surplus, one_code = dict(place[-2]), place[-1] is not None
            if theirs is None:
                found.append(Group(list(seeds.values()), [], surplus, one_code))
                continue
            other = theirs.get(place, {})
            pairs = [(seeds[s], other[s]) for s in seeds if s in other and _alike(seeds[s], other[s], session)]
            if pairs:
                found.append(Group([one for one, _ in pairs], [two for _, two in pairs], surplus, one_code))
        return found

    def _of(self, method: str) -> list[dict[str, Any]]:
        """Return the runs of a method, earliest first, with the fields that the rest of the claims speak of."""
        if method not in self._rows:
            rows = [flat for row in self._read.get(method, []) if (flat := _flat(row)) is not None]
            self._rows[method] = sorted(rows, key=lambda row: row["began"])
        return self._rows[method]

    def _places(self, text: str, session: bool, free: str) -> dict[tuple[Any, ...], dict[Any, dict[str, Any]]]:
        """Return the runs of a label by place and seed. The last two parts of a place are surplus options, and the commit or None."""
        if (text, session, free) in self._found:
            return self._found[text, session, free]
        found: dict[tuple[Any, ...], dict[Any, dict[str, Any]]] = {}
        label = Label.of(text)
        for row in self._of(label.name):
            options = row["options"]
            if any(options.get(name) != value for name, value in label.options.items()):
                continue
            if label.steps is not None and row["asked_steps"] != label.steps:
                continue
            x = axis(row, free) if free else None
            if free and x is None:
                continue
            surplus = tuple(sorted((name, value) for name, value in options.items() if name not in label.options and name != free))
            steps = None if label.steps is not None or free == "steps" else row["asked_steps"]
            depth = None if free == "depth" else row["depth"]
            hardware = (row["device"], row["threads"], *row["probes"]) if session else ()
            head = (row["place"], steps, depth, hardware, surplus)
            for commit in dict.fromkeys((row["commit"], None if not session else row["commit"])):
                if commit is not None or not session:
                    found.setdefault((*head, commit), {})[row["seed"], x] = row
        self._found[text, session, free] = found
        return found


def _flat(row: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return a row of ``PATHS`` with the fields of spec and settings by name.

    None for a record whose parts are not what they should be, and for a tuned run, whose settings were chosen for one method.
    """
    try:
        spec, settings = RunSpec.model_validate(row["spec"]), Settings.model_validate(row["settings"])
        began = datetime.fromisoformat(row["started"]).astimezone(UTC)
    except (ValueError, TypeError, OverflowError):  # pydantic's are ValueErrors
        return None
    texts = [row[name] for name in ("key", "kind", "device", "measure", "commit")]
    if spec.tuning or not row["kind"] or settings.steps < 1 or any(not isinstance(text, str | None) for text in texts):
        return None
    asked = spec.model_dump(mode="json")
    place = (spec.task, spec.track, spec.budget, spec.precision, row["kind"], spec.samples, sorted(asked["training"].items()))
    return {
        **{name: value for name, value in row.items() if name not in ("spec", "settings")},
        **asked,
        "options": {name: written(value) for name, value in asked["options"].items()},
        "asked_steps": spec.steps,
        "asked_device": spec.device,
        "learned": row["learned"] if isinstance(row["learned"], int | float) else None,
        "device": row["device"],
        "began": began,
        "steps": settings.steps,
        "resolved": settings.options,
        "trained": settings.training,
        "backbone": settings.backbone,
        "place": repr((*place, settings.train_samples, settings.task_version, settings.data_checksum)),
    }


def axis(row: Row, name: str) -> float | None:
    """Return the value of ``steps``, ``depth`` or an option of a run; None where it has none, or none that is a number."""
    value = row["steps"] if name == "steps" else row["depth"] if name == "depth" else row["options"].get(name)
    try:
        return None if value is None else float(value)
    except ValueError:
        return None


def together(rows: Sequence[Row]) -> bool:
    """Return whether all runs started within ``SESSION`` of each other."""
    began = [row["began"] for row in rows]
    return bool(max(began) - min(began) <= SESSION)


def _alike(one: Row, other: Row, session: bool) -> bool:
    """Return whether two runs of one place were trained alike: settings that both know are equal (older records lack the newer ones)."""
    if session and not together([one, other]):
        return False
    if one["backbone"] != other["backbone"]:
        return False
    mine, theirs = one["trained"], other["trained"]
    return one["track"] == "recipe" or mine == theirs or all(mine[name] == theirs[name] for name in mine if name in theirs)
