"""Any folder in VOC's format: images and one annotation file for each, as labelling programs write them.

::

    birds/
      JPEGImages/*.jpg (or images/, .png, .bmp)
      Annotations/*.xml (or annotations/)
      ImageSets/Main/{train,val,test}.txt         optional
"""

from __future__ import annotations

import hashlib
from functools import cached_property
from pathlib import Path

from pydantic import Field

from harness import plugin
from harness.plugin import DataError
from harness.task import Backbone, Budget, Head, Split, TaskCard, Training
from suites import voc
from suites.annotated_images import AnnotatedImages
from suites.folders import checked_folder, find_folder, images_of, portion, stems
from suites.image_detection import ImageDetection
from suites.letterbox import Letterbox
from suites.sources import digest
from suites.voc_files import dataset

NEITHER = "put annotations into Annotations/ and images into JPEGImages/"


class VocFolder(ImageDetection):
    """Images of a folder, ``[B, 3, S, S]``; classes are those that the annotations name, sorted."""

    card = TaskCard(
        name="detection/voc-folder",
        title="Images and boxes of a folder (VOC format)",
        data="a folder of yours with JPEGImages/ and Annotations/",
        licence="that of the folder",
        split="ImageSets/Main/{train,val,test}.txt where all three are there; else by the SHA-256 of an image's name: 70 % training, "
        "10 % validation, 20 % test",
        source="the folder that the option path names",
    )
    steps = 4
    budgets = {
        "smoke": Budget(
            Training(epochs=3, batch_size=4, lr=8e-3, augment=True),
            Backbone("vgg", (8, 16, 32, 32)),
            train_samples=96,
            validation_samples=16,
            test_samples=32,
            time_limit=300,
        ),
        "laptop": Budget(
            Training(epochs=12, batch_size=8, lr=8e-3, augment=True),
            Backbone("vgg", (16, 32, 64, 64)),
            train_samples=500,
            validation_samples=100,
            test_samples=500,
            time_limit=3600,
        ),
        "paper": Budget(
            Training(epochs=120, batch_size=32, lr=1e-3, optimizer="adamw", weight_decay=1e-4, augment=True),
            Backbone("vgg", (64, 128, 256, 512, 512)),
            time_limit=7 * 86400,
        ),
    }

    class Options(plugin.Options):
        """Which folder, and the size of the images."""

        path: str = Field("", description="the folder, absolute or below SPIKEBENCH_DATA")
        size: int = Field(128, description="height and width in pixels; the image keeps its proportions", multiple_of=32, ge=64, le=1024)

    options: Options

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of an image."""
        return 3, self.options.size, self.options.size

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes; none where there is no folder."""
        folder = find_folder(self.options.path)
        return voc.classes_of(sorted(stems(folder, ("Annotations", "annotations"), (".xml",)).values())) if folder else ()

    @property
    def head(self) -> Head:  # type: ignore[override]  # depends on the folder
        """A detector of the folder's classes."""
        return Head("detect", classes=max(len(self.classes), 1), strides=(4, 8, 16))

    def unavailable(self) -> str | None:
        """Return what is wrong with the folder, or None."""
        try:
            if not self._pairs() or not self.classes:
                return f"{self.options.path} has no objects: {NEITHER}"
        except DataError as error:
            return str(error)
        return None

    def load(self, split: Split) -> AnnotatedImages:
        """Return images and boxes; raise DataError for a folder without them, and for whatever is wrong in a file."""
        folder, pairs = checked_folder(self.options.path), self._pairs()
        names = self._listed(folder, split)
        chosen = [pairs[name] for name in (portion(pairs, split) if names is None else names)]
        if not chosen:
            raise DataError(f"{folder.name} has no image for the {split} split; {len(pairs)} in all are too few")
        return dataset(chosen, self.classes, Letterbox(*self.input_shape[1:]), self.warnings)

    def checksum(self) -> str:
        """Return a hash of the names and sizes of all images and of the content of all annotations."""
        found = "".join(f"{name} {image.stat().st_size} {digest(text)}\n" for name, (image, text) in sorted(self._pairs().items()))
        return hashlib.sha256(found.encode()).hexdigest()[:16]

    def _pairs(self) -> dict[str, tuple[Path, Path]]:
        """Return stem -> (image, annotation); raise DataError where one of the two is missing."""
        folder = checked_folder(self.options.path)
        images = images_of(folder, ("JPEGImages", "images"))
        annotations = stems(folder, ("Annotations", "annotations"), (".xml",))
        if alone := sorted(set(images) ^ set(annotations)):
            has, lacks = ("image", "annotation") if alone[0] in images else ("annotation", "image")
            raise DataError(f"{folder.name}: {has} {alone[0]} has no {lacks} ({len(alone)} such); {NEITHER}")
        return {name: (images[name], annotations[name]) for name in sorted(images)}

    def _listed(self, folder: Path, split: Split) -> list[str] | None:
        """Return the names that the folder's own lists give a split, or None if it has no lists; raise DataError for unknown names."""
        lists = {
            part: folder / "ImageSets" / "Main" / f"{name}.txt"
            for part, name in (("train", "train"), ("validation", "val"), ("test", "test"))
        }
        if not all(path.exists() for path in lists.values()):
            return None
        names = {part: path.read_text(encoding="utf-8").split() for part, path in lists.items()}
        pairs = self._pairs()
        for part, given in names.items():
            if unknown := [name for name in given if name not in pairs]:
                raise DataError(f"{lists[part].name} names {unknown[0]}, of which there is no image and annotation ({len(unknown)} such)")
        seen = [name for given in names.values() for name in given]
        if len(set(seen)) < len(seen):
            twice = next(name for name in seen if seen.count(name) > 1)
            raise DataError(f"{folder.name}: {twice} is listed twice in ImageSets/Main; the splits must not share images")
        return names[split]
