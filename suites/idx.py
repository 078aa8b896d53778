"""MNIST and the data sets in its file format (IDX), read by torchvision from the files as they lie, packed or not.

For example::

    pixels, classes = images("FashionMNIST", "train")  # uint8 [60000, 28, 28], int64 [60000]

Packed files are unpacked into the cache, once. Different packers make different ``.gz`` files of one content, so the content is what is
verified.
"""

from __future__ import annotations

import gzip
import hashlib
import tempfile
import zlib
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from harness.plugin import DataError
from suites.sources import Found, Source, cache_folder, digest

# Folder below vision/ (the name of the class in torchvision) -> file -> SHA-256 of the unpacked content.
CONTENT: dict[str, dict[str, str]] = {
    "MNIST": {
        "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    },
    "FashionMNIST": {
        "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    },
}


def source(folder: str, size: str) -> Source:
    """Return the files of a data set of ``CONTENT``: unpacked, or as ``.gz``; torchvision downloads them (``size``, for people)."""
    raw = f"vision/{folder}/raw"
    return Source(
        variants=(
            {f"{raw}/{name}": sha for name, sha in CONTENT[folder].items()},
            {f"{raw}/{name}.gz": "" for name in CONTENT[folder]},
        ),
        download=lambda root: _loader(folder)(root / "vision", download=True),
        size=size,
    )


def images(folder: str, split: Literal["train", "test"]) -> tuple[Tensor, Tensor]:
    """Return the images, uint8 ``[N, 28, 28]``, and classes, int64 ``[N]``, of a part of a data set of ``CONTENT``, in file order.

    Raises DataError if files are missing, truncated or of another content.
    """
    found = source(folder, "").require()
    packed = any(name.endswith(".gz") for name in found.files)
    parent = _unpacked(found, folder) if packed else found.root / "vision"
    data = _loader(folder)(parent, train=split == "train")
    return data.data, data.targets


def checksum(folder: str) -> str:
    """Return a hash of the content of all files, which ``images`` verifies; however they are packed, it is the same."""
    return hashlib.sha256("".join(f"{name} {sha}\n" for name, sha in sorted(CONTENT[folder].items())).encode()).hexdigest()[:16]


def _loader(folder: str) -> Any:
    from torchvision import datasets  # takes a second, and listing tasks needs none of it

    return getattr(datasets, folder)


def _unpacked(found: Found, folder: str) -> Path:
    """Return a folder of the cache that holds ``<folder>/raw`` with the content of all packed files."""
    parent = cache_folder("idx", checksum(folder))
    raw = cache_folder("idx", checksum(folder), folder, "raw")
    for name, sha in CONTENT[folder].items():
        target = raw / name
        if target.exists() and digest(target) == sha:
            continue
        packed = f"vision/{folder}/raw/{name}.gz"
        try:
            content = gzip.decompress(found.path(packed).read_bytes())
        except (OSError, EOFError, zlib.error) as error:
            raise DataError(f"{packed} cannot be unpacked ({error}); get it again") from None
        if (is_now := hashlib.sha256(content).hexdigest()) != sha:
            raise DataError(f"{packed} is damaged or another version: SHA-256 of its content {is_now[:16]}..., expected {sha[:16]}...")
        with tempfile.NamedTemporaryFile(dir=raw, delete=False) as file:
            file.write(content)
        Path(file.name).replace(target)  # complete or not at all: several processes may do this at once
    return parent
