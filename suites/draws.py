"""Random numbers for generated data: the same on every machine and with every version.

NumPy keeps the stream of its legacy ``RandomState`` as it is for good, which ``Generator`` and torch's generators do not promise;
of that stream only ``random_sample`` is used. Seeds come from texts::

    stream("sequences/adding", 100, "test").random_sample(3)
"""

from __future__ import annotations

import hashlib

import numpy as np


def stream(*names: object) -> np.random.RandomState:
    """Return the stream that belongs to ``names``, as texts."""
    digest = hashlib.sha256("\n".join(str(name) for name in names).encode()).digest()
    return np.random.RandomState(int.from_bytes(digest[:4], "little"))


def integers(random: np.random.RandomState, count: int | tuple[int, ...], size: int) -> np.ndarray:
    """Return ``count`` whole numbers from 0 to ``size - 1``, all as likely."""
    return np.minimum((random.random_sample(count) * size).astype(np.int64), size - 1)
