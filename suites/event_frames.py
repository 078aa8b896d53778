"""Framing: event streams counted in windows, the sequence that networks see.

    framing = Framing(width=34, height=34, steps=10)      # ten equal windows of each recording's own time
    frames = framing(events)                              # [10, 2, 34, 34], whole numbers

Windows hold equal time (``by="time"``) or equal numbers of events (``by="count"``; the last takes the remainder, as is usual). Counting is
tonic's ``ToFrame``, with windows that cover the whole recording: ``ToFrame(n_time_bins=...)`` and ``(n_event_bins=...)`` themselves leave
out what remains after division (always the last event). So the sum of the frames is the number of events, which is checked.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np


@dataclass(frozen=True)
class Framing:
    """How streams become frames; raises ValueError for settings that contradict each other."""

    width: int  # pixels of the sensor (or channels, where there is no height)
    height: int | None  # None for one row of channels, such as a cochlea: frames are then [T, channels]
    steps: int  # T
    by: Literal["time", "count"] = "time"
    pool: int = 1  # pixels that are counted together, each way
    duration: int | None = None  # microseconds from 0 that the windows divide; None: from the first to the last event of each recording
    polarities: int = 2  # 1: both are counted together

    def __post_init__(self) -> None:
        """Check that windows are of whole microseconds and that something is left of the sensor."""
        if self.duration is not None and self.by == "count":
            raise ValueError("windows of equal counts have no duration")
        if self.duration is not None and self.duration % self.steps:
            raise ValueError(f"{self.duration} microseconds cannot be cut into {self.steps} windows of whole microseconds")
        if min(self.steps, self.pool, self.width, self.height or 1) < 1:
            raise ValueError(f"steps, pool, width and height must be positive: {self}")

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one frame: ``(polarities, rows, columns)``, or ``(polarities * channels,)``. An incomplete block is a pixel too."""
        columns = -(-self.width // self.pool)
        if self.height is None:
            return (self.polarities * columns,)
        return (self.polarities, -(-self.height // self.pool), columns)

    def __call__(self, events: np.ndarray) -> np.ndarray:
        """Return the counts ``[T, *shape]`` (int16) of ``events``, a structured array with x, y (if there is a height), t and p, by time.

        Raises ValueError if a count does not fit in 16 bits or an event lies outside of ``duration``.
        """
        from tonic.transforms import ToFrame  # imports half of scipy

        frames = np.zeros((self.steps, *self.shape), np.int16)
        if not len(events):
            return frames
        events = self._pooled(events)
        *_, rows, columns = (1, *self.shape) if self.height is not None else (1, self.shape[0] // self.polarities)
        sensor = (columns, rows, self.polarities)
        if self.by == "time":
            start = 0 if self.duration is not None else int(events["t"][0])
            window = (self.duration or -(-(int(events["t"][-1]) + 1 - start) // self.steps * self.steps)) // self.steps
            counted = ToFrame(sensor, time_window=window, start_time=start, end_time=start + window * self.steps)(events)
        else:
            counted = ToFrame(sensor, n_event_bins=self.steps)(events)
            if rest := len(events) % self.steps:
                counted[-1] += ToFrame(sensor, event_count=rest)(events[-rest:])[0]
        frames += counted.reshape(frames.shape)
        if (kept := frames.sum(dtype=np.int64)) != len(events) or frames.min() < 0:
            raise ValueError(f"{len(events)} events, {kept} in the frames: a pixel counts more than 32,767, or a time is out of range")
        return frames

    def _pooled(self, events: np.ndarray) -> np.ndarray:
        events = events.copy()  # tonic changes polarities in place
        for axis in ("x", "y"):
            if axis in (events.dtype.names or ()):
                events[axis] //= self.pool
        if self.polarities == 1:
            events["p"] = 0
        return events
