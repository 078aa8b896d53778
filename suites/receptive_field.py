"""How deep the reference network of sequences must be to see all of a sequence.

Its layers have four taps each, ``4^layer`` steps apart (``harness.task.Backbone``, kind "sequence"), so ``n`` layers see ``4^n`` steps::

    seeing(budget, 1000)  # the same budget, five layers
"""

from __future__ import annotations

from dataclasses import replace

from harness.task import Budget

GROWTH = 4  # of the view with each layer


def seeing(budget: Budget, steps: int) -> Budget:
    """Return ``budget`` with as many layers as a view of ``steps`` steps takes, none fewer than it has; the last width is repeated."""
    widths = list(budget.backbone.widths)
    while GROWTH ** len(widths) < steps:
        widths.append(widths[-1])
    return replace(budget, backbone=replace(budget.backbone, widths=tuple(widths)))
