"""``spikebench run``."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import typer
from rich.console import Console
from tabulate import tabulate

from harness.commands.data import fetch_missing
from harness.commands.execute import execute
from harness.commands.table import labels, print_probe_tables, print_tables
from harness.identity import Plan
from harness.matrix import Selection, estimate, history, plans, specs
from harness.plugin import UsageError
from harness.registry import Registries
from harness.report.baselines import baselines
from harness.store import Store


def run(
    selection: Selection,
    folder: Path,
    plugin_files: Sequence[Path],
    *,
    time_limit: float | None,
    force: bool,
    dry_run: bool,
    keep_networks: bool = False,
) -> None:
    """Plan the matrix, run what is missing, print the tables. Exit 1 if a run failed."""
    registries = Registries(plugin_files)
    if not dry_run:
        fetch_missing(selection.tasks, registries)
    planned = plans(specs(selection, registries), registries)
    if dry_run:
        _print_matrix(planned, Store(folder), selection.jobs, force)
        return
    if all(plan.skip for plan in planned):
        first = planned[0] if planned else None
        raise UsageError(f"{first.spec.method} cannot run on {first.spec.task}: {first.skip}" if first else "nothing to run")
    resume = shlex.join(["spikebench", *sys.argv[1:]])
    records = execute(planned, folder, plugin_files, selection.jobs, time_limit, force, resume, keep_networks)
    wanted = {plan.key for plan in planned if plan.key}
    reasons = {(plan.spec.task, plan.spec.label): plan.skip for plan in planned if plan.skip}
    store = Store(folder)
    against = baselines(selection.against, labels(store), registries) if selection.against else None
    print_tables(store, keys=wanted, reasons=reasons, against=against)
    if any(plan.spec.probes for plan in planned):
        typer.echo("")
        print_probe_tables(store, registries, keys=wanted)
    typer.echo(f"Records: {folder}{_failures(len([r for r in records if r.status != 'ok']), folder)}")
    if any(record.status != "ok" for record in records):
        raise typer.Exit(1)


def _failures(count: int, folder: Path) -> str:
    return f"; {count} failed, logs in {folder / 'logs'} (the same command tries them again)" if count else ""


def _print_matrix(planned: Sequence[Plan], store: Store, jobs: int, force: bool) -> None:
    """Print what would run, what is finished, what cannot run, and an estimate of the time."""
    past = history(store)
    rows, total, unknown = [], 0.0, 0
    for plan in planned:
        spec = plan.spec
        if plan.skip:
            state, seconds = f"cannot run: {plan.skip}", None
        elif plan.key and store.finished(plan.key) and not force:
            state, seconds = "finished", None
        else:
            seconds = estimate(plan, past)
            state = (
                f"to run, about {seconds:.0f} s"
                if seconds
                else f"to run, at most {plan.settings.time_limit:.0f} s"
                if plan.settings
                else ""
            )
            total += seconds or 0.0
            unknown += seconds is None
        rows.append([spec.task, spec.label, spec.seed, spec.track, spec.budget, spec.device, (plan.key or "")[:8], state])
    typer.echo(tabulate(rows, ["task", "method", "seed", "track", "budget", "device", "key", "state"], tablefmt="simple"))
    waiting = sum(row[-1].startswith("to run") for row in rows)
    more = f", and {unknown} runs that were never timed here" if unknown else ""
    Console().print(f"{waiting} of {len(rows)} to run; about {total / jobs:.0f} s{more}", highlight=False)
