"""``SpikingMethod``: surrogate-gradient training with a hook for each part, so that a plugin overrides only what it is about.

===================  ==========================================================================
what a method is     what it overrides
===================  ==========================================================================
a neuron             ``neuron(features)``
a normalisation      ``norm(features, scale)``
a synapse            ``conv``, ``delay_line``, ``readout``, ``readout_conv``
an architecture      ``backbone()``
a learning rule      ``step(net, batch, update)``
a training schedule  ``phases(net)``
an inference rule    ``predict(net, inputs)``
===================  ==========================================================================

The defaults are the suite's STBP: LIF with leak 0.5, threshold 1, hard reset kept out of the gradient, triangular surrogate; tdBN;
the task's reference backbone; the mean over time of linear read-outs; back-propagation through all T steps.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from harness.method import Method, Prediction, Update
from harness.task import Batch
from methods.nn import backbones, heads
from methods.nn.neuron import LIF, backends
from methods.nn.norm import BatchNorm
from methods.nn.stepping import FutureError, Stateful, stepping
from methods.nn.synapse import AvgPool2d, Conv2d, DelayLine, Linear


class SpikingMethod(Method):
    """A method made of the suite's parts; see ``methods.nn.parts.Parts`` for shapes."""

    heads = ("classify", "detect", "segment", "per_step", "regress")
    threshold = 1.0

    def neuron(self, features: int) -> nn.Module:
        """Return the neurons of a layer."""
        return LIF(threshold=self.threshold)

    def norm(self, features: int, scale: float = 1.0) -> nn.Module:
        """Return the normalisation of a layer: tdBN, so that currents have the threshold as standard deviation."""
        return BatchNorm(features, scale=scale * self.threshold)

    def conv(self, features_in: int, features_out: int, kernel: int, stride: int = 1, first: bool = False) -> nn.Module:
        """Return a convolution without bias (the normalisation has one)."""
        return Conv2d(features_in, features_out, kernel, stride=stride, padding=kernel // 2, bias=False)

    def delay_line(self, features_in: int, features_out: int, taps: int, dilation: int, first: bool = False) -> nn.Module:
        """Return a linear synapse with delays, without bias."""
        return DelayLine(features_in, features_out, taps, dilation, bias=False)

    def pool(self, kernel: int) -> nn.Module:
        """Return average pooling."""
        return AvgPool2d(kernel)

    def readout(self, features_in: int, features_out: int) -> nn.Module:
        """Return the linear read-out of a classifier."""
        return Linear(features_in, features_out)

    def readout_conv(self, features_in: int, features_out: int) -> nn.Module:
        """Return the read-out of a detector."""
        return Conv2d(features_in, features_out, 1)

    def backbone(self) -> nn.Module:
        """Return the network up to the head; default: the task's reference backbone for the budget."""
        return backbones.build(self.task.budget.backbone, self.task.input_shape, self)

    def build(self) -> nn.Module:
        """Return backbone and head."""
        backbone = self.backbone()
        net = heads.Network(backbone, heads.build(self.task.head, backbone.levels, self))
        return net.to(memory_format=torch.channels_last) if self.task.device.type == "cpu" else net

    def step(self, net: nn.Module, batch: Batch, update: Update) -> Tensor:
        """Back-propagate the loss of the final answer through all time steps, and update."""
        loss = self.loss(self.task.final(net(self.encode(batch.inputs))), batch.targets)
        update.minimise(loss)
        return loss

    def state_bytes(self, net: nn.Module, inputs: Tensor) -> int | None:
        """Return the bytes of the states of all stateful parts; None for a network that looks at steps to come."""
        parts = [module for module in net.modules() if isinstance(module, Stateful)]
        try:
            with stepping(net):
                for now in self.encode(inputs)[:2].split(1):
                    net(now)
                return sum(state.numel() * state.element_size() for part in parts for state in part.carried() or ())
        except FutureError:
            return None

    def report(self, net: nn.Module) -> dict[str, Any]:
        """Return how many layers of neurons used which backend, as times depend on it."""
        used = backends(net)
        return {"neuron_backends": used} if used else {}

    def predict(self, net: nn.Module, inputs: Tensor) -> Prediction:
        """Run all time steps and read the answer out at each."""
        return Prediction.at_every_step(self.task.answer(net(self.encode(inputs))))
