"""N-MNIST: MNIST digits seen by an event camera of 34x34 pixels that moves along three saccades, about 315 ms."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from harness.task import Backbone, Budget, Head, Split, TaskCard, Training
from suites.event_archive import archived
from suites.event_files import read_bin
from suites.event_task import EventOptions, EventTask
from suites.recordings import Recordings, natural
from suites.sources import Source
from suites.tonic_recordings import complete, tonic_recordings

PAPER = "Orchard, Jayawant, Cohen, Thakor, Frontiers in Neuroscience 9:437, 2015"


class NMnistSmall(EventTask):
    """The first 1,000 training and the first 100 test recordings of N-MNIST: ``[B, T, 2, 34, 34]``.

    The test split is coarse: one recording is 1 % (at 95 % right, the standard error is 2 %). Validation has 200.
    """

    card = TaskCard(
        name="events/nmnist-small",
        title="N-MNIST, first 1,000 + 100 recordings (one test recording = 1 %)",
        data="a subset of N-MNIST: MNIST's training images 1 to 1,000 and test images 1 to 100; from the repository bamsumit/slayerPytorch",
        licence="CC BY-SA 4.0",
        split="in MNIST's order: training recordings 1 to 800 train, 801 to 1,000 validation; test recordings 1 to 100 test",
        source=PAPER,
    )
    source = Source(
        ({"events/NMNIST_small.tar.xz": "d42866907cdb97e7f9d5e7b93982af2009771dd3d26b5086a9dc4d992951386f"},),
        advice="it is made of the files in test/test_files/NMNISTsmall of the repository bamsumit/slayerPytorch",
    )
    sensor = (34, 34)
    head = Head("classify", classes=10)
    budgets = {
        "smoke": Budget(
            Training(epochs=3, batch_size=16, lr=4e-3, augment=True),
            Backbone("conv", (8, 16)),
            train_samples=480,
            time_limit=300,
            target=0.8,
        ),
        "laptop": Budget(
            Training(epochs=20, batch_size=32, lr=4e-3, augment=True), Backbone("conv", (16, 32)), time_limit=1800, target=0.9
        ),
        "paper": Budget(
            Training(epochs=100, batch_size=32, lr=1e-3, augment=True), Backbone("conv", (64, 128, 128)), time_limit=36_000, target=0.95
        ),
    }

    def recordings(self, split: Split) -> Recordings:
        """Return the recordings in MNIST's order."""
        path = self.source.require().path("events/NMNIST_small.tar.xz")
        everything = archived(path, ".bin", lambda name: int(name.split("/")[-2]), read_bin, *self.sensor)
        part = "Test" if split == "test" else "Train"
        places = [i for i, name in enumerate(everything.names) if name.split("/")[1] == part]
        ordered = everything.select(sorted(places, key=lambda i: everything.names[i].rpartition("/")[2]))
        return ordered if split == "test" else ordered.select(range(800) if split == "train" else range(800, len(ordered)))


def _download(root: Path) -> None:
    from tonic.datasets import NMNIST

    for train in (True, False):
        NMNIST(str(root / "events"), train=train)


class NMnist(EventTask):
    """N-MNIST, complete: ``[B, T, 2, 34, 34]``; read by tonic."""

    card = TaskCard(
        name="events/nmnist",
        title="N-MNIST",
        data="70,000 recordings, one of every image of MNIST, downloaded by tonic",
        licence="CC BY-SA 4.0",
        split="60,000 / 10,000 as published; validation: the last 5,000 training recordings in MNIST's order",
        source=PAPER,
    )
    source = Source(({"events/NMNIST/Train": "", "events/NMNIST/Test": ""},), _download, "about 1.2 GB")
    sizes = {"train": 60_000, "test": 10_000}
    held_out = 5_000
    sensor = (34, 34)
    head = Head("classify", classes=10)
    budgets = {
        "smoke": Budget(
            Training(epochs=3, batch_size=16, lr=4e-3, augment=True),
            Backbone("conv", (8, 16)),
            train_samples=480,
            validation_samples=200,
            test_samples=500,
            time_limit=600,
            target=0.8,
        ),
        "laptop": Budget(
            Training(epochs=4, batch_size=64, lr=4e-3, augment=True),
            Backbone("conv", (16, 32)),
            train_samples=3200,
            validation_samples=1000,
            time_limit=3600,
            target=0.95,
        ),
        "paper": Budget(
            Training(epochs=100, batch_size=128, lr=1e-3, augment=True), Backbone("conv", (64, 128, 128)), time_limit=200_000, target=0.99
        ),
    }

    class Options(EventOptions):
        """Framing and augmentation."""

        shift: int = Field(2, ge=0, description="augmentation: pixels (after pooling) that a recording is moved at most, each way")

    def recordings(self, split: Split) -> Recordings:
        """Return the recordings in MNIST's order."""
        train = split != "test"
        found = tonic_recordings("NMNIST", self.source.require().path("events"), *self.sensor, train=train)
        complete(found, self.sizes["train" if train else "test"], "events/NMNIST")
        ordered = found.select(sorted(range(len(found)), key=lambda i: natural(found.names[i].rpartition("/")[2])))
        border = len(ordered) - self.held_out
        return ordered if not train else ordered.select(range(border) if split == "train" else range(border, len(ordered)))
