"""The time of an epoch as if all of its steps were ordinary ones.

Steps in which memory is measured, or something is compiled, are not timed; each counts as the mean of the others::

    pace = Pace(device)
    for batch in pace.waiting(batches):
        with pace.step(clock, ordinary=True):
            ...
    pace.seconds(), pace.loading  # the second is a part of the first

Where no step was timed, the time is what it was.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch

from harness.meters.clock import StepClock
from harness.meters.compiling import CompileMeter

Item = TypeVar("Item")


class Pace:
    """The stop-watch of one epoch; it starts when it is made."""

    def __init__(self, device: torch.device) -> None:
        """Start, for work on ``device``."""
        self.device, self.begin = device, time.perf_counter()
        self.loading = 0.0  # seconds that training waited for its batches
        self._off, self._timed, self._untimed = 0.0, 0, 0
        self._compiling = 0.0  # a part of ``_off``

    def waiting(self, items: Iterable[Item]) -> Iterator[Item]:
        """Yield ``items``, and add up how long each was waited for."""
        started = time.perf_counter()
        for item in items:
            self.loading += time.perf_counter() - started
            yield item
            started = time.perf_counter()

    @contextmanager
    def step(self, clock: StepClock, ordinary: bool) -> Iterator[None]:
        """Time a step on ``clock`` if it is an ordinary one and nothing is compiled in it."""
        if not ordinary:
            self._wait()
        begin = time.perf_counter()
        if ordinary:
            clock.start()
        with CompileMeter() as compiling:
            yield
        if ordinary and not compiling.seconds:
            clock.stop()
            self._timed += 1
            return
        clock.discard()
        self._wait()
        self._off += time.perf_counter() - begin
        self._compiling += compiling.seconds
        self._untimed += 1

    def seconds(self) -> float:
        """Return the seconds since the start; wait for the device before."""
        spent = time.perf_counter() - self.begin
        if not self._timed:
            return spent
        return self.loading + (spent - self.loading - self._off) * (1 + self._untimed / self._timed)

    def measuring(self) -> float:
        """Return the seconds that the untimed steps took beyond ordinary ones and beyond compiling; 0 if no step was timed."""
        if not self._timed:
            return 0.0
        spent = time.perf_counter() - self.begin
        ordinary = (spent - self.loading - self._off) / self._timed
        return max(0.0, self._off - self._compiling - self._untimed * ordinary)

    def _wait(self) -> None:
        if self.device.type != "cpu":
            torch.accelerator.synchronize(self.device)
