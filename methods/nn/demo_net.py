"""The network of STL-SNN's official MNIST demo, from a method's parts; read-out apart.

::

    conv5x5(C -> 128) - BN - neurons - maxpool - conv5x5(128 -> 128) - BN - neurons - maxpool
    - flatten - dropout - FC 2048 - neurons - dropout

The demo's fully connected layers have no normalisation and, as all its layers, no bias.
"""

from __future__ import annotations

from torch import Tensor, nn

from methods.nn.backbones import Level
from methods.nn.layer import Layer
from methods.nn.parts import Parts
from methods.nn.residual import MaxPool2d


class DemoNet(nn.Module):
    """``[T, B, C, H, W] -> one level [T, B, 2048]``.

    Max pooling of spikes, an OR; dropout draws a new mask at every step. Raises ValueError for an image smaller than 4x4.
    """

    channels, hidden, dropout = 128, 2048, 0.5

    def __init__(self, input_shape: tuple[int, ...], parts: Parts) -> None:
        """Make the layers."""
        super().__init__()
        features, height, width = input_shape
        if min(height, width) < 4:
            raise ValueError(f"an image of {height}x{width} cannot be halved twice")
        stages: list[nn.Module] = []
        for inputs in (features, self.channels):
            conv = parts.conv(inputs, self.channels, 5, first=not stages)
            stages += [Layer(conv, parts.norm(self.channels), parts.neuron(self.channels)), MaxPool2d(2)]
        size = self.channels * (height // 4) * (width // 4)
        full = Layer(nn.Linear(size, self.hidden, bias=False), nn.Identity(), parts.neuron(self.hidden))
        self.layers = nn.Sequential(*stages, nn.Flatten(2), nn.Dropout(self.dropout), full, nn.Dropout(self.dropout))
        self.levels = [Level(self.hidden)]

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the features of the last layer, as the only level."""
        return [self.layers(x)]
