"""How fast the machine is right now: the time of a fixed piece of arithmetic, for comparing times of different hours.

A virtual machine whose neighbours are busy may be slower for a whole run, with step times as steady as ever. Two records whose yardsticks
differ were made by a machine that was not equally fast, whatever the method::

    yardstick(torch.device("cpu"))  # seconds, about 3 ms on one core of a Zen 4
"""

from __future__ import annotations

import time

import torch

from harness.meters.inference import wait

REPEATS = 5


@torch.no_grad()
def yardstick(device: torch.device) -> float:
    """Return the least seconds of ``REPEATS`` times 8 products of 256x256 matrices and 4 passes over a million numbers on ``device``."""
    matrix, numbers = torch.full((256, 256), 0.5, device=device), torch.full((1 << 20,), 0.5, device=device)
    found = []
    for _ in range(REPEATS):
        wait(device)
        begin = time.perf_counter()
        for _ in range(8):
            torch.mm(matrix, matrix)
        for _ in range(4):
            numbers.mul_(0.5).add_(0.25)
        wait(device)
        found.append(time.perf_counter() - begin)
    return min(found)
