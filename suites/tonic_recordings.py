"""Recordings of tonic's data sets, read from the files as they lie. Nothing is downloaded here: ``spikebench data`` does that.

    recordings = tonic_recordings("DVSGesture", root / "events", 128, 128, train=True)

Their order is tonic's; some of its classes list folders in the order of the file system, so whoever splits them sorts by name first.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from harness.plugin import DataError
from suites.recordings import Recordings


class TonicReader:
    """Reads the events of a tonic data set, one recording at a time."""

    def __init__(self, dataset: Any, change: Callable[[np.ndarray], np.ndarray] | None = None) -> None:
        """Keep the data set; ``change`` is applied to what it returns."""
        self.dataset, self.change = dataset, change

    def __call__(self, place: int) -> np.ndarray:
        """Return the events at ``place``."""
        events = self.dataset[place][0]
        return events if self.change is None else self.change(events)


def tonic_dataset(name: str, folder: Path, **arguments: Any) -> Any:
    """Return the data set ``name`` of ``tonic.datasets`` on the files below ``folder``; never downloads, unpacks or writes."""
    import numpy.lib.recfunctions  # noqa: F401  # tonic uses it and does not import it
    import tonic.datasets

    original = getattr(tonic.datasets, name)
    offline = type(name, (original,), {"_check_exists": lambda self: True})  # the folder is found by the name of the class
    try:
        dataset = offline(str(folder), **arguments)
    except Exception as error:  # a class of its own per data set, each of which fails in its own way
        raise DataError(f"{folder.name}/{name} cannot be read ({type(error).__name__}: {error}); get it again") from error
    dataset.__class__ = original  # one that worker processes can import
    return dataset


def tonic_recordings(
    name: str,
    folder: Path,
    width: int,
    height: int | None,
    change: Callable[[np.ndarray], np.ndarray] | None = None,
    **arguments: Any,
) -> Recordings:
    """Return the recordings of a tonic data set that is a list of files; names are relative to ``folder``."""
    dataset = tonic_dataset(name, folder, **arguments)
    names = [Path(path).relative_to(folder).as_posix() for path in dataset.data]
    return Recordings(names, dataset.targets, TonicReader(dataset, change), width, height)


def complete(recordings: Recordings, wanted: int, name: str) -> None:
    """Raise DataError if there are not as many recordings as there should be."""
    if len(recordings) != wanted:
        raise DataError(f"{name} holds {len(recordings):,} of {wanted:,} recordings; get it again (`spikebench data`)")
