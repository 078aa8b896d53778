"""``spikebench regress``."""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

import typer

from harness.plugin import UsageError
from harness.regress import compare, folders, plan, report, settings
from harness.regress.finding import Outcome
from harness.regress.side import TREE, commit_of, repository

FEWEST_ROUNDS = 6  # below, no rank test could tell anything from chance


def regress(
    base: str,
    head: str,
    *,
    methods: Sequence[str],
    tasks: Sequence[str],
    rounds: int,
    changed: str | None,
    json_file: Path | None,
    summary_file: Path | None,
) -> None:
    """Compare two commits or two folders of records, print the table, write files; exit 1 with a regression, 2 if it cannot be told."""
    if 0 < rounds < FEWEST_ROUNDS:
        raise UsageError(f"--rounds {rounds} is too few for a rank test; write 0 (times are left out) or at least {FEWEST_ROUNDS}")
    for path in (json_file, summary_file):
        _writable(path)
    try:
        outcome = _outcome(base, head, methods, tasks, rounds, changed)
    except UsageError as error:
        _write(json_file, report.document(None, str(error)))
        _write(summary_file, report.markdown(None, str(error)), append=True)
        raise
    _write(json_file, report.document(outcome))
    _write(summary_file, report.markdown(outcome), append=True)
    typer.echo(report.terminal(outcome))
    if outcome.exit_status:
        raise typer.Exit(outcome.exit_status)


def _outcome(base: str, head: str, methods: Sequence[str], tasks: Sequence[str], rounds: int, changed: str | None) -> Outcome:
    kinds = {name: _is_folder(name) for name in (base, head)}
    if kinds[base] != kinds[head]:
        folder, commit = (base, head) if kinds[base] else (head, base)
        raise UsageError(f"{folder!r} is a folder of records and {commit!r} a state of the code; name two of one kind")
    if kinds[base]:
        return folders.compare(Path(base), Path(head), settings.read(Path.cwd(), changed), methods, tasks)
    told = settings.read(repository(), changed)
    planned = plan.make(methods, tasks, timed=rounds > 0)
    previous = signal.signal(signal.SIGTERM, _interrupted)  # a cancelled job must leave no worktree behind either
    try:
        return compare.compare(base, head, planned, told, rounds, _say)
    finally:
        signal.signal(signal.SIGTERM, previous)


def _interrupted(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _is_folder(name: str) -> bool:
    """Return whether a name is a folder of records; a commit or branch of that name goes first."""
    if name == TREE or not Path(name).is_dir():
        return False
    try:
        return commit_of(name, repository()) is None
    except UsageError:  # no git, or not in a checkout
        return True


def _say(text: str) -> None:
    typer.echo(f"regress: {text}", err=True)


def _writable(path: Path | None) -> None:
    """Raise UsageError, before anything is measured, if a file cannot be written."""
    if path is None:
        return
    try:
        with path.open("a", encoding="utf-8"):
            pass
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}") from None


def _write(path: Path | None, text: str, append: bool = False) -> None:
    if path is not None:
        with path.open("a" if append else "w", encoding="utf-8") as file:
            file.write(text)
        sys.stderr.write(f"regress: wrote {path}\n")
