"""Training steps on copies: what a step does can be looked at as often as wanted, and neither method, network nor optimiser notices.

::

    rehearsal = Rehearsal(method, net, phase)          # phase None: the first one
    for batch in rehearsal.batches(4):
        rehearsal.step(batch)                           # gradients are left on ``rehearsal.net``

Method, network and phase are copied together, so that what they hold of each other stays theirs; the task is shared. Neurons that would
compile for their backend take the reference instead.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from harness.loader import targets
from harness.method import Method, Phase
from harness.task import Batch
from methods.nn.neuron import LIF

SEED = 20406  # of which training samples are looked at: the same in every run


class Looking:
    """An update (``harness.method.Update``) that finds gradients and changes nothing."""

    def __init__(self, net: nn.Module) -> None:
        """Look at the gradients of ``net``."""
        self.net = net

    def zero_grad(self) -> None:
        """Forget gradients."""
        self.net.zero_grad(set_to_none=True)

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of ``loss``."""
        loss.backward()

    def apply(self) -> None:
        """Change no weight."""

    def minimise(self, loss: Tensor) -> None:
        """Forget gradients, add those of ``loss``."""
        self.zero_grad()
        self.backward(loss)


class Rehearsal:
    """A copy of a method in a phase of its training; ``net`` is the copy of the network, in the modes of the phase."""

    def __init__(self, method: Method, net: nn.Module, phase: Phase | None = None) -> None:
        """Copy."""
        kept = {id(method.task): method.task}
        if phase is None:
            self.method, self.net = copy.deepcopy((method, net), kept)
            self.phase = next(self.method.phases(self.net), Phase())
        else:
            parts = (method, net, phase.step, None if phase.modules is None else list(phase.modules))
            self.method, self.net, step, modules = copy.deepcopy(parts, kept)
            self.phase = Phase(phase.name, step, training=phase.training, keep=phase.keep, modules=modules)
        if isinstance(self.phase.modules, Iterator):
            self.phase.modules = list(self.phase.modules)
        self.net.train(self.phase.modules is None)
        for module in self.phase.modules or ():
            module.train()
        for module in self.net.modules():
            if getattr(module, "backend", None) in ("auto", "compiled") and not isinstance(module, LIF):
                module.backend = "reference"
        self.update = Looking(self.net)

    def indices(self) -> Tensor:
        """Return the places of the training samples of the phase."""
        return samples_of(self.method, self.phase)

    def batches(self, number: int) -> Iterator[Batch]:
        """Yield so many training batches of the phase's size, fewer if there are not so many samples."""
        size, places = (self.phase.training or self.method.training).batch_size, self.indices()
        order = places[torch.randperm(len(places), generator=torch.Generator().manual_seed(SEED))]
        for index in order[: number * size].split(size):
            yield self.method.task.gather("train", index)

    def step(self, batch: Batch) -> None:
        """Take a step of the phase."""
        (self.phase.step or self.method.step)(self.net, batch, self.update)


def samples_of(method: Method, phase: Phase) -> Tensor:
    """Return the places of the training samples that a phase trains on."""
    data = method.task.split("train")
    if phase.keep is None:
        return torch.arange(len(data))
    return phase.keep(targets(data)).nonzero().flatten().cpu()
