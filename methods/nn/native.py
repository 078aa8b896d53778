"""The native CPU kernels: ``kernels.c``, compiled once by the system's C compiler and called through ctypes.

    library = native.load(torch.float32)          # None where there is no compiler; ``native.describe()`` says why
    library.lif_forward(...)

Why C and ctypes rather than Numba. Kernels alone, 32 x 4096 neurons, triangle, hard reset, forward + backward, 2 cores of a Zen 4 shared
with other work; ranges of the minima of three interleaved runs in ms, C (blocks of 4096) and Numba (blocks of 512, on a pool of Python
threads, without the care for NaN in its backward pass; less tuned than the C):

=========  ==========================  ==========================
threads    C, T = 4, 16, 64            Numba, T = 4, 16, 64
=========  ==========================  ==========================
1          0.22, 1.9-2.1, 9.8-10.5     0.18-0.20, 2.5-2.7, 13.4-14.0
2          0.12-0.20, 1.1-1.3, 6.3-13  0.33-0.78, 1.7-3.3, 10.9-14.0
=========  ==========================  ==========================

So on one thread Numba is ahead at T = 4 and C beyond; on two C is ahead, but for one run at T = 64 in which Numba was. An OpenMP kernel
also shares the threads that PyTorch already has (its ``libgomp.so.1`` is the one that the loader finds). A fresh process pays 0.1 ms to
open the compiled file; importing Numba and loading its cache takes 0.45 s. Compiling takes 8 s (float)
and 4 s (double), once per machine and user.

The compiled file lies in ``$XDG_CACHE_HOME/spikebench`` (``~/.cache/spikebench``), named by a hash of source, compiler, flags and CPU;
where that cannot be written, in a temporary folder for the length of the process. ``SPIKEBENCH_NATIVE=0`` turns the kernels off.
"""

from __future__ import annotations

import atexit
import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

import torch

SOURCE = Path(__file__).with_name("kernels.c")
REALS = {torch.float32: "float", torch.float64: "double"}
BITS = {"float": "uint32_t", "double": "uint64_t"}
# Sums and products stay separate, so that results are those of PyTorch; the other two only say that nobody looks at errno or traps.
FLAGS = ("-O3", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math", "-shared", "-fPIC")
MAX_BLOCK, MAX_RICH = 4096, 1024  # as in kernels.c
GRAIN = 1 << 14  # neuron-steps that are worth a further thread

_POINTER, _STRIDE = ctypes.c_void_p, ctypes.c_ssize_t
_reasons: dict[str, str] = {}


class Neuron(ctypes.Structure):
    """``Neuron`` of kernels.c: what is fixed for a layer."""

    _fields_ = [(name, ctypes.c_int32) for name in ("reset", "attached", "strict", "surrogate", "scaled", "refractory", "planes")] + [
        (name, ctypes.c_double) for name in ("v_init", "c0", "c1", "c2")
    ]


class Values(ctypes.Structure):
    """``Values`` of kernels.c: leak, gain and threshold, and the addresses of those per channel."""

    _fields_ = [(name, ctypes.c_double) for name in ("leak", "gain", "threshold")] + [
        (name, ctypes.c_void_p) for name in ("leaks", "thresholds")
    ]


class Grid(ctypes.Structure):
    """``Grid`` of kernels.c: steps, neurons, block of neurons, channels and their distance, threads, whether in half precision."""

    _fields_ = [(name, ctypes.c_ssize_t) for name in ("steps", "size", "block", "channels", "inner")] + [
        (name, ctypes.c_int32) for name in ("threads", "half")
    ]


def grid(steps: int, size: int, scratch: int = 0, rich: bool = False, channels: int = 0, inner: int = 1, half: bool = False) -> Grid:
    """Return how to divide ``[steps, size]`` into blocks.

    ``scratch``: at most so many numbers per block over all steps, 0 for any; ``rich``: blocks for a neuron with options, see kernels.c. The
    division does not depend on the number of threads, so that sums over neurons do not either.
    """
    most = MAX_RICH if rich else MAX_BLOCK
    block = most if size >= 8 * most else max(64, -(-size // 8 // 64) * 64)
    if scratch:
        block = max(64, min(block, scratch // max(steps, 1) // 64 * 64))
    threads = min(torch.get_num_threads(), max(1, steps * size // GRAIN))
    return Grid(steps, size, block, channels, inner, threads, half)


def blocks(of: Grid) -> int:
    """Return the number of blocks of a grid."""
    return -(-of.size // of.block)


@torch.compiler.assume_constant_result
def available(dtype: torch.dtype) -> bool:
    """Return whether there are kernels for ``dtype``; compiles them at the first call."""
    return load(dtype) is not None


def describe() -> str:
    """Return one line about the kernels, for a record: how they were made, or why there are none."""
    return "; ".join(f"{real}: {reason}" for real, reason in sorted(_reasons.items())) or "not asked for"


@cache
def load(dtype: torch.dtype) -> ctypes.CDLL | None:
    """Return the compiled kernels for ``dtype``, or None where they cannot be had."""
    if dtype not in REALS:
        return None
    real = REALS[dtype]
    if os.environ.get("SPIKEBENCH_NATIVE", "1") == "0":
        _reasons[real] = "turned off by SPIKEBENCH_NATIVE=0"
        return None
    compiler = next((found for name in ("cc", "gcc", "clang") if (found := shutil.which(name))), None)
    if compiler is None:
        _reasons[real] = "no C compiler (cc, gcc, clang) was found"
        return None
    try:
        library = ctypes.CDLL(str(_compiled(compiler, real)))
    except (OSError, subprocess.SubprocessError) as error:
        said = getattr(error, "stderr", None) or str(error)
        _reasons[real] = f"{compiler} failed: {said.strip().splitlines()[-1] if said.strip() else type(error).__name__}"
        return None
    _reasons[real] = f"compiled by {compiler}"
    return _declare(library)


def _declare(library: ctypes.CDLL) -> ctypes.CDLL:
    p, stride = _POINTER, _STRIDE
    library.lif_forward.argtypes = [p, p, p, p, stride, p, p, p, p, p, p, p]
    library.lif_backward.argtypes = [p, p, p, p, p, p, stride, p, p, p, stride, p, p, p, p, p]
    library.recurrence_forward.argtypes = [p, p, stride, p, stride, p, p]
    library.recurrence_backward.argtypes = [p, p, stride, p, p, p, stride, p, p, p, p]
    library.attentive_forward.argtypes = [p, p, p, p, p, p, ctypes.c_int, p, p, p, p, p]
    library.attentive_backward.argtypes = [p, p, p, p, p, p, p, p, ctypes.c_int, p, p, p, p, p, p, p, p]
    library.decay_forward.argtypes = [p, p, p, stride, p, stride, p, p, p, p, p, p]
    library.decay_backward.argtypes = [p, p, p, stride, p, p, p, p, p, stride, p, stride, p, p, p, p]
    library.decay_forward.restype = library.decay_backward.restype = None
    library.lif_forward.restype = library.recurrence_forward.restype = library.recurrence_backward.restype = None
    library.attentive_forward.restype = library.attentive_backward.restype = None
    library.lif_backward.restype = ctypes.c_int
    return library


def _target(compiler: str) -> tuple[str, ...]:
    """Return the flags that depend on compiler and machine."""
    flags = ["-mcpu=native" if platform.machine() in ("arm64", "aarch64") else "-march=native"]
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True, timeout=60, check=True).stdout
    # Only gcc's OpenMP is the one PyTorch has loaded; another would bring threads of its own.
    if sys.platform == "linux" and "Free Software Foundation" in version:
        flags.append("-fopenmp")
    return (*flags, version.partition("\n")[0])


def _cpu() -> str:
    """Return what ``native`` means on this machine; homes are shared between machines that differ."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.startswith(("flags", "Features"))), platform.machine())


def _compiled(compiler: str, real: str) -> Path:
    """Return the path of the shared object for ``real``, made if it is not there yet."""
    *native, version = _target(compiler)
    flags = [*FLAGS, *native, f"-DREAL={real}", f"-DBITS={BITS[real]}"]
    mark = hashlib.sha256("\0".join([SOURCE.read_text(encoding="utf-8"), version, *flags, _cpu()]).encode()).hexdigest()[:20]
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "spikebench"
    target = folder / f"kernels-{real}-{mark}.so"
    if target.exists():
        return target
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryDirectory(dir=folder) as made:
            # Renamed when complete: several processes may do this at once.
            return _build(compiler, flags, Path(made) / target.name).rename(target)
    except OSError:  # a home that is read-only, or none
        private = tempfile.mkdtemp(prefix="spikebench-")
        atexit.register(shutil.rmtree, private, ignore_errors=True)
        return _build(compiler, flags, Path(private) / target.name)


def _build(compiler: str, flags: list[str], path: Path) -> Path:
    command = [compiler, *flags, str(SOURCE), "-o", str(path), "-lm"]
    subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    return path
