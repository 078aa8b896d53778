"""Synapses of two branches: normalised convolutions whose statistics are folded into the spiking branch, and read-outs of spike counts.

A convolution ``W, b`` with its batch normalisation ``gamma, beta, mean, var`` (running statistics), for T time steps::

    spiking branch   I[t] = a W * s[t] + (a (b - mean) + beta) / T        a = gamma / sqrt(var + eps), without a graph
    ANN branch       z = BN(W * c + b)                                    batch statistics in training mode

so that in eval mode ``sum_t I[t] = z`` for ``c = sum_t s[t]``. Sources: "A Tandem Learning Rule for Effective Training and Rapid Inference
of Deep Spiking Neural Networks" (Wu et al., IEEE TNNLS 34(1), 2023); "SNN2ANN" (Tang et al., arXiv 2206.09449); their official codes.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from methods.nn.norm import BatchNorm
from methods.nn.pair import Pair, over_time
from methods.nn.synapse import Conv2d


class PairedConv2d(Conv2d):
    """A convolution and its normalisation on ``[T, B, C, H, W]`` or a ``Pair`` of such; see the module's docstring.

    A tensor goes through the spiking branch. ``fresh``: the ANN branch runs first, so that in training the spiking branch folds statistics
    that know the batch at hand; otherwise those before it. With ``relu`` set the layer belongs to an ANN: time is summed up,
    ``[T, B, ...] -> [1, B, ...]``, and the answer is z.
    """

    def __init__(
        self, features_in: int, features_out: int, kernel: int, stride: int, steps: int, norm: BatchNorm, fresh: bool = False
    ) -> None:
        """Make a convolution with bias that keeps the size at stride 1, for ``steps`` time steps."""
        super().__init__(features_in, features_out, kernel, stride=stride, padding=kernel // 2)
        self.steps, self.norm, self.fresh = steps, norm, fresh
        self.relu = False

    def folded(self) -> tuple[Tensor, Tensor]:
        """Return weights and bias of the spiking branch."""
        assert self.bias is not None
        a, c = self.norm.affine()
        return a.view(-1, 1, 1, 1) * self.weight, (a * self.bias + c) / self.steps

    @property
    def effective_weight(self) -> Tensor:
        """The weights that spikes meet, for the meter of operations."""
        return self.folded()[0]

    def forward(self, x: Tensor | Pair) -> Tensor | Pair:  # type: ignore[override]
        """Return currents, or a pair of currents and z."""
        if not isinstance(x, Pair):
            return self._activation(over_time(x)) if self.relu else super().forward(x)
        if self.fresh:
            z = self._activation(x.counts)
            return Pair(self._currents(x.spikes), z)
        currents = self._currents(x.spikes)
        return Pair(currents, self._activation(x.counts))

    @torch.no_grad()
    def _currents(self, spikes: Tensor) -> Tensor:
        return super().forward(spikes)

    def _activation(self, counts: Tensor) -> Tensor:
        z = nn.Conv2d._conv_forward(self, counts.flatten(0, 1), self.weight, self.bias)
        return self.norm(z.unflatten(0, counts.shape[:2]))

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return super()._conv_forward(input, *self.folded())


class _Readout(nn.Module):
    """The gain of a read-out ``gain * W c + b``; of the spikes of a step it is ``gain T W s + b``, whose mean over time is the same."""

    gain: float
    steps: int
    relu: bool
    weight: Tensor

    def _count_gain(self, gain: float, steps: int) -> None:
        self.gain, self.steps, self.relu = gain, steps, False

    def _prepared(self, x: Tensor | Pair) -> tuple[Tensor, Tensor]:
        """Return the input and the weights to use on it."""
        if isinstance(x, Pair):
            return x.counts, self.gain * self.weight
        if self.relu:
            return over_time(x), self.gain * self.weight
        return x, self.weight if self.gain * self.steps == 1 else self.gain * self.steps * self.weight


class PairedLinear(nn.Linear, _Readout):
    """A linear read-out: of a ``Pair`` the answers of the ANN branch ``[1, B, F]``, of spikes those of every step ``[T, B, F]``."""

    def __init__(self, features_in: int, features_out: int, gain: float, steps: int) -> None:
        """Make the read-out ``gain * W c + b`` of counts c over ``steps`` time steps."""
        super().__init__(features_in, features_out)
        self._count_gain(gain, steps)

    def forward(self, x: Tensor | Pair) -> Tensor:  # type: ignore[override]
        """Return the answers."""
        return F.linear(*self._prepared(x), self.bias)


class PairedReadout2d(nn.Conv2d, _Readout):
    """A 1x1 convolution as the read-out at every place: ``[1, B, F, H, W]`` of a ``Pair``, ``[T, B, F, H, W]`` of spikes."""

    def __init__(self, features_in: int, features_out: int, gain: float, steps: int) -> None:
        """Make the read-out ``gain * W c + b`` of counts c over ``steps`` time steps."""
        super().__init__(features_in, features_out, 1)
        self._count_gain(gain, steps)

    def forward(self, x: Tensor | Pair) -> Tensor:  # type: ignore[override]
        """Return the answers."""
        given, weight = self._prepared(x)
        return self._conv_forward(given.flatten(0, 1), weight, self.bias).unflatten(0, given.shape[:2])
