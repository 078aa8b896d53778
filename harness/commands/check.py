"""``spikebench check``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
import typer
from rich.console import Console
from rich.markup import escape

from harness.checks import CHECKS, Subject
from harness.plugin import UsageError
from harness.registry import Registries


def check(method: str, everything: bool, plugin_files: Sequence[Path]) -> None:
    """Run every check on a method, or on all; exit 1 if one fails."""
    if bool(method) == everything:
        raise UsageError("say which method to check, or --all")
    names = Registries(plugin_files).methods.names() if everything else [method]
    torch.set_num_threads(1)  # the networks of a check are too small to share
    console = Console(highlight=False, soft_wrap=True)
    failed = 0
    for name in names:
        subject = Subject(name, plugin_files)
        console.print(f"[bold]{escape(name)}[/] ({subject.registries.methods.origin(subject.name)})")
        for each in CHECKS:
            title = (each.__doc__ or each.__name__).strip().rstrip(".")
            try:
                each(subject)
            except Exception as error:  # any failure of the plugin's code is a finding
                failed += 1
                kind = "" if isinstance(error, AssertionError) else f"{type(error).__name__}: "
                console.print(f"  [red]fails[/]  {escape(title)}\n         {escape(kind + str(error))}")
            else:
                console.print(f"  [green]holds[/]  {escape(title)}")
    if failed:
        raise typer.Exit(1)
