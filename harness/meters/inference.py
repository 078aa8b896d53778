"""Latency and throughput of a trained network: device-synchronised, warmed up, every sample kept.

::

    one = latency(predict, inputs[:1], repeats=50)  # one.median seconds per call
    many = throughput(predict, inputs)  # many.median samples per second

``predict`` takes a batch of inputs ``[B, ...]``; put the network in eval mode first. Gradients are off.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Predict = Callable[[Tensor], Any]


@dataclass(frozen=True)
class Samples:
    """Repeated measurements of one quantity, in the order they were taken."""

    values: tuple[float, ...]
    unit: str

    @property
    def median(self) -> float:
        """Return the median."""
        return statistics.median(self.values)


def latency(predict: Predict, inputs_one: Tensor, repeats: int = 30, warmup: int = 3) -> Samples:
    """Return seconds per call of ``predict`` on ``inputs_one [1, ...]``; the first ``warmup`` calls are not kept.

    Raises ValueError if the batch is not of one sample or there is nothing to repeat.
    """
    if len(inputs_one) != 1:
        raise ValueError(f"latency is that of one sample; given a batch of {len(inputs_one)}")
    return Samples(_seconds(predict, inputs_one, repeats, warmup), "s")


def throughput(predict: Predict, inputs: Tensor, repeats: int = 5, warmup: int = 1) -> Samples:
    """Return samples per second of ``predict`` on the batch ``inputs [B, ...]``; the first ``warmup`` calls are not kept.

    Raises ValueError if the batch is empty or there is nothing to repeat.
    """
    if not len(inputs):
        raise ValueError("throughput needs at least one sample; given an empty batch")
    return Samples(tuple(len(inputs) / seconds for seconds in _seconds(predict, inputs, repeats, warmup)), "samples/s")


@torch.no_grad()
def _seconds(predict: Predict, inputs: Tensor, repeats: int, warmup: int) -> tuple[float, ...]:
    if repeats < 1:
        raise ValueError(f"repeats = {repeats}; at least 1 is needed")
    found = []
    for _ in range(warmup + repeats):
        _wait(inputs.device)
        begin = time.perf_counter()
        predict(inputs)
        _wait(inputs.device)
        found.append(time.perf_counter() - begin)
    return tuple(found[warmup:])


def _wait(device: torch.device) -> None:
    """Wait until ``device`` has done what it was asked to do; a CPU always has."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
