"""``spikebench verify``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import typer
from rich.console import Console
from rich.markup import escape

from harness.metrics import format_value, metric
from harness.plugin import UsageError
from harness.printable import printable
from harness.registry import Registries
from harness.verify.candidate import Candidate, Finding
from harness.verify.files import MARKS
from harness.verify.folder import verify as check
from harness.verify.marks import write_marks
from harness.verify.rerun import Outcome, choose, run_again, seed_of

NAMED = 4  # records that a finding names
Tell = Callable[[str], None]
LONGEST = 400  # characters of a message: a record may put anything into it


def verify(folder: Path, *, rerun: int, keys: Sequence[str], mark: bool, plugin_files: Sequence[Path], reference: Path) -> None:
    """Check the records of a folder, print what was found, and exit 1 if one of them fails, 2 if what was asked could not be checked."""
    if not reference.is_dir():
        raise UsageError(f"--results {reference} does not exist; it names the reference records to compare with")
    registries = Registries(plugin_files)
    found = check(folder, reference, registries)
    chosen = choose(found, rerun, keys)
    console = Console(highlight=False, soft_wrap=True)
    outcomes: list[Outcome] = []
    if chosen:
        if rerun:
            console.print(f"Drawing records to run again with seed {seed_of(found)} (of their contents and this checkout's commit)")
        tell = Console(stderr=True, highlight=False, soft_wrap=True)
        outcomes = _run(chosen, rerun, keys, registries, plugin_files, lambda line: tell.print(escape(printable(line))))
    _findings(console, found)
    _outcomes(console, outcomes)
    failed = [each for each in found if each.failed]
    warned = [each for each in found if each.findings and not each.failed]
    again = sum(each.rerun for each in found)
    counts = f"{len(found)} record(s): {len(found) - len(failed)} pass ({len(warned)} with warnings), {len(failed)} fail"
    console.print(escape(printable(f"{counts}; {again} agree with a second run here")))
    if mark:
        count = write_marks(folder, found)
        console.print(escape(printable(f"{folder / MARKS}: {count} record(s) marked as verified")))
    elif (folder / MARKS).exists():
        console.print(f"{MARKS} is there already: it counts if you wrote it, and has no place in what somebody hands in")
    if failed:
        raise typer.Exit(1)
    if chosen and not again:
        raise UsageError("no record could be run again here; the other checks passed")


def _run(
    chosen: Sequence[Candidate], count: int, keys: Sequence[str], registries: Registries, plugin_files: Sequence[Path], tell: Tell
) -> list[Outcome]:
    """Run the records named by ``keys``, which come first, and ``count`` others."""
    named = [each for each in chosen if any(each.record and each.record.key.startswith(key) for key in keys)]
    drawn = chosen[len(named) :]
    outcomes = run_again(named, len(named), registries, plugin_files, tell)
    return outcomes + run_again(drawn, count, registries, plugin_files, tell)


def _findings(console: Console, found: Sequence[Candidate]) -> None:
    """Print each finding once, errors first, with the records that have it."""
    where: dict[Finding, list[Candidate]] = {}
    for each in found:
        for finding in dict.fromkeys(each.findings):
            where.setdefault(finding, []).append(each)
    for finding, members in sorted(where.items(), key=lambda item: (item[0].severity, item[0].check, item[1][0].path.name)):
        colour = "red" if finding.severity == "error" else "yellow"
        console.print(f"[{colour}]{finding.severity}[/] {finding.check}: {escape(printable(finding.message[:LONGEST]))}")
        for each in members[:NAMED]:
            console.print(f"    {escape(printable(each.name))}", style="dim")
        if len(members) > NAMED:
            console.print(f"    and {len(members) - NAMED} more", style="dim")


def _outcomes(console: Console, outcomes: Sequence[Outcome]) -> None:
    for each in outcomes:
        name = escape(printable(each.candidate.name))
        if each.reason:
            console.print(f"[yellow]not run again[/] {name}: {escape(printable(each.reason[:LONGEST]))}")
            continue
        agreed = "agrees to the last digit" if each.exact else "agrees within bounds" if each.candidate.rerun else "does not agree"
        times = ", ".join(
            f"{metric(n).title} {format_value(metric(n), a)}, here {format_value(metric(n), b)}" for n, (a, b) in each.times.items()
        )
        console.print(f"{'[green]' if each.candidate.rerun else '[red]'}run again[/] {name}: {agreed} (times do not count: {times})")
