"""``spikebench history``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import typer

from harness.metrics import metric
from harness.plugin import UsageError, did_you_mean
from harness.report import plot, timeline
from harness.report.history import read
from harness.store import Store, describe_broken


def history(name: str, folder: Path, methods: Sequence[str], tasks: Sequence[str], style: str, output: Path | None) -> None:
    """Print a metric over the commits of the records of a folder and those below; ``output``: also draw it to this file."""
    metric(name)
    if style not in timeline.FORMATS:
        raise UsageError(f"unknown format {style!r}{did_you_mean(style, timeline.FORMATS)}")
    if output is not None and (ending := output.suffix.lstrip(".")) not in plot.FORMATS:
        raise UsageError(f"-o {output.name!r}: cannot draw a file of that ending{did_you_mean(ending, plot.FORMATS)}")
    if not folder.is_dir():
        raise UsageError(f"results folder {folder} does not exist; run something first (`spikebench bench`) or name another with --results")
    found, broken = read(Store(folder, deep=True), name, methods, tasks)
    if not found and not broken:
        raise UsageError(f"no record in {folder} fits, or none has the metric {name!r}{_nearest(folder, methods, tasks)}")
    typer.echo(timeline.render(found, style))
    if output is not None and found:
        try:
            (file,) = plot.save(timeline.draw(found), output.with_suffix(""), (output.suffix.lstrip("."),))
        except OSError as error:
            raise UsageError(f"-o {output}: cannot be written: {error.strerror}") from None
        typer.echo(f"spikebench: drew {file}", err=True)
    if broken:
        typer.echo(f"spikebench: {describe_broken(broken)}", err=True)
        raise typer.Exit(2)


def _nearest(folder: Path, methods: Sequence[str], tasks: Sequence[str]) -> str:
    """Return the nearest method or task that has records, where one that was named has none."""
    rows, _ = Store(folder, deep=True).select({"label": "label", "method": "spec.method", "task": "spec.task"})
    for given, names in ((methods, {row[name] for row in rows for name in ("label", "method")}), (tasks, {row["task"] for row in rows})):
        for name in given:
            if name not in names:
                return f"; {name!r} has no record{did_you_mean(name, names)}"
    return ""
