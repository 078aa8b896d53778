"""The accuracy loss estimator of ALBSNN: what binary weights would cost in each layer, from quantities that training has anyway.

With ``g`` the gradient of the loss at the weights in use (W, or B where the layer is binarised), every iteration::

    A = |sum g (B - W)|            first-order change of the loss when the layer is switched from one to the other
    A_smooth <- keep A_smooth + (1 - keep) A,  keep = 0.9, begun with the first A

The absolute value is smoothed, not the signed sum: an error that changes its sign from batch to batch is still an error. Formulas ours
(the paper, Frontiers in Neuroscience 17:1225871, was read as abstract only).
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from methods.nn.local_binary import LocalBinary, binary_weight


class AccuracyLoss:
    """Smoothed loss errors of ``layers``; they stay on the device until ``errors()`` is asked for.

    ::

        with weights_in_use(layers.values()) as used:
            loss = ...
        for tensor in (loss, *used.values()):
            tensor.retain_grad()
        loss.backward()
        estimator.observe(used)
    """

    def __init__(self, layers: Mapping[str, LocalBinary], keep: float = 0.9) -> None:
        """Watch ``layers``, by name; ``keep`` of the old value is kept at each observation."""
        self.layers, self.keep = dict(layers), keep
        self._smooth: Tensor | None = None  # [layers]; NaN where nothing finite was seen

    @torch.no_grad()
    def observe(self, used: Mapping[LocalBinary, Tensor], scale: Tensor | float = 1.0) -> None:
        """Take in ``used[layer].grad``, ``scale`` times the gradient of the loss (mixed precision); what is not finite is passed over."""
        found = torch.stack([self.signed_error(layer, used[layer].grad).abs() for layer in self.layers.values()]) / scale
        old = torch.full_like(found, math.nan) if self._smooth is None else self._smooth
        new = torch.where(old.isnan(), found, self.keep * old + (1 - self.keep) * found)
        self._smooth = torch.where(found.isfinite(), new, old)

    @staticmethod
    @torch.no_grad()
    def signed_error(layer: LocalBinary, gradient: Tensor) -> Tensor:
        """Return ``sum g (B - W)``: how the loss changes to first order when W becomes B."""
        return (gradient * (binary_weight(layer.weight) - layer.weight)).sum()

    def errors(self) -> dict[str, float] | None:
        """Return the smoothed A by layer, or None before something was seen in each."""
        values = [math.nan] if self._smooth is None else self._smooth.tolist()
        return None if any(map(math.isnan, values)) else dict(zip(self.layers, values, strict=True))
