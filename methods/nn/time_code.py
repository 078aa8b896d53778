"""``TimeCode``: a number told by the time of one spike, with an exponentially decaying kernel.

A spike at step ``t`` of a window of ``levels`` steps (T) carries ``kappa(t) = 2^(-t/tau)``; silence carries 0. What a potential ``u`` is
told as, in closed form and in times (``theta0 = 1``)::

    phi(u) = kappa(t*)  if t* <= T - 1, else 0       t*(u) = max(0, ceil(-tau log2 u)), never for u <= 0

``phi`` is a floor in the log domain: ``phi(u) <= u``, 1 from 1 on, 0 below ``kappa(T - 1)``, and ``phi(u)/u > 2^(-1/tau)`` between. Times
are found by comparing ``u`` with the table of all T values, here as in the clocked neuron, since a logarithm and its ceiling miss by one
level at the edges. Base e is the same code: ``2^(-t/tau) = exp(-t ln 2 / tau)``, the kernel of T2FSNN.

``phi`` looks the value up: the exponent and the first bits of the fraction of ``u`` name a cell so small that at most one level lies in it,
and a comparison with that level decides. That equals a binary search (``times``) to the bit, in a fifth of its time (49152 potentials,
T = 24, one thread of a busy machine: 0.18 and 0.93 ms).

Source: "A Time-to-first-spike Coding and Conversion Aware Training for Energy-Efficient Deep Spiking Neural Network Processor Design" (Lew,
Lee, Park, DAC 2022), its abstract; kernel as in the code of T2FSNN (S. Park et al., DAC 2020).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

LAYOUTS = {torch.float32: (torch.int32, 8, 23), torch.float64: (torch.int64, 11, 52)}  # same-sized integer, bits of exponent and fraction
MOST_BITS = 10  # of the fraction that name a cell; finer codes are searched
MOST_OCTAVES = 120  # single precision has 126


@dataclass(frozen=True)
class TimeCode:
    """The code of ``levels`` values (T) that halve every ``tau`` steps; raises ValueError where these are no code or span too much."""

    levels: int = 24
    tau: float = 4.0

    def __post_init__(self) -> None:
        """Refuse what is no code."""
        if self.levels < 1 or not self.tau > 0:
            raise ValueError(f"a code needs at least one level and tau above 0, not levels = {self.levels}, tau = {self.tau}")
        if (self.levels - 1) / self.tau > MOST_OCTAVES:
            given = f"levels = {self.levels} and tau = {self.tau} span {(self.levels - 1) / self.tau:g} octaves"
            raise ValueError(f"{given}, (levels - 1) / tau; at most {MOST_OCTAVES} are allowed")

    def kernel(self, like: Tensor) -> Tensor:
        """Return ``kappa(0..T-1)`` ``[T]`` in the type and on the device of ``like``."""
        return _kernel(self.levels, self.tau, like.dtype, like.device)

    def numbers(self, like: Tensor) -> tuple[float, ...]:
        """Return ``kernel`` as numbers, rounded as it is; a GPU is not asked."""
        return _numbers(self.levels, self.tau, like.dtype)

    def times(self, u: Tensor) -> Tensor:
        """Return the steps at which potentials ``u`` of any shape fire, int64; T for those that stay silent."""
        return self.levels - torch.bucketize(u.contiguous(), self.kernel(u).flip(0), right=True)

    def decode(self, times: Tensor, like: Tensor) -> Tensor:
        """Return the values that spikes at ``times`` carry, in the type of ``like``; 0 for the time T."""
        kernel = self.kernel(like)
        return torch.cat([kernel, kernel.new_zeros(1)])[times]

    def phi(self, u: Tensor) -> Tensor:
        """Return what potentials ``u`` of any shape are told as."""
        bits = max(0, math.ceil(-math.log2(2 ** min(1 / self.tau, MOST_OCTAVES) - 1)))
        if u.dtype not in LAYOUTS or bits > MOST_BITS:
            return self.decode(self.times(u), u)
        moved = u.dim() == 5 and not u.is_contiguous()  # channels-last images are looked up in the order in which they lie in memory
        ordered = (u.movedim(2, -1) if moved else u).clamp(0, 1).contiguous()
        integer, exponent, fraction = LAYOUTS[u.dtype]
        cells = (ordered.view(integer) >> (fraction - bits)).bitwise_and_((1 << (exponent + bits)) - 1).flatten()
        edge, below, above = (part.index_select(0, cells).view_as(ordered) for part in _cells(self, bits, u.dtype, u.device))
        found = torch.where(ordered >= edge, above, below)
        return found.movedim(-1, 2) if moved else found


@cache
def _kernel(levels: int, tau: float, dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.exp2(-torch.arange(levels, dtype=torch.float64) / tau).to(device, dtype)


@cache
def _numbers(levels: int, tau: float, dtype: torch.dtype) -> tuple[float, ...]:
    return tuple(_kernel(levels, tau, dtype, torch.device("cpu")).tolist())


@cache
def _cells(code: TimeCode, bits: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Return for every cell its level (inf: none), and what potentials below it and from it on are told as."""
    integer, exponent, fraction = LAYOUTS[dtype]
    start = (torch.arange(1 << (exponent + bits), dtype=integer) << (fraction - bits)).view(dtype)
    ascending = _kernel(code.levels, code.tau, dtype, start.device).flip(0)
    values = torch.cat([ascending.new_zeros(1), ascending])
    reached = torch.bucketize(start, ascending, right=True)
    edges = torch.cat([ascending, ascending.new_tensor([torch.inf])])
    after = torch.cat([values[1:], values[-1:]])
    return edges[reached].to(device), values[reached].to(device), after[reached].to(device)
