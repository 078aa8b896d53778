"""Commands that compare and check: regress, verify."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.cli.options import Methods, Plugins, Results, Tasks, app


@app.command(
    epilog="Examples: `spikebench regress main HEAD` · `spikebench regress main . --json regress.json --summary $GITHUB_STEP_SUMMARY` · "
    "`spikebench regress results/before results/after`"
)
def regress(
    base: Annotated[str, typer.Argument(help="Commit, branch or folder of records to compare with.")],
    head: Annotated[str, typer.Argument(help="Commit, branch or folder of records to judge; `.` is the working tree as it is.")] = ".",
    method: Methods = "",
    task: Tasks = "",
    rounds: Annotated[int, typer.Option("--rounds", min=0, help="Times that both sides take turns, 6 or more; 0: nothing is timed.")] = 12,
    changed: Annotated[
        str | None,
        typer.Option("--changed", help="Results that differ, no figure worse: fail or report. Default: pyproject.toml's, else fail."),
    ] = None,
    json: Annotated[Path | None, typer.Option("--json", help="Also write the figures to this file.", metavar="FILE")] = None,
    summary: Annotated[
        Path | None,
        typer.Option("--summary", help="Also append the table to this file as Markdown (a job summary).", metavar="FILE"),
    ] = None,
) -> None:
    """Compare two states of the code on this machine: exit 1 if the second is slower, hungrier or less accurate, 2 if it cannot be told."""
    from harness.commands.regress import regress as work
    from harness.spec import split_list

    chosen = {"methods": split_list(method), "tasks": split_list(task)}
    work(base, head, **chosen, rounds=rounds, changed=changed, json_file=json, summary_file=summary)


@app.command(epilog="Examples: `spikebench verify my-records` · `spikebench verify my-records --rerun 2 --mark`")
def verify(
    folder: Annotated[Path, typer.Argument(help="Folder of records.")],
    rerun: Annotated[int, typer.Option("--rerun", min=0, help="Run so many of the records again, drawn by chance, and compare.")] = 0,
    key: Annotated[str, typer.Option("--key", help="Run these again: beginnings of run keys, comma-separated.")] = "",
    mark: Annotated[bool, typer.Option("--mark", help="Write verified.json for what passed; tables then show it.")] = False,
    plugin: Plugins = None,
    results: Results = Path("results/reference"),
) -> None:
    """Check records that somebody hands in: schema, checksums, duplicates, plausibility beside the reference records; run some again."""
    from harness.commands.verify import verify as work
    from harness.spec import split_list

    work(folder, rerun=rerun, keys=split_list(key), mark=mark, plugin_files=plugin or [], reference=results)
