"""scikit-learn's 1,797 handwritten digits: real data inside the wheel, the embedded default of every suite.

The split rule, the same for all tasks made of them, follows the file's order, in which writers come one after the other: the first
1,257 images are for training, the next 180 for validation, the last 360 for testing (as in most published uses). So the held-out
parts have writers that training did not see (but for those at the borders), as a user of the trained network would.
"""

from __future__ import annotations

import gzip
import hashlib
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from harness.task import Split

SPLIT_RULE = "in file order: first 1,257 train, next 180 validation, last 360 test"
_BOUNDS: dict[Split, tuple[int, int]] = {"train": (0, 1257), "validation": (1257, 1437), "test": (1437, 1797)}
LICENCE = "CC BY 4.0 (UCI Optical Recognition of Handwritten Digits)"


@cache
def _arrays() -> tuple[np.ndarray, np.ndarray]:
    # The file that ``load_digits`` reads. Importing scikit-learn to read it would take longer than everything else in a small run.
    spec = find_spec("sklearn")
    assert spec is not None and spec.submodule_search_locations
    path = Path(spec.submodule_search_locations[0]) / "datasets" / "data" / "digits.csv.gz"
    with gzip.open(path, "rt", encoding="ascii") as file:
        rows = np.loadtxt(file, delimiter=",")
    return rows[:, :64].reshape(-1, 8, 8), rows[:, 64].astype(np.int64)


def indices(split: Split) -> np.ndarray:
    """Return the positions of the images that belong to ``split``."""
    return np.arange(*_BOUNDS[split])


def images(split: Split) -> tuple[Tensor, Tensor]:
    """Return the images ``[N, 8, 8]`` in [0, 1] and their classes ``[N]``."""
    pixels, labels = _arrays()
    chosen = indices(split)
    return torch.from_numpy(pixels[chosen] / 16).float(), torch.from_numpy(labels[chosen]).long()


def checksum() -> str:
    """Return a hash of images and labels."""
    pixels, labels = _arrays()
    return hashlib.sha256(pixels.astype("<f8").tobytes() + labels.astype("<i8").tobytes()).hexdigest()[:16]
