"""``static/npz``: images and classes in an npz file of yours, or of a collection in the layout of MedMNIST.

For example::

    spikebench run -t "static/npz[path=cells.npz,images=x,labels=y]" -m stbp

The file holds arrays ``images`` and ``labels``, or ``train_images``, ``train_labels``, ``val_images``... (the options change the names).
Images are ``[N, H, W]``, ``[N, H, W, C]`` or ``[N, C, H, W]`` with 1 or 3 channels, bytes or floats in [0, 1]; labels ``[N]`` or ``[N, 1]``
are whole numbers or texts.
"""

from __future__ import annotations

import zipfile
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from pydantic import Field

from harness.plugin import DataError, did_you_mean
from harness.task import Data, Head, Split, TaskCard
from suites.image_folder import OWN_DATA_BUDGETS, PARTS, SHARES, SPLIT_RULE, locate
from suites.sources import digest
from suites.splits import hashed, interleaved
from suites.static_images import StaticTask


class ImageNpz(StaticTask):
    """Images of an npz file, ``[B, C, H, W]``; with augmentation mirrored and moved by up to an eighth of their height."""

    card = TaskCard(
        name="static/npz",
        title="Images of your own, in an npz file",
        data="what the file `path` holds: images and labels, or train_images, train_labels, val_images...",
        licence="yours",
        split=SPLIT_RULE + "; the name is the position in the file",
        source="the layout of MedMNIST (Yang et al., Scientific Data 10:41, 2023), or two arrays",
    )
    budgets = OWN_DATA_BUDGETS
    flip = True

    class Options(StaticTask.Options):
        """Which file, and what its arrays are called."""

        path: str = Field("", description="the file: below SPIKEBENCH_DATA, or any path")
        images: str = Field("images", description="name of the array of images, without train_ or the like before it")
        labels: str = Field("labels", description="name of the array of classes, likewise")

    options: Options

    @property
    def input_shape(self) -> tuple[int, ...]:  # type: ignore[override]  # depends on the file
        """The shape of an image ``[C, H, W]``; raise DataError if the file cannot be read."""
        return tuple(self.arrays["train"][0].shape[1:])

    @property
    def shift(self) -> int:  # type: ignore[override]  # depends on the file
        """Most pixels that augmentation moves an image by: an eighth of its height."""
        return self.input_shape[1] // 8

    @property
    def head(self) -> Head:  # type: ignore[override]  # depends on the file
        """A logit for each class."""
        return Head("classify", classes=len(self.classes) if self.file else 0)

    @property
    def file(self) -> Path | None:
        """The file that the option names, or None if it is not there."""
        path = locate(self.options.path) if self.options.path else None
        return path if path and path.is_file() else None

    @property
    def classes(self) -> np.ndarray:
        """The labels that occur in the training part, sorted; their positions are the classes."""
        return np.unique(self.arrays["train"][1])

    @cached_property
    def arrays(self) -> dict[Split, tuple[np.ndarray, np.ndarray]]:
        """Images ``[N, C, H, W]`` and labels ``[N]`` of every split; raise DataError if the file does not have what is needed."""
        if self.file is None:
            raise DataError(str(self.unavailable()))
        o = self.options
        try:
            with self.file.open("rb") as file:
                stored = np.load(file, allow_pickle=False)
                if not isinstance(stored, np.lib.npyio.NpzFile):
                    raise DataError(f"{o.path!r} is a single array; save images and labels with numpy.savez")
                parts = {split: name for split, names in PARTS.items() for name in names if f"{name}_{o.images}" in stored.files}
                if "train" in parts and len(parts) > 1:
                    return self._brought({split: self._pair(stored, f"{name}_") for split, name in parts.items()})
                images, labels = self._pair(stored, "")
        except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
            if isinstance(error, DataError):
                raise
            raise DataError(f"{o.path!r} cannot be read as an npz file ({error})") from None
        where = np.array([hashed(str(i), SHARES) for i in range(len(labels))])
        return self._checked({split: (images[where == split], labels[where == split]) for split in PARTS})

    def unavailable(self) -> str | None:
        """Return why there is no such file, or None; what it holds is looked at when it is loaded."""
        if not self.options.path:
            return 'say which file: "static/npz[path=FILE]"'
        if self.file is None:
            return f"there is no file {self.options.path!r}, neither below SPIKEBENCH_DATA nor as a path"
        return None

    def load(self, split: Split) -> Data:
        """Return images and classes of a split, classes taking turns; raise DataError for a file that does not have what is needed."""
        images, labels = self.arrays[split]
        order = interleaved(labels)
        found = np.searchsorted(self.classes, labels[order])
        return Data(torch.from_numpy(np.ascontiguousarray(images[order])), torch.from_numpy(found.astype(np.int64)))

    def checksum(self) -> str:
        """Return a hash of the file."""
        if self.file is None:
            raise DataError(str(self.unavailable()))
        return digest(self.file)[:16]

    def _pair(self, stored: np.lib.npyio.NpzFile, prefix: str) -> tuple[np.ndarray, np.ndarray]:
        """Return images ``[N, C, H, W]`` and labels ``[N]``; raise DataError if they are not there or not such."""
        found = []
        for name in (prefix + self.options.images, prefix + self.options.labels):
            if name not in stored.files:
                raise DataError(f"{self.options.path!r} has no array {name!r}{did_you_mean(name, stored.files)}")
            found.append(stored[name])
        images, labels = found
        where = f"{self.options.path!r}, {prefix}{self.options.images}"
        if labels.ndim == 2 and labels.shape[1] == 1:
            labels = labels[:, 0]
        if labels.ndim != 1 or labels.dtype.kind not in "iubUS":
            raise DataError(f"{where}: labels are {labels.dtype} {list(labels.shape)}; allowed: one whole number or text for each image")
        if len(labels) != len(images):
            raise DataError(f"{where}: {len(images)} images but {len(labels)} labels")
        return channels_first(images, where), labels

    def _brought(self, parts: dict[Split, tuple[np.ndarray, np.ndarray]]) -> dict[Split, tuple[np.ndarray, np.ndarray]]:
        """Return all splits of those that the file brings."""
        if "test" not in parts:  # some call the test part val
            parts["test"] = parts.pop("validation")
        if "validation" not in parts:
            images, labels = parts["train"]
            held = np.array([hashed(str(i), {"train": 9, "validation": 1}) == "validation" for i in range(len(labels))], dtype=bool)
            parts |= {"train": (images[~held], labels[~held]), "validation": (images[held], labels[held])}
        return self._checked(parts)

    def _checked(self, parts: dict[Split, tuple[np.ndarray, np.ndarray]]) -> dict[Split, tuple[np.ndarray, np.ndarray]]:
        shape, known = parts["train"][0].shape[1:], np.unique(parts["train"][1])
        if len(known) < 2:
            raise DataError(f"{self.options.path!r} has {len(known)} classes for training; at least two are needed")
        for split, (images, labels) in parts.items():
            if not len(images):
                raise DataError(f"{self.options.path!r} has no image for {split}: add images, or {split} arrays")
            if images.shape[1:] != shape:
                raise DataError(f"{self.options.path!r}: images for {split} are {list(images.shape[1:])}, for training {list(shape)}")
            if len(unknown := np.setdiff1d(labels, known)):
                raise DataError(f"{self.options.path!r}: class {unknown[0]} occurs in {split} and never in training")
        return parts


def channels_first(images: np.ndarray, where: str) -> np.ndarray:
    """Return ``images`` as ``[N, C, H, W]``, bytes or float32 in [0, 1]; raise DataError, which says ``where``, for anything else."""
    if images.ndim == 3:
        images = images[:, None]
    elif images.ndim == 4 and images.shape[1] not in (1, 3) and images.shape[3] in (1, 3):
        images = images.transpose(0, 3, 1, 2)
    if images.ndim != 4 or images.shape[1] not in (1, 3) or min(images.shape[2:]) < 8:
        raise DataError(f"{where} is {list(images.shape)}; allowed: [N, H, W], [N, H, W, C] or [N, C, H, W], C 1 or 3, sides from 8 pixels")
    if images.dtype == np.uint8:
        return images
    if images.dtype.kind != "f":
        raise DataError(f"{where} holds {images.dtype}; allowed: bytes (uint8), or floats in [0, 1]")
    if images.size and not (np.isfinite(images).all() and images.min() >= 0 and images.max() <= 1):
        raise DataError(f"{where} holds floats outside [0, 1]: {np.nanmin(images):.4g} to {np.nanmax(images):.4g}; scale them")
    return images.astype(np.float32)
