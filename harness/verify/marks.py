"""``verified.json``: which records of a folder passed, by the hash of their file, so that a record changed later has no mark.

write_marks(folder, candidates)   # {"schema": 1, "records": {key: {"sha256": ..., "checked": "2026-01-31", "rerun": true}}}
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from harness.plugin import UsageError
from harness.verify.candidate import Candidate
from harness.verify.files import KEY, MARKS

SCHEMA = 1


def read_marks(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the marks of a folder: key -> sha256, checked, rerun. What is not such a mark is left out."""
    path = folder / MARKS
    try:
        if path.is_symlink() or path.stat().st_size > 50 * 2**20:
            return {}
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    records = found.get("records") if isinstance(found, dict) and found.get("schema") == SCHEMA else None
    types = {"sha256": str, "checked": str, "rerun": bool}
    return {
        key: {name: mark[name] for name in types}
        for key, mark in (records.items() if isinstance(records, dict) else ())
        if KEY.fullmatch(key) and isinstance(mark, dict) and all(isinstance(mark.get(name), kind) for name, kind in types.items())
    }


def write_marks(folder: Path, candidates: Sequence[Candidate]) -> int:
    """Write the marks of all candidates that passed, whole or not at all, and return how many there are.

    Of marks that are there those stay whose file is the same; a record that failed now loses its mark.
    """
    today, before = datetime.now(UTC).date().isoformat(), read_marks(folder)
    marks: dict[str, dict[str, Any]] = {}
    for each in candidates:
        if each.failed or each.record is None or not each.sha256:
            continue
        earlier = before.get(each.record.key)
        rerun = each.rerun or bool(earlier and earlier["sha256"] == each.sha256 and earlier["rerun"])
        marks[each.record.key] = {"sha256": each.sha256, "checked": today, "rerun": rerun}
    temporary = folder / f".{MARKS}.{os.getpid()}.tmp"
    try:
        temporary.write_text(json.dumps({"schema": SCHEMA, "records": dict(sorted(marks.items()))}, indent=1) + "\n", encoding="utf-8")
        temporary.replace(folder / MARKS)
    except OSError as problem:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise UsageError(f"{folder / MARKS} cannot be written: {problem.strerror}") from None
    return len(marks)
