"""Batch normalisation of every time step by its own statistics, with affine weights and running statistics that all steps share.

For currents ``x[t]`` of channel ``c``::

    y[t] = weight * (x[t] - mean[t]) / sqrt(var[t] + eps) + bias    mean, var: over batch and space of step t; in eval mode running
    running = (1 - momentum) * running + momentum * (that of step t)  T times per forward pass, in order

It is what a ``BatchNorm2d`` computes that is called once per time step, as in the official code of STL-SNN. ``BatchNorm`` takes its
statistics over all steps together instead, and BNTT has affine weights and running statistics for each step.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from methods.nn.norm import BatchNorm


class StepBatchNorm(BatchNorm):
    """Batch normalisation of currents ``[T, B, C, ...]``, step by step in training mode."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalised ``x``."""
        steps = len(x)
        if steps > 1 and x.stride(0) == 0:  # the same at every step: normalised once, for running statistics as if T times
            once = self._normalised(x[0], 1 - (1 - self.momentum) ** steps) if self.training else super().forward(x[:1])[0]
            return once.expand(x.shape)
        if not self.training or steps == 1:
            return super().forward(x)
        return torch.stack([self._normalised(now, self.momentum) for now in x.unbind(0)])

    def _normalised(self, now: Tensor, momentum: float) -> Tensor:
        weight = self.weight if self.scale == 1.0 else self.weight * self.scale
        return F.batch_norm(now, self.running_mean, self.running_var, weight, self.bias, True, momentum, self.eps)
