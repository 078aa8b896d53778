"""The principal branch W0 of the Lambert function, ``W exp(W) = z``, on ``[-1/e, 0]``, where a spike time needs it.

Halley's iteration on ``f(w) = w exp(w) - z``::

    w <- w - f / (exp(w) (w + 1) - (w + 2) f / (2 w + 2))

from the first terms of the series at the branch point, ``w = -1 + p - p^2/3 + 11 p^3/72`` with ``p = sqrt(2 (e z + 1))``, which differs
from W0 by less than 0.03 everywhere on the interval. At the branch point itself W0 is only known to the square root of the precision, as
its derivative is infinite.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

ROUNDS = 8


def lambert_w0(z: Tensor) -> Tensor:
    """Return W0 of ``z`` in ``[-1/e, 0]``; NaN outside."""
    p = (2 * (math.e * z + 1)).sqrt()
    w = -1 + p * (1 + p * (-1 / 3 + p * (11 / 72)))
    tiny = torch.finfo(z.dtype).eps
    for _ in range(ROUNDS):
        grown = w.exp()
        f = w * grown - z
        ahead = (w + 1).clamp(min=tiny)
        step = f / (grown * ahead - (w + 2) * f / (2 * ahead))
        w = torch.where(p > 8 * math.sqrt(tiny), w - step, w)  # closer to the branch point the series is as exact as it gets
        if bool((step.abs() <= 4 * tiny).all()):
            break
    return w.masked_fill(z > 0, math.nan)
