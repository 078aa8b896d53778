"""What tasks of photographs and micrographs share: bytes become normalised numbers, and training images are mirrored."""

from __future__ import annotations

import torch
from torch import Tensor

from harness.task import Batch, Task
from suites.flips import Axis, mirrored


class Pictures(Task):
    """A task of stored bytes ``[B, C, H, W]`` with boxes ``[B, M, 5]`` or masks ``[B, H, W]``; put it before the task's kind.

    Attributes: ``mean`` and ``deviation`` per channel, of pixels in [0, 1]; ``flips`` are the axes along which an image of this kind may
    be mirrored and stay one.
    """

    mean: tuple[float, ...] = (0.485, 0.456, 0.406)  # of ImageNet's photographs, the custom of torchvision's models
    deviation: tuple[float, ...] = (0.229, 0.224, 0.225)
    flips: tuple[Axis, ...] = ("horizontal",)

    def prepare(self, inputs: Tensor) -> Tensor:
        """Return bytes ``[B, C, H, W]`` as numbers of about mean 0 and variance 1."""
        mean, deviation = (torch.tensor(values, device=inputs.device).view(-1, 1, 1) for values in (self.mean, self.deviation))
        return (inputs.float() / 255 - mean) / deviation

    def augment(self, batch: Batch, generator: torch.Generator) -> Batch:
        """Return the batch mirrored at random, boxes and masks with their images."""
        return mirrored(batch, generator, self.flips)
