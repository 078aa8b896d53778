"""``LogWeights``: weights as a sign and a whole exponent, so that a weight times a spike's value is an addition and a shift.

B bits: a sign and an index ``q`` of B - 1 bits into powers of ``2^STEP``, the last index for 0. Per layer, with ``peak = log2 max |W|``
rounded up to a multiple of ``STEP = 1/2``::

    q = round((peak - log2 |w|) / STEP), 0 .. 2^(B-1) - 2; larger: silent      w_q = sign(w) 2^(peak - q STEP)

What is kept changes by a factor within ``2^(+-STEP/2)``. With the kernel ``2^(-t/tau)`` for a whole ``tau`` and ``m = lcm(2, tau)``::

    w_q kappa(t) = sign 2^peak 2^(-n/m),   n = q m/2 + t m/tau      (tau = 4: n = 2q + t)

an integer addition, a table of ``m`` fractions (``n mod m``), and a shift by ``n div m``. As a parametrisation of a weight this is
straight-through: the gradient of ``w_q`` is taken for that of ``w``. That weights are 5-bit and logarithmic is said in the abstract
of "A Time-to-first-spike Coding and Conversion Aware Training ..." (DAC 2022); step, peak and silence are ours.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

STEP = 0.5
EDGE = 1e-4  # of a step: a peak that is a multiple of STEP but for rounding is not rounded up


class Codes(NamedTuple):
    """Weights as stored: ``sign`` and index ``q`` (int64) of the weight's shape, ``peak`` of the layer."""

    sign: Tensor
    q: Tensor
    peak: Tensor


class LogWeights(nn.Module):
    """The quantiser of ``bits`` bits; raises ValueError for less than 2."""

    def __init__(self, bits: int = 5) -> None:
        """Keep the number of bits."""
        super().__init__()
        if bits < 2:
            raise ValueError(f"a sign and an exponent need at least 2 bits, not {bits}")
        self.bits = bits

    @property
    def silent(self) -> int:
        """The index that stands for 0."""
        return 2 ** (self.bits - 1) - 1

    def codes(self, weight: Tensor) -> Codes:
        """Return the codes of a layer's weights of any shape."""
        size = weight.detach().abs()
        peak = ((size.max().clamp_min(torch.finfo(size.dtype).tiny).log2() / STEP - EDGE).ceil()) * STEP
        q = ((peak - size.log2()) / STEP).round().clamp(0, self.silent).long()
        return Codes(weight.detach().sign(), q, peak)

    def decode(self, codes: Codes) -> Tensor:
        """Return the weights that codes stand for."""
        return torch.where(codes.q == self.silent, 0.0, codes.sign * torch.exp2(codes.peak - STEP * codes.q.to(codes.peak.dtype)))

    def forward(self, weight: Tensor) -> Tensor:
        """Return ``w_q``, whose gradient goes on to ``weight`` as it is."""
        return self.decode(self.codes(weight)) + (weight - weight.detach())

    def product(self, codes: Codes, t: int, tau: int) -> Tensor:
        """Return ``w_q kappa(t)`` by integer addition, table and shift; raise ValueError for a ``tau`` that is not whole."""
        if tau != int(tau) or tau < 1:
            raise ValueError(f"adding exponents needs a whole tau of at least 1, not {tau}")
        m = math.lcm(2, int(tau))
        n = codes.q * (m // 2) + t * (m // int(tau))
        table = torch.exp2(-torch.arange(m, dtype=codes.peak.dtype, device=n.device) / m)
        shifted = torch.ldexp(table[n % m], -(n // m))
        return torch.where(codes.q == self.silent, 0.0, codes.sign * torch.exp2(codes.peak) * shifted)
