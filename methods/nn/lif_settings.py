"""What a kernel of the LIF is told about a layer: numbers, choices, and the surrogate as coefficients of one formula per kind.

numbers = Numbers(leak=0.5, threshold=1.0, v_init=0.0, c0=1.0, c1=1.0, c2=1.0)      # the tail is ``coefficients(surrogate)[1:]``
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

from torch import Tensor

from methods.nn.surrogate import Arctan, FastSigmoid, Gauss, Polynomial, Rectangle, Sigmoid, Surrogate, Triangle

Save = Literal["auto", "potential", "recompute", "bits"]
RESETS = ("hard", "soft", "none")
POTENTIAL, CURRENT, BITS = range(3)  # what is kept for the backward pass


class Numbers(NamedTuple):
    """Settings that are numbers, in the order in which the operators take them."""

    leak: float  # not used where the leak is a tensor
    threshold: float  # nor this
    v_init: float
    c0: float
    c1: float
    c2: float


class Flags(NamedTuple):
    """Settings that are choices, in the order in which the operators take them."""

    reset: int
    attached: int
    strict: int
    surrogate: int
    scaled: int
    keep: int  # whether a backward pass will come
    save: int  # POTENTIAL, CURRENT or BITS, as asked for; ``kept`` says what is done
    carry: int  # whether the state after the last step is wanted
    refractory: int  # steps of silence after a spike


def kept(leak: Tensor | None, flags: Flags) -> int:
    """Return what is kept for the backward pass: POTENTIAL, CURRENT or BITS.

    The gradient of the leak of a scaled input needs the currents, and where a refractory neuron listened does not follow from potentials.
    """
    if flags.refractory or (leak is not None and flags.scaled):
        return CURRENT
    return POTENTIAL if flags.save == BITS and leak is not None else flags.save


def planes(threshold: Tensor | None, flags: Flags) -> int:
    """Return how many bits a neuron-step takes when packed: the window, and the spike where a gradient asks for it."""
    return 2 if RESETS[flags.reset] == "hard" or threshold is not None else 1


def why_not_bits(surrogate: Surrogate, reset: str, detach_reset: bool, learnt_leak: bool, refractory: int) -> str | None:
    """Return why packed spikes and windows do not determine the gradients of such a neuron, or None if they do."""
    if type(surrogate) is not Rectangle:
        return f"the surrogate must be a Rectangle, as any other needs potentials, not {type(surrogate).__name__}"
    if reset == "hard" and not detach_reset:
        return "a hard reset must be detached, as else its gradient needs potentials; or take reset='soft'"
    if learnt_leak:
        return "the gradient of a learnt leak needs potentials"
    return "when a refractory neuron listened would have to be kept too" if refractory else None


def coefficients(surrogate: Surrogate) -> tuple[int, float, float, float] | None:
    """Return how kernels.c computes a surrogate, or None if it does not know it."""
    kind = type(surrogate)  # not isinstance: a subclass may have another formula
    if kind is Rectangle:
        return 0, surrogate.width / 2, 1 / surrogate.width, 0.0
    if kind is Triangle:
        return 1, surrogate.width, 1.0, surrogate.scale / surrogate.width**2
    if kind is Polynomial:
        return 1, math.sqrt(surrogate.a) / 2, surrogate.a / 4, 1.0
    if kind is Sigmoid:
        return 2, surrogate.alpha, 0.0, 0.0
    if kind is Gauss:
        return 3, 1 / (2 * surrogate.a), 1 / math.sqrt(2 * math.pi * surrogate.a), 0.0
    if kind is Arctan:
        return 4, math.pi / 2 * surrogate.alpha, surrogate.alpha / 2, 0.0
    if kind is FastSigmoid:
        return 5, surrogate.alpha, surrogate.scale * surrogate.alpha / 2, 0.0
    return None
