"""The network of the notebook of "Spiking neural networks trained via proxy" for 28x28 images, from a method's parts; read-out apart.

::

    conv3x3(C -> 128) - conv3x3(128) - pool - conv3x3(128) - pool - FC 2560 - FC 1152 - FC 256

Convolutions have a normalisation and no bias, fully connected layers neither.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from methods.nn.backbones import Level
from methods.nn.layer import Layer
from methods.nn.parts import Parts
from methods.nn.vgg import Vgg


class ProxyNet(nn.Module):
    """``[T, B, C, H, W] -> one level [T, B, 256]``; ``channels`` of the convolutions and ``hidden`` neurons of the layers after them.

    Raises ValueError for an image smaller than 4x4.
    """

    def __init__(self, input_shape: tuple[int, ...], parts: Parts, channels: int = 128, hidden: Sequence[int] = (2560, 1152, 256)) -> None:
        """Make the layers."""
        super().__init__()
        self.convolutions = Vgg(input_shape, (channels, channels, "P", channels, "P"), parts)
        features, layers = self.convolutions.levels[-1].features, []
        for width in hidden:
            layers.append(Layer(nn.Linear(features, width, bias=False), nn.Identity(), parts.neuron(width)))
            features = width
        self.full = nn.Sequential(nn.Flatten(2), *layers)
        self.levels = [Level(features)]

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the features of the last layer, as the only level."""
        return [self.full(self.convolutions(x)[-1])]
