"""Normalisation of currents ``[T, B, C, ...]`` per channel C."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class BatchNorm(nn.Module):
    """Batch normalisation with statistics over time, batch and space together, times a fixed ``scale``.

    ``y = weight * scale * (x - mean) / sqrt(var + eps) + bias``. With ``scale = 1`` it is ordinary batch
    normalisation of ``[T*B, C, ...]``. With ``scale = alpha * threshold`` it is tdBN: "Going deeper with directly-trained larger
    spiking neural networks" (Zheng et al., AAAI 2021); alpha is 1 on a chain and 1/sqrt(2) on each of two branches that are added.
    """

    def __init__(self, features: int, scale: float = 1.0, eps: float = 1e-5, momentum: float = 0.1) -> None:
        """Make a normalisation of ``features`` channels."""
        super().__init__()
        self.scale, self.eps, self.momentum = scale, eps, momentum
        self.weight = nn.Parameter(torch.ones(features))
        self.bias = nn.Parameter(torch.zeros(features))
        self.register_buffer("running_mean", torch.zeros(features))
        self.register_buffer("running_var", torch.ones(features))

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalised ``x [T, B, C, ...]``."""
        weight = self.weight if self.scale == 1.0 else self.weight * self.scale
        y = F.batch_norm(x.flatten(0, 1), self.running_mean, self.running_var, weight, self.bias, self.training, self.momentum, self.eps)
        return y.unflatten(0, x.shape[:2])

    def affine(self) -> tuple[Tensor, Tensor]:
        """Return ``(a, b)`` per channel such that in eval mode ``y = a * x + b``."""
        a = self.weight * self.scale / torch.sqrt(self.running_var + self.eps)
        return a, self.bias - a * self.running_mean
