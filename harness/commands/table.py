"""``spikebench table``: from records alone; plugins, and torch with them, are imported only where an option or a reason needs them."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from harness.metrics import METRICS, metric
from harness.plugin import UsageError, did_you_mean
from harness.report.table import (
    COSTS,
    DEFAULT_METRICS,
    FORMATS,
    SPREADS,
    Table,
    build,
    render,
    render_summaries,
    summarise,
)
from harness.spec import OWN
from harness.store import Store, describe_broken
from harness.uncollected import uncollected

if TYPE_CHECKING:
    from harness.registry import Registries

MANY = 1000  # records up to which tables say unasked why methods are absent: that imports every plugin concerned


def screen() -> int | None:
    """Return how many columns the terminal has; None where the output goes to a file or a pipe."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() and os.environ.get("TERM") != "dumb" else None


def verified(store: Store) -> set[str]:
    """Return the keys of verified records; a list of them that cannot be read is told of, and marks nothing."""
    try:
        return store.verified()
    except UsageError as error:
        typer.echo(f"spikebench: {error}", err=True)
        return set()


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
    tables, broken = build(store, keys=keys, metrics=metrics, sort=sort, reasons=reasons or {}, against=against, verified=verified(store))
    typer.echo(render(tables, style, screen()))
    complain(broken)
    return tables


def complain(broken: Sequence[str]) -> None:
    """Name the files that could not be read, if there are any, and exit with status 2."""
    if broken:
        typer.echo(f"spikebench: {describe_broken(broken)}", err=True)
        raise typer.Exit(2)


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
    from harness.report import probes

    tables = probes.build(store, registries, probe=probe, keys=keys, tasks=tasks, methods=methods)
    if probe and not tables:
        raise UsageError(f"no record in {store.folder} has figures of the probe {probe!r}; attach it to a run with --probe {probe}")
    if tables:
        typer.echo(probes.render(tables, style, screen()))


def labels(store: Store) -> set[str]:
    """Return what the rows of a store's tables may be called."""
    return {row["label"] for row in store.select({"label": "label"})[0] if row["label"]}


def named_tasks(names: Sequence[str], plugin_files: Sequence[Path]) -> list[str]:
    """Return the names of tasks as records have them; plugins are imported only for names with options, or to check their files."""
    if plugin_files or any("[" in name for name in names):
        from harness.matrix import canonical
        from harness.registry import Registries

        registries = Registries(plugin_files)
        return [canonical(name, registries) if "[" in name else name for name in names]
    return list(names)


def check_names(store: Store, tasks: Sequence[str], suites: Sequence[str], methods: Sequence[str], plugin_files: Sequence[Path]) -> None:
    """Raise UsageError for the first name that neither a record nor a registry has; to be called where some name fits nothing."""
    from harness.registry import Registries
    from harness.spec import parse_variant

    registries = Registries(plugin_files)
    rows, _ = store.select({"task": "spec.task", "method": "spec.method", "label": "label"})
    for name in tasks:
        if name not in {row["task"] for row in rows}:
            registries.tasks.entry(parse_variant(name, "task")[0])
    known = {name.split("/")[0] for name in [*registries.tasks.names(), *(row["task"] for row in rows)]}
    for name in suites:
        if name not in known:
            raise UsageError(f"unknown suite {name!r}{did_you_mean(name, known)}")
    for name in methods:
        if name not in {row[part] for row in rows for part in ("method", "label")}:
            registries.methods.entry(parse_variant(name)[0])


def _absent(tables: Sequence[Table]) -> list[tuple[Table, list[str]]]:
    """Return the tables that lack methods which others show, with the labels of these."""
    everywhere = {row.label for table in tables for row in table.rows}
    found = [(table, sorted(everywhere - {row.label for row in table.rows})) for table in tables]
    return [(table, missing) for table, missing in found if missing]


def _reasons(tables: Sequence[Table], plugin_files: Sequence[Path]) -> None:
    """Say in each table why methods that others show cannot do its task; those that were just not run are left out."""
    from harness.registry import Registries

    registries = Registries(plugin_files)
    for table, missing in _absent(tables):
        try:
            task = registries.task(table.about["task"])
        except UsageError:  # a record of a task that is not here
            continue
        for label in missing:
            method = re.split(r"[\[@]", label)[0]
            if method in registries.methods.names() and (reason := registries.methods.load(method).supports(task)):
                table.reasons[label] = reason


@uncollected()
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
    pareto: Sequence[str],
    probe: str,
    over_steps: bool,
    summary: bool,
    reasons: bool | None,
    plugin_files: Sequence[Path],
) -> None:
    """Print the tables of a folder of records."""
    if style not in FORMATS:
        raise UsageError(f"unknown format {style!r}{did_you_mean(style, FORMATS)}")
    if spread not in SPREADS:
        raise UsageError(f"unknown spread {spread!r}{did_you_mean(spread, SPREADS)}")
    if summary and (over_steps or probe or against):
        raise UsageError("--summary shows main metrics and ranks; leave out --over-steps, --probe and --against")
    if not folder.is_dir():
        raise UsageError(f"results folder {folder} does not exist; run something first (`spikebench bench`) or name another with --results")
    chosen = list(METRICS) if list(metrics) == ["all"] else [metric(name).name for name in metrics] or list(DEFAULT_METRICS)
    costs = () if list(pareto) == ["none"] else tuple(metric(name).name for name in pareto) or COSTS
    metric(sort)
    store = Store(folder)
    wanted = named_tasks(tasks, plugin_files)
    if probe:
        return _probe(store, probe, wanted, methods, suites, style, plugin_files)
    own: Mapping[str, str] | str | None = against or None
    if against == OWN:
        from harness.registry import Registries
        from harness.report.baselines import baselines

        own = baselines(OWN, labels(store), Registries(plugin_files))
    if over_steps:
        from harness.report import curves
    tables, broken = build(
        store,
        tasks=wanted,
        methods=methods,
        suites=suites,
        metrics=chosen,
        sort=sort,
        spread=spread,
        against=own,
        extra=curves.PATHS if over_steps else None,
        pareto=costs,
        verified=verified(store),
    )
    if not tables:
        check_names(store, wanted, suites, methods, plugin_files)
        complain(broken)
        raise UsageError(f"no record in {folder} fits")
    shown = {row.label for each in tables for row in each.rows}
    if against not in ("", OWN, *shown):
        raise UsageError(f"--against {against!r} is not a row of these tables{did_you_mean(against, shown | {OWN})}")
    if summary:
        typer.echo(render_summaries(summarise(tables), style, screen()))
    elif over_steps:
        typer.echo(curves.render(tables, style, screen()))
    else:
        count = sum(len(row.runs) for each in tables for row in each.rows)
        asked = reasons is not False and style != "csv" and bool(_absent(tables))
        if asked and (reasons or count <= MANY):
            _reasons(tables, plugin_files)
        typer.echo(render(tables, style, screen()))
        if asked and reasons is None and count > MANY:
            typer.echo(f"spikebench: {count} records: why methods are absent from tables is shown with --reasons only", err=True)
    complain(broken)


def _probe(
    store: Store,
    probe: str,
    tasks: Sequence[str],
    methods: Sequence[str],
    suites: Sequence[str],
    style: str,
    plugin_files: Sequence[Path],
) -> None:
    from harness.registry import Registries

    registries = Registries(plugin_files)
    if suites:
        tasks = tasks or [name for name in registries.tasks.names() if name.split("/")[0] in suites]
    print_probe_tables(store, registries, probe, tasks=tasks, methods=methods, style=style)
