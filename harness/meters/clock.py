"""Time of a training step, split into forward, backward and optimiser; every sample is kept.

On CUDA, events are recorded and read at the end, so that measuring does not make the device wait.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


class StepClock:
    """Call ``start()`` and ``stop()`` around a step, and ``part(name)`` around its parts; the rest is the forward pass."""

    def __init__(self, device: torch.device) -> None:
        """Make a clock for work on ``device``."""
        self.cuda = device.type == "cuda"
        self._steps: list[tuple[Any, Any, dict[str, list[tuple[Any, Any]]]]] = []
        self._begin: Any = None
        self._parts: dict[str, list[tuple[Any, Any]]] = {}

    def _now(self) -> Any:
        if not self.cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def start(self) -> None:
        """Begin a step."""
        self._parts = defaultdict(list)
        self._begin = self._now()

    def stop(self) -> None:
        """End the step that was begun and keep it."""
        self._steps.append((self._begin, self._now(), self._parts))
        self._begin = None

    def discard(self) -> None:
        """End the step that was begun, if any, and forget it."""
        self._begin = None

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Time a part of the step; outside a step (one that is measured otherwise) do nothing."""
        if self._begin is None:
            yield
            return
        begin = self._now()
        yield
        self._parts[name].append((begin, self._now()))

    def samples(self) -> dict[str, list[float]]:
        """Return seconds per step: ``total``, ``forward``, ``backward``, ``optimizer``, each a list over steps."""
        if self.cuda:
            torch.cuda.synchronize()
        found: dict[str, list[float]] = {"total": [], "forward": [], "backward": [], "optimizer": []}
        for begin, end, parts in self._steps:
            total = self._between(begin, end)
            spent = {name: sum(self._between(a, b) for a, b in parts.get(name, ())) for name in ("backward", "optimizer")}
            found["total"].append(total)
            found["forward"].append(total - sum(spent.values()))
            for name, seconds in spent.items():
                found[name].append(seconds)
        return found

    def _between(self, begin: Any, end: Any) -> float:
        return begin.elapsed_time(end) / 1e3 if self.cuda else end - begin
