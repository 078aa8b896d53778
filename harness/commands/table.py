"""``spikebench table``."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import typer

from harness.matrix import canonical
from harness.plugin import UsageError, did_you_mean
from harness.registry import Registries
from harness.report import curves, probes
from harness.report.baselines import baselines
from harness.report.table import DEFAULT_METRICS, FORMATS, SPREADS, Table, build, render
from harness.spec import OWN
from harness.store import Store, describe_broken


def print_tables(
    store: Store,
    keys: set[str] | None = None,
    metrics: Sequence[str] = DEFAULT_METRICS,
    sort: str = "test_accuracy",
    style: str = "terminal",
    reasons: Mapping[tuple[str, str], str] | None = None,
    against: str | Mapping[str, str] | None = None,
) -> list[Table]:
    """Print the tables of a store (of ``keys`` only, if given); ``reasons`` say why a method has no row on a task."""
    tables, broken = build(store, keys=keys, metrics=metrics, sort=sort, reasons=reasons or {}, against=against)
    typer.echo(render(tables, style))
    if broken:
        typer.echo(f"spikebench: {describe_broken(broken)}", err=True)
        raise typer.Exit(2)
    return tables


def print_probe_tables(
    store: Store,
    registries: Registries,
    probe: str = "",
    keys: set[str] | None = None,
    tasks: Sequence[str] = (),
    methods: Sequence[str] = (),
    style: str = "terminal",
) -> None:
    """Print what probes found (``probe`` only, if named) in the records that fit; raise UsageError if a named one found nothing."""
    tables = probes.build(store, registries, probe=probe, keys=keys, tasks=tasks, methods=methods)
    if probe and not tables:
        raise UsageError(f"no record in {store.folder} has figures of the probe {probe!r}; attach it to a run with --probe {probe}")
    if tables:
        typer.echo(probes.render(tables, style))


def labels(store: Store) -> set[str]:
    """Return what the rows of a store's tables may be called."""
    return {row["label"] for row in store.select({"label": "label"})[0] if row["label"]}


def _reasons(table: Table, labels: set[str], registries: Registries) -> dict[str, str]:
    """Return why methods that other tables show cannot do this one's task; those that were just not run are left out."""
    try:
        task = registries.task(table.about["task"])
    except UsageError:  # a record of a task that is not here
        return {}
    found = {}
    for label in sorted(labels - {row.label for row in table.rows}):
        method = re.split(r"[\[@]", label)[0]
        if method in registries.methods.names() and (reason := registries.methods.load(method).supports(task)):
            found[label] = reason
    return found


def table(
    folder: Path,
    tasks: Sequence[str],
    methods: Sequence[str],
    suites: Sequence[str],
    metrics: Sequence[str],
    sort: str,
    style: str,
    spread: str,
    against: str,
    probe: str,
    over_steps: bool,
    plugin_files: Sequence[Path],
) -> None:
    """Print the tables of a folder of records."""
    from harness.metrics import METRICS, metric

    if style not in FORMATS:
        raise UsageError(f"unknown format {style!r}{did_you_mean(style, FORMATS)}")
    if spread not in SPREADS:
        raise UsageError(f"unknown spread {spread!r}{did_you_mean(spread, SPREADS)}")
    if not folder.is_dir():
        raise UsageError(f"results folder {folder} does not exist; run something first (`spikebench bench`) or name another with --results")
    chosen = list(METRICS) if list(metrics) == ["all"] else [metric(name).name for name in metrics] or list(DEFAULT_METRICS)
    metric(sort)
    store = Store(folder)
    registries = Registries(plugin_files)
    tasks = [canonical(name, registries) for name in tasks]
    if probe:
        if suites:
            tasks = tasks or [name for name in registries.tasks.names() if name.split("/")[0] in suites]
        return print_probe_tables(store, registries, probe, tasks=tasks, methods=methods, style=style)
    own = baselines(OWN, labels(store), registries) if against == OWN else None
    tables, broken = build(
        store,
        tasks=tasks,
        methods=methods,
        suites=suites,
        metrics=chosen,
        sort=sort,
        spread=spread,
        against=own or against or None,
        extra=curves.PATHS if over_steps else None,
    )
    if not tables and not broken:
        raise UsageError(f"no record in {folder} fits")
    shown = {row.label for each in tables for row in each.rows}
    if against not in ("", OWN, *shown):
        raise UsageError(f"--against {against!r} is not a row of these tables{did_you_mean(against, shown | {OWN})}")
    for found in tables:
        found.reasons |= _reasons(found, shown, registries)
    typer.echo(curves.render(tables, style) if over_steps else render(tables, style))
    if broken:
        typer.echo(f"spikebench: {describe_broken(broken)}", err=True)
        raise typer.Exit(2)
