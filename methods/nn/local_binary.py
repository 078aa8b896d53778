"""Synapses that can be binarised one by one while a network trains, and stored as signs and scales afterwards.

With ``W`` the weight of a layer and ``n_c`` the weights of output channel c::

    B = alpha sign(W),  sign(0) = +1,  alpha = mean |W| per output channel       minimises ||W - a sign(W)||^2 over a
    dL/dW = dL/dB where |W| <= 1, else 0                                          straight-through, alpha taken as constant
    eps = ||W - B||^2 / ||W||^2 = 1 - sum_c (sum |W_c|)^2 / (n_c ||W||^2)         weight error; 1 - 2/pi for Gaussian weights

Three states: ``binary = False``, the input meets W; ``binary = True``, it meets B, and W is the latent weight that learns; after
``store()`` W is gone: the layer holds one bit per weight, eight in a byte, and one alpha per output channel, and nothing else. In each
state ``effective_weight`` is what the input meets, which is what meters look at.

Used by ALBSNN (Pei et al., Frontiers in Neuroscience 17:1225871); the scale is the rule of XNOR-Net (Rastegari et al., ECCV 2016), the
rest is ours, as no equation of the paper could be read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from methods.nn.synapse import Conv2d, DelayLine


def scales(weight: Tensor) -> Tensor:
    """Return alpha of a ``weight [out, ...]``, shaped to broadcast with it: ``[out, 1, ...]``."""
    return weight.abs().mean(tuple(range(1, weight.dim())), keepdim=True)


def binary_weight(weight: Tensor) -> Tensor:
    """Return ``B`` of a ``weight [out, ...]``, without gradient to it."""
    weight = weight.detach()
    return _signed(weight >= 0, scales(weight))


def weight_error(weight: Tensor) -> Tensor:
    """Return eps of a ``weight [out, ...]``, in [0, 1), by its closed form; 0 for a weight of zeros."""
    rows = weight.detach().flatten(1)
    explained, total = (rows.abs().sum(1).square() / rows.shape[1]).sum(), rows.square().sum()
    return torch.where(total > 0, 1 - explained / total, 0.0)


def _signed(positive: Tensor, alpha: Tensor) -> Tensor:
    return torch.where(positive, alpha, -alpha)


class _Binarise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor) -> Tensor:
        ctx.save_for_backward(weight)
        return binary_weight(weight)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (weight,) = ctx.saved_tensors
        return grads[0] * (weight.abs() <= 1)


class LocalBinary(nn.Module):
    """What the synapses below share. ``binary`` says whether they are binarised; ``protected`` that they are not to be chosen for it."""

    signs: Tensor  # after ``store``: uint8, eight weights in each; the last may have bits to spare
    alpha: Tensor  # after ``store``: [out, 1, ...]
    protected = False
    binary = False
    _kept: dict[LocalBinary, Tensor] | None = None

    @property
    def weight(self) -> Tensor:
        """The weight that learns; of a stored layer that which is stored, ``alpha * sign``, made anew by each call."""
        latent = self._parameters.get("weight")
        return self._unpacked() if latent is None else latent

    @property
    def stored(self) -> bool:
        """Whether signs and scales are all that is left of the weight."""
        return self._parameters["weight"] is None

    @property
    def effective_weight(self) -> Tensor:
        """The weight that the input meets, ``[out, ...]``."""
        weight = _Binarise.apply(self.weight) if self.binary and not self.stored else self.weight
        if self._kept is not None:
            self._kept[self] = weight
        return weight

    @torch.no_grad()
    def store(self) -> None:
        """Keep signs and scales only, if the layer is binarised; what it answers stays the same."""
        if not self.binary or self.stored:
            return
        weight = self.weight
        positive = (weight >= 0).flatten()
        self._shape = weight.shape
        bits = F.pad(positive, (0, -positive.numel() % 8)).view(-1, 8)
        self.register_buffer("signs", (bits * 2 ** torch.arange(8, device=bits.device)).sum(1).to(torch.uint8))
        self.register_buffer("alpha", scales(weight))
        self.register_parameter("weight", None)

    def _unpacked(self) -> Tensor:
        bits = self.signs[:, None] >> torch.arange(8, dtype=torch.uint8, device=self.signs.device) & 1
        return _signed(bits.bool().flatten()[: self._shape.numel()].view(self._shape), self.alpha)

    def bits(self, binary: bool) -> int:
        """Return the bits that the weight takes: 32 each, or 1 each and 32 per alpha."""
        count, channels = self.weight.numel(), len(self.weight)
        return count + 32 * channels if binary else 32 * count

    def stored_bits(self) -> int:
        """Return the bits of the tensors that the layer holds for its weight, the latent weight of one that is not stored included."""
        held = (self.signs, self.alpha) if self.stored else (self.weight,)
        return sum(8 * part.numel() * part.element_size() for part in held)


class LocalBinaryConv2d(LocalBinary, Conv2d):
    """``[T, B, C, H, W] -> [T, B, C', H', W']``."""

    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return super()._conv_forward(x, self.effective_weight, bias)


class LocalBinaryConv1d(LocalBinary, nn.Conv1d):
    """The convolution over time of a ``LocalBinaryDelayLine``: ``[B, in, L] -> [B, out, L']``."""

    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return super()._conv_forward(x, self.effective_weight, bias)


class LocalBinaryLinear(LocalBinary, nn.Linear):
    """``[..., in] -> [..., out]``."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the map of ``x``."""
        return F.linear(x, self.effective_weight, self.bias)


class LocalBinaryDelayLine(DelayLine):
    """A ``DelayLine`` whose taps are binarised together, one alpha per output: ``[T, B, in] -> [T, B, out]``."""

    def __init__(self, features_in: int, features_out: int, taps: int, dilation: int, bias: bool = True) -> None:
        """Make ``taps`` weight matrices, ``dilation`` steps apart."""
        super().__init__(features_in, features_out, taps, dilation, bias)
        self.conv = LocalBinaryConv1d(features_in, features_out, taps, dilation=dilation, bias=bias)
        self.conv.over_time = True  # for the meter of operations


def local_binary_layers(net: nn.Module) -> dict[str, LocalBinary]:
    """Return the synapses of ``net`` that can be binarised, by name."""
    return {name: module for name, module in net.named_modules() if isinstance(module, LocalBinary)}


@contextmanager
def weights_in_use(layers: Iterable[LocalBinary]) -> Iterator[dict[LocalBinary, Tensor]]:
    """Collect the weights that inputs meet, with their graph: gradients at them are not masked.

    ::

        with weights_in_use(layers) as used:
            loss = ...
        torch.autograd.grad(loss, list(used.values()))
    """
    layers, used = list(layers), {}
    for layer in layers:
        layer._kept = used
    try:
        yield used
    finally:
        for layer in layers:
            layer._kept = None
