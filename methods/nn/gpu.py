"""Whether Triton kernels can be used here, and how many of their programs a device runs at once.

Triton comes with PyTorch for CUDA. ``TRITON_INTERPRET=1``, set before Triton is imported, runs the kernels on the CPU, slowly, number by
number: the tests do so.
"""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from importlib.util import find_spec

import torch
from torch import Tensor

ASSUMED = 132  # multiprocessors, where there is no device to ask


@cache
def installed() -> bool:
    """Return whether Triton can be imported."""
    return find_spec("triton") is not None


@torch.compiler.assume_constant_result
def interpreted() -> bool:
    """Return whether kernels run in Triton's interpreter."""
    return os.environ.get("TRITON_INTERPRET", "0") == "1"


@torch.compiler.assume_constant_result
def why_not(device: torch.device) -> str | None:
    """Return why Triton kernels cannot run on tensors of ``device``, or None if they can."""
    if not installed():
        return "Triton is not installed"
    if device.type != "cuda" and not (interpreted() and device.type == "cpu"):
        return f"Triton kernels run on CUDA devices, the tensor is on {device}"
    return None


@cache
def _multiprocessors(index: int | None) -> int:
    return torch.cuda.get_device_properties(index).multi_processor_count


def device_of(tensor: Tensor) -> AbstractContextManager[object]:
    """Make the device of ``tensor`` the current one: Triton launches there, wherever the tensors are."""
    return torch.cuda.device_of(tensor) if tensor.is_cuda else nullcontext()


def multiprocessors(tensor: Tensor) -> int:
    """Return how many multiprocessors the device of ``tensor`` has."""
    return _multiprocessors(tensor.device.index) if tensor.is_cuda else ASSUMED
