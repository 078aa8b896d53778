"""Detection in photographs and micrographs, which may hold any number of objects."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from suites.annotated_images import padded
from suites.detection import DetectionTask
from suites.pictures import Pictures


class ImageDetection(Pictures, DetectionTask):
    """A task of stored bytes ``[B, C, H, W]`` and boxes ``[B, M, 5]``."""

    candidates = 1000  # as in FCOS: an object is answered by up to 9 locations, and there may be dozens of objects

    def collate(self, samples: Sequence[tuple[Any, Any]]) -> tuple[Tensor, Tensor]:
        """Return the images and boxes of some samples, filled up to the largest number of boxes among them."""
        return torch.stack([image for image, _ in samples]), padded([boxes[boxes[:, 0] != -1] for _, boxes in samples])
