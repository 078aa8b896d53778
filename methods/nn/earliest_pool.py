"""``EarliestPool2d``: max pooling, where in time the earliest spike wins."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from methods.nn.time_code import TimeCode
from methods.nn.ttfs_neuron import Coded


class EarliestPool2d(Coded):
    """Max pooling of ``[T, B, C, H, W]``; in mode "spikes" only the first spikes of each field pass, as one.

    Early spikes carry large values and ``phi`` never falls, so pooling spikes is pooling values, and ``phi`` commutes with it.
    """

    def __init__(self, kernel: int, code: TimeCode) -> None:
        """Pool fields of ``kernel`` by ``kernel``."""
        super().__init__(code)
        self.kernel = kernel

    def forward(self, x: Tensor) -> Tensor:
        """Return ``[T, B, C, H', W']``."""
        if self.mode != "spikes":
            return self._largest(x)
        if x.shape[0] > 1 and x.stride(0) == 0 and not x[0].any():  # silence, repeated
            return self.forward(x[:1]).expand(x.shape[0], -1, -1, -1, -1)
        pooled, state = self._largest(x), self.carried()
        waiting = state[0] if state else torch.ones_like(pooled[0])
        passed = []
        for now in pooled:
            passed.append(now * waiting)
            waiting = waiting - passed[-1]
        self.carry(waiting)
        return torch.stack(passed)

    def _largest(self, x: Tensor) -> Tensor:
        return F.max_pool2d(x.flatten(0, 1), self.kernel).unflatten(0, x.shape[:2])
