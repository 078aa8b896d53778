"""``spikebench plot``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import typer

from harness.matrix import canonical
from harness.metrics import metric
from harness.plugin import UsageError, did_you_mean
from harness.registry import Registries
from harness.report import plot as plots
from harness.report.table import build
from harness.store import Store, describe_broken

KINDS = {
    "steps": "accuracy over time steps",
    "pareto": "accuracy against a cost, with the Pareto front",
    "training": "accuracy on validation data after each epoch",
}


def plot(
    kind: str,
    folder: Path,
    tasks: Sequence[str],
    methods: Sequence[str],
    suites: Sequence[str],
    cost: str,
    output: Path,
    formats: Sequence[str],
    plugin_files: Sequence[Path],
) -> None:
    """Draw one figure for each table of the records and print the names of the files."""
    if kind not in KINDS:
        raise UsageError(f"unknown plot {kind!r}{did_you_mean(kind, KINDS)}")
    for ending in formats:
        if ending not in plots.FORMATS:
            raise UsageError(f"unknown format {ending!r}{did_you_mean(ending, plots.FORMATS)}")
    against = metric(cost)
    if not folder.is_dir():
        raise UsageError(f"results folder {folder} does not exist; run something first (`spikebench bench`) or name another with --results")
    registries = Registries(plugin_files)
    tasks = [canonical(name, registries) for name in tasks]
    tables, broken = build(Store(folder), tasks=tasks, methods=methods, suites=suites, metrics=("test_accuracy", cost), extra=plots.CURVES)
    written = []
    for table in tables:
        figure = {"steps": plots.over_steps, "training": plots.training}.get(kind, lambda table: plots.against(table, against))(table)
        if figure is not None:
            name = plots.file_name(f"{kind}-{cost}" if kind == "pareto" else kind, table)
            written += plots.save(figure, output / name, formats)
    for file in written:
        typer.echo(file)
    if broken:
        typer.echo(f"spikebench: {describe_broken(broken)}", err=True)
        raise typer.Exit(2)
    if not written:
        raise UsageError(f"no record in {folder} fits, or none has what this plot shows ({KINDS[kind]})")
