"""Where to let samples leave early: the thresholds of confidence that cost least at almost the accuracy of no exit.

::

    point = operating_point(course, targets, lambda exits: ..., tolerance=0.005)     # on held-out samples, never on test ones
    net.answer(x, point.t_cls, point.t_hcd)

Source: ours; BlocTrain (Srinivasan and Roy 2021) leaves open how its thresholds were chosen.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from methods.nn.conditional import Course

NEVER = 1.01  # a confidence that no sample has
T_CLS = (NEVER, *(step / 20 for step in range(20, -1, -1)))
T_HCD = tuple(step / 20 for step in range(1, 21))


@dataclass(frozen=True)
class OperatingPoint:
    """Thresholds of the classifier and the detector, and what was found with them on the samples that chose them."""

    t_cls: float
    t_hcd: float
    held_out_accuracy: float  # with exit
    held_out_accuracy_no_exit: float
    held_out_efficiency: float


def operating_point(course: Course, targets: Tensor, efficiency: Callable[[Tensor], float], tolerance: float = 0.005) -> OperatingPoint:
    """Return the most efficient thresholds whose accuracy is at most ``tolerance`` below that without exit.

    ``targets [B]``; ``efficiency``: of samples that leave at blocks ``[B]``. Of equally efficient ones the more careful are returned; if
    none will do, nobody exits.
    """
    whole = _accuracy(course, targets, course.exits(NEVER, 0.0))
    best: OperatingPoint | None = None
    for t_cls in T_CLS:
        for t_hcd in T_HCD:
            exits = course.exits(t_cls, t_hcd)
            found = _accuracy(course, targets, exits)
            if found < whole - tolerance:
                continue
            gain = efficiency(exits)
            if best is None or gain > best.held_out_efficiency:
                best = OperatingPoint(t_cls, t_hcd, found, whole, gain)
    assert best is not None  # the first thresholds let nobody exit
    return best


def _accuracy(course: Course, targets: Tensor, exits: Tensor) -> float:
    return (course.answers_at(exits) == targets).double().mean().item()
