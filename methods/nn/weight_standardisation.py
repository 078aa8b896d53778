"""Scaled weight standardisation (sWS): synapses that keep the variance of signals, so that no normalisation of currents is needed.

With ``W`` the free weight of an output channel, ``N`` its fan-in and ``gain`` one learnable number per output channel::

    W_hat = gain * (W - mean(W)) / sqrt(var(W) * N + eps)        eps = 1e-4, unbiased variance

so an input of unit variance and zero mean gives a current of variance ``gain^2``. Spikes have neither: before every weight they are
multiplied by a constant, ``SPIKE_SCALE``, which gives them unit variance. That constant is kept inside the synapse (``input_scale``), in
``effective_weight``, because what a neuron emits must stay exactly 0/1 and because a scaled weight is what a spike costs one addition of.

Source: the networks of "Online Training Through Time for Spiking Neural Networks" (Xiao et al., NeurIPS 2022), after "Characterizing
signal propagation to close the performance gap in unnormalized ResNets" (Brock et al., ICLR 2021). Derivation of the constant: ours.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from methods.nn.synapse import Conv2d, DelayLine

SPIKE_SCALE = 2.74  # a standard normal current reaches threshold 1 with chance p = 0.1587; 1 / sqrt(p * (1 - p)) = 2.737
EPS = 1e-4


def standardise(weight: Tensor, gain: Tensor, eps: float = EPS) -> Tensor:
    """Return ``weight [out, ...]`` with mean 0 and variance ``gain^2 / fan_in`` per output channel; ``gain [out]``."""
    rows = weight.flatten(1)
    variance, mean = torch.var_mean(rows, dim=1, keepdim=True)
    scale = gain[:, None] * torch.rsqrt(variance * rows.shape[1] + eps)
    return ((rows - mean) * scale).view_as(weight)


def _kaiming_fan_out(conv: nn.Conv1d | nn.Conv2d) -> None:
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)


def _gain(weight: Tensor) -> nn.Parameter:
    if weight[0].numel() < 2:
        raise ValueError(f"a weight of shape {tuple(weight.shape)} has a fan-in of 1: it has no variance to standardise")
    return nn.Parameter(weight.new_ones(len(weight)))


class ScaledLinear(nn.Linear):
    """A linear read-out of spikes that counts each as ``input_scale``; weights start as N(0, 0.01^2), biases at 0."""

    def __init__(self, features_in: int, features_out: int, input_scale: float = SPIKE_SCALE, bias: bool = True) -> None:
        """Make the synapse."""
        super().__init__(features_in, features_out, bias)
        self.input_scale = input_scale
        nn.init.normal_(self.weight, std=0.01)
        if bias:
            nn.init.zeros_(self.bias)

    @property
    def effective_weight(self) -> Tensor:
        """The weight that the input meets, ``[out, in]``."""
        return self.weight * self.input_scale

    def forward(self, x: Tensor) -> Tensor:
        """Return ``[..., out]`` of ``x [..., in]``."""
        return nn.functional.linear(x, self.effective_weight, self.bias)


class ScaledConv2d(Conv2d):
    """A convolution of spikes ``[T, B, C, H, W]`` that counts each as ``input_scale``; no standardisation."""

    def __init__(
        self, features_in: int, features_out: int, kernel: int, stride: int = 1, input_scale: float = SPIKE_SCALE, bias: bool = True
    ) -> None:
        """Make the synapse; it keeps the size at stride 1."""
        super().__init__(features_in, features_out, kernel, stride=stride, padding=kernel // 2, bias=bias)
        self.input_scale = input_scale
        _kaiming_fan_out(self)

    @property
    def effective_weight(self) -> Tensor:
        """The weight that the input meets, ``[out, in, k, k]``."""
        return self.weight * self.input_scale

    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return super()._conv_forward(x, self.effective_weight, bias)


class StandardisedConv2d(ScaledConv2d):
    """An sWS convolution with a bias: ``[T, B, C, H, W] -> [T, B, C', H', W']``. Raises ValueError when its fan-in is 1."""

    def __init__(self, features_in: int, features_out: int, kernel: int, stride: int = 1, input_scale: float = SPIKE_SCALE) -> None:
        """Make the synapse; ``input_scale`` is 1 where the input is data, not spikes."""
        super().__init__(features_in, features_out, kernel, stride, input_scale)
        self.gain = _gain(self.weight)

    @property
    def effective_weight(self) -> Tensor:
        """``input_scale * W_hat``, ``[out, in, k, k]``."""
        return standardise(self.weight, self.gain * self.input_scale)


class StandardisedConv1d(nn.Conv1d):
    """The sWS convolution over time of a ``StandardisedDelayLine``: ``[B, in, L] -> [B, out, L']``."""

    def __init__(self, features_in: int, features_out: int, taps: int, dilation: int, input_scale: float) -> None:
        """Make the weights."""
        super().__init__(features_in, features_out, taps, dilation=dilation)
        self.input_scale = input_scale
        _kaiming_fan_out(self)
        self.gain = _gain(self.weight)

    @property
    def effective_weight(self) -> Tensor:
        """``input_scale * W_hat``, ``[out, in, taps]``."""
        return standardise(self.weight, self.gain * self.input_scale)

    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return super()._conv_forward(x, self.effective_weight, bias)


class StandardisedDelayLine(DelayLine):
    """A ``DelayLine`` with sWS over inputs and taps together, and a bias: ``[T, B, in] -> [T, B, out]`` (ours)."""

    def __init__(self, features_in: int, features_out: int, taps: int, dilation: int, input_scale: float = SPIKE_SCALE) -> None:
        """Make ``taps`` weight matrices, ``dilation`` steps apart."""
        super().__init__(features_in, features_out, taps, dilation)
        self.conv = StandardisedConv1d(features_in, features_out, taps, dilation, input_scale)
