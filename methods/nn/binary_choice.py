"""Which layers to binarise so that the weights of a network take less storage: the cheapest first, and no more than are needed.

Bits: 32 per weight; of a binarised layer 1 per weight and 32 per alpha, one alpha for each output channel. Rule of ALBSNN, in our words and
formulas (the paper, Frontiers in Neuroscience 17:1225871, was read as abstract only).
"""

from __future__ import annotations

from collections.abc import Mapping

from methods.nn.local_binary import LocalBinary


def candidates(layers: Mapping[str, LocalBinary]) -> dict[str, LocalBinary]:
    """Return the layers that may be chosen: not protected, and smaller when binarised (those with one weight per alpha are not)."""
    return {name: layer for name, layer in layers.items() if not layer.protected and layer.bits(True) < layer.bits(False)}


def choose(
    layers: Mapping[str, LocalBinary],
    scores: Mapping[str, float],
    target: float,
    losses: Mapping[str, float] | None = None,
    limit: float | None = None,
) -> list[str]:
    """Return the names of the layers to binarise, in ascending order of ``scores``.

    Greedy: until the weights of all ``layers`` take at most ``1 - target`` of their bits in full precision, until the next layer's
    predicted change of the loss, ``losses[name]``, exceeds ``limit`` (where both are given), or until no candidate is left.
    """
    free = candidates(layers)
    left = sum(layer.bits(False) for layer in layers.values())
    allowed = (1 - target) * left
    chosen: list[str] = []
    for name in sorted(free, key=lambda name: scores[name]):
        if left <= allowed or (losses is not None and limit is not None and losses[name] > limit):
            break
        left -= free[name].bits(False) - free[name].bits(True)
        chosen.append(name)
    return chosen
