"""Tasks whose answer is one or more numbers: squared error, and four measures of error.

For ``N`` answers ``a`` to targets ``y`` of ``K`` numbers each, and the mean ``m[k]`` of the targets that are scored::

    mse  = mean (y - a)^2                       mae = mean |y - a|
    rrse = sqrt( sum (y - a)^2 / sum (y - m)^2 )
    r2   = mean over k of  1 - sum_n (y - a)^2 / sum_n (y - m)^2

so that answering the mean has ``rrse = 1`` and ``r2 = 0``. Both are what forecasts of spiking networks are compared by: "Efficient and
effective time-series forecasting with spiking neural networks" (Lv et al., ICML 2024); the mean per number is ours.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from harness.plugin import UsageError
from harness.task import Task

INFINITE = float("inf")


class Errors:
    """Adds up errors; the item is the sample, which is right if its mean absolute error is below ``tolerance``."""

    def __init__(self, main: str, tolerance: float) -> None:
        """Start empty; ``main`` is the metric that comes first."""
        self.main, self.tolerance = main, tolerance
        self.count = 0
        self.squared = self.absolute = self.sum = self.sum_of_squares = torch.zeros(())
        self._correct: list[Tensor] = []

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        """Add answers ``[B, K]`` to targets of as many numbers ``[B, ...]``; an answer that is not a number is infinitely wrong."""
        wanted = targets.flatten(1).double()
        error = torch.nan_to_num((outputs.flatten(1).double() - wanted).abs(), nan=INFINITE, posinf=INFINITE)
        self.count += len(wanted)
        self.squared = self.squared + error.square().sum(0)
        self.absolute = self.absolute + error.sum(0)
        self.sum = self.sum + wanted.sum(0)
        self.sum_of_squares = self.sum_of_squares + wanted.square().sum(0)
        self._correct.append(error.mean(1) < self.tolerance)

    def compute(self) -> dict[str, float]:
        """Return mse, mae, rrse and r2. Of a number that never changes, r2 is 1 if it is answered exactly, else 0, as in scikit-learn."""
        spread = (self.sum_of_squares - self.sum.square() / self.count).clamp(min=0)
        constant = spread <= 1e-12 * self.sum_of_squares
        spread = spread.masked_fill(constant, 0)
        exact = (self.squared == 0).double()
        r2 = torch.where(constant, exact, 1 - self.squared / spread.masked_fill(constant, 1))
        total, error = spread.sum().item(), self.squared.sum().item()
        relative = (error / total) ** 0.5 if total else (INFINITE if error else 0.0)
        found = {
            "mse": (self.squared / self.count).mean().item(),
            "mae": (self.absolute / self.count).mean().item(),
            "rrse": relative,
            "r2": r2.mean().item(),
        }
        return {self.main: found[self.main]} | found

    def correct(self) -> list[bool]:
        """Return for each sample whether its error is within the tolerance."""
        return torch.cat(self._correct).tolist()


class NumericTask(Task):
    """A task whose targets are numbers ``[B, ...]``; a head "regress" answers as many."""

    metric = "mse"
    tolerance: float  # mean absolute error below which a sample counts as right

    def loss(self, output: Tensor, targets: Tensor, label_smoothing: float = 0.0) -> Tensor:
        """Return the mean squared error of ``output [B, K]``; raise UsageError for label smoothing, as there are no labels."""
        if label_smoothing:
            raise UsageError(f"{self.card.name} has numbers for targets; label_smoothing = {label_smoothing:g} is for classes, set it to 0")
        return F.mse_loss(output.flatten(1), targets.flatten(1))

    def scorer(self) -> Errors:
        """Return an accumulator of errors."""
        return Errors(self.metric, self.tolerance)
