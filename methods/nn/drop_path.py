"""Stochastic depth: the branch of a residual block is left out for some samples."""

from __future__ import annotations

import torch
from torch import Tensor

from methods.nn.stepping import Stateful


class DropPath(Stateful):
    """Set a branch ``[T, B, ...]`` to 0 with probability ``p`` for each sample, at all its time steps; the others scaled by ``1/(1-p)``.

    For branches whose values are currents, as scaled spikes would not be 0/1. Nothing happens in eval mode. Raises ValueError for ``p``
    outside [0, 1). Source: "Deep Networks with Stochastic Depth" (Huang et al., ECCV 2016).
    """

    def __init__(self, p: float) -> None:
        """Make the drop."""
        super().__init__()
        if not 0 <= p < 1:
            raise ValueError(f"the probability to drop a branch is in [0, 1), not {p}")
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """Return what is left of the branch."""
        if not self.training or self.p == 0:
            return x
        state = self.carried()
        mask = state[0] if state else (torch.rand(x.shape[1], device=x.device) >= self.p).to(x.dtype) / (1 - self.p)
        self.carry(mask)
        return x * mask.view(-1, *[1] * (x.dim() - 2))

    def extra_repr(self) -> str:
        """Return the settings for printing."""
        return f"p={self.p:g}"
