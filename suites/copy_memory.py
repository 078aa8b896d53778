"""Copy memory: ten symbols, a long wait, a signal, and the symbols are to be repeated.

Steps of a sequence with delay ``L``: ten symbols of eight, ``L - 1`` blanks, a signal, ten blanks; the answers are ``L + 10`` blanks and
then the ten symbols. The loss is the cross-entropy over all steps, as published; the accuracy is that of the ten symbols alone, where
guessing has 1/8. Source: "Long short-term memory" (Hochreiter and Schmidhuber, 1997); in this form "Unitary evolution recurrent neural
networks" (Arjovsky, Shah, Bengio, ICML 2016)::

    spikebench run -t "sequences/copy-memory[length=1000]" -m stbp,ann
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from harness import plugin
from harness.task import Backbone, Budget, Data, Head, Split, Task, TaskCard, Training
from suites.draws import integers, stream
from suites.longer import longer
from suites.receptive_field import seeing

SIZES: dict[Split, int] = {"train": 50_000, "validation": 500, "test": 1000}
SYMBOLS, LETTERS = 10, 8  # to remember, and different ones
SIGNAL = LETTERS + 1  # blank is 0, letters are 1 to 8


class Recall:
    """Accuracy of the symbols that are not blank; the item is the symbol. Where all answers are blank, it is not a number."""

    def __init__(self) -> None:
        """Start empty."""
        self._correct: list[Tensor] = []

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        """Add logits ``[B, T, K]`` for symbols ``[B, T]``; logits that are not numbers are wrong."""
        right = (outputs.argmax(-1) == targets) & outputs.isfinite().all(-1)
        self._correct.append(right[targets > 0])

    def compute(self) -> dict[str, float]:
        """Return the fraction of symbols that was right."""
        return {"accuracy": torch.cat(self._correct).double().mean().item()}

    def correct(self) -> list[bool]:
        """Return for each symbol whether it was right, sequence by sequence."""
        return torch.cat(self._correct).tolist()


class CopyMemory(Task):
    """Symbols ``[B, T]``, one-hot ``[T, B, 10]`` for the network; the answer of every step is one of nine. ``T = length + 20``."""

    card = TaskCard(
        name="sequences/copy-memory",
        title="Copy memory",
        data="generated: 50,000 sequences to train on, 500 for validation, 1,000 for test",
        licence="none needed: random numbers",
        split="a random stream of its own for every split",
        source="Hochreiter and Schmidhuber, 1997; Arjovsky, Shah, Bengio, ICML 2016",
    )
    embedded = True
    input_shape = (LETTERS + 2,)
    head = Head("per_step", classes=LETTERS + 1)
    temporal = True
    readout = "each"
    budgets = {
        "smoke": Budget(
            Training(epochs=6, batch_size=32, lr=4e-3),
            Backbone("sequence", (64, 64, 64)),
            train_samples=1600,
            validation_samples=250,
            test_samples=500,
            time_limit=300,
            target=0.9,
        ),
        "laptop": Budget(
            Training(epochs=20, batch_size=32, lr=2e-3),
            Backbone("sequence", (128, 128, 128)),
            train_samples=3200,
            time_limit=1800,
            target=0.99,
        ),
        "paper": Budget(Training(epochs=50, batch_size=32, lr=1e-3), Backbone("sequence", (256, 256, 256)), time_limit=86_400, target=0.99),
    }

    class Options(plugin.Options):
        """How long to remember."""

        length: int = Field(40, description="delay L: steps from the last symbol to the signal", ge=1)

    options: Options

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Bind as any task; the network has as many layers as seeing a symbol from the step that asks for it takes."""
        super().__init__(*args, **kwargs)
        self.budget = seeing(self.budget, self.options.length + SYMBOLS + 1)

    @property
    def steps(self) -> int:
        """Return the delay and twice the symbols."""
        return self.options.length + 2 * SYMBOLS

    def load(self, split: Split) -> Data:
        """Return as many sequences as the budget uses; more of them begin with the same ones."""
        limit = getattr(self.budget, f"{split}_samples")
        size = SIZES[split] if limit is None else min(limit, SIZES[split])
        symbols = 1 + integers(stream(self.card.name, split), (size, SYMBOLS), LETTERS)
        inputs, targets = (np.zeros((size, self.steps), np.uint8) for _ in range(2))
        inputs[:, :SYMBOLS], inputs[:, -SYMBOLS - 1], targets[:, -SYMBOLS:] = symbols, SIGNAL, symbols
        return Data(torch.from_numpy(inputs), torch.from_numpy(targets))

    def prepare(self, inputs: Tensor) -> Tensor:
        """Return symbols ``[B, T]`` one-hot ``[B, T, 10]``."""
        return F.one_hot(inputs.long(), self.input_shape[0]).float()

    def loss(self, output: Tensor, targets: Tensor, label_smoothing: float = 0.0) -> Tensor:
        """Return the cross-entropy of logits ``[B, T, K]``, the mean over all steps."""
        return F.cross_entropy(output.flatten(0, 1), targets.flatten().long(), label_smoothing=label_smoothing)

    def scorer(self) -> Recall:
        """Return an accumulator of the symbols' accuracy."""
        return Recall()

    def extrapolations(self) -> dict[str, Task]:
        """Return the task at 2 to 15 times the delay."""
        return longer(self, self.options.length)

    def checksum(self) -> str:
        """Return a hash of the first test symbols."""
        few = integers(stream(self.card.name, "test"), (100, SYMBOLS), LETTERS)
        return hashlib.sha256(few.astype("<i8").tobytes() + repr((SIZES, self.steps)).encode()).hexdigest()[:16]
