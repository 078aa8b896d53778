"""CIFAR10-DVS: 10,000 images of CIFAR-10 moved on a screen before an event camera of 128x128 pixels."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from pydantic import Field

from harness.task import Backbone, Budget, Head, Split, TaskCard, Training
from suites.event_task import EventOptions, EventTask
from suites.recordings import Recordings, interleaved, natural
from suites.sources import Source
from suites.tonic_recordings import complete, tonic_recordings

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def _download(root: Path) -> None:
    from tonic.datasets import CIFAR10DVS

    CIFAR10DVS(str(root / "events"))


class Cifar10Dvs(EventTask):
    """CIFAR10-DVS, complete: ``[B, T, 2, 64, 64]``, counts of 2x2 pixels; read by tonic."""

    card = TaskCard(
        name="events/cifar10-dvs",
        title="CIFAR10-DVS",
        data="10,000 recordings of 1.3 s, 1,000 per class, downloaded by tonic",
        licence="as its page on figshare says",
        split="9:1 in each class, as most papers: by number, the last 100 test, the 100 before them validation, the first 800 train",
        source="Li, Liu, Ji, Li, Shi, Frontiers in Neuroscience 11:309, 2017; no split is published with the data",
    )
    source = Source(({f"events/CIFAR10DVS/{name}": "" for name in CLASSES},), _download, "several GB")
    size = 10_000
    sensor = (128, 128)
    head = Head("classify", classes=10)
    budgets = {
        "smoke": Budget(
            Training(epochs=3, batch_size=16, lr=4e-3, augment=True),
            Backbone("conv", (4, 8, 16)),
            train_samples=160,
            validation_samples=50,
            test_samples=100,
            time_limit=600,
        ),
        "laptop": Budget(
            Training(epochs=5, batch_size=32, lr=2e-3, augment=True),
            Backbone("conv", (8, 16, 32)),
            train_samples=800,
            validation_samples=200,
            time_limit=3600,
        ),
        "paper": Budget(
            Training(epochs=200, batch_size=64, optimizer="sgd", lr=0.1, weight_decay=5e-4, augment=True),
            Backbone("vgg", (64, 128, 256, 512)),
            time_limit=400_000,
            target=0.7,
        ),
    }

    class Options(EventOptions):
        """Framing and augmentation."""

        pool: int = Field(2, ge=1, le=64, description="pixels counted together, each way")
        shift: int = Field(3, ge=0, description="augmentation: pixels (after pooling) that a recording is moved at most, each way")
        flip: bool = Field(True, description="augmentation: mirror left to right")

    def unavailable(self) -> str | None:
        """Return what to install, or what is missing, or None."""
        if find_spec("aedat") is None:
            return "tonic reads these files with the package aedat, which is not installed: pip install aedat"
        return super().unavailable()

    def recordings(self, split: Split) -> Recordings:
        """Return the recordings, the classes in turn."""
        found = tonic_recordings("CIFAR10DVS", self.source.require().path("events"), *self.sensor)
        complete(found, self.size, "events/CIFAR10DVS")
        ordered = found.select(sorted(range(len(found)), key=lambda i: natural(found.names[i])))
        ordered = ordered.select(interleaved(ordered.targets))  # so place // classes is the rank within the class
        each = self.size // len(CLASSES)
        bounds = {"train": (0, each * 8 // 10), "validation": (each * 8 // 10, each * 9 // 10), "test": (each * 9 // 10, each)}
        start, end = (rank * len(CLASSES) for rank in bounds[split])
        return ordered.select(range(start, end))
