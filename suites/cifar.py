"""CIFAR-10 and CIFAR-100, read and downloaded by torchvision."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import torch

from harness.plugin import DataError
from harness.task import Backbone, Budget, Data, Head, Split, TaskCard, Training
from suites.sources import FileTask, Source
from suites.splits import held_out
from suites.static_images import StaticTask

VALIDATION = 5_000
PAPER = Training(epochs=300, batch_size=128, optimizer="sgd", lr=0.1, weight_decay=5e-4, augment=True)


def _loader(name: str) -> Any:
    from torchvision import datasets  # takes a second, and listing tasks needs none of it

    return getattr(datasets, name)


def source(name: str, folder: str, files: tuple[str, ...], size: str) -> Source:
    """Return the files of torchvision's class ``name`` in ``vision/folder``; torchvision verifies their content (MD5) in reading."""
    return Source(
        variants=({f"vision/{folder}/{file}": "" for file in files},),
        download=lambda root: _loader(name)(root / "vision", download=True),
        size=size,
    )


class CifarTask(FileTask, StaticTask):
    """Colour images ``[B, 3, 32, 32]``; with augmentation mirrored, and moved by at most four pixels."""

    loader: ClassVar[str]  # class of torchvision
    input_shape = (3, 32, 32)
    shift, flip = 4, True

    def load(self, split: Split) -> Data:
        """Return images, uint8 ``[N, 3, 32, 32]``, and classes; raise DataError if files are missing or not the published ones."""
        root: Path = self.source.require().root
        try:
            stored = _loader(self.loader)(root / "vision", train=split != "test")
        except (RuntimeError, OSError, EOFError, ValueError) as error:
            first = next(iter(self.source.variants[0]))
            raise DataError(f"the files beside {first} are damaged or other ones ({error}); get them again") from None
        images, labels = torch.from_numpy(stored.data).permute(0, 3, 1, 2).contiguous(), torch.tensor(stored.targets)
        if split == "test":
            return Data(images, labels)
        train, validation = held_out(len(images), VALIDATION)
        part = train if split == "train" else validation
        return Data(images[part], labels[part])


class Cifar10(CifarTask):
    """Ten kinds of things."""

    card = TaskCard(
        name="static/cifar10",
        title="CIFAR-10",
        data="60,000 colour images of 32x32 pixels in ten classes",
        licence="none stated (part of the withdrawn 80 Million Tiny Images)",
        split="the published test part; of the 50,000 published training images, in file order, the last 5,000 are for validation",
        source="Krizhevsky, Learning multiple layers of features from tiny images, 2009",
    )
    loader = "CIFAR10"
    source: ClassVar[Source] = source(
        "CIFAR10", "cifar-10-batches-py", (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch", "batches.meta"), "170 MB"
    )
    head = Head("classify", classes=10)
    mean, deviation = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
    budgets = {
        "smoke": Budget(
            Training(epochs=3, batch_size=32, lr=4e-3),
            Backbone("vgg", (16, 32)),
            train_samples=1500,
            validation_samples=500,
            test_samples=2000,
            time_limit=300,
            target=0.35,
        ),
        "laptop": Budget(Training(epochs=3, lr=4e-3), Backbone("vgg", (16, 32, 64)), train_samples=30_000, time_limit=1800, target=0.55),
        "paper": Budget(PAPER, Backbone("resnet", (128, 256, 512), depth=2), time_limit=172_800, target=0.92),
    }


class Cifar100(CifarTask):
    """A hundred kinds of things."""

    card = TaskCard(
        name="static/cifar100",
        title="CIFAR-100",
        data="60,000 colour images of 32x32 pixels in a hundred (fine) classes",
        licence="none stated (part of the withdrawn 80 Million Tiny Images)",
        split="the published test part; of the 50,000 published training images, in file order, the last 5,000 are for validation",
        source="Krizhevsky, Learning multiple layers of features from tiny images, 2009",
    )
    loader = "CIFAR100"
    source: ClassVar[Source] = source("CIFAR100", "cifar-100-python", ("train", "test", "meta"), "169 MB")
    head = Head("classify", classes=100)
    mean, deviation = (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)
    budgets = {
        "smoke": Budget(
            Training(epochs=4, batch_size=32, lr=4e-3),
            Backbone("vgg", (16, 32)),
            train_samples=2000,
            validation_samples=500,
            test_samples=2000,
            time_limit=300,
            target=0.05,
        ),
        "laptop": Budget(Training(epochs=3, lr=4e-3), Backbone("vgg", (16, 32, 64)), train_samples=30_000, time_limit=1800, target=0.2),
        "paper": Budget(PAPER, Backbone("resnet", (128, 256, 512), depth=2), time_limit=172_800, target=0.7),
    }
