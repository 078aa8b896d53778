"""``spikebench plot``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from harness.commands.table import check_names, complain, named_tasks
from harness.metrics import metric
from harness.plugin import UsageError, did_you_mean
from harness.report import plot as plots
from harness.report.growth import AXES, grown
from harness.report.table import build
from harness.store import Store

if TYPE_CHECKING:
    from matplotlib.figure import Figure

KINDS = {
    "steps": "accuracy over time steps",
    "pareto": "accuracy against a cost, with the Pareto front",
    "training": "accuracy on validation data after each epoch",
    "scaling": "memory and time of runs that differ in time steps, length, depth or batch alone",
}


def plot(
    kind: str,
    folder: Path,
    tasks: Sequence[str],
    methods: Sequence[str],
    suites: Sequence[str],
    cost: str,
    over: Sequence[str],
    metrics: Sequence[str],
    output: Path,
    formats: Sequence[str],
    plugin_files: Sequence[Path],
) -> None:
    """Draw one figure for each table of the records and print the names of the files."""
    if kind not in KINDS:
        raise UsageError(f"unknown plot {kind!r}{did_you_mean(kind, KINDS)}")
    if not formats:
        raise UsageError(f"--format is empty; allowed: {', '.join(plots.FORMATS)}")
    for ending in formats:
        if ending not in plots.FORMATS:
            raise UsageError(f"unknown format {ending!r}{did_you_mean(ending, plots.FORMATS)}")
    for axis in over:
        if axis not in AXES:
            raise UsageError(f"cannot scale over {axis!r}{did_you_mean(axis, AXES)}")
    against, panels = metric(cost), [metric(name) for name in metrics]
    if not folder.is_dir():
        raise UsageError(f"results folder {folder} does not exist; run something first (`spikebench bench`) or name another with --results")
    store, wanted = Store(folder), named_tasks(tasks, plugin_files)
    drawn: list[tuple[str, dict[str, Any], Figure | None]] = []
    if kind == "scaling":
        found, broken = grown(store, over or AXES, panels, tasks=wanted, methods=methods, suites=suites)
        drawn = [(f"scaling-{each.axis}", each.about, plots.growth(each)) for each in found]
    else:
        draw = {"steps": plots.over_steps, "training": plots.training}.get(kind, lambda table: plots.against(table, against))
        tables, broken = build(store, tasks=wanted, methods=methods, suites=suites, metrics=("test_accuracy", cost), extra=plots.CURVES)
        drawn = [(f"pareto-{cost}" if kind == "pareto" else kind, table.about, draw(table)) for table in tables]
    for file in _written(drawn, output, formats):
        typer.echo(file)
    complain(broken)
    if not any(figure for *_, figure in drawn):
        check_names(store, wanted, suites, methods, plugin_files)
        raise UsageError(f"no record in {folder} fits, or none has what this plot shows ({KINDS[kind]})")


def _written(drawn: Sequence[tuple[str, dict[str, Any], Figure | None]], output: Path, formats: Sequence[str]) -> list[Path]:
    """Write the figures; return their files. Names of plots that differ in the device or its threads alone tell these too."""
    names = [plots.file_name(kind, about) for kind, about, figure in drawn if figure is not None]
    files = []
    try:
        for kind, about, figure in drawn:
            if figure is not None:
                name = plots.file_name(kind, about)
                if names.count(name) > 1:
                    name = plots.file_name(kind, {**about, "kind": f"{about['device']}-threads-{about['threads']}"})
                files += plots.save(figure, output / name, formats)
    except OSError as error:
        raise UsageError(f"plots cannot be written to {output}: {error.strerror}; choose another folder with --output") from None
    return files
