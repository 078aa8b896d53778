"""Intersection over union of segmented pixels."""

from __future__ import annotations

import math

import torch
from torch import Tensor

RIGHT = 0.75  # mean IoU of an image


class MeanIou:
    """Mean over classes of intersection over union, pixels of all images counted together, as in VOC; the item is the image.

    A class that neither truth nor answers hold is left out of the mean. An image counts as right when its own mean IoU, over the classes
    that it or its answer holds, is at least 0.75; single pixels are too many, and too alike, to be items.
    """

    def __init__(self, classes: int, ignored: int = 255) -> None:
        """Start empty; pixels whose class is ``ignored`` are not counted."""
        self.classes, self.ignored = classes, ignored
        self._counts: list[Tensor] = []  # per image [true, answered]

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        """Add logits ``[B, K, H, W]`` to classes ``[B, H, W]``. Logits that are not numbers answer class 0."""
        answers = outputs.nan_to_num(-math.inf).argmax(1)
        for answer, truth in zip(answers, targets.long(), strict=True):
            known = truth != self.ignored
            pairs = truth[known] * self.classes + answer[known]
            self._counts.append(pairs.bincount(minlength=self.classes**2).view(self.classes, self.classes))

    def compute(self) -> dict[str, float]:
        """Return ``miou`` and ``pixel_accuracy``; not a number where no pixel was counted."""
        counts = torch.stack(self._counts).sum(0)
        total = int(counts.sum())
        return {"miou": mean_iou(counts), "pixel_accuracy": int(counts.diagonal().sum()) / total if total else math.nan}

    def correct(self) -> list[bool]:
        """Return for each image whether its own mean IoU is at least 0.75; an image without a counted pixel is wrong."""
        return [mean_iou(counts) >= RIGHT for counts in self._counts]


def mean_iou(counts: Tensor) -> float:
    """Return the mean over the classes that occur of the IoU that a matrix of counts ``[true, answered]`` says; NaN if none occurs."""
    shared = counts.diagonal().double()
    either = counts.sum(0) + counts.sum(1) - counts.diagonal()
    occurs = either > 0
    return (shared[occurs] / either[occurs]).mean().item() if occurs.any() else math.nan
