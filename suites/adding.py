"""The adding problem: two marked numbers of a long sequence, to be added at its end.

Every step brings a number between 0 and 1 and a mark. One mark is in the first half of the sequence, one in the second; the answer, at the
last step, is the sum of the two marked numbers. Always answering 1 has a mean squared error of 1/6. Source: "Long short-term memory"
(Hochreiter and Schmidhuber, Neural Computation 1997), experiment 4, in the form of "A simple way to initialize recurrent networks of
rectified linear units" (Le, Jaitly, Hinton, 2015)::

    spikebench run -t "sequences/adding[length=400]" -m stbp,ann
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import torch
from pydantic import Field

from harness import plugin
from harness.task import Backbone, Budget, Data, Head, Split, Task, TaskCard, Training
from suites.draws import integers, stream
from suites.longer import longer
from suites.numeric import NumericTask
from suites.receptive_field import seeing

SIZES: dict[Split, int] = {"train": 50_000, "validation": 1000, "test": 2000}


class Adding(NumericTask):
    """Numbers and marks ``[B, length, 2]``, the sum ``[B, 1]``. A sample is right if it is off by less than 0.04, as in the paper."""

    card = TaskCard(
        name="sequences/adding",
        title="Adding problem",
        data="generated: 50,000 sequences to train on, 1,000 for validation, 2,000 for test",
        licence="none needed: random numbers",
        split="a random stream of its own for every split and length",
        source="Hochreiter and Schmidhuber, 1997, experiment 4; Le, Jaitly, Hinton, 2015",
    )
    embedded = True
    input_shape = (2,)
    head = Head("regress", classes=1)
    temporal = True
    readout = "last"
    tolerance = 0.04
    budgets = {
        "smoke": Budget(
            Training(epochs=5, batch_size=16, lr=4e-3),
            Backbone("sequence", (64, 64, 64, 64)),
            train_samples=2000,
            validation_samples=500,
            test_samples=1000,
            time_limit=300,
            target=0.1,
        ),
        "laptop": Budget(
            Training(epochs=10, batch_size=16, lr=2e-3),
            Backbone("sequence", (64, 64, 64, 64)),
            train_samples=8000,
            time_limit=1800,
            target=0.01,
        ),
        "paper": Budget(
            Training(epochs=50, batch_size=32, lr=1e-3), Backbone("sequence", (128, 128, 128, 128)), time_limit=86_400, target=0.01
        ),
    }

    class Options(plugin.Options):
        """Length of the sequences."""

        length: int = Field(100, description="steps of a sequence", ge=2)

    options: Options

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Bind as any task; the network has as many layers as seeing the first step from the last takes."""
        super().__init__(*args, **kwargs)
        self.budget = seeing(self.budget, self.steps)

    @property
    def steps(self) -> int:
        """Return the length."""
        return self.options.length

    def load(self, split: Split) -> Data:
        """Return as many sequences as the budget uses; more of them begin with the same ones."""
        length, half = self.steps, self.steps // 2
        limit = getattr(self.budget, f"{split}_samples")
        size = SIZES[split] if limit is None else min(limit, SIZES[split])
        random = stream(self.card.name, length, split)
        inputs, sums = np.zeros((size, length, 2), np.float32), np.zeros((size, 1))
        for sample in range(size):
            numbers = random.random_sample(length)
            marks = [int(integers(random, 1, half)[0]), half + int(integers(random, 1, length - half)[0])]
            inputs[sample, :, 0] = numbers
            inputs[sample, marks, 1] = 1
            sums[sample, 0] = numbers[marks].sum()
        return Data(torch.from_numpy(inputs), torch.from_numpy(sums.astype(np.float32)))

    def extrapolations(self) -> dict[str, Task]:
        """Return the problem at 2 to 15 times the length."""
        return longer(self, self.steps)

    def checksum(self) -> str:
        """Return a hash of the first test sequences."""
        few = stream(self.card.name, self.steps, "test").random_sample(100)
        return hashlib.sha256(few.astype("<f8").tobytes() + repr(SIZES).encode()).hexdigest()[:16]
