"""``ImageFiles``: a data set of image files, all brought to one size, read by worker processes or decoded once into memory.

For example::

    files = ImageFiles(paths, classes, size=32)
    files[0]             # uint8 [3, 32, 32] and its class
    files.in_memory()    # a Data of all of them, from the cache if they were decoded before
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from harness.plugin import DataError
from harness.task import Data
from suites.sources import cached_arrays
from suites.splits import interleaved

LARGEST = 2 << 30  # bytes of decoded images up to which they are kept in memory


class ImageFiles(Dataset):
    """Images ``[C, size, size]`` uint8 with their classes, in an order in which classes take turns (``splits.interleaved``).

    An image is resized (bilinear, antialiased) so that its shorter side has ``shorter`` pixels, and its centre of ``size`` by ``size``
    pixels is cut out; ``shorter=None`` means ``size``: all that a square can show.
    """

    def __init__(self, paths: Sequence[Path], targets: Sequence[int], size: int, channels: int = 3, shorter: int | None = None) -> None:
        """Take the files in their order; raise ValueError for another number of ``channels`` than 1 or 3."""
        if channels not in (1, 3):
            raise ValueError(f"images have 1 channel (grey) or 3 (colour), not {channels}")
        order = interleaved(np.asarray(targets, dtype=np.int64))
        self.paths = [paths[i] for i in order]
        self.targets = torch.as_tensor(np.asarray(targets, dtype=np.int64)[order])
        self.size, self.channels, self.shorter = size, channels, shorter or size

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.paths)

    def __getitem__(self, place: int) -> tuple[Tensor, Tensor]:
        """Return an image and its class; raise DataError for a file that cannot be decoded."""
        return decoded(self.paths[place], self.size, self.channels, self.shorter), self.targets[place]

    @property
    def size_in_memory(self) -> int:
        """Return how many bytes all images take, decoded."""
        return len(self) * self.channels * self.size**2

    def in_memory(self) -> Data | ImageFiles:
        """Return all images as ``Data``, decoded once and then kept in the cache; itself if they are larger than ``LARGEST``."""
        if self.size_in_memory > LARGEST:
            return self

        def make() -> dict[str, np.ndarray]:
            images = np.empty((len(self), self.channels, self.size, self.size), dtype=np.uint8)
            for place in range(len(self)):
                images[place] = self[place][0].numpy()
            return {"images": images}

        status = [(path.as_posix(), path.stat().st_size, path.stat().st_mtime_ns) for path in self.paths]
        listing = hashlib.sha256(repr(status).encode()).hexdigest()
        stored = cached_arrays("image-files", f"{listing} {self.size} {self.channels} {self.shorter}", make)
        return Data(torch.from_numpy(stored["images"]), self.targets)


def decoded(path: Path, size: int, channels: int, shorter: int) -> Tensor:
    """Return the image in a file, uint8 ``[channels, size, size]``, as ``ImageFiles`` says; raise DataError if it cannot be decoded.

    Transparency is dropped, grey of 16 bits is cut to the upper 8; numbers of other kinds (32 bits, floats) are refused.
    """
    from PIL import Image
    from torchvision.transforms.v2 import functional as transform

    place = "/".join(path.parts[-3:])  # enough to find it, and nothing of the machine
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as file:
                if file.mode.startswith("I;16"):
                    image = Image.fromarray((np.asarray(file) >> 8).astype(np.uint8))
                elif file.mode in ("I", "F"):
                    raise DataError(f"{place} has pixels of 32 bits, whose range is not known; save it with 8 bits a channel")
                elif file.mode == "P" and "transparency" in file.info:
                    image = file.convert("RGBA")
                else:
                    image = file.copy()  # decodes it
        image = image.convert("L" if channels == 1 else "RGB")
    except DataError:
        raise
    except Exception as error:  # decoders of images fail in many ways
        reason = str(error).replace(str(path), path.name)
        raise DataError(f"{place} cannot be decoded ({type(error).__name__}: {reason}); replace it or take it out") from None
    resized = transform.center_crop(transform.resize(image, [shorter], antialias=True), [size, size])
    return transform.pil_to_tensor(resized)
