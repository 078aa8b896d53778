"""COCO 2017: photographs with objects of 80 classes. The files are fetched by hand; torchvision reads them."""

from __future__ import annotations

import contextlib
import io
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from harness.plugin import DataError
from harness.task import Backbone, Budget, Head, Split, TaskCard, Training
from suites import boxes
from suites.annotated_images import AnnotatedImages, padded
from suites.image_detection import ImageDetection
from suites.letterbox import Letterbox
from suites.sources import FileTask, Source
from suites.voc_detection import BUDGETS, Resized

ROOT = "detection/coco"
EVERY = 50  # of the training images, one in so many is validation


class Coco(FileTask, ImageDetection):
    """Photographs ``[B, 3, S, S]`` read from files while training; crowds are not counted."""

    card = TaskCard(
        name="detection/coco",
        title="COCO 2017",
        data="123,287 photographs with objects of 80 classes",
        licence="annotations CC BY 4.0; the images are Flickr's, under Flickr's terms of use",
        split="test: val2017; of train2017, in the order of image ids, each fiftieth is validation",
        source="T.-Y. Lin et al., Microsoft COCO: Common objects in context, ECCV 2014",
    )
    source = Source(
        (
            {
                f"{ROOT}/annotations/instances_train2017.json": "",
                f"{ROOT}/annotations/instances_val2017.json": "",
                f"{ROOT}/train2017": "",
                f"{ROOT}/val2017": "",
            },
        ),
        advice="unpack train2017.zip, val2017.zip and annotations_trainval2017.zip of cocodataset.org (about 19 GB) into detection/coco",
    )
    head = Head("detect", classes=80, strides=(8, 16))
    steps = 4
    budgets = {
        **BUDGETS,
        "paper": Budget(
            Training(epochs=24, batch_size=16, lr=1e-3, optimizer="adamw", weight_decay=1e-4, augment=True),
            Backbone("vgg", (64, 128, 256, 512, 512)),
            time_limit=14 * 86400,
            target=0.2,
        ),
    }
    Options = Resized
    options: Resized

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of an image."""
        return 3, self.options.size, self.options.size

    def load(self, split: Split) -> AnnotatedImages:
        """Return images and boxes."""
        part = "val2017" if split == "test" else "train2017"
        found = self.source.require()
        described = read(found.path(f"{ROOT}/annotations/instances_{part}.json"))
        ids = sorted(described.imgs)
        if split != "test":
            ids = [each for place, each in enumerate(ids) if (place % EVERY == EVERY - 1) == (split == "validation")]
        kinds = {identity: place for place, identity in enumerate(sorted(described.cats))}
        if len(kinds) != self.head.classes:
            raise DataError(f"instances_{part}.json has {len(kinds)} classes instead of {self.head.classes}; get COCO 2017's")
        letterbox, skipped = Letterbox(*self.input_shape[1:]), Counter()
        rows = []
        for identity in ids:
            image = described.imgs[identity]
            given = objects(described.imgToAnns.get(identity, []), image, kinds, skipped)
            scaled = letterbox.boxes(given[:, 1:], image["height"], image["width"])
            rows.append(torch.cat([given[:, :1], scaled], 1))
        self.warnings += [f"{count} boxes {what} in {part}" for what, count in skipped.items()]
        targets = boxes.checked(padded(rows), self.head.classes, letterbox.height, letterbox.width)
        folder = found.path(f"{ROOT}/{part}")
        return AnnotatedImages([folder / described.imgs[identity]["file_name"] for identity in ids], targets, letterbox)


def read(path: Path) -> Any:
    """Return COCO's own index of an annotation file; raise DataError if it is damaged."""
    from pycocotools.coco import COCO

    try:
        with contextlib.redirect_stdout(io.StringIO()):  # it talks
            return COCO(str(path))
    except (OSError, ValueError, KeyError, AssertionError) as error:
        raise DataError(f"{path.name} is no COCO annotation ({type(error).__name__}: {error}); get it again") from None


def objects(annotations: list[dict[str, Any]], image: dict[str, Any], kinds: dict[int, int], skipped: Counter[str]) -> Tensor:
    """Return the objects ``[M, 5]`` of one image; count in ``skipped`` what is left out or cut.

    COCO's boxes are x, y, width, height. Those without area are left out; those that stick out by less than a pixel (rounding) are cut.
    Raises DataError for a class that is unknown and for a box that leaves its image by more.
    """
    rows = []
    for each in annotations:
        if each["category_id"] not in kinds:
            raise DataError(f"object {each.get('id')} of {image['file_name']} has the unknown class {each['category_id']}")
        x, y, width, height = each["bbox"]
        x1, y1, x2, y2 = max(x, 0.0), max(y, 0.0), min(x + width, image["width"]), min(y + height, image["height"])
        if min(x, y) <= -1 or x + width >= image["width"] + 1 or y + height >= image["height"] + 1 or width < 0 or height < 0:
            raise DataError(f"object {each.get('id')} of {image['file_name']}: box {each['bbox']} is reversed or leaves its image")
        if x1 >= x2 or y1 >= y2:
            skipped["without area left out"] += 1
            continue
        kind = kinds[each["category_id"]]
        rows.append((float(-2 - kind if each.get("iscrowd") else kind), x1, y1, x2, y2))
    return torch.tensor(rows, dtype=torch.float32).view(-1, 5)
