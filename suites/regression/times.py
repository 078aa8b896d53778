"""asv's timed benchmarks: training step, answer, neuron cores, loaders, and what the harness adds. One thread.

On a shared machine these scatter by several per cent; the tracks (``tracks.py``) do not, and come first.
"""

from __future__ import annotations

import torch

from harness.loader import Loader
from harness.registry import Registries

from . import overhead
from .cores import MAKERS, Core
from .one_step import OneStep


class Steps:
    """A training step and the answer to a batch, where T is ours to choose."""

    params = (["static/digits", "detection/digit-scenes"], ["stbp", "bntt", "glif", "ottt", "psn"], [4, 16])
    param_names = ("task", "method", "T")
    warmup_time = 0.5

    def setup(self, task: str, method: str, steps: int | None) -> None:
        """Build, and take a step, which compiles what is compiled."""
        self.ready = OneStep(method, task, steps)
        self.ready.train()

    def time_training_step(self, task: str, method: str, steps: int | None) -> None:
        """Forward, backward, optimiser."""
        self.ready.train()

    def time_answer(self, task: str, method: str, steps: int | None) -> None:
        """Inference of a batch."""
        self.ready.answer()


class Sequences:
    """The same where the data say how many steps there are, and a network that does not spike."""

    params = (["static/digits", "events/digits-saccade", "sequences/digits-pixels"], ["ann", "stbp"])
    param_names = ("task", "method")
    warmup_time = 0.5

    def setup(self, task: str, method: str) -> None:
        """Build, and take a step, which compiles what is compiled."""
        self.ready = OneStep(method, task)
        self.ready.train()

    def time_training_step(self, task: str, method: str) -> None:
        """Forward, backward, optimiser."""
        self.ready.train()

    def time_answer(self, task: str, method: str) -> None:
        """Inference of a batch."""
        self.ready.answer()


class Cores:
    """Forward and backward pass of a layer of 4,096 neurons."""

    params = (list(MAKERS), [4, 64])
    param_names = ("neuron", "T")
    warmup_time = 0.5

    def setup(self, neuron: str, steps: int) -> None:
        """Make the layer and its input, and go both ways once."""
        self.core = Core(neuron, steps)
        self.core.both_ways()

    def time_both_ways(self, neuron: str, steps: int) -> None:
        """Spikes, and gradients of the currents and of what is learnt."""
        self.core.both_ways()


class Loaders:
    """Going once through data of the embedded tasks: the test part with its encoding, the training part shuffled and augmented."""

    params = ["static/digits", "events/digits-saccade", "detection/digit-scenes", "sequences/digits-pixels"]
    param_names = ("task",)

    def setup(self, task: str) -> None:
        """Load the data, which is not timed."""
        torch.set_num_threads(1)
        self.task = Registries().task(task, "smoke")
        self.task.split("test")
        self.loader = Loader(self.task, batch_size=64, seed=0, augment=True)

    def time_batches(self, task: str) -> None:
        """Gather and encode every test batch."""
        for batch in self.task.batches("test"):
            self.task.encode(batch.inputs, self.task.steps)

    def time_training_epoch(self, task: str) -> None:
        """Gather and augment every training batch."""
        for _ in self.loader:
            pass


class Harness:
    """The loop of the harness against the same loop by hand, in turns."""

    timeout = 300

    def track_overhead(self) -> float:
        """Return the ratio of the times of an epoch; 1 is nothing added."""
        return overhead.measure().ratio

    track_overhead.unit = "x"  # type: ignore[attr-defined]
