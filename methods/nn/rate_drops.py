"""A learning rate that falls to a tenth again and again: after every ``period`` of the epochs, as the step schedules of many papers do.

``rate_drops(training, 1 / 3)`` of 192 epochs is "x0.1 every 64 epochs". A phase for each rate: the optimiser's state and the data order
begin anew in each.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

from harness.method import Phase
from harness.task import Training


def rate_drops(training: Training, period: float) -> Iterator[Phase]:
    """Yield a phase of constant learning rate for each ``period`` (a fraction of the epochs, above 0), the last one cut off at the end.

    Phases that would have no epoch, as a short training has, are left out; the rates of the others stay what they are.
    """
    epochs, end = training.epochs, 0
    for number in range(math.ceil(1 / period - 1e-9)):
        start, end = end, min(epochs, round((number + 1) * period * epochs))
        if end > start:
            settings = replace(training, epochs=end - start, lr=training.lr * 0.1**number, schedule="constant")
            yield Phase(f"train {number + 1}", training=settings)
