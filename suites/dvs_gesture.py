"""DVS128 Gesture: eleven hand and arm gestures of 29 people before an event camera of 128x128 pixels."""

from __future__ import annotations

import re
from pathlib import Path

from pydantic import Field

from harness.task import Backbone, Budget, Head, Split, TaskCard, Training
from suites.event_task import EventOptions, EventTask
from suites.recordings import Recordings, interleaved, natural
from suites.sources import Source
from suites.tonic_recordings import tonic_recordings


def _download(root: Path) -> None:
    from tonic.datasets import DVSGesture

    for train in (True, False):
        DVSGesture(str(root / "events"), train=train)


class DvsGesture(EventTask):
    """DVS128 Gesture as cut by tonic: ``[B, T, 2, 32, 32]``, counts of 4x4 pixels. Not mirrored: classes say left and right."""

    card = TaskCard(
        name="events/dvs-gesture",
        title="DVS128 Gesture",
        data="recordings of 11 gestures of 29 people, cut into one gesture each by tonic, with times in milliseconds",
        licence="CC BY 4.0",
        split="people 1 to 23 training, 24 to 29 test, as published; of the training people, 20 to 23 are for validation",
        source="Amir, Taba, Berg et al., CVPR 2017",
    )
    source = Source(({"events/DVSGesture/ibmGestureTrain": "", "events/DVSGesture/ibmGestureTest": ""},), _download, "about 3 GB")
    sensor = (128, 128)
    head = Head("classify", classes=11)
    budgets = {
        "smoke": Budget(
            Training(epochs=4, batch_size=16, lr=4e-3, augment=True),
            Backbone("conv", (6, 12)),
            train_samples=220,
            validation_samples=55,
            test_samples=110,
            time_limit=600,
        ),
        "laptop": Budget(Training(epochs=10, batch_size=16, lr=4e-3, augment=True), Backbone("conv", (16, 32)), time_limit=3600),
        "paper": Budget(
            Training(epochs=200, batch_size=16, lr=1e-3, augment=True),
            Backbone("conv", (128, 128, 128, 128)),
            time_limit=200_000,
            target=0.95,
        ),
    }

    class Options(EventOptions):
        """Framing and augmentation."""

        steps: int = Field(16, ge=1, le=10_000, description="windows per recording, T")
        pool: int = Field(4, ge=1, le=64, description="pixels counted together, each way")

    def recordings(self, split: Split) -> Recordings:
        """Return the recordings, the classes in turn."""
        folder = self.source.require().path("events")
        found = tonic_recordings("DVSGesture", folder, *self.sensor, train=split != "test")
        ordered = found.select(sorted(range(len(found)), key=lambda i: natural(found.names[i])))
        chosen = ordered.select(i for i, name in enumerate(ordered.names) if self.part(name) == split)
        return chosen.select(interleaved(chosen.targets))

    @staticmethod
    def part(name: str) -> Split:
        """Return the split that the person in a file's name belongs to (``.../user07_led/3.npy``)."""
        person = int(re.search(r"user(\d+)_", name)[1])  # type: ignore[index]  # tonic's names have it
        return "test" if person >= 24 else "validation" if person >= 20 else "train"
