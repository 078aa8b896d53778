"""``spikebench show``."""

from __future__ import annotations

import json
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from harness.metrics import METRICS, as_task_metric, format_value
from harness.record import STATUSES, Record, read_record
from harness.store import Store


def show(which: str, folder: Path) -> None:
    """Print a record: what was run, every metric with its meaning, layers, epochs, environment, failure."""
    record = read_record(Store(folder).find(which))
    console = Console(highlight=False, soft_wrap=True)
    spec = record.spec
    what = f"[bold]{escape(record.label)}[/] on [bold]{escape(spec.task)}[/]"
    console.print(f"{what}, seed {spec.seed}, {spec.track} track, {escape(spec.budget)} budget")
    status = f"{record.status}: {STATUSES.get(record.status, 'unknown status')}"
    console.print(f"key {escape(record.key)}   {record.started}   {record.duration:.1f} s   {status}")
    if record.failure:
        console.print(f"\n[red]{escape(record.failure.message)}[/]\n{escape(record.failure.traceback)}")
    for warning in record.warnings:
        console.print(f"[yellow]warning: {escape(warning)}[/]")
    _metrics(console, record)
    _curve(console, record)
    _layers(console, record)
    _gradients(console, record)
    _epochs(console, record)
    _dicts(console, record)


def _metrics(console: Console, record: Record) -> None:
    plain = record.model_dump()
    table = Table(box=None, header_style="bold", title="\nMeasured", title_justify="left")
    for head in ("metric", "value", "better", "meaning"):
        table.add_column(head, justify="right" if head == "value" else "left")
    main = record.accuracy.metric if record.accuracy else "accuracy"
    for metric in (as_task_metric(each, main) for each in METRICS.values()):
        value = metric.read(plain)
        if value is not None:
            table.add_row(metric.name, format_value(metric, value), metric.direction, metric.description)
    if table.row_count:
        console.print(table)


def _curve(console: Console, record: Record) -> None:
    if record.accuracy and len(record.accuracy.test_curve) > 1:
        shown = " ".join(f"{value:.3f}" for value in record.accuracy.test_curve)
        some = record.accuracy.curve_steps
        which = f"{len(some)} of {some[-1] + 1} steps, evenly spread" if some and len(some) <= some[-1] else "each step"
        console.print(f"\n[bold]{escape(record.accuracy.metric)} on test as of {which}[/]\n{shown}")
    if record.activity:
        for what, curve in (("Spikes", record.activity.spikes_curve), ("Effective operations", record.activity.synops_curve)):
            if curve and len(curve) > 1:
                console.print(f"\n[bold]{what} per sample at each step[/]\n{' '.join(f'{value:.4g}' for value in curve)}")
    if record.accuracy and record.accuracy.extrapolation:
        console.print("\n[bold]Extrapolation[/]")
        for name, value in record.accuracy.extrapolation.items():
            console.print(escape(f"  {name}: {value if isinstance(value, str) else f'{value:.4f}'}"))


def _layers(console: Console, record: Record) -> None:
    if record.activity and record.activity.layers:
        table = Table(
            "layer", "neurons", "spikes per sample", "rate", box=None, header_style="bold", title="\nLayers", title_justify="left"
        )
        for layer in record.activity.layers:
            rate = "-" if layer.rate is None else f"{layer.rate:.4f}"
            table.add_row(escape(layer.name), f"{layer.neurons:.0f}", f"{layer.spikes_per_sample:.1f}", rate)
        console.print(table)


def _gradients(console: Console, record: Record) -> None:
    if record.gradients:
        table = Table("parameter", "cosine", "norm ratio", box=None, header_style="bold", title_justify="left")
        table.title = f"\nGradients against those through all steps, {record.gradients.samples} training samples"
        for each in record.gradients.parameters:
            table.add_row(escape(each.name), *("-" if value is None else f"{value:.4f}" for value in (each.cosine, each.ratio)))
        console.print(table)


def _epochs(console: Console, record: Record) -> None:
    if record.trace:
        table = Table(
            "phase", "epoch", "loss", "validation", "seconds", box=None, header_style="bold", title="\nEpochs", title_justify="left"
        )
        for epoch in record.trace:
            table.add_row(escape(epoch.phase), str(epoch.epoch), f"{epoch.loss:.4f}", f"{epoch.validation:.4f}", f"{epoch.seconds:.2f}")
        console.print(table)


def _dicts(console: Console, record: Record) -> None:
    parts = {"Settings": record.settings.model_dump(), "Report of the method": record.report, "Probes": record.probes}
    if record.environment:
        parts["Environment"] = record.environment.model_dump()
    for title, values in parts.items():
        if values:
            console.print(f"\n[bold]{title}[/]")
            for key, value in values.items():
                text = json.dumps(value)
                console.print(escape(f"  {key}: {text if len(text) < 600 else text[:600] + '...'}"))
