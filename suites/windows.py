"""Windows: stretches of a long series that are the samples of a task, in an order of which any beginning covers the whole series.

::

    windows(series, length=96, every=1)   # [N, 96, ...]
    interleaved(10, stride=4)             # 0 4 8 1 5 9 2 6 3 7
"""

from __future__ import annotations

import torch
from torch import Tensor

STRIDE = 16


def windows(series: Tensor, length: int, every: int) -> Tensor:
    """Return all windows ``[N, length, ...]`` of ``series [T, ...]`` that begin ``every`` steps; a view, without copying.

    The last steps belong to no window if they do not fill one. Raises ValueError if the series is shorter than a window.
    """
    if len(series) < length:
        raise ValueError(f"{len(series)} steps are no window of {length}")
    return series.unfold(0, length, every).movedim(-1, 1)


def interleaved(count: int, stride: int = STRIDE) -> Tensor:
    """Return ``0 .. count - 1``, first every ``stride``-th number, then those that follow them, and so on."""
    return torch.cat([torch.arange(start, count, stride) for start in range(min(stride, count))]) if count else torch.arange(0)
