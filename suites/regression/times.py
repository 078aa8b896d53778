"""asv's timed benchmarks: training step, answer, neuron cores, loaders, and what the harness adds. One thread.

On a shared machine these scatter by several per cent; the tracks (``tracks.py``) do not, and come first.
"""

from __future__ import annotations

import torch

from harness.registry import Registries
from methods.nn.neuron import LIF
from methods.nn.psn import PSN
from suites.regression import overhead
from suites.regression.one_step import OneStep


class Steps:
    """A training step and the answer to a batch, per method and number of time steps."""

    params = (["ann", "stbp", "bntt", "glif", "ms_resnet", "ottt", "psn"], [4, 16])
    param_names = ("method", "T")
    warmup_time = 0.5

    def setup(self, method: str, steps: int) -> None:
        """Build, and take a step, which compiles what is compiled."""
        if method == "ann" and steps > 4:
            raise NotImplementedError  # it answers in one pass, whatever T
        self.ready = OneStep(method, "static/digits", steps)
        self.ready.train()

    def time_training_step(self, method: str, steps: int) -> None:
        """Forward, backward, optimiser."""
        self.ready.train()

    def time_answer(self, method: str, steps: int) -> None:
        """Inference of a batch."""
        self.ready.answer()


class Neurons:
    """Forward and backward pass of a layer of 8,192 neurons."""

    params = (["lif", "lif-reference", "psn"], [4, 64])
    param_names = ("neuron", "T")
    warmup_time = 0.5

    def setup(self, neuron: str, steps: int) -> None:
        """Make the layer and its input."""
        torch.set_num_threads(1)
        torch.manual_seed(0)
        self.neuron = {"lif": LIF, "lif-reference": lambda: LIF(backend="reference"), "psn": lambda: PSN(steps)}[neuron]()
        self.current = torch.randn(steps, 8192, requires_grad=True)
        self.gradient = torch.ones(steps, 8192)
        self.time_both_ways(neuron, steps)

    def time_both_ways(self, neuron: str, steps: int) -> None:
        """Spikes, and gradients of the currents."""
        torch.autograd.grad(self.neuron(self.current), self.current, self.gradient)


class Loaders:
    """Going once through the test data of the embedded tasks, encoding included."""

    params = ["static/digits", "events/digits-saccade", "detection/digit-scenes", "sequences/digits-pixels"]
    param_names = ("task",)

    def setup(self, task: str) -> None:
        """Load the data, which is not timed."""
        torch.set_num_threads(1)
        self.task = Registries().task(task, "smoke")
        self.task.split("test")

    def time_batches(self, task: str) -> None:
        """Gather and encode every batch."""
        for batch in self.task.batches("test"):
            self.task.encode(batch.inputs, self.task.steps)


class Harness:
    """The loop of the harness against the same loop by hand, in turns."""

    timeout = 300

    def track_overhead(self) -> float:
        """Return the ratio of the times of an epoch; 1 is nothing added."""
        return overhead.measure().ratio

    track_overhead.unit = "x"  # type: ignore[attr-defined]
