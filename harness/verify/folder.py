"""All checks of a folder of records that need no run.

candidates = verify(Path("my-records"), Path("results/reference"), registries)
[each.name for each in candidates if each.failed]
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from harness.registry import Registries
from harness.report.commits import Commits, git_log
from harness.verify import consistency, plausibility, provenance
from harness.verify.candidate import Candidate, error
from harness.verify.copies import mark_copies
from harness.verify.files import MARKS, read_file, read_folder


def verify(folder: Path, reference: Path, registries: Registries) -> list[Candidate]:
    """Return the records of ``folder`` (not of folders below) with what was found, beside those of ``reference`` and below.

    Raises UsageError if there is no such folder, or nothing in it.
    """
    candidates = read_folder(folder)
    known = _reference(reference)
    own = {each.path.resolve() for each in candidates}
    records = [each.record for each in known if each.record is not None and each.path.resolve() not in own]
    here, commits = provenance.Here(registries), Commits(git_log())
    for each in candidates:
        if each.record is not None and each.raw is not None:
            try:
                each.findings += provenance.check(each.record, each.raw, here, records, commits)
                if each.record.status == "ok":
                    each.findings += consistency.check(each.record, _whole(each, registries))
                    each.findings += plausibility.check(each.record, records, registries)
            except Exception as problem:  # a record may hold anything; it must not end the check of the others
                each.findings.append(error("figures", f"they cannot be worked with: {type(problem).__name__}: {problem}"))
    mark_copies(candidates, known)
    return candidates


def _reference(folder: Path) -> Sequence[Candidate]:
    return [read_file(path, strict=False) for path in sorted(folder.rglob("*.json")) if path.name != MARKS] if folder.is_dir() else []


def _whole(candidate: Candidate, registries: Registries) -> bool | None:
    """Return whether the answer at the last step is the answer of the task; None where the task is not here."""
    assert candidate.record is not None
    try:
        return registries.task(candidate.record.spec.task, candidate.record.spec.budget).readout != "each"
    except (ValueError, TypeError):
        return None
