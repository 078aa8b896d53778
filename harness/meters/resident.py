"""Memory as the machine sees it: growth of the peak resident set on the CPU, the allocator's peak on CUDA.

Both are peaks above what was there when the context was entered, so enter it when network and data are in place::

    with HostPeak() as host, CudaPeak(device) as cuda:
        step(...)
    host.growth_bytes, cuda.peak_bytes  # each None where it cannot be measured

Let the allocator return what is freed before (``harness.allocator.return_memory``): what it keeps for itself is resident all along, and
using it again is no growth.

Unlike the exact counts in ``memory``, these depend on allocator, libraries and machine (the kernel's page counters are themselves a
little coarse); compare them on one machine only, and never mix the two.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import TracebackType

import torch

try:
    import resource
except ImportError:  # not on Windows
    resource = None  # type: ignore[assignment]

STATUS = Path("/proc/self/status")
CLEAR_REFS = Path("/proc/self/clear_refs")
RESET_PEAK = "5"  # proc(5): writing 5 to clear_refs sets the peak resident set to the present one


def resident_bytes() -> int | None:
    """Return the resident set size of this process in bytes, or None where the system does not tell (no ``/proc``)."""
    return _status("VmRSS")


def peak_resident_bytes() -> int | None:
    """Return the largest resident set size so far in bytes (since the last reset), or None where the system does not tell."""
    found = _status("VmHWM")
    if found is not None or resource is None:
        return found
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def reset_peak_resident() -> bool:
    """Set the peak to the present resident set size; return whether the system allowed it."""
    try:
        CLEAR_REFS.write_text(RESET_PEAK)
    except OSError:
        return False
    return True


def _status(field: str) -> int | None:
    try:
        lines = STATUS.read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        name, _, value = line.partition(":")
        if name == field:
            return int(value.split()[0]) * 1024  # the file says kB and means KiB
    return None


class HostPeak:
    """Context that finds by how much the peak resident set of this process grew above its size on entering.

    ``growth_bytes`` is set on leaving. It is None where nothing can be said: no reading on this system, or the peak could not be
    reset and the process stayed below an earlier one. Where not even the present size can be read, growth is taken above the
    earlier peak, a lower bound.
    """

    def __init__(self, held: int = 0) -> None:
        """Make a meter; use it for one ``with``. ``held`` bytes are there on entering and belong to the growth all the same."""
        self.held = held
        self.growth_bytes: int | None = None
        self._reset = False
        self._baseline: int | None = None
        self._peak_before: int | None = None

    def __enter__(self) -> HostPeak:
        """Take the baseline."""
        self._reset = reset_peak_resident()
        self._peak_before = peak_resident_bytes()
        resident = resident_bytes()
        self._baseline = self._peak_before if resident is None else resident
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Read the peak."""
        peak = peak_resident_bytes()
        if peak is None or self._baseline is None or self._peak_before is None:
            return
        if self._reset or peak > self._peak_before:
            self.growth_bytes = max(0, peak - self._baseline) + self.held


class CudaPeak:
    """Context that finds the peak of torch's CUDA allocator above what was allocated on entering.

    ``peak_bytes`` is set on leaving; None if ``device`` is not a CUDA device. It includes work space of libraries (cuDNN).
    """

    def __init__(self, device: torch.device) -> None:
        """Make a meter for ``device``; use it for one ``with``."""
        self.peak_bytes: int | None = None
        self._device = device
        self._baseline = 0

    def __enter__(self) -> CudaPeak:
        """Take the baseline and reset the peak."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
            self._baseline = torch.cuda.memory_allocated(self._device)
            torch.cuda.reset_peak_memory_stats(self._device)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Read the peak."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
            self.peak_bytes = torch.cuda.max_memory_allocated(self._device) - self._baseline
