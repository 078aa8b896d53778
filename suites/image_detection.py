"""Detection in photographs and micrographs: bytes become normalised numbers, images are mirrored, images may have any number of objects."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from harness.task import Batch
from suites.detection import DetectionTask
from suites.flips import Axis, mirrored
from suites.image_files import padded


class ImageDetection(DetectionTask):
    """A task of stored bytes ``[B, C, H, W]`` and boxes ``[B, M, 5]``.

    Attributes: ``mean`` and ``deviation`` per channel, of pixels in [0, 1]; ``flips`` are the axes along which an image of this kind may
    be mirrored and stay one.
    """

    candidates = 1000  # as in FCOS: an object is answered by up to 9 locations, and there may be dozens of objects
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)  # of ImageNet's photographs, the custom of torchvision's models
    deviation: tuple[float, ...] = (0.229, 0.224, 0.225)
    flips: tuple[Axis, ...] = ("horizontal",)

    def prepare(self, inputs: Tensor) -> Tensor:
        """Return bytes ``[B, C, H, W]`` as numbers of about mean 0 and variance 1."""
        mean, deviation = (torch.tensor(values, device=inputs.device).view(-1, 1, 1) for values in (self.mean, self.deviation))
        return (inputs.float() / 255 - mean) / deviation

    def augment(self, batch: Batch, generator: torch.Generator) -> Batch:
        """Return the batch mirrored at random, boxes with their images."""
        return mirrored(batch, generator, self.flips)

    def collate(self, samples: Sequence[tuple[Any, Any]]) -> tuple[Tensor, Tensor]:
        """Return the images and boxes of some samples, filled up to the largest number of boxes among them."""
        return torch.stack([image for image, _ in samples]), padded([boxes[boxes[:, 0] != -1] for _, boxes in samples])
