"""How long the threads of this process were ready to run and had to wait for a core: what makes its times wrong.

::

    with CoreWait() as wait:
        ...
    wait.share  # 0.25: on the whole, a quarter of the time; None where the system does not tell

A load average says how busy a machine was, not whether that mattered. Linux keeps the waiting time of every thread (second number of
``/proc/self/task/*/schedstat``, nanoseconds); it is added up over threads, so with n threads the share may come up to n. A thread that
ended within the context is not counted. What other virtual machines took is not seen.
"""

from __future__ import annotations

import time
from pathlib import Path
from types import TracebackType

TASKS = Path("/proc/self/task")


class CoreWait:
    """Context that measures its ``share`` of time spent waiting for a core."""

    def __init__(self) -> None:
        """Make a meter; use it for one ``with``."""
        self.share: float | None = None
        self._before: dict[str, int] = {}
        self._begin = 0.0

    def __enter__(self) -> CoreWait:
        """Begin to measure."""
        self._before, self._begin = waited(), time.perf_counter()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Measure up to here."""
        spent, now = time.perf_counter() - self._begin, waited()
        if now and spent:
            self.share = sum(value - self._before.get(thread, 0) for thread, value in now.items()) / 1e9 / spent


def waited() -> dict[str, int]:
    """Return the nanoseconds that each thread of this process has waited for a core; empty where the system does not tell."""
    found = {}
    for task in TASKS.glob("*/schedstat"):
        try:
            found[task.parent.name] = int(task.read_text(encoding="ascii").split()[1])
        except (OSError, ValueError, IndexError):  # the thread has ended, or the kernel keeps no such figures
            continue
    return found
