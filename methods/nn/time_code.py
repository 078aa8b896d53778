"""``TimeCode``: a number told by the time of one spike, with an exponentially decaying kernel.

A spike at step ``t`` of a window of ``levels`` steps (T) carries ``kappa(t) = 2^(-t/tau)``; silence carries 0. What a potential ``u`` is told
as, in closed form and in times (``theta0 = 1``)::

    phi(u) = kappa(t*)  if t* <= T - 1, else 0       t*(u) = max(0, ceil(-tau log2 u)), never for u <= 0

``phi`` is a floor in the log domain: ``phi(u) <= u``, 1 from 1 on, 0 below ``kappa(T - 1)``, and ``phi(u)/u > 2^(-1/tau)`` between. Times are
found by comparing ``u`` with the table of all T values, here as in the clocked neuron, since a logarithm and its ceiling miss by one level at
the edges. Base e is the same code: ``2^(-t/tau) = exp(-t ln 2 / tau)``, the kernel of T2FSNN.

Source: "A Time-to-first-spike Coding and Conversion Aware Training for Energy-Efficient Deep Spiking Neural Network Processor Design" (Lew,
Lee, Park, DAC 2022), its abstract; kernel as in the code of T2FSNN (S. Park et al., DAC 2020).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor


@dataclass(frozen=True)
class TimeCode:
    """The code of ``levels`` values (T) that halve every ``tau`` steps; raises ValueError for no level or ``tau`` not above 0."""

    levels: int = 24
    tau: float = 4.0

    def __post_init__(self) -> None:
        """Refuse what is no code."""
        if self.levels < 1 or not self.tau > 0:
            raise ValueError(f"a code needs at least one level and tau above 0, not levels = {self.levels}, tau = {self.tau}")

    @property
    def octaves(self) -> float:
        """How often the largest value can be halved until the smallest: log2 of the dynamic range."""
        return (self.levels - 1) / self.tau

    def kernel(self, like: Tensor) -> Tensor:
        """Return ``kappa(0..T-1)`` ``[T]`` in the type and on the device of ``like``."""
        return _kernel(self.levels, self.tau, like.dtype, like.device)

    def times(self, u: Tensor) -> Tensor:
        """Return the steps at which potentials ``u`` of any shape fire, int64; T for those that stay silent."""
        ascending = self.kernel(u).flip(0)
        # Channels-last images [T, B, C, H, W] are looked up in the order in which they lie in memory.
        moved = u.dim() == 5 and not u.is_contiguous()
        ordered = (u.movedim(2, -1) if moved else u).contiguous()
        reached = torch.bucketize(ordered, ascending, right=True)
        return self.levels - (reached.movedim(-1, 2) if moved else reached)

    def decode(self, times: Tensor, like: Tensor) -> Tensor:
        """Return the values that spikes at ``times`` carry, in the type of ``like``; 0 for the time T."""
        kernel = self.kernel(like)
        return torch.cat([kernel, kernel.new_zeros(1)])[times]

    def phi(self, u: Tensor) -> Tensor:
        """Return what potentials ``u`` of any shape are told as."""
        return self.decode(self.times(u), u)


@cache
def _kernel(levels: int, tau: float, dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.exp2(-torch.arange(levels, dtype=torch.float64) / tau).to(device, dtype)
