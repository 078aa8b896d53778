"""Semantic segmentation: the class of every pixel, presented directly at every time step.

Pixels of class 255 are neither asked nor counted (borders of objects in VOC; what lies beside an image that was fitted to a size).
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from suites.letterbox import IGNORED
from suites.mean_iou import MeanIou
from suites.pictures import Pictures


class SegmentationTask(Pictures):
    """A task of stored bytes ``[B, C, H, W]`` whose targets are classes of pixels ``[B, H, W]`` (bytes)."""

    metric = "miou"

    def loss(self, output: Tensor, targets: Tensor, label_smoothing: float = 0.0) -> Tensor:
        """Return the mean over counted pixels of the cross-entropy of logits ``[B, K, H, W]``; 0 where no pixel counts."""
        targets = targets.long()
        total = F.cross_entropy(output.float(), targets, ignore_index=IGNORED, reduction="sum", label_smoothing=label_smoothing)
        return total / (targets != IGNORED).sum().clamp_min(1)

    def scorer(self) -> MeanIou:
        """Return an accumulator of intersection over union."""
        return MeanIou(self.head.classes, IGNORED)
