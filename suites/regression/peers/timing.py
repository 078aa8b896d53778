"""Times of contenders that take turns, and whether they compute the same before they are timed."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from tabulate import tabulate
from torch import Tensor

Columns = dict[str, tuple[list[float], list[float]]]  # seconds of the first call and of the others, for each contender


def seconds(run: Callable[[], Any], device: str) -> float:
    """Return how long one call takes, until the device has finished."""
    if device == "cuda":
        torch.cuda.synchronize()
    started = time.perf_counter()
    run()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def agree(name: str, found: tuple[Tensor, Tensor], expected: tuple[Tensor, Tensor]) -> None:
    """Raise RuntimeError unless spikes are the same and gradients within a hundred-thousandth of the largest.

    A library that leaves products and sums to a compiler may differ at a potential within a rounding error of the threshold: one in a
    hundred thousand spikes may.
    """
    same = found[0] == expected[0]
    trains = same.all(0)  # one such spike changes the rest of its train
    apart = 1 - same.double().mean().item()
    error = ((found[1] - expected[1]).abs() * trains).max().item() / expected[1].abs().max().item()
    if apart > 1e-5 or error > 1e-5:
        raise RuntimeError(f"{name} differs from the reference: {apart:.1e} of the spikes, gradients by {error:.1e}")


def interleave(runs: Sequence[Callable[[], Any]], rounds: int, device: str) -> list[float]:
    """Return the median seconds of each, which take turns so that a noisy machine disturbs all alike.

    Each timed call follows an untimed one of the same contender, so that caches hold what it leaves in them itself, as in a training loop,
    and not what another left.
    """
    taken: list[list[float]] = [[] for _ in runs]
    order = list(zip(taken, runs, strict=True))
    shuffled = random.Random(0)
    for _ in range(rounds):
        shuffled.shuffle(order)
        for times, run in order:
            run()
            times.append(seconds(run, device))
    return [statistics.median(times) for times in taken]


def table(names: Sequence[str], columns: Columns, baseline: int = 0) -> str:
    """Return the medians in ms, each with its ratio to that of ``baseline``, and the longest first call."""
    rows = []
    for i, name in enumerate(names):
        cells = [f"{medians[i] * 1e3:.2f} ({medians[i] / medians[baseline]:.2f}x)" for _, medians in columns.values()]
        rows.append([name, *cells, f"{max(first[i] for first, _ in columns.values()):.2f}"])
    return tabulate(rows, [f"ms (times {names[baseline]})", *columns, "first call, s"], disable_numparse=True)


def faster(names: Sequence[str], columns: Columns, mine: Sequence[str], theirs: Sequence[str]) -> str:
    """Return how many times longer each of ``theirs`` takes than each of ``mine``, of those that took part."""
    rows = []
    for a in (name for name in mine if name in names):
        for b in (name for name in theirs if name in names):
            i, j = names.index(a), names.index(b)
            rows.append([f"{b} / {a}", *(f"{medians[j] / medians[i]:.2f}" for _, medians in columns.values())])
    return tabulate(rows, ["times as long", *columns], disable_numparse=True)
