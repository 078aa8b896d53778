"""Recordings of event sensors: named streams with a class each, read one by one and checked before anything uses them.

    recordings = Recordings(names, targets, read, width=34, height=34)
    events = recordings[3]                       # x, y, t (microseconds), p; in order, inside the sensor, or a DataError
    part = recordings.select(places)             # some of them, in this order

What is wrong in a file is an error that names it. Nothing is sorted, clipped or left out to make a file pass.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from harness.plugin import DataError

EVENT = np.dtype([("x", np.int16), ("y", np.int16), ("t", np.int64), ("p", np.int8)])


@dataclass(frozen=True)
class Recordings:
    """Some recordings; ``read`` maps a place in ``files`` to an unchecked stream."""

    names: Sequence[str]  # of the files, for messages
    targets: Sequence[int]  # classes
    read: Callable[[int], np.ndarray]
    width: int
    height: int | None = None  # None: channels in one row
    places: Sequence[int] | None = None  # which recordings of ``read`` these are; None for all

    def __len__(self) -> int:
        """Return the number of recordings."""
        return len(self.names)

    def __getitem__(self, index: int) -> np.ndarray:
        """Return the events of a recording; raise DataError, naming it, if it cannot be read or is not what it should be."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        name = self.names[index]
        try:
            events = self.read(index if self.places is None else self.places[index])
        except DataError:
            raise
        except Exception as error:  # readers of libraries fail in many ways
            raise DataError(f"{name} cannot be read ({type(error).__name__}: {str(error)[:200]}); get it again") from error
        return checked(events, name, self.width, self.height)

    def select(self, places: Iterable[int]) -> Recordings:
        """Return the recordings at ``places``, in this order."""
        chosen = [int(place) for place in places]
        origin = range(len(self)) if self.places is None else self.places
        return replace(
            self,
            names=[self.names[i] for i in chosen],
            targets=[int(self.targets[i]) for i in chosen],
            places=[origin[i] for i in chosen],
        )

    def relabelled(self, targets: Sequence[int]) -> Recordings:
        """Return the same recordings with other classes."""
        return replace(self, targets=list(targets))


def checked(events: np.ndarray, name: str, width: int, height: int | None) -> np.ndarray:
    """Return ``events`` as x, y (0 where there is no height), t and p, in small integers.

    Raises DataError, which says ``name`` and the first event that is wrong, for a stream that is empty, not ordered by time, or outside
    the sensor of ``width`` x ``height`` pixels.
    """
    fields = events.dtype.names or ()
    needed = ("x", "t", "p") if height is None else ("x", "y", "t", "p")
    if missing := [field for field in needed if field not in fields]:
        raise DataError(f"{name} has no {' and '.join(missing)}: events need the fields {', '.join(needed)}")
    events = events.ravel()
    if not len(events):
        raise DataError(f"{name} holds no event: it is empty or truncated; get it again or remove it")
    for field in needed:
        if not (events[field] == np.floor(events[field])).all():  # NaN is not equal either
            raise DataError(f"{name}: {field} holds numbers that are not whole; pixels are counted from 0 and times are in microseconds")
    for axis, size in (("x", width), ("y", height)):
        if size is not None:
            _refuse_any(
                (events[axis] < 0) | (events[axis] >= size), name, f"{axis} = {{}} is outside the sensor (0 to {size - 1})", events[axis]
            )
    polarity = events["p"].astype(np.int64)
    _refuse_any((polarity != 0) & (polarity != 1), name, "polarity {} is neither 0 nor 1", polarity)
    time = events["t"]
    earlier = np.concatenate([[False], time[1:] < time[:-1]])
    _refuse_any(earlier, name, "time {} is before that of the event ahead of it; sort the file by time if that is meant", time)
    found = np.zeros(len(events), EVENT)
    found["x"], found["t"], found["p"] = events["x"], time, polarity
    if height is not None:
        found["y"] = events["y"]
    return found


def _refuse_any(wrong: np.ndarray, name: str, message: str, values: np.ndarray) -> None:
    if wrong.any():
        first = int(wrong.argmax())
        raise DataError(f"{name}: event {first} of {len(wrong)}: {message.format(values[first])} ({int(wrong.sum())} such events)")


def interleaved(targets: Sequence[int]) -> list[int]:
    """Return the places of samples in an order that deals out the classes in turn: the first of each class, the second of each, ..."""
    seen: dict[int, int] = {}
    ranks = []
    for target in targets:
        ranks.append(seen.get(target, 0))
        seen[target] = ranks[-1] + 1
    return sorted(range(len(targets)), key=lambda i: (ranks[i], targets[i]))


def natural(name: str) -> tuple[tuple[tuple[int, int, str], ...], str]:
    """Return a key that sorts names with numbers as people do: ``a2`` before ``a10``, the same on every system."""
    parts = re.split(r"(\d+)", name)
    return tuple((0, int(part), "") if part.isdigit() else (1, 0, part) for part in parts if part), name
