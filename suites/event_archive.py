"""Recordings in a tar archive, read once and kept in the cache as plain arrays; nothing is unpacked.

recordings = archived(path, ".bin", label=lambda name: int(name.split("/")[-2]), read=read_bin, width=34, height=34)
"""

from __future__ import annotations

import lzma
import tarfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from harness.plugin import DataError
from suites import event_files, recordings
from suites.recordings import Recordings, checked, natural
from suites.sources import cached_arrays, digest

_CODE = [digest(Path(file)) for file in (__file__, event_files.__file__, recordings.__file__)]  # what decides the events, for the cache


@dataclass(frozen=True)
class Packed:
    """Streams end to end: recording i is ``events[bounds[i]:bounds[i + 1]]``."""

    events: np.ndarray
    bounds: np.ndarray

    def __call__(self, place: int) -> np.ndarray:
        """Return the events of a recording."""
        return self.events[self.bounds[place] : self.bounds[place + 1]]


def archived(
    path: Path,
    suffix: str,
    label: Callable[[str], int],
    read: Callable[[str, bytes], np.ndarray],
    width: int,
    height: int,
) -> Recordings:
    """Return all recordings of the archive ``path`` whose names end in ``suffix``, sorted by name (``a2`` before ``a10``).

    ``label`` maps a name to a class, ``read`` a name and a content to events. Raises DataError for an archive or a member that is damaged.
    """
    packed, names = _packed(path, digest(path), suffix, read, width, height)
    return Recordings(names, [label(name) for name in names], packed, width, height)


@lru_cache(maxsize=2)
def _packed(
    path: Path, content: str, suffix: str, read: Callable[[str, bytes], np.ndarray], width: int, height: int
) -> tuple[Packed, list[str]]:
    def unpack() -> dict[str, np.ndarray]:
        contents = _contents(path, suffix)
        names = sorted(contents, key=natural)
        streams = [checked(read(name, contents[name]), f"{path.name}: {name}", width, height) for name in names]
        return {"events": np.concatenate(streams), "bounds": np.cumsum([0, *map(len, streams)]), "names": np.array(names)}

    stored = cached_arrays("events", f"{_CODE} {content} {suffix} {width}x{height}", unpack)
    return Packed(stored["events"], stored["bounds"]), stored["names"].tolist()


def _contents(path: Path, suffix: str) -> dict[str, bytes]:
    try:
        with tarfile.open(path) as archive:
            wanted = (member for member in archive if member.isfile() and member.name.endswith(suffix))
            contents = {member.name: archive.extractfile(member).read() for member in wanted}  # type: ignore[union-attr]  # files
    except (tarfile.TarError, lzma.LZMAError, zlib.error, EOFError, OSError) as error:
        raise DataError(f"{path.name} cannot be unpacked ({type(error).__name__}: {error}); get it again") from error
    if not contents:
        raise DataError(f"{path.name} has no member that ends in {suffix}; get it again")
    return contents
