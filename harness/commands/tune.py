"""``spikebench tune``: choose settings for methods under an equal budget of trials, on validation data only.

Each method declares what may be chosen (``Method.search``); each trial is an ordinary run with a record, and its figure the main metric on
the validation split. Optuna's tree-structured Parzen estimator (Bergstra et al., NeurIPS 2011) proposes the trials, the method's defaults
being the first. What was best is then run with all seeds, and those records carry the chosen values and how they were chosen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import typer

from harness.commands.execute import execute
from harness.commands.table import print_tables
from harness.identity import Plan
from harness.matrix import Selection, plans, specs
from harness.method import Search
from harness.metrics import as_task_metric, metric
from harness.plugin import UsageError
from harness.record import read_record
from harness.registry import Registries
from harness.spec import parse_variant
from harness.store import Store


def tune(selection: Selection, trials: int, folder: Path, plugin_files: Sequence[Path], resume: str, *, force: bool) -> None:
    """Tune every method on every task, run what was best with all seeds and print the tables. Exit 1 if a run failed."""
    import optuna  # takes a while

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if trials < 2:
        raise UsageError(f"--trials {trials}: two at least; the first is the method's defaults")
    registries = Registries(plugin_files)
    found: list[Plan] = []
    for one in _each(selection, registries):
        plan = plans(specs(replace(one, seeds=1), registries), registries)[0]
        if plan.skip:
            typer.echo(f"{plan.spec.method} cannot run on {plan.spec.task}: {plan.skip}", err=True)
            continue
        chosen = _study(optuna, one, trials, registries, folder, plugin_files, resume, force)
        note = f"best of {trials} trials on validation, {', '.join(f'{name} in {each}' for name, each in _space(one, registries).items())}"
        tuned = replace(one, settings={**one.settings, **chosen}, tuning=note)
        found += plans(specs(tuned, registries), registries)
        typer.echo(f"{one.tasks[0]}, {one.methods[0]}: {', '.join(f'{k}={v}' for k, v in chosen.items()) or 'defaults'} ({note})")
    if not found:
        raise typer.Exit(1)
    records = execute(found, folder, plugin_files, selection.jobs, None, force, resume)
    print_tables(Store(folder), keys={plan.key for plan in found if plan.key})
    if any(record.status != "ok" for record in records):
        raise typer.Exit(1)


def _each(selection: Selection, registries: Registries) -> list[Selection]:
    pairs = dict.fromkeys((spec.task, text) for text in selection.methods for spec in specs(replace(selection, methods=[text]), registries))
    return [replace(selection, tasks=[task], methods=[text]) for task, text in pairs]


def _space(selection: Selection, registries: Registries) -> dict[str, Search]:
    """Return what may be chosen: all that the method declares but what the user has set."""
    name, options = parse_variant(selection.methods[0])
    declared = registries.methods.load(name).search
    return {key: search for key, search in declared.items() if key not in selection.settings and key not in options}


def _study(
    optuna: Any,
    selection: Selection,
    trials: int,
    registries: Registries,
    folder: Path,
    plugin_files: Sequence[Path],
    resume: str,
    force: bool,
) -> dict[str, str]:
    """Return the settings that were best on validation; raise UsageError if no trial ended well."""
    space = _space(selection, registries)
    if not space:
        raise UsageError(f"{selection.methods[0]} has nothing left to tune: everything that it declares was set")
    main = as_task_metric(metric("validation_accuracy"), registries.task(selection.tasks[0]).metric)
    study = optuna.create_study(
        direction="maximize" if main.direction == "higher" else "minimize", sampler=optuna.samplers.TPESampler(seed=0)
    )
    store = Store(folder)
    best: tuple[float, dict[str, str]] | None = None
    for number in range(trials):
        settings: dict[str, str] = {}
        trial = None
        if number:  # the first has the defaults, which are values of the space only by chance, so the sampler is not told of it
            trial = study.ask()
            settings = {name: str(search.suggest(trial, name)) for name, search in space.items()}
        plan = plans(specs(replace(selection, seeds=1, settings={**selection.settings, **settings}), registries), registries)[0]
        execute([plan], folder, plugin_files, 1, None, force, resume)
        value = _value(store, plan)
        if trial is not None:
            study.tell(trial, value, state=optuna.trial.TrialState.FAIL if value is None else None)
        if value is not None and (best is None or main.better(value, best[0])):
            best = value, settings
    if best is None:
        raise UsageError(
            f"none of {trials} trials of {selection.methods[0]} on {selection.tasks[0]} ended well; see the records in {folder}"
        )
    return best[1]


def _value(store: Store, plan: Plan) -> float | None:
    assert plan.key
    if not store.finished(plan.key):
        return None
    record = read_record(store.path(plan.key))
    return record.accuracy.validation if record.accuracy else None
