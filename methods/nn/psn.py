"""Parallel spiking neurons: no reset, so that the potentials of all steps are one linear map of the currents.

For currents ``X [T, N]`` (batch, channels and space flattened; a layer has one set of weights)::

    PSN          H = W X + b                              W [T, T], b [T, 1]
    masked PSN   H = (M(lam) * W) X + b                   M(lam) = lam M + (1 - lam),  M[i][j] = 1 for j <= i <= j + k - 1, else 0
    sliding PSN  H[t] = sum_i w[i] X[t - k + 1 + i] + b   i = 0..k-1, w [k], b one number, nothing before the first step
    S = 1[H >= 0]                                         b is minus the threshold; surrogate: arctan, alpha 2

A PSN sees the future, so it cannot step. A masked PSN can once ``lam = 1`` (a queue keeps the last inputs), up to step T. A sliding PSN
can, for any length. ``order`` is k. Source: "Parallel Spiking Neurons with High Efficiency and Ability to Learn Long-term Dependencies"
(Fang et al., NeurIPS 2023) and its official code.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from methods.nn.stepping import FutureError, Stateful
from methods.nn.surrogate import Arctan, spike

GROUP = 16  # channels that a sliding PSN's convolution has at most
PIECE = 32  # steps of a piece that a sliding PSN's band matrix is for; it is as high as the order at least


class ParallelNeuron(Stateful):
    """What the family shares: spikes are ``1[H >= 0]`` of the potentials that ``charge`` computes.

    While ``rectify`` is set it is a ReLU instead, of any number of steps, so that the network can be trained as an ordinary one first.
    """

    spike_kind = "binary"
    surrogate = Arctan(2.0)
    rectify = False

    def charge(self, current: Tensor) -> Tensor:
        """Return the potentials minus threshold ``H [T, B, ...]`` of currents of that shape."""
        raise NotImplementedError

    def forward(self, current: Tensor) -> Tensor:
        """Return the spikes ``[T, B, ...]`` of a current of the same shape."""
        return F.relu(current) if self.rectify else spike(self.charge(current), self.surrogate)


class PSN(ParallelNeuron):
    """A learnable matrix over time. Kaiming uniform weights (a = sqrt 5), thresholds of 1.

    Raises RuntimeError inside ``stepping`` (it needs future inputs) and ValueError for a number of steps other than ``steps``.
    """

    def __init__(self, steps: int) -> None:
        """Make a layer for exactly ``steps`` time steps."""
        super().__init__()
        self.steps = steps
        self.weight = nn.Parameter(torch.empty(steps, steps))
        self.bias = nn.Parameter(torch.full((steps, 1), -1.0))
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))

    def matrix(self) -> Tensor:
        """Return the weights ``[T, T]`` that the potentials use."""
        return self.weight

    def charge(self, current: Tensor) -> Tensor:
        """Return ``W X + b``."""
        if self._stepping:
            raise FutureError("a PSN uses future inputs and cannot run step by step; use the masked or the sliding PSN")
        if len(current) != self.steps:
            raise ValueError(f"this {type(self).__name__} was made for {self.steps} time steps, got {len(current)}")
        return torch.addmm(self.bias, self.matrix(), current.flatten(1)).view_as(current)

    def extra_repr(self) -> str:
        """Return the settings for printing."""
        return f"steps={self.steps}"


class MaskedPSN(PSN):
    """A PSN whose matrix becomes a causal band of width ``order`` as ``lam`` goes from 0 to 1 during training.

    Inside ``stepping``, row t of the band is applied to a queue of the last inputs; RuntimeError while ``lam < 1`` (the matrix still uses
    the future) and after step T (there is no row). Raises ValueError for an order outside 1..T.
    """

    band: Tensor
    lam: Tensor

    def __init__(self, steps: int, order: int) -> None:
        """Make a layer; ``lam`` starts at 0."""
        super().__init__(steps)
        if not 1 <= order <= steps:
            raise ValueError(f"order {order} is not allowed; allowed: 1 to the number of steps, {steps}")
        self.order = order
        self.register_buffer("band", torch.ones(steps, steps).tril().triu(1 - order), persistent=False)
        self.register_buffer("lam", torch.zeros(()))

    def matrix(self) -> Tensor:
        """Return ``(lam M + (1 - lam)) * W``."""
        return (self.lam * self.band + (1 - self.lam)) * self.weight

    def charge(self, current: Tensor) -> Tensor:
        """Return the potentials of all steps, or inside ``stepping`` of the next ``len(current)`` ones."""
        if not self._stepping:
            return super().charge(current)
        if self.lam < 1:
            raise FutureError(f"a masked PSN uses future inputs while lam < 1 (lam = {float(self.lam):g}); it cannot run step by step yet")
        state = self.carried()
        inputs, start = (torch.cat([state[0], current]), int(state[1])) if state else (current, 0)
        stop = start + len(current)
        if stop > self.steps:
            raise RuntimeError(f"this MaskedPSN was made for {self.steps} time steps and cannot run step {stop}")
        rows = self.matrix()[start:stop, stop - len(inputs) : stop]
        self.carry(inputs[max(0, len(inputs) - self.order + 1) :], torch.tensor(stop))
        return torch.addmm(self.bias[start:stop], rows, inputs.flatten(1)).view_as(current)

    def extra_repr(self) -> str:
        """Return the settings for printing."""
        return f"steps={self.steps}, order={self.order}, lam={float(self.lam):g}"


class SlidingPSN(ParallelNeuron):
    """One kernel of ``order`` weights for all steps, for sequences of any length.

    ``exp_init``: weights ``2^-(k-1-i)``, that is ..., 1/4, 1/2, 1 (else Kaiming uniform, a = sqrt 5). ``backend``: "gemm" (one band matrix
    for all pieces of the sequence) or "conv" (a causal convolution over time, the same for all channels); time and memory of both are
    linear in T. Raises ValueError for an unknown backend or an order below 1.
    """

    def __init__(self, order: int, backend: Literal["gemm", "conv"] = "gemm", exp_init: bool = True) -> None:
        """Make a layer with threshold 1."""
        super().__init__()
        if backend not in ("gemm", "conv"):
            raise ValueError(f"backend {backend!r} is unknown; allowed: gemm, conv")
        if order < 1:
            raise ValueError(f"order {order} is not allowed; allowed: 1 and more")
        self.order, self.backend = order, backend
        self.weight = nn.Parameter(2.0 ** torch.arange(1 - order, 1))
        self.bias = nn.Parameter(torch.tensor(-1.0))
        if not exp_init:
            nn.init.kaiming_uniform_(self.weight.view(1, -1), a=math.sqrt(5))

    def charge(self, current: Tensor) -> Tensor:
        """Return the potentials of the steps of ``current``; inside ``stepping`` after the inputs of the calls before."""
        state = self.carried()
        flat = current.flatten(1)
        # Before the first step there is nothing: k - 1 rows of zeros.
        inputs = torch.cat([state[0], flat]) if state else F.pad(flat, (0, 0, self.order - 1, 0))
        self.carry(inputs[len(inputs) - self.order + 1 :])
        return (self._conv if self.backend == "conv" else self._gemm)(inputs).view_as(current)

    def _conv(self, inputs: Tensor) -> Tensor:
        # A convolution per channel of a channels-last image [1, C, T, N / C] runs ten times as fast as one of a single channel.
        channels = math.gcd(inputs.shape[1], GROUP)
        image = inputs.view(len(inputs), -1, channels).permute(2, 0, 1)[None]
        found = F.conv2d(image, self.weight.view(1, 1, -1, 1).expand(channels, -1, -1, -1), self.bias.expand(channels), groups=channels)
        return found[0].permute(1, 2, 0).flatten(1)

    def _gemm(self, inputs: Tensor) -> Tensor:
        steps = len(inputs) - self.order + 1
        piece = steps if steps <= 2 * PIECE else min(steps, max(PIECE, self.order))
        lag = torch.arange(piece + self.order - 1, device=inputs.device) - torch.arange(piece, device=inputs.device)[:, None]
        inside = (lag >= 0) & (lag < self.order)
        band = torch.where(inside, self.weight[lag.clamp(0, self.order - 1)], self.weight.new_zeros(()))
        if piece == steps:
            return torch.addmm(self.bias.view(1, 1), band, inputs)
        count = -(-steps // piece)
        inputs = F.pad(inputs, (0, 0, 0, count * piece - steps))
        windows = inputs.unfold(0, len(band[0]), piece).transpose(1, 2)  # [pieces, inputs of a piece, N]; each begins k - 1 steps early
        return (torch.bmm(band.expand(count, -1, -1), windows) + self.bias).flatten(0, 1)[:steps]

    def extra_repr(self) -> str:
        """Return the settings for printing."""
        return f"order={self.order}, backend={self.backend}"
