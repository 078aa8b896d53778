"""A VGG whose last feature map feeds back to its first convolution, one time step later (VGG-F).

With ``f[t]`` the last feature map before the mean over space, ``up`` nearest-neighbour enlargement to the size of the image (by 8 after
three poolings) and ``B`` a 3x3 convolution that starts at zero::

    current of the first layer at step t = conv1(x[t]) + B(up(f[t-1]))        f[-1] = 0

Inside ``stepping(net, detach=True)`` no error passes back through ``f[t-1]``: an online rule learns ``B`` from its input alone. In one call
over a whole sequence it does pass, so that the gradient is that of back-propagation through time. Source: "Online Training Through Time for
Spiking Neural Networks" (Xiao et al., NeurIPS 2022), by its official code. That ``B`` has no bias (conv1 has one) is ours.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from methods.nn.backbones import Level
from methods.nn.layer import Layer
from methods.nn.parts import Parts
from methods.nn.residual import GlobalAvgPool2d
from methods.nn.stepping import Stateful, stepping
from methods.nn.vgg import Plan, Vgg


class FeedbackVgg(Stateful):
    """``[T, B, C, H, W] -> one level per pooling, the last feature map, and its mean over space``, which a classifier reads.

    ``feedback`` makes B from the channels of the last feature map and of the first layer; it keeps the size and starts at zero. Steps are
    taken one after the other, as each needs the one before. Raises ValueError as ``Vgg`` does, and for a plan that begins with a pooling.
    """

    def __init__(self, input_shape: tuple[int, ...], plan: Plan, parts: Parts, feedback: Callable[[int, int], nn.Module]) -> None:
        """Make the layers of ``plan`` and the feedback."""
        super().__init__()
        vgg = Vgg(input_shape, plan, parts)
        first, *others = vgg.stages[0]
        if not isinstance(first, Layer):
            raise ValueError("a network with feedback begins with a layer of neurons, not with a pooling")
        vgg.stages[0] = nn.Sequential(*others)
        self.first, self.rest = first, vgg
        last = vgg.levels[-1]
        self.feedback = feedback(last.channels, int(plan[0]))
        self.pool = GlobalAvgPool2d()
        self.levels = [*vgg.levels, Level(last.channels, (1, 1), max(input_shape[1:]))]

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the features of every level, each ``[T, B, C, H, W]``."""
        if not self._stepping:
            with stepping(self):
                return self.forward(x)
        return [torch.cat(steps) for steps in zip(*[self._now(now) for now in x.split(1)], strict=True)]

    def _now(self, x: Tensor) -> list[Tensor]:
        before = self.carried()
        current = self.first.synapse(x)
        if before is not None:
            current = current + self.feedback(F.interpolate(before[0][0], size=x.shape[3:]).unsqueeze(0))
        levels = self.rest(self.first.neuron(self.first.norm(current)))
        self.carry(levels[-1])
        return [*levels, self.pool(levels[-1])]
