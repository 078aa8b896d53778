"""``spikebench claims``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import typer

from harness.metrics import METRICS
from harness.plugin import UsageError, did_you_mean
from harness.registry import Registries
from harness.report.claims import GROWTH, find, needed, render
from harness.report.table import FORMATS, build
from harness.store import Store, describe_broken


def claims(folder: Path, methods: Sequence[str], style: str, plugin_files: Sequence[Path]) -> None:
    """Print the claims of the cards of ``methods`` (default: all) beside the records of a folder and those below it."""
    if style not in FORMATS:
        raise UsageError(f"unknown format {style!r}{did_you_mean(style, FORMATS)}")
    if not folder.is_dir():
        raise UsageError(f"results folder {folder} does not exist; run something first (`spikebench bench`) or name another with --results")
    registries = Registries(plugin_files)
    for name in methods:
        registries.methods.entry(name)
    store, metrics = Store(folder, deep=True), needed(registries)
    tables, broken = build(store, metrics=metrics)
    growth, _ = store.select({**GROWTH, **{name: METRICS[name].path for name in metrics}})
    typer.echo(render(find(registries, tables, growth, methods), style))
    if broken:
        typer.echo(f"spikebench: {describe_broken(broken)}", err=True)
        raise typer.Exit(2)
