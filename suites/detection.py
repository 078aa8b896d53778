"""Object detection: boxes and classes of all objects in an image, presented directly at every time step."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

from harness.task import SPLITS, Backbone, Budget, Data, Head, Split, Task, TaskCard, Training
from suites import boxes, digits, fcos
from suites.mean_average_precision import MeanAveragePrecision
from suites.scenes import Scenery


class DetectionTask(Task):
    """A task whose targets are boxes ``[B, M, 5]`` in images of one size; loss and answers are those of ``suites.fcos``."""

    metric = "map_50"
    candidates = 50  # best-scored answers of an image that are looked at

    @property
    def grid(self) -> fcos.Grid:
        """The locations that are answered at."""
        return self._grid("cpu")

    def loss(self, output: Tensor, targets: Tensor, label_smoothing: float = 0.0) -> Tensor:
        """Return the FCOS loss of answers ``[B, L, 5 + K]`` to boxes ``[B, M, 5]``."""
        return fcos.loss(output, targets, self._grid(output.device), label_smoothing)

    def scorer(self) -> MeanAveragePrecision:
        """Return an accumulator of average precision."""
        return MeanAveragePrecision(self.grid, self.candidates)

    def _grid(self, device: torch.device | str) -> fcos.Grid:
        height, width = self.input_shape[-2:]
        return fcos.Grid.of(height, width, self.head.strides, device)


class DigitScenes(DetectionTask):
    """One to three handwritten digits of 10 to 18 pixels on a canvas of 32x32: ``[B, 1, 32, 32]``, mean 0 and variance 1.

    Scenes of each split are made of that split's digits only.
    """

    card = TaskCard(
        name="detection/digit-scenes",
        title="Handwritten digits in scenes",
        data="composed scenes of 32x32 pixels with 1 to 3 of scikit-learn's 8x8 digits, 10 to 18 pixels high; boxes are their ink",
        licence=digits.LICENCE,
        split=f"800 training, 100 validation, 150 test scenes, each made of the digits of its split only ({digits.SPLIT_RULE})",
        source="scikit-learn load_digits; composition ours (suites/scenes.py)",
    )
    embedded = True
    input_shape = (1, 32, 32)
    head = Head("detect", classes=10, strides=(4,))
    steps = 4
    budgets = {
        "smoke": Budget(Training(epochs=6, batch_size=16, lr=8e-3), Backbone("conv", (16, 32)), time_limit=300, target=0.5),
        "laptop": Budget(Training(epochs=30, batch_size=16, lr=8e-3), Backbone("conv", (32, 64)), time_limit=1800, target=0.8),
    }
    scenery = Scenery()
    scenes = {"train": 800, "validation": 100, "test": 150}
    mean, deviation = 0.0970, 0.2089  # of the training split

    def load(self, split: Split) -> Data:
        """Return scenes and boxes."""
        pixels, labels = digits.images(split)
        images, targets = self.scenery.compose(pixels, labels, self.scenes[split], seed=SPLITS.index(split))
        height, width = self.input_shape[-2:]
        return Data((images - self.mean) / self.deviation, boxes.checked(targets, self.head.classes, height, width))

    def checksum(self) -> str:
        """Return the hash of the digits and of the rules that scenes are made by."""
        return hashlib.sha256(f"{digits.checksum()} {self.scenery} {self.scenes}".encode()).hexdigest()[:16]
