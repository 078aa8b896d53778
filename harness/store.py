"""Records on disk: one JSON file per run key, written atomically, read with DuckDB.

A folder holds ``<key>.json``, ``logs/<key>.log`` and, where asked for, ``networks/<key>.pt``. A record appears under its name only when
it is complete, so a killed process leaves at most a temporary file, which a later writer removes. ``verified.json`` names the records
that ``spikebench verify`` has checked; it is no record.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
from pydantic_core import from_json

from harness.plugin import UsageError
from harness.record import SCHEMA_VERSION, Record, read_record
from harness.uncollected import uncollected

DEFAULT_FOLDER = Path("results") / "local"
VERIFIED = "verified.json"  # {"schema": 1, "records": {key: {"sha256": of the record's file, "checked": date, "rerun": true or false}}}
# What no record lacks, whatever its status, and of which type: a file without one of these is not a record.
ALWAYS_THERE: dict[str, type] = {
    "key": str,
    "status": str,
    "label": str,
    "started": str,
    "settings": dict,
    "spec.method": str,
    "spec.task": str,
    "spec.seed": int,
    "spec.device": str,
}
PART = 500  # files that are in memory at a time, per thread
THREADS = min(4, os.cpu_count() or 1)


class Store:
    """A folder of records."""

    def __init__(self, folder: str | Path = DEFAULT_FOLDER, deep: bool = False) -> None:
        """Name the folder; nothing is made until something is written. ``deep``: also read the records of folders below."""
        self.folder, self.deep = Path(folder), deep

    def prepare(self) -> None:
        """Make the folder and check that it can be written; raise UsageError if not."""
        try:
            (self.folder / "logs").mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.folder):
                pass
        except OSError as error:
            raise UsageError(f"results folder {self.folder} cannot be written: {error.strerror}; choose another with --results") from None
        for stale in self.folder.glob(".*.tmp"):
            with contextlib.suppress(OSError):
                if time.time() - stale.stat().st_mtime > 3600:
                    stale.unlink()

    def path(self, key: str) -> Path:
        """Return where the record of a key is."""
        return self.folder / f"{key}.json"

    def log_path(self, key: str) -> Path:
        """Return where the log of a key is."""
        return self.folder / "logs" / f"{key}.log"

    def network_path(self, key: str) -> Path:
        """Return where the trained network of a key is, if it was kept."""
        return self.folder / "networks" / f"{key}.pt"

    def write(self, record: Record) -> Path:
        """Write a record so that it is there whole or not at all; replace an earlier one of the same key."""
        temporary = self.folder / f".{record.key}.{os.getpid()}.tmp"
        try:
            with temporary.open("w", encoding="utf-8") as file:
                file.write(record.model_dump_json())
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self.path(record.key))
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        return self.path(record.key)

    def finished(self, key: str) -> bool:
        """Return whether the key has a readable record whose status is ok; failures do not count."""
        path = self.path(key)
        if not path.exists():
            return False
        try:
            return read_record(path).status == "ok"
        except UsageError:
            return False

    def find(self, prefix: str) -> Path:
        """Return the record whose key starts with ``prefix`` (or the path given); raise UsageError if none or several do."""
        if Path(prefix).suffix == ".json":
            return Path(prefix)
        if not re.fullmatch(r"[0-9a-f]+", prefix):
            raise UsageError(f"{prefix!r} is neither a record file nor the beginning of a run key")
        found = sorted(self.folder.glob(f"{prefix}*.json"))
        if len(found) != 1:
            problem = "no record" if not found else f"{len(found)} records"
            raise UsageError(f"{problem} in {self.folder} with a key that starts with {prefix!r}")
        return found[0]

    def select(self, paths: dict[str, str]) -> tuple[list[dict[str, Any]], list[str]]:
        """Return one row per readable record with the values at JSON ``paths`` (name -> dotted path), and unreadable files.

        Values are those of the JSON text (a figure that is not finite is a text there); None where absent.
        """
        files = self.files()
        if not files:
            return [], []
        wanted = ["schema_version", *ALWAYS_THERE, *paths.values()]
        parts = [files[start : start + PART] for start in range(0, len(files), PART)]
        rows, broken = [], []
        with uncollected():
            with duckdb.connect(config={"threads": 1}) as database, ThreadPoolExecutor(THREADS) as threads:
                extracted = list(threads.map(lambda part: _extract(database, [self.folder / name for name in part], wanted), parts))
            for name, text in zip(files, (text for part in extracted for text in part), strict=True):
                values = _decoded(text)
                if values is None:
                    broken.append(name)
                else:
                    rows.append({"file": name, **dict(zip(paths, values[1 + len(ALWAYS_THERE) :], strict=True))})
        return rows, broken

    def files(self) -> list[str]:
        """Return the paths of all files that may be records, from the folder on, sorted."""
        found = self.folder.rglob("*.json") if self.deep else self.folder.glob("*.json")
        return sorted(path.relative_to(self.folder).as_posix() for path in found if path.name != VERIFIED)

    def verified(self) -> set[str]:
        """Return the keys that ``verified.json`` names and whose files are now what they were when they were checked.

        Raises UsageError if that file is there and cannot be read.
        """
        found = self.folder.rglob(VERIFIED) if self.deep else self.folder.glob(VERIFIED)
        return {key for path in found for key in _verified(path)}


def _extract(database: duckdb.DuckDBPyConnection, files: Sequence[Path], paths: Sequence[str]) -> list[str | None]:
    """Return for each file the JSON list of the values at ``paths``; None for what is not JSON."""
    # Files are read here, not by DuckDB: its reader gives up on the first that it may not read, and takes brackets in names for patterns.
    contents = np.array([_content(path) for path in files], dtype=object)
    listed = ", ".join(f"'$.{path}'" for path in paths)
    with database.cursor() as cursor:
        cursor.register("files", {"content": contents})
        found = cursor.execute(f"select to_json(try(json_extract(decode(content), [{listed}])))::varchar from files")
        return [row[0] for row in found.fetchall()]


def _content(path: Path) -> bytes:
    """Return the bytes of a file; none if it cannot be read."""
    try:
        with path.open("rb", buffering=0) as file:
            return file.read()
    except OSError:
        return b""


def _decoded(text: str | None) -> list[Any] | None:
    """Return the values of a record, None where there is none; None for what is no record of this schema."""
    try:
        values = from_json(text or "null")
    except ValueError:  # nested deeper than anything that this program writes
        return None
    if values is None or values[0] != SCHEMA_VERSION:
        return None
    return values if all(isinstance(value, kind) for value, kind in zip(values[1:], ALWAYS_THERE.values(), strict=False)) else None


def _verified(path: Path) -> set[str]:
    """Return the keys in one ``verified.json`` whose files have the checksum that stands there."""
    try:
        found = json.loads(path.read_bytes())
        listed = {str(key): str(entry["sha256"]) for key, entry in found["records"].items()} if found["schema"] == 1 else None
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        listed = None
    if listed is None:
        raise UsageError(f"{path} is not a list of verified records; write it anew with `spikebench verify`")
    return {key for key, sha256 in listed.items() if re.fullmatch(r"[0-9a-f]+", key) and _sha256(path.with_name(f"{key}.json")) == sha256}


def _sha256(path: Path) -> str | None:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return None


def describe_broken(names: Sequence[str]) -> str:
    """Return the line that tells of unreadable records."""
    return f"{len(names)} unreadable record(s): {', '.join(names[:3])}{'...' if len(names) > 3 else ''}; remove them or run again"
