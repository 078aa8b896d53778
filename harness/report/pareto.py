"""Which of several things are Pareto-optimal: no other is at least as good in everything and better in something.

``optimal([(1.0, 0.9), (2.0, 0.8)], ("lower", "higher"))`` gives ``[0]``: the second costs more and reaches
less. Equals are optimal together.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from harness.metrics import Direction


def optimal(points: Sequence[Sequence[float]], directions: Sequence[Direction]) -> list[int]:
    """Return the positions of the optimal ``points`` (finite figures ``[P, D]``); ``directions [D]`` say which are better."""
    if not len(points):
        return []
    signs = np.array([1.0 if direction == "lower" else -1.0 for direction in directions])
    losses = np.asarray(points, float) * signs
    return [i for i, own in enumerate(losses) if not ((losses <= own).all(1) & (losses < own).any(1)).any()]


def front(points: Sequence[tuple[float, float]], higher: bool, lower_cost: bool = True) -> list[int]:
    """Return the positions of the optimal ``(cost, quality)``; ``higher`` and ``lower_cost`` say which are better."""
    return optimal(points, ("lower" if lower_cost else "higher", "higher" if higher else "lower"))
