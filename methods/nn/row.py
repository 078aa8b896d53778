"""A backbone that is a row of modules with one level of features at its end."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from methods.nn.backbones import Level


class Row(nn.Module):
    """``Row([layer, layer, ...], Level(512, (4, 4), 8))``: ``[T, B, ...] -> one level``, the last module's output."""

    def __init__(self, layers: Sequence[nn.Module], level: Level) -> None:
        """Join ``layers``; ``level`` describes what the last one gives."""
        super().__init__()
        self.layers = nn.Sequential(*layers)
        self.levels = [level]

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the features, as the only level."""
        return [self.layers(x)]
