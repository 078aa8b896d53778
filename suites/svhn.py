"""SVHN: digits of house numbers in photographs, read and downloaded by torchvision."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import torch

from harness.plugin import DataError
from harness.task import Backbone, Budget, Data, Head, Split, TaskCard, Training
from suites.sources import FileTask, Source
from suites.splits import held_out
from suites.static_images import StaticTask

FOLDER = "vision/svhn"
VALIDATION = 5_000


def _loader() -> Any:
    from torchvision.datasets import SVHN  # takes a second, and listing tasks needs none of it

    return SVHN


def _download(root: Path) -> None:
    for part in ("train", "test"):
        _loader()(root / FOLDER, split=part, download=True)


class Svhn(FileTask, StaticTask):
    """Colour images ``[B, 3, 32, 32]`` of digits; with augmentation moved by at most four pixels, never mirrored."""

    card = TaskCard(
        name="static/svhn",
        title="Street View House Numbers",
        data="73,257 training and 26,032 test images of 32x32 pixels (the cropped digits; without the extra part)",
        licence="non-commercial use only",
        split="the published test part; of the published training images, in file order (neighbours come from one house), the last 5,000 "
        "are for validation",
        source="Netzer et al., Reading digits in natural images with unsupervised feature learning, NIPS workshop, 2011",
    )
    source: ClassVar[Source] = Source(
        variants=({f"{FOLDER}/train_32x32.mat": "", f"{FOLDER}/test_32x32.mat": ""},), download=_download, size="246 MB"
    )
    input_shape = (3, 32, 32)
    head = Head("classify", classes=10)
    mean, deviation = (0.4377, 0.4438, 0.4728), (0.1980, 0.2010, 0.1970)
    shift = 4
    budgets = {
        "smoke": Budget(
            Training(epochs=4, batch_size=32, lr=4e-3),
            Backbone("vgg", (16, 32)),
            train_samples=1500,
            validation_samples=500,
            test_samples=2000,
            time_limit=300,
            target=0.5,
        ),
        "laptop": Budget(Training(epochs=3, lr=4e-3), Backbone("vgg", (16, 32, 64)), train_samples=25_000, time_limit=1800, target=0.85),
        "paper": Budget(
            Training(epochs=100, batch_size=128, optimizer="sgd", lr=0.1, weight_decay=5e-4, augment=True),
            Backbone("resnet", (128, 256, 512), depth=2),
            time_limit=172_800,
            target=0.95,
        ),
    }

    def load(self, split: Split) -> Data:
        """Return images, uint8 ``[N, 3, 32, 32]``, and digits; raise DataError if files are missing or not the published ones."""
        root = self.source.require().root
        try:
            stored = _loader()(root / FOLDER, split="test" if split == "test" else "train")
        except (RuntimeError, OSError, ValueError) as error:
            raise DataError(f"the files in {FOLDER} are damaged or other ones ({error}); get them again") from None
        images, labels = torch.from_numpy(stored.data).contiguous(), torch.from_numpy(stored.labels)
        if split == "test":
            return Data(images, labels)
        train, validation = held_out(len(images), VALIDATION)
        part = train if split == "train" else validation
        return Data(images[part], labels[part])
