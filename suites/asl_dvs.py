"""ASL-DVS: 24 letters of the American sign language, shown by five people to an event camera of 240x180 pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pydantic import Field

from harness.task import Backbone, Budget, Head, Split, TaskCard, Training
from suites.event_task import EventOptions, EventTask
from suites.recordings import Recordings, interleaved, natural
from suites.sources import Source
from suites.tonic_recordings import complete, tonic_recordings

LETTERS = "abcdefghiklmnopqrstuvwxy"  # j and z need movement


def _download(root: Path) -> None:
    from tonic.datasets import ASLDVS

    ASLDVS(str(root / "events"))


class AslDvs(EventTask):
    """ASL-DVS, complete: ``[B, T, 2, 45, 60]``, counts of 4x4 pixels; read by tonic. Not mirrored: a hand has a side."""

    card = TaskCard(
        name="events/asl-dvs",
        title="ASL-DVS",
        data="100,800 recordings of about 100 ms, 4,200 per letter, downloaded by tonic",
        licence="not stated",
        split="80:20 in each letter as in the paper, which draws at random; here by number: every fifth (4, 9, ...) test, every tenth "
        "(8, 18, ...) validation. Recordings are cut from longer ones, so all parts know the same hands",
        source="Bi, Chadha, Abbas, Bourtsoulatze, Andreopoulos, ICCV 2019",
    )
    source = Source(({"events/ASLDVS": ""},), _download, "several GB")
    size = 100_800
    sensor = (240, 180)
    head = Head("classify", classes=len(LETTERS))
    budgets = {
        "smoke": Budget(
            Training(epochs=3, batch_size=16, lr=4e-3, augment=True),
            Backbone("conv", (4, 8, 16)),
            train_samples=240,
            validation_samples=48,
            test_samples=120,
            time_limit=600,
        ),
        "laptop": Budget(
            Training(epochs=4, batch_size=32, lr=4e-3, augment=True),
            Backbone("conv", (8, 16, 32)),
            train_samples=1920,
            validation_samples=240,
            test_samples=2400,
            time_limit=3600,
        ),
        "paper": Budget(
            Training(epochs=100, batch_size=64, lr=1e-3, augment=True), Backbone("vgg", (64, 128, 256, 512)), time_limit=400_000
        ),
    }

    class Options(EventOptions):
        """Framing and augmentation."""

        steps: int = Field(5, ge=1, le=10_000, description="windows per recording, T")
        pool: int = Field(4, ge=1, le=64, description="pixels counted together, each way")

    def recordings(self, split: Split) -> Recordings:
        """Return the recordings, the letters in turn."""
        found = tonic_recordings("ASLDVS", self.source.require().path("events"), *self.sensor, change=np.ravel)
        complete(found, self.size, "events/ASLDVS")
        letters = [LETTERS.index(chr(ord("a") + target)) for target in found.targets]
        found = found.relabelled(letters).select(sorted(range(len(found)), key=lambda i: natural(found.names[i])))
        found = found.select(interleaved(found.targets))  # so place // letters is the rank within the letter
        return found.select(i for i in range(len(found)) if self.part(i // len(LETTERS)) == split)

    @staticmethod
    def part(rank: int) -> Split:
        """Return the split of the recording at this place in its letter."""
        return "test" if rank % 5 == 4 else "validation" if rank % 10 == 8 else "train"
