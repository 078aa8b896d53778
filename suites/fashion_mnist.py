"""Fashion-MNIST: 28x28 grey images of ten kinds of clothing, in the format of MNIST."""

from __future__ import annotations

from typing import ClassVar

from harness.task import Backbone, Budget, TaskCard, Training
from suites import idx, mnist
from suites.sources import Source

FASHION_MNIST_SOURCE = idx.source("FashionMNIST", "31 MB")


class FashionMnist(mnist.IdxTask):
    """Clothing, ``[B, 1, 28, 28]``; with augmentation mirrored, and moved by at most two pixels."""

    card = TaskCard(
        name="static/fashion-mnist",
        title="Fashion-MNIST",
        data="70,000 grey images of 28x28 pixels from the catalogue of Zalando",
        licence="MIT",
        split=mnist.SPLIT_RULE,
        source="Xiao, Rasul, Vollgraf, Fashion-MNIST: a novel image dataset for benchmarking machine learning algorithms, 2017",
    )
    folder = "FashionMNIST"
    source: ClassVar[Source] = FASHION_MNIST_SOURCE
    mean, deviation = (0.2860,), (0.3530,)
    shift, flip = 2, True
    budgets = {
        "smoke": Budget(
            Training(epochs=3, batch_size=32, lr=4e-3),
            Backbone("vgg", (16, 32)),
            train_samples=1500,
            validation_samples=500,
            test_samples=2000,
            time_limit=300,
            target=0.75,
        ),
        "laptop": Budget(Training(epochs=3, lr=4e-3), Backbone("vgg", (16, 32, 64)), train_samples=50_000, time_limit=1800, target=0.88),
        "paper": Budget(
            Training(epochs=100, batch_size=100, lr=1e-3, augment=True), Backbone("conv", (64, 128)), time_limit=86400, target=0.93
        ),
    }
