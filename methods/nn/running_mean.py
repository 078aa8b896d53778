"""The mean over time of answers, as of every step, for networks that answer so where the task reads the last step."""

from __future__ import annotations

import torch
from torch import Tensor

from methods.nn.stepping import Stateful


class RunningMean(Stateful):
    """``y[t] = mean of x[0..t]`` of ``x [T, B, ...]``."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the means ``[T, B, ...]``."""
        state = self.carried()
        total, seen = x.cumsum(0), 0
        if state:
            total, seen = total + state[0], int(state[1])
        count = torch.arange(seen + 1, seen + len(x) + 1, device=x.device, dtype=x.dtype)
        self.carry(total[-1], count[-1])
        return total / count.view(-1, *[1] * (x.dim() - 1))
