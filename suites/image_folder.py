"""``static/folder``: any folder of images with one folder for each class.

For example::

    spikebench run -t "static/folder[path=birds,size=64]" -m stbp

``path`` is a folder below ``SPIKEBENCH_DATA``, or any path.
"""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from harness.plugin import DataError
from harness.task import Backbone, Budget, Head, Split, TaskCard, Training
from suites.image_files import ImageFiles
from suites.sources import digest, roots
from suites.splits import hashed
from suites.static_images import StaticTask

SHARES = {"train": 8, "validation": 1, "test": 1}
SPLIT_RULE = (
    "the SHA-256 of a sample's name: 8 of 10 for training, 1 for validation, 1 for testing; where the data bring a train and a test part, "
    "the test part, and 1 of 10 of the train part for validation unless they bring that too"
)
OWN_DATA_BUDGETS = {
    "smoke": Budget(
        Training(epochs=4, batch_size=32, lr=4e-3),
        Backbone("vgg", (16, 32)),
        train_samples=1500,
        validation_samples=500,
        test_samples=2000,
        time_limit=300,
    ),
    "laptop": Budget(
        Training(epochs=10, lr=4e-3, augment=True),
        Backbone("vgg", (16, 32, 64)),
        train_samples=10_000,
        test_samples=10_000,
        time_limit=1800,
    ),
    "paper": Budget(
        Training(epochs=100, batch_size=128, optimizer="sgd", lr=0.1, weight_decay=5e-4, augment=True),
        Backbone("resnet", (64, 128, 256, 512)),
        time_limit=172_800,
    ),
}
PARTS: dict[Split, tuple[str, ...]] = {"train": ("train", "training"), "validation": ("val", "valid", "validation"), "test": ("test",)}


def locate(given: str) -> Path | None:
    """Return the file or folder that a user means by ``given``: below a folder of ``SPIKEBENCH_DATA``, else as it stands; None if none."""
    for parent in (*roots(), Path()):
        path = parent / Path(given).expanduser()
        if path.exists():
            return path
    return None


def class_folders(folder: Path) -> list[str]:
    """Return the names of the class folders in ``folder``, sorted; hidden ones are none."""
    return sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith("."))


class ImageFolder(StaticTask):
    """Images of a folder per class, ``[B, channels, size, size]``; with augmentation mirrored and moved by at most an eighth."""

    card = TaskCard(
        name="static/folder",
        title="Images of your own, a folder for each class",
        data="what the folder `path` holds: train/, val/ and test/ with a folder for each class, or the folders of the classes at once",
        licence="yours",
        split=SPLIT_RULE,
        source="torchvision.datasets.ImageFolder has this layout",
    )
    budgets = OWN_DATA_BUDGETS
    flip = True

    class Options(StaticTask.Options):
        """Which folder, and what to make of its images."""

        path: str = Field("", description="the folder: below SPIKEBENCH_DATA, or any path")
        size: int = Field(32, description="pixels of a side: the shorter side is resized to it, the centre is cut out", ge=8, le=1024)
        channels: Annotated[Literal[1, 3], BeforeValidator(int)] = Field(3, description="1: grey, 3: colour")

    options: Options

    @property
    def input_shape(self) -> tuple[int, ...]:  # type: ignore[override]  # depends on the options
        """The shape of an image ``[C, H, W]``."""
        return (self.options.channels, self.options.size, self.options.size)

    @property
    def shift(self) -> int:  # type: ignore[override]  # depends on the options
        """Most pixels that augmentation moves an image by: an eighth, as the 4 of 32 that are usual for CIFAR."""
        return self.options.size // 8

    @property
    def head(self) -> Head:  # type: ignore[override]  # depends on the files
        """A logit for each class."""
        return Head("classify", classes=len(self.classes))

    @cached_property
    def classes(self) -> list[str]:
        """The names of the classes, sorted: the folders of the training part."""
        if self.folder is None:
            return []
        parts = self._parts()
        return class_folders(parts.get("train", parts.get("all", self.folder)))

    @property
    def folder(self) -> Path | None:
        """The folder that the option names, or None if it is not there."""
        path = locate(self.options.path) if self.options.path else None
        return path if path and path.is_dir() else None

    def unavailable(self) -> str | None:
        """Return what is wrong with the folder, or None."""
        given = self.options.path
        if not given:
            return 'say which folder: "static/folder[path=FOLDER]"'
        if self.folder is None:
            return f"there is no folder {given!r}, neither below SPIKEBENCH_DATA nor as a path"
        if len(self.classes) < 2:
            return f"{given!r} has {len(self.classes)} folders of classes; at least two are needed, each with the images of its class"
        return None

    def load(self, split: Split) -> Any:
        """Return images and classes of a split; raise DataError for a folder that lacks something or an image that cannot be decoded."""
        if problem := self.unavailable():
            raise DataError(problem)
        found = self._samples(split)
        if not found:
            raise DataError(f"{self.options.path!r} has no image for {split}: add images, or a folder {split}/")
        paths, targets = zip(*found, strict=True)
        return ImageFiles(paths, targets, self.options.size, self.options.channels).in_memory()

    def checksum(self) -> str:
        """Return a hash of the names and sizes of all files."""
        if problem := self.unavailable():
            raise DataError(problem)
        assert self.folder
        return digest(self.folder)[:16]

    def _parts(self) -> dict[str, Path]:
        """Return the folders of the splits that the data bring, or the one folder ``all`` of the classes."""
        assert self.folder
        found = {split: self.folder / name for split, names in PARTS.items() for name in names if (self.folder / name).is_dir()}
        if "train" in found and len(found) > 1:
            if "test" not in found:  # ImageNet and others call the test part val
                found["test"] = found.pop("validation")
            return found
        return {"all": found.get("train", self.folder)}

    def _samples(self, split: Split) -> list[tuple[Path, int]]:
        parts = self._parts()
        brought = parts.get(split, parts.get("train", parts.get("all")))
        assert brought
        found = self._listed(brought)
        shares = SHARES if "all" in parts else {"train": 9, "validation": 1}
        if split in parts and (split != "train" or "validation" in parts):
            return found
        return [each for each in found if hashed(each[0].relative_to(brought).as_posix(), shares) == split]

    def _listed(self, folder: Path) -> list[tuple[Path, int]]:
        """Return the images below the class folders of ``folder``; raise DataError for a class that is unknown or has none."""
        from torchvision.datasets.folder import IMG_EXTENSIONS, make_dataset

        here = class_folders(folder)
        if unknown := sorted(set(here) - set(self.classes)):
            raise DataError(f"{folder.name}/{unknown[0]} is no class of the training part; its classes: {', '.join(self.classes[:20])}")
        try:
            found = make_dataset(folder, {name: i for i, name in enumerate(self.classes) if name in here}, extensions=IMG_EXTENSIONS)
        except (OSError, ValueError) as error:  # a class without images
            raise DataError(f"{self.options.path!r}: {folder.name}/: {error}") from None
        others = sum(len(files) for name in here for _, _, files in os.walk(folder / name, followlinks=True)) - len(found)
        if others:
            self.warnings.append(f"{others} files below {folder.name}/ are no images by their ending, and were passed over")
        return [(Path(path), label) for path, label in found]
