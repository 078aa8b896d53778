"""A read-out by global average pooling (GAP): convolution to the classes, normalisation, mean over positions. It does not spike.

The number of its weights does not grow with the size of the map, as that of a fully connected read-out does. With a 1x1 convolution it is
the linear map of the mean features. In training, the normalised classes of a batch of one sample have the mean 0 over positions and steps:
nothing but the biases is answered, and nothing else is learnt.
"""

from __future__ import annotations

from torch import Tensor, nn


class GapHead(nn.Module):
    """From the last level ``[T, B, C, H, W]`` of a backbone to answers ``[T, B, classes]`` at every step."""

    def __init__(self, synapse: nn.Module, norm: nn.Module) -> None:
        """Join a convolution ``[T, B, C, H, W] -> [T, B, classes, H, W]`` and a normalisation."""
        super().__init__()
        self.synapse, self.norm = synapse, norm

    def forward(self, levels: list[Tensor]) -> Tensor:
        """Return the means over positions."""
        return self.norm(self.synapse(levels[-1])).mean((-2, -1))
