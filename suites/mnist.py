"""MNIST: 28x28 grey images of handwritten digits."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from harness.task import Backbone, Budget, Data, Head, Split, TaskCard, Training
from suites import idx
from suites.sources import FileTask, Source
from suites.splits import held_out
from suites.static_images import StaticTask

MNIST_SOURCE = idx.source("MNIST", "12 MB")
SPLIT_RULE = "the published test part; of the 60,000 published training images, in file order, the last 5,000 are for validation"
VALIDATION = 5_000


def arrays(folder: str, split: Split) -> tuple[Tensor, Tensor]:
    """Return images, uint8 ``[N, 28, 28]``, and classes, int64 ``[N]``, of a split of MNIST or a data set like it (``idx.CONTENT``)."""
    images, labels = idx.images(folder, "test" if split == "test" else "train")
    if split == "test":
        return images, labels
    train, validation = held_out(len(images), VALIDATION)
    part = train if split == "train" else validation
    return images[part], labels[part]


class IdxTask(FileTask, StaticTask):
    """What MNIST and the data sets in its format share."""

    folder: ClassVar[str]
    input_shape = (1, 28, 28)
    head = Head("classify", classes=10)

    def load(self, split: Split) -> Data:
        """Return images, uint8 ``[N, 1, 28, 28]``, and classes."""
        images, labels = arrays(self.folder, split)
        return Data(images.unsqueeze(1), labels)

    def checksum(self) -> str:
        """Return a hash of the content of the files, which ``load`` verifies."""
        return idx.checksum(self.folder)


class Mnist(IdxTask):
    """Handwritten digits, ``[B, 1, 28, 28]``; with augmentation moved by at most one pixel."""

    card = TaskCard(
        name="static/mnist",
        title="MNIST",
        data="70,000 grey images of 28x28 pixels, the files of Y. LeCun, C. Cortes, C. Burges",
        licence="CC BY-SA 3.0",
        split=SPLIT_RULE,
        source="LeCun, Bottou, Bengio, Haffner, Gradient-based learning applied to document recognition, Proc. IEEE 86(11), 1998",
    )
    folder = "MNIST"
    source: ClassVar[Source] = MNIST_SOURCE
    mean, deviation = (0.1307,), (0.3081,)
    shift = 1
    budgets = {
        "smoke": Budget(
            Training(epochs=3, batch_size=32, lr=4e-3),
            Backbone("vgg", (16, 32)),
            train_samples=1500,
            validation_samples=500,
            test_samples=2000,
            time_limit=300,
            target=0.9,
        ),
        "laptop": Budget(Training(epochs=3, lr=4e-3), Backbone("vgg", (16, 32, 64)), train_samples=40_000, time_limit=1800, target=0.98),
        "paper": Budget(
            Training(epochs=100, batch_size=100, lr=1e-3, augment=True), Backbone("conv", (32, 64)), time_limit=86400, target=0.99
        ),
    }
