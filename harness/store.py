"""Records on disk: one JSON file per run key, written atomically, read with DuckDB.

A folder holds ``<key>.json``, ``logs/<key>.log`` and, where asked for, ``networks/<key>.pt``. A record appears under its name only when
it is complete, so a killed process leaves at most a temporary file, which a later writer removes.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb

from harness.plugin import UsageError
from harness.record import SCHEMA_VERSION, Record, read_record

DEFAULT_FOLDER = Path("results") / "local"
# What no record lacks, whatever its status: a file without one of these is not a record.
ALWAYS_THERE = ("key", "status", "label", "started", "settings", "spec.method", "spec.task", "spec.seed", "spec.device")


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

        Values come as DuckDB reads them from JSON: texts for strings, floats for numbers, None where absent.
        """
        # Read here, not by DuckDB: its reader gives up on the first file that is not UTF-8, and takes brackets in a folder's name
        # for a pattern.
        found = self.folder.rglob("*.json") if self.deep else self.folder.glob("*.json")
        texts = {path.relative_to(self.folder).as_posix(): _text(path) for path in sorted(found)}
        if not texts:
            return [], []
        columns = ", ".join(f"json_extract(content, '$.{path}') as \"{name}\"" for name, path in paths.items())
        whole = " and ".join(f"json_extract(content, '$.{path}') is not null" for path in ALWAYS_THERE)
        with duckdb.connect() as database:
            database.execute(
                "create table files as select unnest(?::varchar[]) as file, unnest(?::varchar[]) as content",
                [list(texts), list(texts.values())],
            )
            database.execute("create table valid as select * from files where json_valid(content)")
            result = database.execute(
                f"select file, {columns} from valid "
                f"where json_extract(content, '$.schema_version') = '{SCHEMA_VERSION}'::json and {whole} order by file"
            )
            names = [column[0] for column in result.description]
            rows = [dict(zip(names, row, strict=True)) for row in result.fetchall()]
        good = {row["file"] for row in rows}
        return [_decoded(row) for row in rows], [name for name in texts if name not in good]


def _text(path: Path) -> str:
    """Return the text of a file; nothing if it cannot be read as text."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""


def _decoded(row: dict[str, Any]) -> dict[str, Any]:
    return {key: json.loads(value) if isinstance(value, str) and key != "file" else value for key, value in row.items()}


def describe_broken(names: Sequence[str]) -> str:
    """Return the line that tells of unreadable records."""
    return f"{len(names)} unreadable record(s): {', '.join(names[:3])}{'...' if len(names) > 3 else ''}; remove them or run again"
