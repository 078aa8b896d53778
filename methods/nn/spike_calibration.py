"""Spike calibration: a neuron that stays silent for longer than is its habit takes its spikes back, one per step.

A neuron may spike early although its final input is negative. Such "spikes of inactivated neurons" are undone by negative ones. For a spike
train ``x[t]`` of one neuron, with all state 0 at the start and an allowance of A steps::

    where x[t] > 0:   count += 1;  gap = t - last;  last = t         mean gap = last / count, or 0 before the first spike
    silent = t - last > mean gap + A
    x[t] -= 1 where silent;   total += x[t]

In the mode "reference", ``x[t] = 0`` where then ``total <= -1``: nothing is emitted below 0, but total goes on falling, and the spikes of a
neuron that was silent for long are swallowed until the debt is paid. In the mode "ledger" (ours) the subtraction happens only where ``total
>= 1`` before it, so total is what was emitted. The membrane is told in neither. Source: "Spike Calibration: Fast and Accurate Conversion of
Spiking Neural Network for Object Detection and Segmentation" (Li et al., 2022) and its authors' code.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from methods.nn.stepping import Stateful

Mode = Literal["reference", "ledger"]
History = tuple[Tensor, Tensor, Tensor, Tensor]


def no_history(like: Tensor) -> History:
    """Return the state before the first step of spikes ``like [B, ...]``: last, steps since then, count, total."""
    return torch.zeros_like(like), torch.zeros_like(like), torch.zeros_like(like), torch.zeros_like(like)


def calibrate(spikes: Tensor, history: History, allowance: float, mode: Mode) -> tuple[Tensor, History]:
    """Return one step of calibrated spikes ``[B, ...]`` and the state after it; all numbers are whole (``allowance``: or halves)."""
    last, since, count, total = history
    fired = spikes > 0
    count = count + fired
    last = torch.where(fired, last + since, last)
    since = torch.where(fired, 0.0, since)
    silent = (since - allowance) * count.clamp(min=1.0) > last  # the mean of the gaps is last / count
    if mode == "ledger":
        silent = silent & (total >= 1.0)
    emitted = torch.where(silent, spikes - 1.0, spikes)
    total = total + emitted
    if mode == "reference":
        emitted = torch.where(total <= -1.0, 0.0, emitted)
    return emitted, (last, since + 1.0, count, total)


class SpikeCalibration(Stateful):
    """Calibrates spike trains ``[T, B, ...]``; an ``allowance`` of 0 steps turns it off."""

    def __init__(self, allowance: float, mode: Mode = "reference") -> None:
        """Keep the allowance and the mode."""
        super().__init__()
        self.allowance, self.mode = allowance, mode

    def forward(self, spikes: Tensor) -> Tensor:
        """Return the calibrated spikes, which may be negative."""
        if not self.allowance:
            return spikes
        history = self.carried() or no_history(spikes[0])
        found = []
        for now in spikes.unbind(0):
            emitted, history = calibrate(now, history, self.allowance, self.mode)
            found.append(emitted)
        self.carry(*history)
        return torch.stack(found)

    def extra_repr(self) -> str:
        """Return the settings for printing."""
        return f"allowance={self.allowance:g}, mode={self.mode}"
