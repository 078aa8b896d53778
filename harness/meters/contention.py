"""What else went on while something was timed: waits for a core, and work of other processes.

::

    with Contention() as found:
        ...
    found.core_wait  # 0.25: for a quarter of the time, on the whole, a thread of this process was ready and had no core
    found.other_cores  # 0.9: nearly one core was busy with something else

A load average says how busy a machine was, not whether that mattered. Linux keeps the waiting time of every thread (second number of
``/proc/self/task/*/schedstat``, nanoseconds); it is added up over threads, so with n threads it may come up to n times the time. A thread
that ended meanwhile is not counted. What others use is the busy time of all cores (first line of ``/proc/stat``) without that of this
process and its children that have ended, such as the workers of a loader. It slows a process that never waits, too: caches, memory and,
with hyper-threads, the core itself are shared.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from types import TracebackType

TASKS = Path("/proc/self/task")
STAT = Path("/proc/stat")


class Contention:
    """Context that measures ``core_wait`` and ``other_cores``; each is None where the system does not tell."""

    def __init__(self) -> None:
        """Make a meter; use it for one ``with``."""
        self.core_wait: float | None = None
        self.other_cores: float | None = None
        self._begin = 0.0
        self._waited: dict[str, int] = {}
        self._others: float | None = None

    def __enter__(self) -> Contention:
        """Begin to measure."""
        self._waited, self._others, self._begin = waited(), others(), time.perf_counter()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Measure up to here."""
        spent = time.perf_counter() - self._begin
        now, busy = waited(), others()
        if now and spent:
            self.core_wait = sum(value - self._waited.get(thread, 0) for thread, value in now.items()) / 1e9 / spent
        if busy is not None and self._others is not None and spent:
            self.other_cores = max(0.0, (busy - self._others) / spent)  # the two clocks tick differently


def waited() -> dict[str, int]:
    """Return the nanoseconds that each thread of this process has waited for a core; empty where the system does not tell."""
    found = {}
    for task in TASKS.glob("*/schedstat"):
        try:
            found[task.parent.name] = int(task.read_text(encoding="ascii").split()[1])
        except (OSError, ValueError, IndexError):  # the thread has ended, or the kernel keeps no such figures
            continue
    return found


def others() -> float | None:
    """Return the seconds that cores have been busy, added up, without this process and its ended children; None where that is not told."""
    try:
        name, *fields = STAT.read_text(encoding="ascii").partition("\n")[0].split()
        ticks = [int(field) for field in fields[:8]]
    except (OSError, ValueError):
        return None
    if name != "cpu" or len(ticks) < 8:
        return None
    user, nice, system, _idle, _waiting, interrupts, soft_interrupts, stolen = ticks
    busy = (user + nice + system + interrupts + soft_interrupts + stolen) / os.sysconf("SC_CLK_TCK")
    mine = os.times()
    return busy - mine.user - mine.system - mine.children_user - mine.children_system
