"""The network of the SCTFA paper's example for MNIST-DVS: three convolution layers with poolings and one fully connected layer."""

from __future__ import annotations

from torch import Tensor, nn

from methods.nn.backbones import Level
from methods.nn.layer import Layer
from methods.nn.parts import Parts
from methods.nn.synapse import Linear

SMALLEST = 15  # pixels a side that leave one place after the poolings
PLAN = ((32, 7, 2), (64, 3, 1), (128, 3, 1))  # channels, kernel, stride; each followed by 2x2 average pooling


class EventNet(nn.Module):
    """7x7 stride 2 (32), AP2, 3x3 (64), AP2, 3x3 (128), AP2, 512 fully connected: ``[T, B, C, H, W] -> [[T, B, 512]]``.

    The fully connected layer has a bias, no normalisation, and the ``dense`` neurons. Source: official example for "A
    Spatial-Channel-Temporal-Fused Attention for Spiking Neural Networks" (Cai et al., IEEE TNNLS 2023); input there 2x128x128. Raises
    ValueError for an image below 15 pixels a side.
    """

    def __init__(self, input_shape: tuple[int, ...], parts: Parts, dense: nn.Module, features: int = 512) -> None:
        """Make the layers."""
        super().__init__()
        channels, *size = input_shape
        if min(size) < SMALLEST:
            raise ValueError(f"an image of {size[0]}x{size[1]} is too small for this network; allowed: {SMALLEST} pixels a side and more")
        layers: list[nn.Module] = []
        for width, kernel, stride in PLAN:
            layers += [Layer(parts.conv(channels, width, kernel, stride, first=not layers), parts.norm(width), parts.neuron(width))]
            layers += [parts.pool(2)]
            channels, size = width, [-(-side // stride) // 2 for side in size]
        self.convolutions = nn.Sequential(*layers)
        self.dense = Layer(Linear(channels * size[0] * size[1], features), nn.Identity(), dense)
        self.levels = [Level(features)]

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the spikes of the fully connected layer, as the only level."""
        return [self.dense(self.convolutions(x).flatten(2))]
