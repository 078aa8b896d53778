"""Tiny ImageNet: 200 classes of ImageNet at 64x64 pixels, in the folders of the official zip."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from harness.plugin import DataError
from harness.task import Backbone, Budget, Head, Split, TaskCard, Training
from suites.image_files import ImageFiles
from suites.sources import FileTask, Source
from suites.static_images import StaticTask

FOLDER = "vision/tiny-imagenet-200"
VALIDATION = 50  # of each class


class TinyImageNet(FileTask, StaticTask):
    """Colour images ``[B, 3, 64, 64]``; with augmentation mirrored, and moved by at most eight pixels."""

    card = TaskCard(
        name="static/tiny-imagenet",
        title="Tiny ImageNet",
        data="100,000 training and 10,000 validation images of 64x64 pixels in 200 classes",
        licence="terms of ImageNet: non-commercial research",
        split="the published validation part is for testing (the test part has no classes); of the 500 training images of each class, the "
        "last 50 by number are for validation",
        source="Le, Yang, Tiny ImageNet visual recognition challenge, Stanford CS 231N, 2015",
    )
    source: ClassVar[Source] = Source(
        variants=({f"{FOLDER}/wnids.txt": "", f"{FOLDER}/val/val_annotations.txt": "", f"{FOLDER}/train": "", f"{FOLDER}/val/images": ""},),
        advice="unpack tiny-imagenet-200.zip of cs231n.stanford.edu there",
    )
    input_shape = (3, 64, 64)
    head = Head("classify", classes=200)
    mean, deviation = (0.4802, 0.4481, 0.3975), (0.2770, 0.2691, 0.2821)
    shift, flip = 8, True
    budgets = {
        "smoke": Budget(
            Training(epochs=2, batch_size=32, lr=4e-3),
            Backbone("vgg", (16, 32, 32)),
            train_samples=1000,
            validation_samples=200,
            test_samples=1000,
            time_limit=600,
        ),
        "laptop": Budget(Training(epochs=2, lr=4e-3), Backbone("vgg", (16, 32, 64)), train_samples=10_000, time_limit=3600),
        "paper": Budget(
            Training(epochs=300, batch_size=128, optimizer="sgd", lr=0.1, weight_decay=5e-4, augment=True),
            Backbone("vgg", (64, 128, 256, 512, 512)),
            time_limit=345_600,
            target=0.5,
        ),
    }

    def load(self, split: Split) -> Any:
        """Return images, uint8 ``[3, 64, 64]``, and classes; raise DataError for a folder that is not that of the zip."""
        folder = self.source.require().path(FOLDER)
        classes = sorted((folder / "wnids.txt").read_text(encoding="utf-8").split())
        if len(classes) != self.head.classes:
            raise DataError(f"{FOLDER}/wnids.txt names {len(classes)} classes, not {self.head.classes}; unpack the zip again")
        found = _held_out(folder, classes) if split == "test" else _training(folder, classes, split)
        paths, targets = zip(*found, strict=True)
        return ImageFiles(paths, targets, size=64).in_memory()


def _training(folder: Path, classes: list[str], split: Split) -> list[tuple[Path, int]]:
    """Return the training or validation images of all classes."""
    found: list[tuple[Path, int]] = []
    for label, name in enumerate(classes):
        images = sorted((folder / "train" / name / "images").glob("*.JPEG"), key=lambda path: int(path.stem.rpartition("_")[2]))
        if len(images) <= VALIDATION:
            raise DataError(f"{FOLDER}/train/{name}/images has {len(images)} images, not 500; unpack the zip again")
        found += [(path, label) for path in (images[:-VALIDATION] if split == "train" else images[-VALIDATION:])]
    return found


def _held_out(folder: Path, classes: list[str]) -> list[tuple[Path, int]]:
    """Return the images of the published validation part."""
    labels = {name: label for label, name in enumerate(classes)}
    found = []
    for number, line in enumerate((folder / "val" / "val_annotations.txt").read_text(encoding="utf-8").splitlines(), 1):
        file, _, rest = line.partition("\t")
        name = rest.partition("\t")[0]
        if name not in labels:
            raise DataError(f"{FOLDER}/val/val_annotations.txt, line {number}: {name!r} is not one of the 200 classes")
        path = folder / "val" / "images" / file
        if not path.is_file():
            raise DataError(f"{FOLDER}/val/images/{file} is missing; unpack the zip again")
        found.append((path, labels[name]))
    if not found:
        raise DataError(f"{FOLDER}/val/val_annotations.txt is empty; unpack the zip again")
    return found
