"""Surrogate gradients: what stands in for the derivative of the spike ``H(d)``, ``d = u - theta``.

A surrogate is a callable ``d -> h(d)``. Each class gives its formula and its primitive ``P(d)``, ``P(0) = 0``, the smooth step whose
derivative it is; the integral over all d is ``scale`` where there is one, else 1, so that widths can be compared.
Formulas: STBP (Wu et al. 2018, Frontiers in Neuroscience 12:331) for rectangle, polynomial, sigmoid and Gauss.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor


class Surrogate(Protocol):
    """The derivative that the backward pass uses in place of that of the step function."""

    def __call__(self, d: Tensor) -> Tensor:
        """Return ``h(d)`` for distances ``d`` from the threshold."""


@dataclass(frozen=True)
class Rectangle:
    """``1[|d| < width/2] / width``; integral 1, ``P(d) = clamp(d / width, -1/2, 1/2)``."""

    width: float = 1.0

    def __call__(self, d: Tensor) -> Tensor:
        """Return ``h(d)``."""
        return (d.abs() < self.width / 2).to(d.dtype) / self.width


@dataclass(frozen=True)
class Triangle:
    """``scale * max(0, width - |d|) / width^2``; integral ``scale``.

    ``P(d) = scale * (d / width - d|d| / (2 width^2))`` for ``|d| < width``, then ``+-scale / 2``: piecewise quadratic.
    """

    width: float = 1.0
    scale: float = 1.0

    def __call__(self, d: Tensor) -> Tensor:
        """Return ``h(d)``."""
        return (self.width - d.abs()).clamp_min(0) * (self.scale / self.width**2)


@dataclass(frozen=True)
class Polynomial:
    """``max(0, sqrt(a)/2 - a|d|/4)``; integral 1. The same function as ``Triangle(2 / sqrt(a))``, in STBP's notation."""

    a: float = 1.0

    def __call__(self, d: Tensor) -> Tensor:
        """Return ``h(d)``."""
        return (math.sqrt(self.a) / 2 - self.a / 4 * d.abs()).clamp_min(0)


@dataclass(frozen=True)
class Sigmoid:
    """``alpha * sig(alpha d) * (1 - sig(alpha d))``; integral 1, ``P(d) = sig(alpha d) - 1/2``. STBP writes ``a = 1/alpha``."""

    alpha: float = 4.0

    def __call__(self, d: Tensor) -> Tensor:
        """Return ``h(d)``."""
        s = torch.sigmoid(self.alpha * d)
        return self.alpha * s * (1 - s)


@dataclass(frozen=True)
class Gauss:
    """``exp(-d^2 / (2a)) / sqrt(2 pi a)``, the normal density of variance ``a``; integral 1, ``P(d) = erf(d / sqrt(2a)) / 2``."""

    a: float = 0.5

    def __call__(self, d: Tensor) -> Tensor:
        """Return ``h(d)``."""
        return torch.exp(-d * d / (2 * self.a)) / math.sqrt(2 * math.pi * self.a)


@dataclass(frozen=True)
class Arctan:
    """``(alpha/2) / (1 + (pi/2 * alpha * d)^2)``; integral 1, ``P(d) = atan(pi/2 * alpha * d) / pi``."""

    alpha: float = 2.0

    def __call__(self, d: Tensor) -> Tensor:
        """Return ``h(d)``."""
        return (self.alpha / 2) / (1 + (math.pi / 2 * self.alpha * d) ** 2)


@dataclass(frozen=True)
class FastSigmoid:
    """``scale * (alpha/2) / (1 + alpha|d|)^2``; integral ``scale``, ``P(d) = scale/2 * alpha d / (1 + alpha|d|)``.

    snnTorch leaves the factor out: its ``1 / (1 + k|d|)^2`` of slope k has the integral 2/k and is ``FastSigmoid(k, 2 / k)``.
    Source: "SuperSpike: Supervised learning in multilayer spiking neural networks" (Zenke and Ganguli 2018), section 3.
    """

    alpha: float = 2.0
    scale: float = 1.0

    def __call__(self, d: Tensor) -> Tensor:
        """Return ``h(d)``."""
        return (self.scale * self.alpha / 2) / (1 + self.alpha * d.abs()) ** 2


def piecewise_quadratic(alpha: float = 1.0) -> Triangle:
    """Return ``max(0, alpha - alpha^2 |d|)``: ``Triangle(1 / alpha)``, under the name that SpikingJelly gives it, after its primitive.

    Integral 1. The same as ``Polynomial(4 alpha^2)``.
    """
    return Triangle(1 / alpha)


SURROGATES: dict[str, Surrogate] = {
    "rectangle": Rectangle(),
    "triangle": Triangle(),
    "polynomial": Polynomial(),
    "sigmoid": Sigmoid(),
    "gauss": Gauss(),
    "arctan": Arctan(),
    "fast_sigmoid": FastSigmoid(),
    "piecewise_quadratic": piecewise_quadratic(),
}


class _Spike(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, d: Tensor, surrogate: Surrogate, strict: bool) -> Tensor:
        ctx.save_for_backward(d)
        ctx.surrogate = surrogate
        # A NaN current gives a NaN spike: a comparison alone would turn it into silence.
        fired = (d > 0) if strict else (d >= 0)
        return fired.to(d.dtype).masked_fill_(d.isnan(), math.nan)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (d,) = ctx.saved_tensors
        return grads[0] * ctx.surrogate(d), None, None


def spike(d: Tensor, surrogate: Surrogate, strict: bool = False) -> Tensor:
    """Return 1 where ``d >= 0`` (``strict``: ``d > 0``), else 0, with ``surrogate(d)`` as derivative.

    Papers differ in what happens exactly at threshold, hence the flag. NaN stays NaN.
    """
    return _Spike.apply(d, surrogate, strict)
