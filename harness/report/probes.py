"""Tables of what probes found: one per probe, task, device, track, budget and precision; rows are methods, and what each figure is about.

A probe says which rows a record gives (``Probe.rows``) and what heads their columns (``Probe.headings``). Its texts tell rows apart, its
numbers are averaged over seeds.
"""

from __future__ import annotations

import csv
import io
import math
import statistics
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

from harness.metrics import MISSING
from harness.plugin import UsageError
from harness.probe import Probe
from harness.registry import Registries
from harness.report.formats import block
from harness.report.table import GROUP
from harness.spec import parse_variant
from harness.store import Store


@dataclass(frozen=True)
class Line:
    """One row: a method, what the figures are about, and each figure once per seed."""

    label: str
    about: dict[str, str]
    figures: dict[str, list[float]]
    runs: int


@dataclass(frozen=True)
class ProbeTable:
    """What one probe found in one group of runs, and the methods that it could not look at, with the reason."""

    probe: str  # with its options
    group: dict[str, Any]  # as for ``harness.report.table``
    lines: list[Line]
    headings: Mapping[str, str]
    reasons: dict[str, str]

    @property
    def name(self) -> str:
        """Return the name of the probe without its options."""
        return _base(self.probe)

    @property
    def title(self) -> str:
        """Return what the table is about, in one line."""
        g = self.group
        return f"{self.probe} on {g['task']}, {g['budget']} budget, {g['track']} track, {g['kind']} ({g['precision']})"

    def columns(self) -> tuple[list[str], list[str]]:
        """Return the names of the texts and of the figures, in the order of their first appearance."""
        return [list(dict.fromkeys(name for line in self.lines for name in getattr(line, part))) for part in ("about", "figures")]  # type: ignore[return-value]

    def render(self, style: str, width: int | None = None) -> str:
        """Return the table as text in one of ``FORMATS`` (but csv, for which see ``render``); ``width`` as for ``formats.block``."""
        texts, numbers = self.columns()
        heads = ["method", "n", *(self.headings.get(name, name.replace("_", " ")) for name in [*texts, *numbers])]
        rows = []
        for line in self.lines:
            cells = [line.about.get(name, MISSING) for name in texts] + [shown(line.figures.get(name, [])) for name in numbers]
            rows.append([line.label, str(line.runs), *cells])
        notes = [f"{label}: {reason}" for label, reason in self.reasons.items()]
        return block(self.title, heads, rows, notes, style, left=(0, *range(2, 2 + len(texts))), width=width)


def shown(values: Sequence[float]) -> str:
    """Return mean and standard deviation over seeds, as tables show them; a dash for no figure."""
    if not values:
        return MISSING
    mean = statistics.fmean(values)
    if not math.isfinite(mean) or len(values) < 2:
        return f"{mean:.4g}"
    return f"{mean:.4g} ± {statistics.stdev(values):.2g}"


def render(tables: Sequence[ProbeTable], style: str, width: int | None = None) -> str:
    """Return all tables as text; in csv each begins with its own line of headings and has means and standard deviations over seeds."""
    if style != "csv":
        return "\n\n".join(table.render(style, width) for table in tables)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    for table in tables:
        texts, numbers = table.columns()
        writer.writerow(["probe", *GROUP, "method", "n", *texts, *(f"{name}{part}" for name in numbers for part in ("", "_std"))])
        for line in table.lines:
            found = [line.figures.get(name, []) for name in numbers]
            cells = [
                part
                for values in found
                for part in (
                    statistics.fmean(values) if values else None,
                    statistics.stdev(values) if len(values) > 1 else None,
                )
            ]
            about = [line.about.get(name) for name in texts]
            writer.writerow([table.probe, *table.group.values(), line.label, line.runs, *about, *cells])
    return text.getvalue().rstrip("\n")


def build(
    store: Store,
    registries: Registries,
    *,
    probe: str = "",
    keys: Set[str] | None = None,
    tasks: Sequence[str] = (),
    methods: Sequence[str] = (),
) -> list[ProbeTable]:
    """Return the tables of what ``probe`` (a name, with or without options; default: every probe) found in the records that fit.

    Of a seed that was run several times the latest record counts.
    """
    paths = {**GROUP, "key": "key", "label": "label", "method": "spec.method", "seed": "spec.seed", "started": "started"}
    rows, _ = store.select({**paths, "status": "status", "probes": "probes"})
    latest: dict[tuple, dict[str, Any]] = {}
    for row in sorted(rows, key=lambda row: row["started"]):
        wanted = (
            row["status"] == "ok"
            and (keys is None or row["key"] in keys)
            and (not tasks or row["task"] in tasks)
            and (not methods or row["method"] in methods or row["label"] in methods)
        )
        for name, figures in row["probes"].items() if wanted and isinstance(row["probes"], dict) else ():
            if probe in ("", name, _base(name)):
                group = tuple(row[part] for part in GROUP)
                latest[name, group, row["label"], row["seed"]] = figures
    tables: dict[tuple, dict[str, list[dict[str, Any]]]] = {}
    for (name, group, label, _), figures in sorted(latest.items(), key=lambda item: tuple(map(str, item[0]))):
        tables.setdefault((name, group), {}).setdefault(label, []).append(figures)
    return [_table(name, dict(zip(GROUP, group, strict=True)), found, registries) for (name, group), found in tables.items()]


def _base(name: str) -> str:
    """Return the name of a probe without its options; all of it where a record has one that cannot be read."""
    try:
        return parse_variant(name, "probe")[0]
    except UsageError:
        return name


def _rows(kind: type[Probe], figures: Any) -> list[dict[str, str | float | None]] | None:
    """Return the rows of what a probe found in one run, none where it could not look; None if the record holds something else."""
    try:
        rows = [] if "cannot" in figures else kind.rows(figures)
        return [{key: value if value is None or isinstance(value, str) else float(value) for key, value in row.items()} for row in rows]
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
        return None


def _table(name: str, group: dict[str, Any], found: dict[str, list[dict[str, Any]]], registries: Registries) -> ProbeTable:
    base = _base(name)
    kind = (
        registries.probes.load(base) if base in registries.probes.names() else Probe
    )  # one that is not here: its numbers, under their own names
    lines: list[Line] = []
    reasons: dict[str, str] = {}
    for label, runs in found.items():
        refused = [str(run["cannot"]) for run in runs if isinstance(run, dict) and "cannot" in run]
        refused += ["its figures are not those of this probe"] if any(_rows(kind, run) is None for run in runs) else []
        if refused:
            reasons[label] = refused[0]
        merged: dict[tuple, tuple[dict[str, str], dict[str, list[float]], list[int]]] = {}
        for seed, run in enumerate(runs):
            for row in _rows(kind, run) or []:
                about = {key: value for key, value in row.items() if isinstance(value, str)}
                _, figures, seeds = merged.setdefault(tuple(about.items()), (about, {}, []))
                seeds.append(seed)
                for key, value in row.items():
                    if not isinstance(value, str):
                        figures.setdefault(key, []).extend([] if value is None else [value])
        lines += [Line(label, about, figures, len(set(seeds))) for about, figures, seeds in merged.values()]
    return ProbeTable(name, group, lines, kind.headings, reasons)
