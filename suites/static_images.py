"""``StaticTask``: classification of images that stay as they are while the network runs; the encoding is an option.

A task of this kind says where its images come from::

    class Mnist(StaticTask):
        card = TaskCard(name="static/mnist", ...)
        input_shape, head = (1, 28, 28), Head("classify", classes=10)
        mean, deviation = (0.1307,), (0.3081,)
        shift = 1  # pixels, in training with augmentation

        def load(self, split):
            return Data(*arrays(split))  # bytes [N, C, H, W], or floats in [0, 1]
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from harness import plugin
from harness.task import Batch
from suites import encoding
from suites.augmentation import flipped, shifted
from suites.classification import ClassificationTask


class StaticTask(ClassificationTask):
    """Images ``[B, C, H, W]``, stored as bytes or as floats in [0, 1].

    Direct coding presents them normalised: minus ``mean``, divided by ``deviation``, channel by channel. The other encodings need numbers
    in [0, 1] and get them; with one step (a network without time) there is nothing to code in, and the numbers themselves are presented.
    """

    class Options(plugin.Options):
        """How images become sequences."""

        encoding: Literal["direct", "rate", "latency", "phase"] = Field(
            "direct", description="the image at every step; random spikes; one spike, early if bright; binary digits (suites/encoding.py)"
        )

    options: Options
    steps = 4
    mean: ClassVar[tuple[float, ...]] = (0.5,)  # of each channel, or of all
    deviation: ClassVar[tuple[float, ...]] = (0.25,)
    shift: ClassVar[int] = 0  # augmentation: most pixels that an image is moved by
    flip: ClassVar[bool] = False  # augmentation: mirror half of the images

    def prepare(self, inputs: Tensor) -> Tensor:
        """Return stored images as floats: normalised for direct coding, in [0, 1] for the others."""
        images = inputs.float() / 255 if inputs.dtype == torch.uint8 else inputs
        return self._normalised(images) if self.options.encoding == "direct" else images

    def encode(self, inputs: Tensor, steps: int) -> Tensor:
        """Return the sequence ``[T, B, C, H, W]`` of prepared images ``[B, C, H, W]`` in the encoding that was asked for."""
        if steps == 1:
            return encoding.direct(inputs, 1)
        coding = {"direct": encoding.direct, "rate": encoding.rate, "latency": encoding.latency, "phase": encoding.phase}
        return coding[self.options.encoding](inputs, steps)

    def augment(self, batch: Batch, generator: torch.Generator) -> Batch:
        """Return the images moved by at most ``shift`` pixels each way (what comes in is black) and, if ``flip``, half of them mirrored."""
        images = batch.inputs
        if self.shift:
            images = shifted(images, self.shift, generator, self.background(images))
        if self.flip:
            images = flipped(images, generator)
        return batch._replace(inputs=images)

    def background(self, images: Tensor) -> Tensor:
        """Return what black is after ``prepare``, for each channel ``[C]`` of ``images``."""
        black = torch.zeros(1, images.shape[1], 1, 1, dtype=images.dtype, device=images.device)
        return (self._normalised(black) if self.options.encoding == "direct" else black).flatten()

    def _normalised(self, images: Tensor) -> Tensor:
        mean, deviation = (torch.tensor(values, device=images.device).view(-1, 1, 1) for values in (self.mean, self.deviation))
        return (images - mean) / deviation
