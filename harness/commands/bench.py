"""``spikebench bench``: the leaderboard that a new user sees first."""

from __future__ import annotations

import shlex
import sys
import tomllib
from importlib.util import find_spec
from pathlib import Path

import typer

from harness.commands.execute import execute
from harness.commands.site import site
from harness.commands.table import print_tables
from harness.matrix import Selection, plans, specs
from harness.registry import Registries
from harness.store import Store


def matrix() -> dict[str, list[str]]:
    """Return task -> methods, as ``suites/bench.toml`` says."""
    spec = find_spec("suites")
    assert spec is not None and spec.submodule_search_locations
    return tomllib.loads((Path(spec.submodule_search_locations[0]) / "bench.toml").read_text(encoding="utf-8"))["matrix"]


def bench(folder: Path, *, seeds: int, jobs: int, threads: int | None, force: bool) -> None:
    """Run the matrix of ``suites/bench.toml``, print its tables and write its pages. Exit 1 if a run failed."""
    registries = Registries()
    planned = []
    for task, methods in matrix().items():
        selection = Selection(methods=methods, tasks=[task], seeds=seeds, jobs=jobs, threads=threads)
        planned += plans(specs(selection, registries), registries)
    records = execute(planned, folder, [], jobs, None, force, shlex.join(["spikebench", *sys.argv[1:]]))
    reasons = {(plan.spec.task, plan.spec.label): plan.skip for plan in planned if plan.skip}
    print_tables(Store(folder), keys={plan.key for plan in planned if plan.key}, reasons=reasons)
    typer.echo(f"Records: {folder} (`spikebench table` prints these tables again, `spikebench show KEY` one record)")
    pages = folder / "site"
    site(folder, pages, [])
    typer.echo(f"Leaderboard: {pages / 'index.html'}")
    if any(record.status != "ok" for record in records):
        raise typer.Exit(1)
