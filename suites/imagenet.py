"""ImageNet (ILSVRC 2012), listed by torchvision and read from its files by worker processes while training."""

from __future__ import annotations

import hashlib
import os
import pickle
from pathlib import Path
from typing import Any, ClassVar

import torch

from harness.plugin import DataError
from harness.task import Backbone, Batch, Budget, Head, Split, TaskCard, Training
from suites.augmentation import flipped, resized_crops
from suites.image_files import ImageFiles
from suites.sources import FileTask, Source, digest
from suites.static_images import StaticTask

FOLDER = "vision/imagenet"
VALIDATION = 10  # of each class


class ImageNet(FileTask, StaticTask):
    """Colour images ``[B, 3, 224, 224]``; with augmentation random crops, resized, and mirrored.

    Held-out images are resized to 256 pixels (shorter side), and the central 224 are cut out. Training images show their whole central
    square at 224 pixels, and augmentation crops from that: the published crop may reach beyond the square as well.
    """

    card = TaskCard(
        name="static/imagenet",
        title="ImageNet",
        data="1,281,167 training and 50,000 validation images of many sizes in 1,000 classes (ILSVRC 2012)",
        licence="non-commercial research, by agreement with image-net.org",
        split="the published validation part is for testing; of the training images of each class, the last 10 by name for validation",
        source="Russakovsky et al., ImageNet large scale visual recognition challenge, IJCV 115, 2015",
    )
    source: ClassVar[Source] = Source(
        variants=({f"{FOLDER}/meta.bin": "", f"{FOLDER}/train": "", f"{FOLDER}/val": ""},),
        advice="get the archives from image-net.org (an account is needed) and let torchvision.datasets.ImageNet unpack them there",
    )
    input_shape = (3, 224, 224)
    head = Head("classify", classes=1000)
    mean, deviation = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    budgets = {
        "smoke": Budget(
            Training(epochs=1, batch_size=8),
            Backbone("vgg", (4, 8, 8, 16, 16)),
            train_samples=64,
            validation_samples=32,
            test_samples=64,
            time_limit=1200,
        ),
        "laptop": Budget(
            Training(epochs=1, batch_size=16, lr=2e-3),
            Backbone("vgg", (8, 16, 32, 32, 32)),
            train_samples=1000,
            validation_samples=200,
            test_samples=1000,
            time_limit=7200,
        ),
        "paper": Budget(
            Training(epochs=100, batch_size=256, optimizer="sgd", lr=0.1, weight_decay=1e-4, augment=True),
            Backbone("vgg", (64, 128, 256, 512, 512)),
            time_limit=1_209_600,
        ),
    }

    def load(self, split: Split) -> ImageFiles:
        """Return images, uint8 ``[3, 224, 224]``, and classes; raise DataError if the folder is not as torchvision unpacks it."""
        from torchvision.datasets import ImageNet as Files

        folder = self.source.require().path(FOLDER)
        try:
            samples = Files(str(folder), split="val" if split == "test" else "train").samples
        except (RuntimeError, OSError, ValueError, pickle.UnpicklingError) as error:
            raise DataError(
                f"{FOLDER} is not as torchvision.datasets.ImageNet unpacks it ({type(error).__name__}); unpack it again"
            ) from None
        if split != "test":
            samples = _of_split(samples, split)
        paths, targets = zip(*samples, strict=True)
        return ImageFiles([Path(path) for path in paths], targets, size=224, shorter=224 if split == "train" else 256)

    def augment(self, batch: Batch, generator: torch.Generator) -> Batch:
        """Return a random crop of each image, resized to 224 pixels, half of them mirrored."""
        return batch._replace(inputs=flipped(resized_crops(batch.inputs, generator), generator))

    def checksum(self) -> str:
        """Return a hash of the list of classes and of the names of all files (their sizes would take minutes to read)."""
        found = self.source.require()
        listing = [
            f"{part}/{name} {_names(found.path(f'{FOLDER}/{part}/{name}'))}"
            for part in ("train", "val")
            for name in _names(found.path(f"{FOLDER}/{part}"))
        ]
        return hashlib.sha256("\n".join([digest(found.path(f"{FOLDER}/meta.bin")), *listing]).encode()).hexdigest()[:16]


def _names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in os.scandir(folder))


def _of_split(samples: list[tuple[str, int]], split: Split) -> list[tuple[str, Any]]:
    """Return the training or validation images of ``samples``, which are sorted by class and name."""
    classes: dict[int, list[tuple[str, int]]] = {}
    for sample in samples:
        classes.setdefault(sample[1], []).append(sample)
    cut = slice(None, -VALIDATION) if split == "train" else slice(-VALIDATION, None)
    return [sample for members in classes.values() for sample in members[cut]]
