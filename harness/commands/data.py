"""``spikebench data``, and the downloads before a run."""

from __future__ import annotations

from collections.abc import Iterable

import typer

from harness.registry import Registries


def fetch(names: Iterable[str], registries: Registries) -> None:
    """Download and verify the data of tasks, and say what is here.

    Raises UsageError if a download fails; exits with 1 at a task whose data nothing downloads, saying what to do.
    """
    for name in names:
        task = registries.task(name)
        size = task.download_size()
        if size is not None:
            typer.echo(f"{task.name}: downloading {size}")
            task.fetch()
        elif reason := task.unavailable():
            typer.echo(f"{task.name}: {reason}", err=True)
            raise typer.Exit(1)
        typer.echo(f"{task.name}: ready, checksum {task.checksum()}")


def fetch_missing(names: Iterable[str], registries: Registries) -> None:
    """Download what the tasks that a user named lack, if something downloads it."""
    for name in names:
        task = registries.task(name)
        if (size := task.download_size()) is not None:
            typer.echo(f"{task.name}: downloading {size}", err=True)
            task.fetch()
