"""N-Caltech101: the images of Caltech101 on a screen before an event camera that moves along three saccades."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from harness.plugin import DataError
from harness.task import Backbone, Budget, Head, Split, TaskCard, Training
from suites.event_task import EventOptions, EventTask
from suites.recordings import Recordings, interleaved, natural
from suites.sources import Source
from suites.tonic_recordings import complete, tonic_recordings


def _download(root: Path) -> None:
    from tonic.datasets import NCALTECH101
    from tonic.download_utils import extract_archive

    folder = root / "events" / "NCALTECH101"
    if not (folder / "Caltech101.zip").exists():
        NCALTECH101(str(root / "events"))
    if not (folder / "Caltech101").exists():  # the archive holds another, which tonic 1.7 leaves as it is
        extract_archive(str(folder / "Caltech101.zip"), str(folder))


class NCaltech101(EventTask):
    """N-Caltech101, complete: ``[B, T, 2, 45, 60]``, counts of 4x4 pixels of the 240x180 that hold all recordings; read by tonic."""

    card = TaskCard(
        name="events/n-caltech101",
        title="N-Caltech101",
        data="8,709 recordings of 100 kinds of objects and of backgrounds, downloaded by tonic; each starts at its own left upper corner",
        licence="CC BY 4.0",
        split="ours, none is published: in each class, by number, every tenth recording (9, 19, ...) test, the one before it validation",
        source="Orchard, Jayawant, Cohen, Thakor, Frontiers in Neuroscience 9:437, 2015",
    )
    source = Source(({"events/NCALTECH101/Caltech101": ""},), _download, "several GB")
    size = 8709
    sensor = (240, 180)
    head = Head("classify", classes=101)
    budgets = {
        "smoke": Budget(
            Training(epochs=2, batch_size=16, lr=4e-3, augment=True),
            Backbone("conv", (4, 8, 16)),
            train_samples=202,
            validation_samples=50,
            test_samples=101,
            time_limit=600,
        ),
        "laptop": Budget(
            Training(epochs=6, batch_size=32, lr=2e-3, augment=True),
            Backbone("conv", (8, 16, 32)),
            train_samples=1010,
            validation_samples=202,
            time_limit=3600,
        ),
        "paper": Budget(
            Training(epochs=200, batch_size=64, optimizer="sgd", lr=0.1, weight_decay=5e-4, augment=True),
            Backbone("vgg", (64, 128, 256, 512)),
            time_limit=400_000,
        ),
    }

    class Options(EventOptions):
        """Framing and augmentation."""

        pool: int = Field(4, ge=1, le=64, description="pixels counted together, each way")
        shift: int = Field(3, ge=0, description="augmentation: pixels (after pooling) that a recording is moved at most, each way")
        flip: bool = Field(True, description="augmentation: mirror left to right")

    def recordings(self, split: Split) -> Recordings:
        """Return the recordings, the classes in turn; classes are numbered by their names."""
        found = tonic_recordings("NCALTECH101", self.source.require().path("events"), *self.sensor)
        complete(found, self.size, "events/NCALTECH101")
        kinds = sorted(set(found.targets))
        if len(kinds) != self.head.classes:
            raise DataError(f"events/NCALTECH101 holds {len(kinds)} of {self.head.classes} classes; get it again")
        places = sorted(range(len(found)), key=lambda i: natural(found.names[i]))
        ranks: dict[object, int] = {}
        chosen = []
        for place in places:
            rank = ranks[found.targets[place]] = ranks.get(found.targets[place], -1) + 1
            if self.part(rank) == split:
                chosen.append(place)
        number = {kind: place for place, kind in enumerate(kinds)}
        part = found.relabelled([number[kind] for kind in found.targets]).select(chosen)
        return part.select(interleaved(part.targets))

    @staticmethod
    def part(rank: int) -> Split:
        """Return the split of the recording at this place in its class."""
        return {9: "test", 8: "validation"}.get(rank % 10, "train")  # type: ignore[return-value]
