"""When the layers to binarise are chosen in the course of a training, and by what: the schedule of ALBSNN.

Before every epoch from ``warmup`` to ``freeze`` (shares of the epochs), and once at least, all layers are looked at afresh::

    by "loss"     A / n    predicted loss per weight saved (methods/nn/accuracy_loss.py)
    by "eps"      eps      error of the weight (methods/nn/local_binary.py)
    by a mapping           an order that is given: random, largest first

and ``methods.nn.binary_choice.choose`` takes the cheapest. A choice before any iteration has no A yet and goes by eps, without limit.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from methods.nn.accuracy_loss import AccuracyLoss
from methods.nn.binary_choice import candidates, choose
from methods.nn.local_binary import LocalBinary, weight_error


class LayerChoice:
    """Binarises some of ``layers`` for a ``target`` share of storage saved, short of a predicted loss error above ``limit``.

    ``estimator`` is there for as long as what it measures can change the choice; ``chosen`` has the names and ``errors`` the loss errors
    by the epoch before which a choice was made.
    """

    def __init__(
        self,
        layers: Mapping[str, LocalBinary],
        by: Literal["loss", "eps"] | Mapping[str, float],
        target: float,
        limit: float | None = None,
        warmup: float = 0.1,
        freeze: float = 0.6,
    ) -> None:
        """Choose nothing yet."""
        self.layers, self.by, self.target, self.limit, self.warmup, self.freeze = dict(layers), by, target, limit, warmup, freeze
        free = candidates(layers)
        self.estimator = AccuracyLoss(free) if free and (by == "loss" or limit is not None) else None
        self.chosen: dict[int, list[str]] = {}
        self.errors: dict[int, dict[str, float]] = {}

    def window(self, epochs: int) -> tuple[int, int]:
        """Return the first epoch with a choice before it, and the first from which on the choice stays."""
        first = min(round(self.warmup * epochs), epochs - 1)
        return first, max(round(self.freeze * epochs), first + 1)

    def before(self, epoch: int, epochs: int) -> bool:
        """Choose if it is time to; return whether the choice stays from here on."""
        first, frozen = self.window(epochs)
        if first <= epoch < frozen and self.layers:
            self._choose(epoch)
        if epoch >= frozen - 1:
            self.estimator = None
        return epoch >= frozen

    def _choose(self, epoch: int) -> None:
        errors = self.estimator.errors() if self.estimator else None
        if errors is not None:
            self.errors[epoch] = errors
        if isinstance(self.by, Mapping):
            scores = self.by
        elif self.by == "loss" and errors is not None:
            scores = {name: error / self.layers[name].weight.numel() for name, error in errors.items()}
        else:
            scores = {name: weight_error(layer.weight).item() for name, layer in self.layers.items()}
        self.chosen[epoch] = choose(self.layers, scores, self.target, errors, self.limit)
        for name, layer in self.layers.items():
            layer.binary = name in self.chosen[epoch]
