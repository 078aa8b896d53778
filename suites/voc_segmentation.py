"""Pascal VOC 2012, segmentation: the class of every pixel of photographs; torchvision downloads them."""

from __future__ import annotations

from pathlib import Path

from harness.plugin import DataError
from harness.task import Backbone, Budget, Head, Split, TaskCard, Training
from suites.annotated_images import AnnotatedImages
from suites.letterbox import Letterbox
from suites.segmentation import SegmentationTask
from suites.sources import FileTask, Source
from suites.voc_detection import BUDGETS, LICENCE, Resized, files
from suites.voc_files import every_tenth

FOLDER = "detection/VOC2012"


def download(root: Path) -> None:
    """Put VOC 2012 below ``root``."""
    from torchvision.datasets import VOCSegmentation

    VOCSegmentation(root / FOLDER, year="2012", image_set="trainval", download=True)


class VocSegmentation(FileTask, SegmentationTask):
    """Photographs ``[B, 3, S, S]`` read from files while training; class 0 is background, the borders of objects (255) do not count."""

    card = TaskCard(
        name="detection/voc-segmentation",
        title="Pascal VOC 2012, segmentation",
        data="2,913 photographs with the class of every pixel: background and 20 kinds of objects",
        licence=LICENCE,
        split="test: VOC's val, as labels of VOC's test are not public; of train, sorted by name, each tenth image is validation",
        source="M. Everingham et al., The Pascal Visual Object Classes challenge: a retrospective, IJCV 111, 2015",
    )
    source = Source(
        (files(FOLDER, "2012", ("Segmentation/train", "Segmentation/val"), ("SegmentationClass",)),), download=download, size="2.0 GB"
    )
    head = Head("segment", classes=21, strides=(8, 16))
    steps = 4
    budgets = {
        "smoke": BUDGETS["smoke"],
        "laptop": Budget(
            Training(epochs=4, batch_size=16, lr=4e-3, augment=True),
            Backbone("vgg", (8, 16, 32, 64)),
            validation_samples=100,
            test_samples=500,
            time_limit=1800,
        ),
        "paper": Budget(
            Training(epochs=120, batch_size=16, lr=1e-3, optimizer="adamw", weight_decay=1e-4, augment=True),
            Backbone("vgg", (64, 128, 256, 512, 512)),
            time_limit=7 * 86400,
            target=0.3,
        ),
    }
    Options = Resized
    options: Resized

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of an image."""
        return 3, self.options.size, self.options.size

    def load(self, split: Split) -> AnnotatedImages:
        """Return images and masks."""
        from torchvision.datasets import VOCSegmentation

        root = self.source.require().path(FOLDER)
        try:
            found = VOCSegmentation(root, year="2012", image_set="val" if split == "test" else "train", download=False)
        except (RuntimeError, OSError) as error:
            raise DataError(f"no segmentation of VOC2012: {error}") from None
        pairs = [(Path(image), Path(mask)) for image, mask in zip(found.images, found.masks, strict=True)]
        if split != "test":
            pairs = every_tenth(pairs, split == "validation")
        images, masks = zip(*pairs, strict=True)
        return AnnotatedImages(images, masks, Letterbox(*self.input_shape[1:]), self.head.classes)
