"""Rules that carve validation data from training data, the same on every machine and with every version of Python, NumPy and torch.

For example::

    order = interleaved(labels)          # samples sorted by class become one of each class, again and again
    train, validation = held_out(60_000, 5_000)
    part = hashed("cat/0001.png", {"train": 8, "validation": 1, "test": 1})

They use positions and names, never a random generator.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np


def held_out(count: int, last: int) -> tuple[slice, slice]:
    """Return the positions for training and for validation: of ``count`` samples the ``last`` ones are for validation.

    Raises ValueError unless both parts get at least one sample.
    """
    if not 0 < last < count:
        raise ValueError(f"{last} of {count} samples cannot be held out; allowed: 1 to {count - 1}")
    return slice(0, count - last), slice(count - last, count)


def interleaved(labels: np.ndarray) -> np.ndarray:
    """Return the positions ``[N]`` of samples of classes ``labels [N]`` in a new order: the first of every class, then the second ones...

    Within a class the order is kept; so the first n samples, and the last, hold all classes alike.
    """
    labels = np.asarray(labels)
    place = np.empty(len(labels), dtype=np.int64)  # position of a sample within its class
    for label in np.unique(labels):
        members = labels == label
        place[members] = np.arange(np.count_nonzero(members))
    return np.lexsort((labels, place))


def hashed(name: str, shares: Mapping[str, int]) -> str:
    """Return the part that a sample called ``name`` belongs to, parts being about as large as their ``shares``.

    The first 8 bytes of the SHA-256 of the name (UTF-8), as a big-endian number modulo the sum of the shares, decide.
    """
    drawn = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") % sum(shares.values())
    for part, share in shares.items():
        if drawn < share:
            return part
        drawn -= share
    raise AssertionError("the draw is below the sum")
