"""Keep freed memory in the process, on huge pages, so that a training step does not ask the system for its tensors anew.

    return_memory()   # a phase begins: what is freed goes back at once, so that resident memory is what is in use
    ...               # the first steps, in which memory is measured
    keep_memory()     # from here on, what one step frees serves the next

glibc maps a large tensor anew at every step and hands it back when it is freed; the system provides it in pages of 4 kB, a fault each.
``mallopt`` makes glibc keep it, and PyTorch asks for pages of 2 MB when told so. The two belong together: a hole left by a tensor is too
small for glibc to align the next one of that size in, unless it is aligned to 2 MB. Forward + backward with 2 threads on 2 cores, ranges of
the medians of fresh processes that took turns, three for each (two for the large net), in ms; the peak of resident memory in GB ("LIF":
native, 32 x 4096 neurons; nets: two convolutions with batch normalisation, LIF and pooling on 32 x 32 pixels, with the optimiser's step,
small: widths 32, 64, batch 32, T = 4, large: 64, 128, batch 64, T = 16):

====================  ===========  ===========  =========  ===========  =================
setting               LIF, T = 64  LIF, T=128   small net  large net    peak of large net
====================  ===========  ===========  =========  ===========  =================
none                  35-39        72-75        54-60      2262-2320    2.2
huge pages            13-18        25-28        82-134     2303-2600    2.2
keep                  7.5          14-16        54-55      1119-1459    3.5-3.8
both                  5.7-7.7      11-14        53-57      1335-1907    4.0-4.6
both, after 2 steps   -            -            -          1202-1595    2.6-2.9
====================  ===========  ===========  =========  ===========  =================

The last line is what a run does. ``GLIBC_TUNABLES=glibc.malloc.hugetlb=1``, to be set from outside, in place of PyTorch's huge pages is no
better (LIF 5.1-5.7 and 13-14): it is not used. Kept stretches of the heap do not always fit what comes next, hence the higher peak; that is
why memory is measured before.
"""

from __future__ import annotations

import ctypes
import os
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

VARIABLE = "THP_MEM_ALLOC_ENABLE"  # PyTorch looks at it once, when it first allocates 2 MB or more
MEMINFO = Path("/proc/meminfo")

# malloc.h of glibc; each with what is glibc's default (of the first two, the initial one: it moves until the first call of mallopt)
TRIM_THRESHOLD, TOP_PAD, MMAP_THRESHOLD, MMAP_MAX = -1, -2, -3, -4
RETURN = {MMAP_MAX: 65536, MMAP_THRESHOLD: 128 << 10, TRIM_THRESHOLD: 128 << 10, TOP_PAD: 128 << 10}
KEEP = {MMAP_MAX: 0, TRIM_THRESHOLD: 2**31 - 1, TOP_PAD: 64 << 20}  # a threshold for mmap is capped at 32 MB; a number of maps is not

# How a user sets the same from outside.
SETTINGS = ("MALLOC_MMAP_MAX_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "MALLOC_TOP_PAD_")
TUNABLES = ("glibc.malloc.mmap_max", "glibc.malloc.mmap_threshold", "glibc.malloc.trim_threshold", "glibc.malloc.top_pad")


def use_huge_pages() -> None:
    """Let PyTorch ask for huge pages in this process, unless the user has decided; systems without them ignore it."""
    os.environ.setdefault(VARIABLE, "1")


def keep_memory(peak: int = 0) -> bool:
    """Let the process keep what it frees, unless the user has decided; return whether that was done (with glibc it is).

    It is not if less memory is available than four times ``peak``, the bytes in use at once: stretches that are kept do not always fit
    what comes next, so the process becomes larger.
    """
    available = _available()
    return (available is None or 4 * peak <= available) and _set(KEEP)


def return_memory() -> bool:
    """Hand what is free back to the system, now and from here on, unless the user has decided; return whether that was done."""
    done = _set(RETURN)
    if done:
        _glibc().malloc_trim(0)
    return done


def _set(values: dict[int, int]) -> bool:
    libc = _glibc()
    if libc is None or _decided():
        return False
    return all([libc.mallopt(parameter, value) for parameter, value in values.items()])


def _available() -> int | None:
    """Return the bytes that the system can give without swapping, or None where it does not tell."""
    with suppress(OSError):
        for line in MEMINFO.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return None


def _decided() -> bool:
    """Return whether the user has set any of these parameters."""
    tunables = os.environ.get("GLIBC_TUNABLES", "")
    return any(name in os.environ for name in SETTINGS) or any(name in tunables for name in TUNABLES)


@cache
def _glibc() -> Any:
    """Return the C library if it is glibc."""
    try:
        libc = ctypes.CDLL(None)
    except (OSError, TypeError):  # Windows
        return None
    wanted = ("gnu_get_libc_version", "mallopt", "malloc_trim")
    return libc if all(hasattr(libc, name) for name in wanted) else None
