"""``spikebench list``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import typer
from tabulate import tabulate

from harness.method import Method
from harness.metrics import METRICS, TASK_METRICS
from harness.plugin import UnfitError, UsageError, did_you_mean
from harness.registry import Registries
from harness.task import Task

WIDEST = 48  # characters of a column before it is wrapped


def list_plugins(what: str, task: str, style: str, plugin_files: Sequence[Path]) -> None:
    """Print the plugins of a kind; with ``task``, whether each method can do it."""
    kinds = ("methods", "tasks", "probes", "metrics")
    if what not in kinds:
        raise UsageError(f"unknown kind {what!r}{did_you_mean(what, kinds)}")
    styles = ("terminal", "github")
    if style not in styles:
        raise UsageError(f"unknown format {style!r}{did_you_mean(style, styles)}")
    registries = Registries(plugin_files)
    heads, rows = {"methods": _methods, "tasks": _tasks, "probes": _probes, "metrics": _metrics}[what](registries, task, style)
    if not rows:
        typer.echo(f"no {what} here")
        return
    if style == "github":
        typer.echo(tabulate(rows, heads, tablefmt="github", disable_numparse=True))
    else:
        typer.echo(tabulate(rows, heads, tablefmt="simple", maxcolwidths=[None] * 2 + [WIDEST] * (len(heads) - 2)))


def _methods(registries: Registries, task: str, style: str) -> tuple[list[str], list[list[str]]]:
    """In a terminal with options and files; for a page with the papers."""
    asked = registries.task(task) if task else None
    rows = []
    for name in registries.methods.names():
        method = registries.methods.load(name)
        card = method.card
        if style == "github" and asked is None:
            where = card.venue if str(card.year) in card.venue else f"{card.venue}, {card.year}".removeprefix("-, ")
            rows.append([f"`{name}`", card.family, f"{card.title} ({where})", card.summary])
            continue
        options = ", ".join(f"{key}={field.default}" for key, field in method.Options.model_fields.items())
        row = [name, method.card.family, str(method.card.year), method.card.summary, options, registries.methods.origin(name)]
        rows.append(row[:4] + [asked.unavailable() or _unfit(method, asked) or "yes"] if asked else row)
    if style == "github" and asked is None:
        return ["method", "family", "paper", "about"], rows
    return ["method", "family", "year", "about", *([f"runs on {task}"] if asked else ["options", "defined in"])], rows


def _unfit(method: type[Method], task: Task) -> str | None:
    """Return why a method cannot do a task with its default options, or None."""
    try:
        reason = method.supports(task)
        if reason is None:
            method(task)
    except UnfitError as error:
        reason = str(error)
    return reason


def _tasks(registries: Registries, _: str, style: str) -> tuple[list[str], list[list[str]]]:
    """In a terminal with what is ready here; for a page, which is read elsewhere, with the rule of the split."""
    rows = []
    for name in registries.tasks.names():
        task = registries.task(name)
        row = [name, task.card.title, task.head.kind, str(task.steps), task.metric, ", ".join(task.budgets), task.card.licence]
        rows.append([*row, task.card.split if style == "github" else _state(task)])
    heads = ["task", "about", "head", "T", "metric", "budgets", "licence of the data"]
    return [*heads, "split" if style == "github" else "state"], rows


def _state(task: Task) -> str:
    if size := task.download_size():
        return f"would download {size}"
    return task.unavailable() or ("ready, embedded" if task.embedded else "ready")


def _probes(registries: Registries, *_: str) -> tuple[list[str], list[list[str]]]:
    rows = [[n, registries.probes.load(n).card.summary, registries.probes.origin(n)] for n in registries.probes.names()]
    return ["probe", "about", "defined in"], rows


def _metrics(*_: object) -> tuple[list[str], list[list[str]]]:
    rows = [[m.name, m.unit or "-", m.direction, m.description, m.path] for m in METRICS.values()]
    mains = [[name, unit or "-", direction, text, "accuracy.test"] for name, (_, unit, direction, text) in TASK_METRICS.items()]
    return ["metric", "unit", "better", "definition", "in the record"], rows + mains
