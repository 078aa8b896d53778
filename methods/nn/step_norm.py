"""Batch normalisation at each step: a step's own batch statistics in training, one set of running statistics for all steps."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from methods.nn.norm import BatchNorm


class StepBatchNorm(BatchNorm):
    """``nn.BatchNorm2d`` applied to one step ``[B, C, ...]`` after the other.

    In training step t is normalised over batch and space by its own statistics, and the running statistics are updated once per step, in
    order; in eval mode it is ``BatchNorm``. This is what a network does that loops over time outside of its layers.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalised ``x [T, B, C, ...]``."""
        if not self.training:
            return super().forward(x)
        weight = self.weight * self.scale
        steps = [
            F.batch_norm(now, self.running_mean, self.running_var, weight, self.bias, True, self.momentum, self.eps) for now in x.unbind(0)
        ]
        return torch.stack(steps)
