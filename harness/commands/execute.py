"""Carries out a list of plans with a live display: what ``run`` and ``bench`` share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer
from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

from harness.engines.local import LocalEngine
from harness.identity import Plan
from harness.record import Record
from harness.store import Store


class Display:
    """Progress of a matrix: one bar for all, one line per run in flight; without a terminal one line per finished run."""

    def __init__(self, console: Console, total: int) -> None:
        """Prepare a display for ``total`` runs."""
        self.console = console
        self.overall = Progress(
            TextColumn("[bold]{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=console
        )
        self.runs = Progress(
            TextColumn("  {task.description}"), BarColumn(20), TextColumn("{task.fields[note]}"), TimeElapsedColumn(), console=console
        )
        self.bar = self.overall.add_task("runs", total=total)
        self.total, self.done = total, 0
        self.lines: dict[str, TaskID] = {}
        self.live = Live(Group(self.overall, self.runs), console=console, refresh_per_second=4, transient=True)

    def __enter__(self) -> Display:
        """Show, if there is a terminal to show on."""
        if self.console.is_terminal:
            self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Clear the live part."""
        if self.console.is_terminal:
            self.live.stop()

    def listen(self, plan: Plan, event: dict[str, Any]) -> None:
        """Take an event of the engine."""
        assert plan.key
        name = f"{plan.spec.label} on {plan.spec.task}, seed {plan.spec.seed}"
        kind = event["event"]
        if kind == "start":
            self.lines[plan.key] = self.runs.add_task(name, total=None, note="starting")
        elif kind == "stage":
            self.runs.update(self.lines[plan.key], note=event["stage"])
        elif kind == "phase":
            self.runs.update(self.lines[plan.key], note=event["phase"], completed=0)
        elif kind == "epoch":
            note = f"{event['phase']}: loss {event['loss']:.3f}, validation {event['validation']:.3f}"
            self.runs.update(self.lines[plan.key], total=event["epochs"], completed=event["epoch"] + 1, note=note)
        elif kind == "end":
            self.runs.remove_task(self.lines.pop(plan.key))
            self.done += 1
            self.overall.update(self.bar, completed=self.done)
            self.console.print(outcome(event["record"], f"[{self.done}/{self.total}]"))


def outcome(record: Record, number: str) -> Text:
    """Return the line that says how a run ended."""
    name = f"{number} {record.spec.task}  {record.label}  seed {record.spec.seed}  "
    if record.accuracy is not None:
        return Text(f"{name}{record.accuracy.metric} {record.accuracy.test:.4f}  {record.duration:.1f} s")
    message = record.failure.message if record.failure else ""
    return Text(f"{name}{record.status}: {message}", style="red")


def execute(
    plans: Sequence[Plan],
    folder: Path,
    plugin_files: Sequence[Path],
    jobs: int,
    time_limit: float | None,
    force: bool,
    resume: str,
    keep_networks: bool = False,
) -> list[Record]:
    """Run what is not finished; return the records that this call made. Exit 130 on Ctrl-C, saying how to continue."""
    console = Console(stderr=True)
    store = Store(folder)
    store.prepare()
    wanted = {plan.key: plan for plan in plans if plan.key}
    todo = {key: plan for key, plan in wanted.items() if force or not store.finished(key)}
    finished = len(wanted) - len(todo)
    if finished:
        console.print(f"{finished} of {finished + len(todo)} runs are finished already (--force runs them again)", highlight=False)
    engine = LocalEngine(store, plugin_files, jobs, time_limit, keep_networks)
    try:
        with Display(console, len(todo)) as display:
            return engine.run(list(todo.values()), display.listen)
    except KeyboardInterrupt:
        console.print(f"Interrupted. Finished records are safe in {folder}; continue with: {resume}", highlight=False, soft_wrap=True)
        raise typer.Exit(130) from None
