"""A metric over the commits that records come from: one series per label, task, track, budget, device, precision, threads and settings.

    found = series(Store("results/reference", deep=True), "step_time", methods=["stbp"], tasks=["static/digits"])
    found[0].points[-1].mean, [found[0].points[change.index].commit for change in found[0].changes]

A point is a commit: mean and standard deviation over the seeds that were run there, of each seed the latest record. Points stand in the
order of the checkout's history; commits that it does not know stand among them by the date of their records, and so do records without a
commit, one point per day. Records of other settings than those before them make a series of their own; code may differ, that is the point.
A setting that came later (a new option) is not a difference to records from before it.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from harness.metrics import Metric, as_task_metric, metric
from harness.report.changes import Change, Level, changes
from harness.report.commits import Commits, git_log
from harness.report.table import GROUP
from harness.store import Store

PATHS = {
    "label": "label",
    "method": "spec.method",
    "seed": "spec.seed",
    "status": "status",
    "started": "started",
    "main": "accuracy.metric",
    "items": "accuracy.items",
    "settings": "settings",
    "commit": "environment.git_commit",
    "dirty": "environment.git_dirty",
}
EXACT = (  # metrics that the shapes of a network decide: the same code gives the same figure, whatever the seed
    "saved_bytes",
    "parameter_bytes",
    "footprint_bytes",
    "optimizer_bytes",
    "state_bytes",
    "storage_bits",
    "parameters",
    "synops_dense",
    "macs_nominal",
)
NOT_SETTINGS = ("time_limit", "code_hash", "plugin_file", "task_version")  # a new version of the data has another checksum


@dataclass(frozen=True)
class Point:
    """The runs of one commit, or of one day where records name no commit."""

    commit: str | None
    dirty: bool  # tracked files differed from the commit: the code is not known
    when: str  # date of the commit, else of the first of its records; ISO 8601
    subject: str  # first line of the commit message; empty where the checkout does not know the commit
    values: Mapping[int, float]  # seed -> value
    failed: int = 0  # seeds whose latest run has no value: it failed, or did not measure this
    place: tuple[float, str] = (0.0, "")  # what points are sorted by, also those of different series

    @property
    def n(self) -> int:
        """Return the number of seeds that have a value."""
        return len(self.values)

    @property
    def mean(self) -> float | None:
        """Return the mean over seeds; None without a value, or where one is not finite."""
        values = list(self.values.values())
        return statistics.fmean(values) if values and all(map(math.isfinite, values)) else None

    @property
    def std(self) -> float | None:
        """Return the standard deviation over seeds (n - 1); None for fewer than two."""
        return statistics.stdev(self.values.values()) if self.mean is not None and self.n > 1 else None

    @property
    def name(self) -> str:
        """Return the point as a reader knows it: the short hash, with a + where files were changed, or "no commit"."""
        return "no commit" if self.commit is None else self.commit[:8] + ("+" if self.dirty else "")


@dataclass
class Series:
    """One line: points in the order of commits, and where its level changes."""

    about: dict[str, Any]  # as of a table: task, track, budget, device, kind, precision, threads
    label: str
    metric: Metric
    points: list[Point]
    setting: str = ""  # what tells it from other series of the label: "epochs = 24"; empty if there is none
    changes: list[Change] = field(default_factory=list)  # ``index`` counts in ``measured``

    @property
    def measured(self) -> list[Point]:
        """Return the points that have a mean."""
        return [point for point in self.points if point.mean is not None]

    @property
    def title(self) -> str:
        """Return what the series is about, in one line."""
        a = self.about
        where = f"{a['device']} ({a['kind']}, {a['precision']}, threads {a['threads']})"
        name = self.label + (f" ({self.setting})" if self.setting else "")
        return f"{self.metric.title} of {name} on {a['task']}, {a['budget']} budget, {a['track']} track, on {where}"


def series(
    store: Store, names: str | Sequence[str], methods: Sequence[str] = (), tasks: Sequence[str] = (), commits: Commits | None = None
) -> list[Series]:
    """Return the series of one or several metrics that have a value; see ``read``."""
    return read(store, names, methods, tasks, commits)[0]


def read(
    store: Store, names: str | Sequence[str], methods: Sequence[str] = (), tasks: Sequence[str] = (), commits: Commits | None = None
) -> tuple[list[Series], list[str]]:
    """Return the series, sorted by task, device, label and metric, and the names of unreadable files.

    ``methods`` are names or labels, ``tasks`` names; empty lists mean all. ``commits`` defaults to the history of this checkout.
    Raises UsageError for a metric that does not exist.
    """
    metrics = [metric(name) for name in ([names] if isinstance(names, str) else names)]
    rows, broken = store.select({**GROUP, **PATHS, **{m.name: m.path for m in metrics}})
    commits = commits or Commits(git_log())
    groups: dict[tuple, list[dict[str, Any]]] = {}
    for row in rows:
        fits = (not tasks or row["task"] in tasks) and (not methods or row["method"] in methods or row["label"] in methods)
        if fits and row["device"] is not None:  # a process that died before it could say where it ran knows no commit either
            groups.setdefault((*(row[name] for name in GROUP), row["label"]), []).append(row)
    found = []
    for group, members in sorted(groups.items(), key=lambda item: tuple(map(str, item[0]))):
        about = dict(zip(GROUP, group, strict=False))
        alike = _alike(sorted(members, key=lambda row: str(row["started"])))
        main = next((row["main"] for row in members if row["main"]), "accuracy")
        for m in metrics:
            for setting, runs in alike:
                each = Series(about, str(group[-1]), as_task_metric(m, main), _points(runs, m.name, commits), setting)
                if each.measured:
                    each.changes = changes(_levels(each, runs), each.metric.direction == "higher", m.name in EXACT)
                    found.append(each)
    return found, broken


def _points(runs: Sequence[dict[str, Any]], name: str, commits: Commits) -> list[Point]:
    """Return the points of runs, which are in the order of their dates."""
    latest: dict[tuple[str, bool], dict[int, dict[str, Any]]] = {}
    for run in runs:
        commit = run["commit"] or str(run["started"])[:10]
        latest.setdefault((str(commit), bool(run["dirty"])), {})[run["seed"]] = run
    points = []
    for (commit, dirty), seeds in latest.items():
        values = {seed: float(run[name]) for seed, run in sorted(seeds.items()) if run["status"] == "ok" and run[name] is not None}
        named = bool(next(iter(seeds.values()))["commit"])
        known = commits.find(commit) if named else None
        when = known.when if known else min(str(run["started"]) for run in seeds.values())
        subject = known.subject if known else ""
        name_or_none = commit if named else None
        place = commits.place(name_or_none, when)
        points.append(Point(name_or_none, dirty, when, subject, values, len(seeds) - len(values), place))
    return sorted(points, key=lambda point: (point.place, point.dirty))


def _levels(each: Series, runs: Sequence[dict[str, Any]]) -> list[Level]:
    """Return what change points are looked for in. One seed of a share of items has at least the noise of drawing as many items."""
    items = int(next((run["items"] for run in runs if run["items"]), 0))
    counted = items > 0 and each.metric.unit == "fraction" and each.metric.path == "accuracy.test"
    levels = []
    for point in each.measured:
        mean = point.mean or 0.0
        floor = math.sqrt(max(0.0, mean * (1 - mean)) / items) if counted and point.n == 1 else 0.0
        levels.append(Level(mean, point.std, point.n, floor))
    return levels


def _alike(rows: Sequence[dict[str, Any]]) -> list[tuple[str, list[dict[str, Any]]]]:
    """Return rows in groups of equal settings, each with what tells it from the others; settings that one lacks do not tell."""
    groups: list[tuple[dict[str, Any], list[dict[str, Any]]]] = []
    for row in rows:
        own = _flat({name: value for name, value in (row["settings"] or {}).items() if name not in NOT_SETTINGS})
        for settings, members in groups:
            if all(settings.get(name, value) == value for name, value in own.items()):
                settings.update(own)
                members.append(row)
                break
        else:
            groups.append((dict(own), [row]))
    names = [name for name in groups[0][0] if any(settings.get(name, groups[0][0][name]) != groups[0][0][name] for settings, _ in groups)]
    return [(", ".join(f"{name.rpartition('.')[2]} = {s[name]}" for name in names if name in s), members) for s, members in groups]


def _flat(settings: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """Return ``{"training.lr": 0.1}`` of ``{"training": {"lr": 0.1}}``."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        flat |= _flat(value, f"{above}{name}.") if isinstance(value, Mapping) else {f"{above}{name}": value}
    return flat
