"""POKER-DVS: playing cards browsed before an event camera, one suit symbol per recording, 5 to 32 ms each.

Two forms of the same 131 recordings, so never train on one and test on the other: the 48 + 20 that tonic knows, and all of them.
"""

from __future__ import annotations

import re

from pydantic import Field

from harness.task import Backbone, Budget, Head, Split, TaskCard, Training
from suites.event_archive import archived
from suites.event_files import read_aedat, read_npy
from suites.event_task import EventOptions, EventTask
from suites.recordings import Recordings, natural
from suites.sources import Source

CLASSES = ("club", "heart", "diamond", "spade")  # tonic's order
PAPER = "Serrano-Gotarredona, Linares-Barranco, Frontiers in Neuroscience 9:481, 2015"
LICENCE = "free for non-commercial use with credit (IMSE-CNM)"
BUDGETS = {
    "smoke": Budget(Training(epochs=20, batch_size=8, lr=4e-3, augment=True), Backbone("conv", (8, 16)), time_limit=300, target=0.8),
    "laptop": Budget(Training(epochs=60, batch_size=8, lr=4e-3, augment=True), Backbone("conv", (16, 32)), time_limit=1800, target=0.9),
    "paper": Budget(
        Training(epochs=200, batch_size=8, lr=1e-3, augment=True), Backbone("conv", (64, 128, 128)), time_limit=7200, target=0.95
    ),
}


class PokerOptions(EventOptions):
    """Framing and augmentation. A symbol stays the same when it is mirrored."""

    flip: bool = Field(True, description="augmentation: mirror left to right")


class PokerDvs(EventTask):
    """The 68 recordings of tonic: ``[B, T, 2, 35, 35]``. Coarse: one of the 20 test recordings is 5 %, one of 8 for validation 12.5 %."""

    card = TaskCard(
        name="events/poker-dvs",
        title="POKER-DVS, tonic's 48 + 20 recordings (one test recording = 5 %)",
        data="68 recordings of four suit symbols, 12 + 5 per class, in the archives that tonic's POKERDVS expects",
        licence=LICENCE,
        split="as published with tonic; validation: training recordings 10 and 11 (from 0) of each class",
        source=PAPER,
    )
    source = Source(
        (
            {
                "events/POKERDVS/pips_train.tar.gz": "1ea38cdea0a46da6a8bce0f51b7a22b22a0922c14f73c5813a674810691eead5",
                "events/POKERDVS/pips_test.tar.gz": "97501f9ab11f0c71fe232a264788671e9c4052566e3fc48c662ef6a7692347f2",
            },
        ),
        advice="tonic's repository has them; its package does not",
    )
    sensor = (35, 35)
    head = Head("classify", classes=4)
    budgets = BUDGETS
    Options = PokerOptions
    held_out = 2  # per class

    def recordings(self, split: Split) -> Recordings:
        """Return the recordings, the classes in turn."""
        part = "test" if split == "test" else "train"
        path = self.source.require().path(f"events/POKERDVS/pips_{part}.tar.gz")
        found = archived(path, ".npy", lambda name: ("cl", "he", "di", "sp").index(name.split("/")[-2]), read_npy, *self.sensor)
        numbers = [int(name.rpartition("/")[2][:-4]) for name in found.names]
        ordered = sorted(range(len(found)), key=lambda i: (numbers[i], found.targets[i]))
        if part == "train":
            border = len(found) // len(CLASSES) - self.held_out
            ordered = [i for i in ordered if (numbers[i] < border) == (split == "train")]
        return found.select(ordered)


class PokerDvs131(EventTask):
    """All 131 recordings: ``[B, T, 2, 35, 35]``, split by us. Coarse: one of the 25 test recordings is 4 %."""

    card = TaskCard(
        name="events/poker-dvs-131",
        title="POKER-DVS, all 131 recordings, own split (one test recording = 4 %)",
        data="131 recordings of four suit symbols as AEDAT 2.0, 30 clubs, 23 hearts, 43 diamonds, 35 spades",
        licence=LICENCE,
        split="ours, by the number n in the file's name: n % 5 = 0 test (25), n % 5 = 4 validation (25), the rest train (81)",
        source=PAPER,
    )
    source = Source(
        ({"events/poker_dvs_131.tar.gz": "abaed4f264d0459459fd6a97ca06ac5dc1e218ff40b97534ea40eba6b28155db"},),
        advice="a gzipped tar of the files xclub01.aedat to xspade35.aedat of the database",
    )
    sensor = (35, 35)
    head = Head("classify", classes=4)
    budgets = BUDGETS
    Options = PokerOptions

    def recordings(self, split: Split) -> Recordings:
        """Return the recordings by their numbers, the classes in turn."""
        found = archived(self.source.require().path("events/poker_dvs_131.tar.gz"), ".aedat", self.target, read_aedat, *self.sensor)
        places = sorted(range(len(found)), key=lambda i: (self.number(found.names[i]), natural(found.names[i])))
        return found.select(i for i in places if self.part(self.number(found.names[i])) == split)

    @staticmethod
    def target(name: str) -> int:
        """Return the class that a name says."""
        return next(place for place, suit in enumerate(CLASSES) if suit in name)

    @staticmethod
    def number(name: str) -> int:
        """Return the number of a recording within its class."""
        return int(re.search(r"\d+", name)[0])  # type: ignore[index]  # all names have one

    @staticmethod
    def part(number: int) -> Split:
        """Return the split of the recordings with this number."""
        return {0: "test", 4: "validation"}.get(number % 5, "train")  # type: ignore[return-value]
