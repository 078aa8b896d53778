"""Where data lie: folders that the user names, downloads, and a cache for what must be unpacked or computed.

``SPIKEBENCH_DATA`` names one folder or several (separated as in ``PATH``), laid out as ``vision/``, ``events/``, ``detection/``,
``sequences/``; they are only read. Downloads go to the first of them that can be written, else to ``data`` in the cache folder, which is
``SPIKEBENCH_CACHE``, else ``spikebench`` in ``XDG_CACHE_HOME`` (``~/.cache``)::

    class Mnist(FileTask, ClassificationTask):
        source = Source(
            variants=({"vision/MNIST/raw/train-images-idx3-ubyte.gz": "1a1a05ea...", ...},),
            download=lambda root: MNIST(root / "vision", download=True),
            size="11 MB",
        )

        def load(self, split):
            root = self.source.require().root

A file is known by its SHA-256, a folder by the names and sizes of all it holds; "" accepts any content, which then only decides the
run key.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from harness.plugin import DataError, UsageError
from harness.task import Task


def cache_folder(*parts: str) -> Path:
    """Return a folder of the cache, made if it is not there."""
    base = os.environ.get("SPIKEBENCH_CACHE")
    root = Path(base) if base else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "spikebench"
    folder = root.joinpath(*parts)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def roots() -> list[Path]:
    """Return the folders in which data are looked for, in this order."""
    named = [Path(part).expanduser() for part in os.environ.get("SPIKEBENCH_DATA", "").split(os.pathsep) if part]
    return [*named, cache_folder("data")]


def cached_arrays(kind: str, key: str, make: Callable[[], Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Return the arrays that ``make`` computes, from the cache if they are there under ``kind`` and ``key`` (any text that decides them).

    What cannot be read is made again; where the cache cannot be written, the arrays are returned all the same.
    """
    try:
        path = cache_folder(kind) / f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.npz"
    except OSError:
        return dict(make())
    if path.exists():
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
                return {name: stored[name] for name in stored.files}
        except (OSError, ValueError, EOFError, zipfile.BadZipFile):
            path.unlink(missing_ok=True)
    arrays = dict(make())
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".npz", delete=False) as file:
            np.savez(file, **arrays)
        Path(file.name).replace(path)  # complete or not at all: several processes may do this at once
    except OSError:
        pass
    return arrays


def digest(path: Path) -> str:
    """Return the SHA-256 of a file's content, or of the names and sizes of all files in a folder."""
    if path.is_dir():
        listing = sorted((str(each.relative_to(path).as_posix()), each.stat().st_size) for each in path.rglob("*") if each.is_file())
        return hashlib.sha256(repr(listing).encode()).hexdigest()
    status = path.stat()
    return _digest(path, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=4096)
def _digest(path: Path, size: int, changed: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True)
class Found:
    """Data that are here: the root they were found in, and their files."""

    root: Path
    files: Mapping[str, str]  # path below the root -> expected SHA-256, or ""

    def path(self, name: str) -> Path:
        """Return where a file is."""
        return self.root / name


@dataclass(frozen=True)
class Source:
    """The files of a data set. ``variants`` are ways in which they may lie, the preferred one first."""

    variants: tuple[Mapping[str, str], ...]
    download: Callable[[Path], object] | None = None  # puts them below the folder that it is given
    size: str = ""  # of the download, for people
    advice: str = ""  # where the files come from when nothing downloads them

    def find(self) -> Found | None:
        """Return the first complete variant of the first root that has one, whatever its files contain; None if there is none."""
        for root in roots():
            for files in self.variants:
                if all((root / name).exists() for name in files):
                    return Found(root, files)
        return None

    def problem(self) -> str | None:
        """Return what is wrong (missing, or not the content that is expected) and what to do, or None."""
        found = self.find()
        if found is None:
            first = next(iter(self.variants[0]))
            more = f" and {len(self.variants[0]) - 1} more" if len(self.variants[0]) > 1 else ""
            where = "below SPIKEBENCH_DATA" + ("" if os.environ.get("SPIKEBENCH_DATA") else " (not set)")
            fetch = f"`spikebench data TASK` downloads them ({self.size}), or put" if self.download else "put"
            return f"no data: {fetch} {first}{more} {where}" + (f"; {self.advice}" if self.advice else "")
        for name, expected in found.files.items():
            if expected and (is_now := digest(found.path(name))) != expected:
                return f"{name} is damaged or another version: SHA-256 {is_now[:16]}..., expected {expected[:16]}...; get it again"
        return None

    def require(self) -> Found:
        """Return where the data are; raise DataError if they are missing or damaged."""
        if problem := self.problem():
            raise DataError(problem)
        found = self.find()
        assert found
        return found

    def checksum(self) -> str:
        """Return a hash of the content of all files; raise DataError if they are missing."""
        found = self.require()
        return hashlib.sha256("".join(f"{name} {digest(found.path(name))}\n" for name in sorted(found.files)).encode()).hexdigest()[:16]

    def fetch(self, name: str) -> None:
        """Download and verify; ``name`` of the task is for messages. Raises UsageError if nothing can be downloaded or it fails."""
        if self.find() is None:
            if self.download is None:
                raise UsageError(f"{name}: {self.problem()}")
            target = next((root for root in roots() if os.access(root, os.W_OK)), None)
            if target is None:
                raise UsageError(f"{name}: no folder of SPIKEBENCH_DATA nor the cache can be written")
            try:
                self.download(target)
            except Exception as error:  # a library's download fails in many ways: no network, a wrong checksum, a full disk
                raise UsageError(
                    f"{name}: the download failed: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
                ) from error
        self.require()


class FileTask(Task):
    """A task whose data are files; put it before the task's kind among the bases and give it a ``source``."""

    source: Source

    def unavailable(self) -> str | None:
        """Return what is missing or damaged and what to do, or None."""
        problem = self.source.problem()
        return problem.replace("spikebench data TASK", f"spikebench data {self.name}") if problem else None

    def download_size(self) -> str | None:
        """Return the size of the download, or None if the data are here or nothing downloads them."""
        return self.source.size if self.source.download and self.source.find() is None else None

    def fetch(self) -> None:
        """Download and verify the data."""
        self.source.fetch(self.name)

    def checksum(self) -> str:
        """Return a hash of the files."""
        return self.source.checksum()
