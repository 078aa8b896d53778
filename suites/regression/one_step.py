"""A method on a task at the smoke budget, made ready so that one training step, or one answer, is a call.

ready = OneStep("stbp", "static/digits")
ready.train()          # forward, backward, optimiser, on the same batch each time
ready.answer()         # the answers to that batch
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from harness.loop import Updater, make_optimizer
from harness.meters.clock import StepClock
from harness.method import Phase, Prediction
from harness.registry import Registries
from harness.spec import parse_variant
from harness.task import Batch


class OneStep:
    """The first phase of ``method`` (with options in brackets) on ``task``, with the first samples of the training split as the batch."""

    def __init__(self, method: str, task: str, steps: int | None = None, threads: int = 1) -> None:
        """Build the network with seed 0; ``steps`` is T where the data leave it open."""
        torch.set_num_threads(threads)
        registries = Registries()
        name, options = parse_variant(method)
        self.method = registries.methods.load(name)(registries.task(task, "smoke"), options, steps=steps)
        torch.manual_seed(0)
        self.net: nn.Module = self.method.build()
        self.phase: Phase = next(iter(self.method.phases(self.net)))
        device, training = self.method.task.device, self.phase.training or self.method.training
        chosen = list(self.phase.parameters) if self.phase.parameters is not None else list(self.net.parameters())
        self.update = Updater(make_optimizer(chosen, training), StepClock(device), "fp32", device, training.clip_norm)
        self.batch: Batch = next(self.method.task.batches("train", training.batch_size))
        if self.phase.on_epoch:
            self.phase.on_epoch(0, training.epochs)

    def train(self) -> Tensor:
        """Do one training step and return its loss."""
        for module in self.phase.modules or [self.net]:
            module.train()
        return (self.phase.step or self.method.step)(self.net, self.batch, self.update)

    def answer(self) -> Prediction:
        """Return the answers to the batch."""
        self.net.eval()
        with torch.no_grad():
            return self.method.predict(self.net, self.batch.inputs)
