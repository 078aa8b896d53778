"""From files of unknown origin to records: nothing is followed, unpickled or executed, and what is not as it should be is said.

candidates = read_folder(Path("my-records"))
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from harness.plugin import UsageError
from harness.record import STATUSES, Record
from harness.store import VERIFIED as MARKS
from harness.verify.candidate import Candidate, Finding, error, warning

LARGEST = 50 * 2**20  # bytes of a record file
HUGE = 2**63  # what no count in a record reaches
KEY = re.compile(r"[0-9a-f]{20}")
# Figures that may be infinite or not a number, by the beginning of their place in a record.
OPEN = (
    "time.to_target",
    "report.",
    "probes.",
    "accuracy.extra.",
    "accuracy.extrapolation.",
    "accuracy.test_curve",
    "accuracy.validation_curve",
)
NEEDED = ("environment", "accuracy", "activity", "memory", "time", "inference")  # parts of a record whose status is ok


def record_files(folder: Path) -> list[Path]:
    """Return the files of a folder that claim to be records; raise UsageError if there is no such folder, or none in it."""
    if not folder.is_dir():
        raise UsageError(f"folder {folder} does not exist")
    try:
        found = sorted(path for path in folder.iterdir() if path.suffix == ".json" and path.name != MARKS)
    except OSError as problem:
        raise UsageError(f"folder {folder} cannot be read: {problem.strerror}") from None
    if not found:
        below = sorted({path.parent.relative_to(folder).as_posix() for path in folder.rglob("*.json")})
        hint = f"; name one of the folders below: {', '.join(below[:8])}" if below else ""
        raise UsageError(f"folder {folder} holds no record (<key>.json){hint}")
    return found


def read_folder(folder: Path) -> list[Candidate]:
    """Return a candidate per file; raise UsageError if there are none."""
    return [read_file(path) for path in record_files(folder)]


def read_file(path: Path, strict: bool = True) -> Candidate:
    """Return the file as a candidate, with findings where it is not what ``Store.write`` makes (not ``strict``: where it is no record)."""
    found = Candidate(path)
    data = _content(path)
    if isinstance(data, Finding):
        found.findings.append(data)
        return found
    found.sha256 = hashlib.sha256(data).hexdigest()
    try:
        text = data.decode("utf-8")
        raw = json.loads(text, object_pairs_hook=_once, parse_constant=_refuse)
        if not isinstance(raw, dict):
            raise ValueError("it is not a JSON object")
    except UnicodeDecodeError:
        found.findings.append(error("file", "it is not UTF-8 text"))
    except RecursionError:
        found.findings.append(error("file", "it is nested too deeply"))
    except ValueError as problem:
        found.findings.append(error("file", f"it is not JSON as records are: {problem}"))
    else:
        found.raw = raw
        try:
            found.record = Record.model_validate_json(text)
        except ValidationError as problem:
            for each in problem.errors()[:5]:
                found.findings.append(error("schema", f"{'.'.join(map(str, each['loc'])) or 'record'}: {each['msg']}"))
        else:
            found.findings += _form(path, raw, found.record) if strict else ()
    return found


def _content(path: Path) -> bytes | Finding:
    """Return the bytes of a regular file that is not too large."""
    try:
        before = path.lstat()
        if not stat.S_ISREG(before.st_mode):
            kind = "a symbolic link" if stat.S_ISLNK(before.st_mode) else "not a regular file"
            return error("file", f"it is {kind}; a record is a file of its own")
        if before.st_size > LARGEST:
            return error("file", f"it has {before.st_size / 2**20:.0f} MiB; a record has less than {LARGEST / 2**20:.0f}")
        # What the path names may be another thing by now.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
        with os.fdopen(descriptor, "rb") as file:
            data = file.read(LARGEST + 1)
    except OSError as problem:
        return error("file", f"it cannot be read: {problem.strerror}")
    return data if len(data) <= LARGEST else error("file", "it grew while it was read")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{twice[:60]!r} is there twice")
    return found


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON; records write it as a text")


def _form(path: Path, raw: dict[str, Any], record: Record) -> Iterator[Finding]:
    """Yield what is wrong with the form of a record that can be read."""
    if not KEY.fullmatch(record.key):
        yield error("key", f"{record.key[:60]!r} is not a run key (20 hexadecimal digits)")
    if path.stem != record.key:
        yield error("key", f"the file is called {path.stem[:60]!r}, and the record's key is {record.key[:60]!r}")
    places = list(changed(raw, json.loads(record.model_dump_json())))
    if places:
        yield error("schema", f"written in another form than records have (a number as a text, say): {', '.join(places[:3])}")
    if record.status not in STATUSES:
        yield error("schema", f"unknown status {record.status[:60]!r}")
    elif record.status != "ok":
        yield warning("schema", f"a run that did not succeed ({record.status}): tables count it and show no figure")
        if record.failure is None:
            yield error("schema", f"status {record.status} without saying why (failure)")
        return
    elif record.failure is not None:
        yield error("schema", "status ok with a failure")
    lacking = [name for name in NEEDED if getattr(record, name) is None]
    if lacking or not record.trace:
        yield error("schema", f"status ok without {', '.join(lacking or ['trace'])}")
    wild = [place for place, value in figures(record.model_dump()) if not math.isfinite(value) and not place.startswith(OPEN)]
    if wild:
        yield error("schema", f"not a finite number: {', '.join(wild[:3])}")


def changed(raw: Any, read: Any, place: str = "") -> Iterator[str]:
    """Yield the places where what was read differs from what is written; parts that are not written have their defaults."""
    if isinstance(raw, dict) and isinstance(read, dict):
        for name, value in raw.items():
            yield from changed(value, read.get(name), f"{place}{'.' if place else ''}{name}")
    elif isinstance(raw, list) and isinstance(read, list) and len(raw) == len(read):
        for number, (one, other) in enumerate(zip(raw, read, strict=True)):
            yield from changed(one, other, f"{place}[{number}]")
    elif raw != read or isinstance(raw, bool) != isinstance(read, bool):
        yield place


def figures(value: Any, place: str = "") -> Iterator[tuple[str, float]]:
    """Yield all numbers of nested lists and mappings with their places; whole ones that are too large are infinite."""
    if isinstance(value, dict):
        for name, each in value.items():
            yield from figures(each, f"{place}{'.' if place else ''}{name}")
    elif isinstance(value, list):
        for each in value:
            yield from figures(each, place)
    elif isinstance(value, (int, float)):
        yield place, float(value) if -HUGE < value < HUGE or isinstance(value, float) else math.inf
