"""A network for images that come column by column: 1-d convolutions along each column, and neurons that join the columns over time.

    ColumnNet((96,), parts, width=128)      # 32x32 pixels of three colours: [T, B, 96] -> [[T, B, 128, 8]]

Source: sequential CIFAR of "Parallel Spiking Neurons with High Efficiency and Ability to Learn Long-term Dependencies" (Fang et al.,
NeurIPS 2023) and its official code.
"""

from __future__ import annotations

from torch import Tensor, nn

from methods.nn.backbones import Level
from methods.nn.layer import Layer
from methods.nn.parts import Parts

HALVINGS, LAYERS = 2, 3  # poolings, and layers before each


class Conv1d(nn.Conv1d):
    """``nn.Conv1d`` on ``[T, B, C, L]``."""

    def forward(self, x: Tensor) -> Tensor:
        """Return ``[T, B, C', L']``."""
        return super().forward(x.flatten(0, 1)).unflatten(0, x.shape[:2])


class AvgPool1d(nn.Module):
    """Mean of pairs: ``[T, B, C, L] -> [T, B, C, L // 2]``; an odd one at the end is left out."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the means."""
        return x[..., : x.shape[-1] // 2 * 2].unflatten(-1, (-1, 2)).mean(-1)


def columns(features: int) -> tuple[int, int]:
    """Return colours and pixels of a column of ``features`` numbers: three colours where that leaves four pixels or more, else one."""
    colours = 3 if features % 3 == 0 and features >= 3 * 2**HALVINGS else 1
    return colours, features // colours


class ColumnNet(nn.Module):
    """Twice three layers (convolution of 3 pixels, normalisation, neurons) and a pooling of 2: ``[T, B, F] -> [[T, B, width, L // 4]]``.

    A column holds the pixels of one colour after those of another (``columns``). Raises ValueError for an input that is no vector, or one
    of fewer than four pixels.
    """

    def __init__(self, input_shape: tuple[int, ...], parts: Parts, width: int = 128) -> None:
        """Make the layers."""
        super().__init__()
        if len(input_shape) != 1:
            raise ValueError(f"a column is a vector, not of shape {list(input_shape)}")
        self.colours, length = columns(input_shape[0])
        if length < 2**HALVINGS:
            raise ValueError(f"a column of {length} pixels cannot be halved {HALVINGS} times")
        modules: list[nn.Module] = []
        channels = self.colours
        for _ in range(HALVINGS):
            for _ in range(LAYERS):
                modules.append(Layer(Conv1d(channels, width, 3, padding=1, bias=False), parts.norm(width), parts.neuron(width)))
                channels = width
            modules.append(AvgPool1d())
            length //= 2
        self.layers = nn.Sequential(*modules)
        self.levels = [Level(width, (length,))]

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the features, as the only level."""
        return [self.layers(x.unflatten(-1, (self.colours, -1)))]
