"""``spikebench site``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import typer

from harness.plugin import UsageError
from harness.registry import Registries
from harness.report.site.write import write
from harness.store import Store, describe_broken


def site(folder: Path, output: Path, plugin_files: Sequence[Path]) -> None:
    """Write the pages of the records of a folder and those below it, and print the name of the first; exit 2 if records were unreadable."""
    if not folder.is_dir():
        raise UsageError(f"results folder {folder} does not exist; run something first (`spikebench bench`) or name another with --results")
    written = write(Store(folder, deep=True), Registries(plugin_files), output)
    typer.echo(f"{written.index}: {written.runs} runs, {written.files} files, {written.size / 2**20:.1f} MiB")
    if written.broken:
        typer.echo(f"spikebench: {describe_broken(written.broken)}", err=True)
        raise typer.Exit(2)
