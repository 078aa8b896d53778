"""Pascal VOC 2007 and 2012: photographs with objects of 20 classes; torchvision downloads them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from harness import plugin
from harness.task import Backbone, Budget, Head, Split, TaskCard, Training
from suites import voc
from suites.annotated_images import AnnotatedImages
from suites.image_detection import ImageDetection
from suites.letterbox import Letterbox
from suites.sources import FileTask, Source
from suites.voc_files import dataset, every_tenth, listed

LICENCE = "the images are Flickr's, under Flickr's terms of use; none is stated for the annotations"
BUDGETS = {
    "smoke": Budget(
        Training(epochs=1, batch_size=4, lr=8e-3),
        Backbone("vgg", (8, 16, 16, 16)),
        train_samples=96,
        validation_samples=16,
        test_samples=32,
        time_limit=300,
    ),
    "laptop": Budget(
        Training(epochs=4, batch_size=16, lr=4e-3, augment=True),
        Backbone("vgg", (8, 16, 32, 64)),
        train_samples=1000,
        validation_samples=100,
        test_samples=500,
        time_limit=1800,
    ),
    "paper": Budget(
        Training(epochs=120, batch_size=32, lr=1e-3, optimizer="adamw", weight_decay=1e-4, augment=True),
        Backbone("vgg", (64, 128, 256, 512, 512)),
        time_limit=7 * 86400,
        target=0.3,
    ),
}


class Resized(plugin.Options):
    """The size that photographs are brought to."""

    size: int = Field(224, description="height and width in pixels; the image keeps its proportions", multiple_of=32, ge=64, le=1024)


def downloader(folder: str, year: str, sets: tuple[str, ...]) -> Callable[[Path], None]:
    """Return what puts VOC of a year below ``root/folder``."""

    def download(root: Path) -> None:
        from torchvision.datasets import VOCDetection

        for image_set in sets:
            VOCDetection(root / folder, year=year, image_set=image_set, download=True)

    return download


def files(folder: str, year: str, sets: tuple[str, ...], extra: tuple[str, ...] = ("Annotations",)) -> dict[str, str]:
    """Return the paths of a year's image sets and folders below the root of the data, of any content."""
    devkit = f"{folder}/VOCdevkit/VOC{year}"
    return dict.fromkeys(
        [*(f"{devkit}/ImageSets/{each}.txt" for each in sets), *(f"{devkit}/{each}" for each in (*extra, "JPEGImages"))], ""
    )


class VocDetection(FileTask, ImageDetection):
    """Photographs ``[B, 3, S, S]`` read from files while training; objects that VOC calls difficult are not counted."""

    classes = voc.CLASSES
    head = Head("detect", classes=20, strides=(8, 16))
    steps = 4
    budgets = BUDGETS
    Options = Resized
    options: Resized
    year: ClassVar[str]
    folder: ClassVar[str]
    learnt: ClassVar[str]  # the image set that training and validation come from
    tested: ClassVar[str]

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of an image."""
        return 3, self.options.size, self.options.size

    def load(self, split: Split) -> AnnotatedImages:
        """Return images and boxes."""
        root = self.source.require().path(self.folder)
        pairs = listed(root, self.year, self.tested if split == "test" else self.learnt)
        if split != "test":
            pairs = every_tenth(pairs, split == "validation")
        return dataset(pairs, self.classes, Letterbox(*self.input_shape[1:]), self.warnings)


class Voc2007(VocDetection):
    """VOC 2007: 4,510 training, 501 validation and 4,952 test images."""

    card = TaskCard(
        name="detection/voc2007",
        title="Pascal VOC 2007",
        data="9,963 photographs with 24,640 objects of 20 classes",
        licence=LICENCE,
        split="test: VOC's; of trainval, sorted by name, each tenth image is validation, the others training",
        source="M. Everingham et al., The Pascal Visual Object Classes (VOC) challenge, IJCV 88, 2010",
    )
    year, folder, learnt, tested = "2007", "detection/VOC2007", "trainval", "test"
    source = Source(
        (files(folder, year, ("Main/trainval", "Main/test")),),
        download=downloader(folder, year, ("trainval", "test")),
        size="0.9 GB",
    )


class Voc2012(VocDetection):
    """VOC 2012: VOC's val is the test part, as the labels of its own test images are not public."""

    card = TaskCard(
        name="detection/voc2012",
        title="Pascal VOC 2012",
        data="11,540 photographs with 27,450 objects of 20 classes",
        licence=LICENCE,
        split="test: VOC's val, as labels of VOC's test are not public; of train, sorted by name, each tenth image is validation",
        source="M. Everingham et al., The Pascal Visual Object Classes challenge: a retrospective, IJCV 111, 2015",
    )
    year, folder, learnt, tested = "2012", "detection/VOC2012", "train", "val"
    source = Source(
        (files(folder, year, ("Main/train", "Main/val")),),
        download=downloader(folder, year, ("trainval",)),
        size="2.0 GB",
    )
