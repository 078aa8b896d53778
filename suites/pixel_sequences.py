"""MNIST as a sequence: pixel by pixel, in a fixed disorder, or row by row.

    spikebench run -t sequences/smnist,sequences/psmnist,sequences/mnist-rows -m stbp

The last pixel comes long after the first: 784 steps. In permuted MNIST neighbours in the image are no neighbours in time, so that what is
local does not help. Published permutations are those of one random generator or another; here it is a rule that anybody can repeat:
pixels come in the order of the SHA-256 of their number (row by row from 0, as decimal text).
"""

from __future__ import annotations

import hashlib
from functools import cache

import torch
from torch import Tensor

from harness.task import Backbone, Budget, Data, Head, Split, TaskCard, Training
from suites import idx
from suites.classification import ClassificationTask
from suites.mnist import MNIST_SOURCE, SPLIT_RULE, arrays
from suites.sources import FileTask

LICENCE = "CC BY-SA 3.0"


@cache
def permutation(pixels: int) -> Tensor:
    """Return the order ``[pixels]`` in which permuted images show theirs: sorted by the SHA-256 of each pixel's number as decimal text."""
    return torch.tensor(sorted(range(pixels), key=lambda pixel: hashlib.sha256(str(pixel).encode()).digest()))


class MnistSequence(FileTask, ClassificationTask):
    """MNIST, stored as bytes ``[B, 28, 28]``; ``prepare`` makes sequences, normalised to mean 0 and variance 1."""

    source = MNIST_SOURCE
    head = Head("classify", classes=10)
    temporal = True
    readout = "last"
    mean, deviation = 0.1307, 0.3081  # of the training images, in [0, 1]

    def load(self, split: Split) -> Data:
        """Return images, uint8 ``[N, 28, 28]``, and classes."""
        return Data(*arrays("MNIST", split))

    def prepare(self, inputs: Tensor) -> Tensor:
        """Return ``[B, T, C]``: steps and values per step as the task says, in reading order."""
        return (inputs.float() / 255 - self.mean).div_(self.deviation).reshape(len(inputs), self.steps, *self.input_shape)

    def checksum(self) -> str:
        """Return a hash of the content, however the files are packed."""
        self.source.require()
        return idx.checksum("MNIST")


class SequentialMnist(MnistSequence):
    """One pixel per step, row by row, ``[B, 784, 1]``."""

    card = TaskCard(
        name="sequences/smnist",
        title="Sequential MNIST",
        data="70,000 grey images of digits of 28x28 pixels, one pixel per step",
        licence=LICENCE,
        split=SPLIT_RULE,
        source="Q. V. Le, N. Jaitly, G. E. Hinton, A simple way to initialize recurrent networks of rectified linear units, 2015",
    )
    input_shape = (1,)
    steps = 784
    budgets = {
        "smoke": Budget(
            Training(epochs=3, batch_size=32, lr=4e-3),
            Backbone("sequence", (32,) * 5),
            train_samples=500,
            validation_samples=200,
            test_samples=200,
            time_limit=300,
        ),
        "laptop": Budget(
            Training(epochs=4, batch_size=32, lr=4e-3), Backbone("sequence", (32,) * 5), train_samples=10_000, time_limit=1800
        ),
        "paper": Budget(Training(epochs=200, batch_size=128, lr=1e-3), Backbone("sequence", (256,) * 5), time_limit=7 * 86400),
    }


class PermutedMnist(SequentialMnist):
    """One pixel per step, in a fixed disorder (``permutation``), ``[B, 784, 1]``."""

    card = TaskCard(
        name="sequences/psmnist",
        title="Permuted sequential MNIST",
        data="70,000 grey images of digits of 28x28 pixels, one pixel per step, ordered by the SHA-256 of the pixel's number",
        licence=LICENCE,
        split=SPLIT_RULE,
        source="Q. V. Le, N. Jaitly, G. E. Hinton, A simple way to initialize recurrent networks of rectified linear units, 2015",
    )

    def prepare(self, inputs: Tensor) -> Tensor:
        """Return ``[B, 784, 1]``, pixels in the order of ``permutation``."""
        return super().prepare(inputs)[:, permutation(self.steps).to(inputs.device)]


class MnistRows(MnistSequence):
    """One row of pixels per step, ``[B, 28, 28]``."""

    card = TaskCard(
        name="sequences/mnist-rows",
        title="MNIST, row by row",
        data="70,000 grey images of digits of 28x28 pixels, one row per step",
        licence=LICENCE,
        split=SPLIT_RULE,
        source="Y. LeCun, L. Bottou, Y. Bengio, P. Haffner, Gradient-based learning applied to document recognition, 1998",
    )
    input_shape = (28,)
    steps = 28
    budgets = {
        "smoke": Budget(
            Training(epochs=4, batch_size=64, lr=4e-3),
            Backbone("sequence", (64,) * 3),
            train_samples=4000,
            validation_samples=1000,
            test_samples=2000,
            time_limit=300,
        ),
        "laptop": Budget(
            Training(epochs=6, batch_size=64, lr=4e-3), Backbone("sequence", (128,) * 3), train_samples=20_000, time_limit=1800
        ),
        "paper": Budget(Training(epochs=100, batch_size=128, lr=1e-3), Backbone("sequence", (512,) * 3), time_limit=86400),
    }
