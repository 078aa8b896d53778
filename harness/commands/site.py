"""``spikebench site``."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from harness.plugin import UsageError
from harness.registry import Registries
from harness.report.site.write import Cannot, write
from harness.store import Store, describe_broken

if TYPE_CHECKING:
    from harness.task import Task


def site(folder: Path, output: Path, plugin_files: Sequence[Path]) -> None:
    """Write the pages of the records of a folder and those below it, and print the name of the first; exit 2 if records were unreadable."""
    if not folder.is_dir():
        raise UsageError(f"results folder {folder} does not exist; run something first (`spikebench bench`) or name another with --results")
    registries = Registries(plugin_files)
    written = write(Store(folder, deep=True), registries, output, refusals(registries))
    typer.echo(f"{written.index}: {written.runs} runs, {written.files} files, {written.size / 2**20:.1f} MiB")
    if written.broken:
        typer.echo(f"spikebench: {describe_broken(written.broken)}", err=True)
        raise typer.Exit(2)


def refusals(registries: Registries) -> Cannot:
    """Return what says why a method cannot do a task, both by name, for those that are here; it imports them, and torch with them."""

    @cache
    def task_of(name: str) -> Task | None:
        try:
            return registries.task(name)
        except UsageError:
            return None

    def cannot(method: str, name: str) -> str | None:
        task = task_of(name)
        try:
            return registries.methods.load(method).supports(task) if task is not None else None
        except UsageError:
            return None

    return cannot
