"""Any folder of images and masks of the same name, one class per pixel.

::

    fields/
      images/*.jpg (or .png, .bmp, .tif)
      masks/*.png          8-bit grey or indexed: 0, 1, ... are classes, 255 is not counted; or values=binary
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Literal

from pydantic import Field

from harness import plugin
from harness.plugin import DataError
from harness.task import Backbone, Budget, Head, Split, TaskCard, Training
from suites.annotated_images import AnnotatedImages, classes_in, decode
from suites.folders import checked_folder, images_of, portion
from suites.letterbox import IGNORED, Letterbox
from suites.segmentation import SegmentationTask
from suites.sources import digest


class MaskFolder(SegmentationTask):
    """Images of a folder, ``[B, 3, S, S]``, with masks."""

    card = TaskCard(
        name="detection/mask-folder",
        title="Images and masks of a folder",
        data="a folder of yours with images/ and masks/",
        licence="that of the folder",
        split="by the SHA-256 of an image's name: 70 % training, 10 % validation, 20 % test",
        source="the folder that the option path names",
    )
    steps = 4
    budgets = {
        "smoke": Budget(
            Training(epochs=3, batch_size=4, lr=8e-3, augment=True),
            Backbone("vgg", (8, 16, 16)),
            train_samples=96,
            validation_samples=16,
            test_samples=32,
            time_limit=300,
        ),
        "laptop": Budget(
            Training(epochs=8, batch_size=8, lr=8e-3, augment=True),
            Backbone("vgg", (16, 32, 64)),
            train_samples=500,
            validation_samples=100,
            test_samples=500,
            time_limit=3600,
        ),
        "paper": Budget(
            Training(epochs=120, batch_size=16, lr=1e-3, optimizer="adamw", weight_decay=1e-4, augment=True),
            Backbone("vgg", (64, 128, 256)),
            time_limit=7 * 86400,
        ),
    }

    class Options(plugin.Options):
        """Which folder, what its masks hold, and the size of the images."""

        path: str = Field("", description="the folder, absolute or below SPIKEBENCH_DATA")
        classes: int = Field(2, description="classes of pixels, background included", ge=2, le=255)
        values: Literal["index", "binary"] = Field(
            "index", description="what masks hold: the class (255: not counted), or 0 for background and anything else for the object"
        )
        size: int = Field(128, description="height and width in pixels; the image keeps its proportions", multiple_of=32, ge=64, le=1024)

    options: Options

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of an image."""
        return 3, self.options.size, self.options.size

    @property
    def head(self) -> Head:  # type: ignore[override]  # depends on the options
        """A segmenter of as many classes as the option says."""
        return Head("segment", classes=self.options.classes, strides=(2, 4, 8))

    def unavailable(self) -> str | None:
        """Return what is wrong with the folder or the options, or None."""
        if self.options.values == "binary" and self.options.classes != 2:
            return f"values=binary means 2 classes, not {self.options.classes}"
        try:
            self._pairs()
        except DataError as error:
            return str(error)
        return None

    def load(self, split: Split) -> AnnotatedImages:
        """Return images and masks, all masks looked at once; raise DataError for what is wrong in a file."""
        folder, pairs = checked_folder(self.options.path), self._pairs()
        chosen = [pairs[name] for name in portion(pairs, split)]
        if not chosen:
            raise DataError(f"{folder.name} has no image for the {split} split; {len(pairs)} in all are too few")
        images, masks = zip(*chosen, strict=True)
        binary = self.options.values == "binary"
        seen = {
            int(value) for mask in masks for value in classes_in(decode(mask, "P"), mask, None if binary else self.head.classes).unique()
        }
        if not binary and seen == {0, IGNORED}:
            raise DataError(
                f"the masks of {folder.name} hold 0 and 255 only, and 255 is not counted; if it is the object, say values=binary"
            )
        return AnnotatedImages(images, masks, Letterbox(*self.input_shape[1:]), None if binary else self.head.classes, binary)

    def checksum(self) -> str:
        """Return a hash of the names and sizes of all images and of the content of all masks."""
        found = "".join(f"{name} {image.stat().st_size} {digest(mask)}\n" for name, (image, mask) in sorted(self._pairs().items()))
        return hashlib.sha256(found.encode()).hexdigest()[:16]

    def _pairs(self) -> dict[str, tuple[Path, Path]]:
        """Return stem -> (image, mask); raise DataError where one of the two is missing."""
        folder = checked_folder(self.options.path)
        images, masks = images_of(folder, ("images", "JPEGImages")), images_of(folder, ("masks", "SegmentationClass"))
        if alone := sorted(set(images) ^ set(masks)):
            has, lacks = ("image", "mask") if alone[0] in images else ("mask", "image")
            raise DataError(f"{folder.name}: {has} {alone[0]} has no {lacks} of the same name ({len(alone)} such)")
        return {name: (images[name], masks[name]) for name in sorted(images)}
