"""What a record says about the machine and the code: enough to compare, nothing that identifies a person or a path."""

from __future__ import annotations

import os
import platform
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from harness.record import Environment

PACKAGES = ("torch", "torchvision", "numpy", "tonic", "torchmetrics", "scikit-learn")


@cache
def cpu_model() -> str:
    """Return the name of the CPU."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def device_model(device: torch.device) -> str:
    """Return the name of the device: the GPU's, or the CPU's."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_model()


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(Path(__file__).parent), *arguments], capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


@cache
def git_state() -> tuple[str | None, bool | None]:
    """Return commit and dirty flag of the checkout this code lies in; (None, None) if git does not track it."""
    if _git("ls-files", "--error-unmatch", Path(__file__).name) is None:
        return None, None
    changed = _git("status", "--porcelain", "--untracked-files=no")
    return _git("rev-parse", "HEAD"), None if changed is None else bool(changed)


def gpu_processes() -> int | None:
    """Return how many processes compute on GPUs of this machine, or None where that cannot be said. Ask before using a GPU yourself."""
    try:
        done = subprocess.run(
            ["nvidia-smi", "--query-compute-apps=pid", "--format=csv,noheader"], capture_output=True, text=True, timeout=20, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return sum(line.strip().isdecimal() for line in done.stdout.splitlines())


def describe(device: torch.device, threads: int) -> Environment:
    """Return the environment of a run on ``device``."""
    commit, dirty = git_state()
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return Environment(
        git_commit=commit,
        git_dirty=dirty,
        versions=versions,
        system=f"{platform.system()} {platform.machine()}",
        cpu=cpu_model(),
        cores=os.cpu_count() or 1,
        device=device_model(device),
        device_kind=device.type,
        cuda=torch.version.cuda if device.type == "cuda" else None,
        threads=threads,
        deterministic=torch.are_deterministic_algorithms_enabled(),
        load_average=os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
    )
