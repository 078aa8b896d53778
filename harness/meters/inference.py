"""Latency and throughput of a trained network: device-synchronised, warmed up, every sample kept.

::

    one = latency(predict, inputs[:1], repeats=50)  # one.median seconds per call
    many = throughput(evaluation.batches)  # many.median samples per second

Throughput comes from batches that were answered anyway, so that it costs nothing. For latency, ``predict`` takes a batch of inputs
``[B, ...]``; put the network in eval mode first. Gradients are off.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Predict = Callable[[Tensor], Any]
FEWEST = 3  # calls that are kept whatever they take


@dataclass(frozen=True)
class Samples:
    """Repeated measurements of one quantity, in the order they were taken."""

    values: tuple[float, ...]
    unit: str

    @property
    def median(self) -> float:
        """Return the median."""
        return statistics.median(self.values)


@torch.no_grad()
def latency(predict: Predict, inputs_one: Tensor, repeats: int = 30, warmup: int = 3, seconds: float = float("inf")) -> Samples:
    """Return seconds per call of ``predict`` on ``inputs_one [1, ...]``; the first ``warmup`` calls are not kept.

    After ``seconds`` there are no more repeats than ``FEWEST``. Raises ValueError if the batch is not of one sample or there is nothing to
    repeat.
    """
    if len(inputs_one) != 1:
        raise ValueError(f"latency is that of one sample; given a batch of {len(inputs_one)}")
    if repeats < 1:
        raise ValueError(f"repeats = {repeats}; at least 1 is needed")
    found: list[float] = []
    while len(found) < warmup + repeats and (len(found) < warmup + FEWEST or sum(found) < seconds):
        wait(inputs_one.device)
        begin = time.perf_counter()
        predict(inputs_one)
        wait(inputs_one.device)
        found.append(time.perf_counter() - begin)
    return Samples(tuple(found[warmup:]), "s")


def throughput(batches: Sequence[tuple[int, float]]) -> Samples:
    """Return samples per second in ``batches`` (samples, seconds) that were answered one after the other.

    Of these only the largest count, and of several not the first. Raises ValueError if there is none.
    """
    if not batches:
        raise ValueError("throughput needs at least one batch; none was answered")
    size = max(samples for samples, _ in batches)
    full = [seconds for samples, seconds in batches if samples == size]
    return Samples(tuple(size / seconds for seconds in (full[1:] or full)), "samples/s")


def wait(device: torch.device) -> None:
    """Wait until ``device`` has done what it was asked to do; a CPU always has."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
