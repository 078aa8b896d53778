"""Heidelberg's spiking speech: spoken digits and commands as spikes of 700 channels of a model of the inner ear."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from harness.task import Backbone, Budget, Head, Split, TaskCard, Training
from suites.event_augment import slid
from suites.event_task import EventOptions, EventTask
from suites.recordings import Recordings
from suites.sources import Source
from suites.tonic_recordings import TonicReader, tonic_dataset

PAPER = "Cramer, Stradmann, Schemmel, Zenke, IEEE Transactions on Neural Networks and Learning Systems, 2020"
LICENCE = "CC BY 4.0"


class SpeechOptions(EventOptions):
    """Framing and augmentation. ``shift`` moves along the channels."""

    steps: int = Field(100, ge=1, le=10_000, description="windows per recording, T")
    pool: int = Field(5, ge=1, le=64, description="channels counted together")
    shift: int = Field(4, ge=0, description="augmentation: channels (after pooling) that a recording is moved at most, each way")


class SpeechTask(EventTask):
    """Spikes of 700 channels: ``[B, T, 140]``, counts of 5 channels; read by tonic.

    The files do not promise an order, so spikes are sorted by time. A spike later than ``duration`` counts in the last window.
    """

    sensor = (700, None)
    polarities = 1
    Options = SpeechOptions

    def speech(self, name: str, **arguments: Any) -> Recordings:
        """Return the recordings of one file of ``tonic.datasets`` in its order."""
        import h5py  # comes with tonic

        dataset = tonic_dataset(name, self.source.require().path("events"), **arguments)
        with h5py.File(Path(dataset.location_on_system) / dataset.data_filename) as file:
            targets = file["labels"][()].astype(np.int64).tolist()
        names = [f"events/{name}/{dataset.data_filename}: recording {place}" for place in range(len(targets))]
        return Recordings(names, targets, TonicReader(dataset, self.in_order), *self.sensor)

    def in_order(self, events: np.ndarray) -> np.ndarray:
        """Return spikes sorted by time, none later than ``duration``; notes the recordings that had later ones."""
        found = events[np.argsort(events["t"], kind="stable")]
        if self.duration is not None and self.options.frames == "time" and (late := int((found["t"] >= self.duration).sum())):
            self.notes.append(f"recordings have spikes after {self.duration / 1e6:g} s, which count in the last window")
            found["t"][-late:] = self.duration - 1
        return found

    def moved(self, frames: Tensor, generator: torch.Generator) -> Tensor:
        """Return ``frames [B, T, C]``, each recording moved along the channels."""
        return slid(frames, self.options.shift, generator)


def _download_shd(root: Path) -> None:
    from tonic.datasets import SHD

    for train in (True, False):
        SHD(str(root / "events"), train=train)


def _download_ssc(root: Path) -> None:
    from tonic.datasets import SSC

    for split in ("train", "valid", "test"):
        SSC(str(root / "events"), split=split)


class Shd(SpeechTask):
    """Spiking Heidelberg Digits: ``[B, 100, 140]``, windows of 14 ms."""

    card = TaskCard(
        name="events/shd",
        title="Spiking Heidelberg Digits",
        data="10,420 recordings of spoken digits, German and English, as spikes of 700 channels, downloaded by tonic",
        licence=LICENCE,
        split="8,156 / 2,264 as published; validation: every tenth training recording (9, 19, ...)",
        source=PAPER,
    )
    source = Source(({"events/SHD/shd_train.h5": "", "events/SHD/shd_test.h5": ""},), _download_shd, "some 100 MB")
    duration = 1_400_000  # microseconds, as the authors' own tutorials take
    head = Head("classify", classes=20)
    budgets = {
        "smoke": Budget(
            Training(epochs=5, batch_size=32, lr=4e-3, augment=True),
            Backbone("sequence", (64, 64, 64)),
            train_samples=800,
            validation_samples=200,
            test_samples=400,
            time_limit=600,
        ),
        "laptop": Budget(Training(epochs=15, batch_size=64, lr=4e-3, augment=True), Backbone("sequence", (128, 128, 128)), time_limit=3600),
        "paper": Budget(
            Training(epochs=150, batch_size=128, lr=1e-3, augment=True),
            Backbone("sequence", (256, 256, 256)),
            time_limit=100_000,
            target=0.9,
        ),
    }

    def recordings(self, split: Split) -> Recordings:
        """Return the recordings in the order of the file, which mixes the classes."""
        found = self.speech("SHD", train=split != "test")
        return found if split == "test" else found.select(i for i in range(len(found)) if (i % 10 == 9) == (split == "validation"))


class Ssc(SpeechTask):
    """Spiking Speech Commands: ``[B, 100, 140]``, windows of 10 ms."""

    card = TaskCard(
        name="events/ssc",
        title="Spiking Speech Commands",
        data="105,829 recordings of 35 spoken commands as spikes of 700 channels, downloaded by tonic",
        licence=LICENCE,
        split="train, validation and test as published",
        source=PAPER,
    )
    source = Source(({f"events/SSC/ssc_{part}.h5": "" for part in ("train", "valid", "test")},), _download_ssc, "some GB")
    duration = 1_000_000  # microseconds
    head = Head("classify", classes=35)
    budgets = {
        "smoke": Budget(
            Training(epochs=4, batch_size=32, lr=4e-3, augment=True),
            Backbone("sequence", (64, 64, 64)),
            train_samples=1000,
            validation_samples=200,
            test_samples=400,
            time_limit=600,
        ),
        "laptop": Budget(
            Training(epochs=6, batch_size=64, lr=4e-3, augment=True),
            Backbone("sequence", (128, 128, 128)),
            train_samples=12_000,
            validation_samples=1000,
            time_limit=3600,
        ),
        "paper": Budget(
            Training(epochs=60, batch_size=256, lr=1e-3, augment=True),
            Backbone("sequence", (512, 512, 512)),
            time_limit=200_000,
            target=0.7,
        ),
    }

    def recordings(self, split: Split) -> Recordings:
        """Return the recordings in the order of the file, which mixes the classes."""
        return self.speech("SSC", split={"validation": "valid"}.get(split, split))
