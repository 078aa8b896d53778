"""Commands about plugins: list, new-method, check."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.cli.options import Plugins, app


@app.command(
    "list", epilog="Examples: `spikebench list methods` · `spikebench list tasks` · `spikebench list methods --task detection/digit-scenes`"
)
def list_(
    what: Annotated[str, typer.Argument(help="methods, tasks, probes or metrics")],
    task: Annotated[str, typer.Option("--task", "-t", help="With methods: say which can do this task, and why the others cannot.")] = "",
    format: Annotated[str, typer.Option("--format", "-f", help="terminal or github.")] = "terminal",
    plugin: Plugins = None,
) -> None:
    """List methods, tasks or probes, with where each comes from and why it cannot run here; or the metrics and what they mean."""
    from harness.commands.list import list_plugins as work

    work(what, task, format, plugin or [])


@app.command("new-method", epilog="Example: `spikebench new-method my_neuron`, edit methods/my_neuron.py, `spikebench check my_neuron`")
def new_method(
    name: Annotated[str, typer.Argument(help="Lower case, letters, digits and underscores.")],
    folder: Annotated[Path | None, typer.Option("--folder", help="Where to write; default: the checkout's methods/, else here.")] = None,
) -> None:
    """Write a new method from a template, and its test."""
    from harness.commands.new_method import new_method as work

    work(name, folder)


@app.command(epilog="Examples: `spikebench check ottt` · `spikebench check mine --plugin mine.py` · `spikebench check --all`")
def check(
    method: Annotated[str, typer.Argument(help="Name of the method, with options in brackets if need be.")] = "",
    everything: Annotated[bool, typer.Option("--all", help="Check every method.")] = False,
    plugin: Plugins = None,
) -> None:
    """Check that a method keeps the contract: shapes, learning, no hidden state, same seed same result, and so on."""
    from harness.commands.check import check as work

    work(method, everything, plugin or [])
