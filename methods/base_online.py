"""``OnlineMethod``: walk through the steps of a batch once, and differentiate each by itself as soon as it has been computed.

::

    L[t] = ((1 - alpha) * E(o[t], y) + alpha * R(o[t], y)) / T     E: the task's loss; R: a squared error, of classifiers
    for t in 0 .. T-1:
        o[t] = net(x[t])                                           states go on to the next step, their gradients do not
        if t is among chosen(T): add the gradients of L[t]         and nothing of step t is held any more

One optimiser step follows, or one per time step (``updates_every_step``). What the gradient of a step then is, is said by the parts of the
network: with traces in the synapses (``methods.nn.traced``) it is OTTT's, without them SLTT's. Where every step has an answer of its own,
``L[t]`` is of that answer; where only the last one counts, every step is still asked for it, as both papers do. Sources: "Online Training
Through Time for Spiking Neural Networks" (Xiao et al., NeurIPS 2022), section 4; "Towards Memory- and Time-Efficient Backpropagation for
Training Spiking Neural Networks" (Meng et al., ICCV 2023), algorithm 1.
"""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor, nn

from harness.method import Update
from harness.task import Batch
from methods.base import SpikingMethod
from methods.nn.one_hot import one_hot_error
from methods.nn.stepping import stepping


class OnlineMethod(SpikingMethod):
    """A rule that differentiates one time step at a time; its options have ``loss_alpha``, the share of R in the loss of a classifier."""

    @property
    def updates_every_step(self) -> bool:
        """Whether the optimiser steps after every time step instead of once per batch."""
        return False

    def chosen(self, steps: int) -> Collection[int]:
        """Return which of ``steps`` time steps of a batch are differentiated; called once per batch. Default: all."""
        return range(steps)

    def squared_error(self, output: Tensor, targets: Tensor) -> Tensor:
        """Return R of the output of a step ``[B, K]``; default: the squared error to one-hot classes."""
        return one_hot_error(output, targets)

    def loss(self, output: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of the output of one step, ``[B, ...]``, before the division by T."""
        alpha = self.options.loss_alpha
        loss = super().loss(output, targets)
        if self.task.head.kind != "classify" or alpha == 0:
            return loss
        return (1 - alpha) * loss + alpha * self.squared_error(output, targets)

    def loss_at(self, step: int, output: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of ``output [B, ...]`` of a step, by the targets of that step where each has its own."""
        return self.loss(*self.task.at_step(step, output, targets))

    def step(self, net: nn.Module, batch: Batch, update: Update) -> Tensor:
        """Walk through the steps of a batch; return the sum of their losses."""
        return self.walk(net, self.encode(batch.inputs), batch.targets, update)

    def walk(self, net: nn.Module, inputs: Tensor, targets: Tensor, update: Update) -> Tensor:
        """Go through ``inputs [T, B, ...]`` once, differentiating the chosen steps; return the sum of the losses of all steps."""
        chosen, often = self.chosen(len(inputs)), self.updates_every_step
        total = torch.zeros((), device=inputs.device)
        if not often:
            update.zero_grad()
        with stepping(net, detach=True):
            for t, now in enumerate(inputs.split(1)):
                with torch.set_grad_enabled(t in chosen):
                    # A copy: what the backward pass keeps is one step then, not a view that holds the whole sequence.
                    loss = self.loss_at(t, net(now.clone())[0], targets) / len(inputs)
                if t in chosen:
                    if often:
                        update.zero_grad()
                    update.backward(loss)
                    if often:
                        update.apply()
                total += loss.detach()
        if not often:
            update.apply()
        return total

    def exact_loss(self, net: nn.Module, batch: Batch) -> Tensor | None:
        """Return the mean over steps of the losses, through all of time."""
        return self.through_time(net, self.encode(batch.inputs), batch.targets)

    def through_time(self, net: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
        """Return the sum of ``L[t]`` of ``inputs [T, B, ...]``, computed in one call, so that its gradient is that of BPTT."""
        outputs = net(inputs)
        return sum(self.loss_at(t, output, targets) for t, output in enumerate(outputs.unbind(0))) / len(outputs)
