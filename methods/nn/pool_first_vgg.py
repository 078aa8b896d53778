"""VGG networks that pool currents: convolution, max pooling, normalisation, neurons, so that every synapse sees 0 and 1 only.

    PoolFirstVgg((3, 32, 32), PLAN, parts, hidden=(4096, 4096))     # VGG-16 for CIFAR-10, with the read-out of the head

``methods.nn.vgg.Vgg`` averages spikes instead, which makes the inputs of later convolutions fractions. Source: the VGG-16 of "Hoyer
Regularizer Is All You Need for Ultra Low-Latency Spiking Neural Networks" (Datta, Liu, Beerel, arXiv 2212.10170): poolings after blocks 1
to 4, two hidden fully connected layers. That these are normalised like the convolutions is ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from torch import Tensor, nn

from methods.nn.backbones import Level
from methods.nn.dropout import SequenceDropout
from methods.nn.layer import Layer
from methods.nn.parts import Parts
from methods.nn.residual import MaxPool2d
from methods.nn.synapse import Linear
from methods.nn.vgg import Plan

PLAN: Plan = (64, 64, "P", 128, 128, "P", 256, 256, 256, "P", 512, 512, 512, "P", 512, 512, 512)


class PoolFirstVgg(nn.Module):
    """``[T, B, C, H, W] -> one level per pooling, and the last``; of hidden layers the last level is a vector ``[T, B, F]``.

    ``plan``: channels of the 3x3 layers; "P" after them: 2x2 max pooling between convolution and normalisation of the layer before it.
    ``hidden``: fully connected spiking layers. ``dropout`` of the spikes of every layer. Raises ValueError for an input that is no image or
    too small for the poolings, and a plan with a pooling that follows no layer.
    """

    def __init__(self, input_shape: tuple[int, ...], plan: Plan, parts: Parts, hidden: Sequence[int] = (), dropout: float = 0.0) -> None:
        """Make the layers of ``plan``."""
        super().__init__()
        if len(input_shape) != 3:
            raise ValueError(f"a VGG is for images [C, H, W], not for samples of shape {list(input_shape)}")
        channels, *size = input_shape
        if min(size) >> plan.count("P") < 1:
            raise ValueError(f"an image of {size[0]}x{size[1]} cannot be halved {plan.count('P')} times")
        self.levels: list[Level] = []
        self.stages = nn.ModuleList()
        stage: list[nn.Module] = []
        stride = 1
        for position, entry in enumerate(plan):
            if isinstance(entry, str):
                if position == 0 or isinstance(plan[position - 1], str):
                    raise ValueError(f"the pooling at position {position} of the plan follows no layer")
                continue
            synapse: nn.Module = parts.conv(channels, entry, 3, first=position == 0)
            channels, pooled = entry, plan[position + 1 : position + 2] == ("P",)
            if pooled:
                synapse = nn.Sequential(synapse, MaxPool2d(2))
                size, stride = [length // 2 for length in size], 2 * stride
            stage += [Layer(synapse, parts.norm(entry), parts.neuron(entry)), *_dropouts(dropout)]
            if pooled:
                self._close(stage, Level(channels, tuple(size), stride))
                stage = []
        if stage:
            self._close(stage, Level(channels, tuple(size), stride))
        if hidden:
            features, layers = channels * prod(size), [nn.Flatten(2)]
            for width in hidden:
                layers += [Layer(Linear(features, width, bias=False), parts.norm(width), parts.neuron(width)), *_dropouts(dropout)]
                features = width
            self._close(layers, Level(features, (), stride * max(size)))

    def _close(self, stage: list[nn.Module], level: Level) -> None:
        self.stages.append(nn.Sequential(*stage))
        self.levels.append(level)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the features of every level."""
        found = []
        for stage in self.stages:
            x = stage(x)
            found.append(x)
        return found


def _dropouts(p: float) -> list[nn.Module]:
    return [SequenceDropout(p)] if p else []
