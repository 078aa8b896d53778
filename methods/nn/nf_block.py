"""Normaliser-free residual networks (NF-ResNet) of spiking neurons: variance is kept by known constants instead of normalisation.

A pre-activation block, with ``h = c * LIF(x / beta)`` and ``c = 2.74`` inside the synapses that follow
(``methods.nn.weight_standardisation``)::

    y = 0.2 * g * conv2(c * LIF(conv1(h))) + shortcut       g: one learnable number, 0 at the start ("skipinit")
    shortcut = x, or a 1x1 convolution of h where the shape changes

``beta`` is the expected standard deviation of the block's input: 1 at first; the variance grows by 0.2^2 = 0.04 with every block, and a
block that changes the shape sets it to 1.04. The card of OTTT gives these figures for beta itself ("beta = sqrt(expected variance): 1 at
the start, += 0.04 per block"); read here, reconstructed, as the variance. The branch of a bottleneck is reconstructed too, after Brock et
al.: ``conv3(c * LIF(conv2(c * LIF(conv1(h)))))`` with kernels 1, 3, 1 and a quarter of the channels inside.

Sources: "Characterizing signal propagation to close the performance gap in unnormalized ResNets" (Brock et al., ICLR 2021); the ImageNet
network of "Online Training Through Time for Spiking Neural Networks" (Xiao et al., NeurIPS 2022).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from methods.nn.backbones import Level
from methods.nn.drop_path import DropPath
from methods.nn.parts import Parts

BRANCH_SCALE = 0.2


class NormaliserFreeBlock(nn.Module):
    """A pre-activation block ``[T, B, C, H, W] -> [T, B, C', H/stride, W/stride]``; the identity at the start unless the shape changes.

    ``variance`` is what is expected of the input, ``variance_out`` what is then expected of the output. ``drop``: the chance with which the
    branch is left out for a sample in training. Raises ValueError for channels that a bottleneck cannot quarter.
    """

    def __init__(
        self,
        features_in: int,
        features_out: int,
        stride: int,
        variance: float,
        parts: Parts,
        bottleneck: bool = False,
        drop: float = 0.0,
    ) -> None:
        """Make the block from sWS synapses and neurons of ``parts``."""
        super().__init__()
        if bottleneck and features_out % 4:
            raise ValueError(f"a bottleneck has a quarter of its {features_out} channels inside; allowed: multiples of 4")
        changes = stride != 1 or features_in != features_out
        self.beta = math.sqrt(variance)
        self.variance_out = (1.0 if changes else variance) + BRANCH_SCALE**2
        inner = features_out // 4 if bottleneck else features_out
        self.neuron1, self.neuron2 = parts.neuron(features_in), parts.neuron(inner)
        self.conv1 = parts.conv(features_in, inner, 1 if bottleneck else 3, 1 if bottleneck else stride)
        self.conv2 = parts.conv(inner, inner, 3, stride if bottleneck else 1)
        self.last = nn.Sequential(parts.neuron(inner), parts.conv(inner, features_out, 1)) if bottleneck else nn.Identity()
        self.shortcut = parts.conv(features_in, features_out, 1, stride) if changes else None
        self.gain = nn.Parameter(torch.zeros(()))
        self.drop = DropPath(drop)

    def forward(self, x: Tensor) -> Tensor:
        """Return the sum of branch and shortcut."""
        spikes = self.neuron1(x / self.beta)
        branch = self.drop(self.last(self.conv2(self.neuron2(self.conv1(spikes)))))
        return branch * (self.gain * BRANCH_SCALE) + (x if self.shortcut is None else self.shortcut(spikes))


class NormaliserFreeResNet(nn.Module):
    """A small NF-ResNet for the suite's images (layout ours): a stem, then per width a block that halves the image and plain ones.

    ``[T, B, C, H, W] -> one level of spikes per width``, like the reference backbone, so that every head fits. Those for ImageNet:
    ``methods.nn.nf_resnet``. Raises ValueError for an input that is no image.
    """

    def __init__(self, input_shape: tuple[int, ...], widths: tuple[int, ...], parts: Parts, blocks: int = 2) -> None:
        """Make a stage of ``blocks`` blocks per width."""
        super().__init__()
        if len(input_shape) != 3:
            raise ValueError(f"a residual network is for images [C, H, W], not for samples of shape {list(input_shape)}")
        channels, height, width = input_shape
        self.stem = parts.conv(channels, widths[0], 3, first=True)
        channels, variance = widths[0], 1.0
        self.levels: list[Level] = []
        self.stages, self.neurons, self.betas = nn.ModuleList(), nn.ModuleList(), []
        for depth, features in enumerate(widths):
            stage = []
            for number in range(blocks):
                stage.append(NormaliserFreeBlock(channels, features, 1 if number else 2, variance, parts))
                channels, variance = features, stage[-1].variance_out
            self.stages.append(nn.Sequential(*stage))
            self.neurons.append(parts.neuron(features))
            self.betas.append(math.sqrt(variance))
            height, width = (height + 1) // 2, (width + 1) // 2
            self.levels.append(Level(features, (height, width), 2 ** (depth + 1)))

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the spikes of every stage."""
        x, found = self.stem(x), []
        for stage, neuron, beta in zip(self.stages, self.neurons, self.betas, strict=True):
            x = stage(x)
            found.append(neuron(x / beta))
        return found
