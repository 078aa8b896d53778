"""What all classification tasks share: cross-entropy and top-1 accuracy."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from harness.task import Task


class Accuracy:
    """Top-1 accuracy; the item is the sample."""

    def __init__(self) -> None:
        """Start empty."""
        self._correct: list[Tensor] = []

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        """Add logits ``[B, K]`` for classes ``[B]``; a sample whose logits are not numbers is wrong."""
        right = (outputs.argmax(1) == targets) & outputs.isfinite().all(1)
        self._correct.append(right)

    def compute(self) -> dict[str, float]:
        """Return the fraction that was right."""
        return {"accuracy": torch.cat(self._correct).double().mean().item()}

    def correct(self) -> list[bool]:
        """Return for each sample whether it was right."""
        return torch.cat(self._correct).tolist()


class ClassificationTask(Task):
    """A task whose target is one class per sample."""

    metric = "accuracy"

    def loss(self, output: Tensor, targets: Tensor, label_smoothing: float = 0.0) -> Tensor:
        """Return the cross-entropy of logits ``[B, K]`` and classes ``[B]``."""
        return F.cross_entropy(output, targets, label_smoothing=label_smoothing)

    def scorer(self) -> Accuracy:
        """Return an accuracy accumulator."""
        return Accuracy()
