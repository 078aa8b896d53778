"""The networks that rate conversion is published with, built from a method's parts, average pooling throughout.

``vgg16``: the thirteen 3x3 convolutions of VGG-16 with five poolings, then the read-out of the task in place of the three fully connected
layers. ``resnet34``: the network for ImageNet with currents added before the neurons. ``resnet``: a residual block per stage, with the
widths of the budget's network, for small images.
"""

from __future__ import annotations

from functools import partial
from typing import Literal

from torch import nn

from harness.task import Backbone
from methods.nn import backbones
from methods.nn.parts import Parts
from methods.nn.residual import DEPTHS, DeepResNet, ResidualBlock
from methods.nn.vgg import VGG16, Vgg

Name = Literal["task", "resnet", "vgg16", "resnet34"]
LEAST = {"vgg16": 32, "resnet34": 32}  # pixels each way that a network can be pooled down from


def rate_network(name: Name, spec: Backbone, input_shape: tuple[int, ...], parts: Parts) -> nn.Module:
    """Return the backbone called ``name`` for images ``[C, H, W]``; ``spec`` is the budget's. Raises ValueError for images too small."""
    if name in LEAST and min(input_shape[1:]) < LEAST[name]:
        raise ValueError(f"{name} needs images of {LEAST[name]} pixels each way or more, not {list(input_shape[1:])}")
    if name == "vgg16":
        return Vgg(input_shape, VGG16, parts)
    if name == "resnet34":
        net = DeepResNet(input_shape, DEPTHS["34"][0], parts, partial(_block, parts))
        net.stem[1] = parts.pool(2)  # the mean of rates is the rate of the mean; of the maximum that is not so
        return net
    return backbones.build(Backbone("resnet", spec.widths, spec.depth) if name == "resnet" else spec, input_shape, parts)


def published_net(input_shape: tuple[int, ...]) -> Name:
    """Return VGG-16, which conversions are published with, where images are large enough for it, else the task's backbone."""
    return "vgg16" if min(input_shape[1:]) >= LEAST["vgg16"] else "task"


def _block(parts: Parts, features_in: int, features_out: int, stride: int) -> nn.Module:
    return ResidualBlock(features_in, features_out, stride, parts, connect="vanilla")
