"""``spikebench claims``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import typer

from harness.plugin import UsageError, did_you_mean
from harness.registry import Registries
from harness.report.claims import VERDICTS, gather, render
from harness.report.table import FORMATS
from harness.store import Store, describe_broken
from harness.uncollected import uncollected


@uncollected()
def claims(folder: Path, methods: Sequence[str], verdicts: Sequence[str], style: str, plugin_files: Sequence[Path]) -> None:
    """Print the claims of the cards of ``methods`` (and probes; default: all) beside the records of a folder and those below it."""
    if style not in FORMATS:
        raise UsageError(f"unknown format {style!r}{did_you_mean(style, FORMATS)}")
    for word in verdicts:
        if word not in VERDICTS:
            raise UsageError(f"unknown verdict {word!r}{did_you_mean(word, VERDICTS)}")
    if not folder.is_dir():
        raise UsageError(f"results folder {folder} does not exist; run something first (`spikebench bench`) or name another with --results")
    registries = Registries(plugin_files)
    known = [*registries.methods.names(), *registries.probes.names()]
    for name in methods:
        if name not in known:
            raise UsageError(f"unknown method or probe {name!r}{did_you_mean(name, known)}")
    findings, broken = gather(Store(folder, deep=True), registries, methods)
    typer.echo(render([each for each in findings if not verdicts or each.verdict in verdicts], style))
    if broken:
        typer.echo(f"spikebench: {describe_broken(broken)}", err=True)
        raise typer.Exit(2)
