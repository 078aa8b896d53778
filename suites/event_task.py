"""What all tasks of recorded events share: options of framing and augmentation, frames in memory or in a cache on disk.

A task names its recordings, their split and the sensor; ``recordings`` is called off the clock::

    class NMnist(EventTask):
        sensor = (34, 34)

        def recordings(self, split):
            return ...                                    # suites.recordings.Recordings

A sample is ``[T, 2, H, W]``: events per window, polarity and pixel. Counts are not rescaled: whole numbers stay events for whoever counts
operations, and every method normalises the currents they cause.
"""

from __future__ import annotations

import sys
from abc import abstractmethod
from collections import Counter
from collections.abc import Sequence
from importlib.util import find_spec
from math import prod
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.utils.data import Dataset

from harness.plugin import DataError, Options
from harness.task import Batch, Data, Split
from suites import event_files, event_frames, recordings
from suites.augmentation import shifted
from suites.classification import ClassificationTask
from suites.event_augment import dropped, jittered, mirrored, noisy
from suites.event_frames import Framing
from suites.recordings import Recordings
from suites.sources import FileTask, cached_arrays, digest

IN_MEMORY = 2 << 30  # bytes of frames; a larger split is read from the cache on disk, sample by sample


class EventOptions(Options):
    """Framing and augmentation; tasks change the defaults."""

    frames: Literal["time", "count"] = Field("time", description="windows of equal time, or of equal numbers of events")
    steps: int = Field(10, ge=1, le=10_000, description="windows per recording, T")
    pool: int = Field(1, ge=1, le=64, description="pixels counted together, each way")
    drop: float = Field(0.0, ge=0, lt=1, description="augmentation: probability that an event is dropped")
    noise: int = Field(0, ge=0, description="augmentation: random events added to a recording")
    shift: int = Field(1, ge=0, description="augmentation: pixels (after pooling) that a recording is moved at most, each way")
    flip: bool = Field(False, description="augmentation: mirror left to right")
    jitter: float = Field(0.0, ge=0, description="augmentation: standard deviation of noise on event times, microseconds; frames anew")


class EventTask(FileTask, ClassificationTask):
    """Recordings of an event sensor, framed; the target is the class of the recording."""

    sensor: tuple[int, int | None]  # (width, height)
    polarities: ClassVar[int] = 2
    duration: int | None = None  # microseconds from 0 that windows divide; None: each recording's own time
    temporal = True

    class Options(EventOptions):
        """Framing and augmentation."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        """Bind the task to a budget, a device and options; see ``Task``."""
        super().__init__(*arguments, **named)
        self.notes: list[str] = []  # what readers passed over, one for each recording that it concerns

    @abstractmethod
    def recordings(self, split: Split) -> Recordings:
        """Return the recordings of a split, in an order in which any beginning holds all classes; raise DataError for damaged files."""

    @property
    def framing(self) -> Framing:
        """How recordings become frames."""
        o, (width, height) = self.options, self.sensor
        duration = self.duration if o.frames == "time" else None
        return Framing(width, height, o.steps, o.frames, o.pool, duration, self.polarities)

    @property
    def steps(self) -> int:
        """Windows per recording."""
        return self.options.steps

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one frame."""
        width, height = self.sensor
        return Framing(width, height, 1, pool=self.options.pool, polarities=self.polarities).shape

    def unavailable(self) -> str | None:
        """Return what to install, what the options contradict, or what is missing or damaged, or None."""
        if find_spec("tonic") is None:
            return "tonic is not installed: pip install 'spikebench[events]'"
        try:
            _ = self.framing
        except ValueError as error:
            return str(error)
        return super().unavailable()

    def used(self, split: Split) -> Recordings:
        """Return the recordings of a split that the budget uses."""
        found = self.recordings(split)
        if not len(found):
            raise DataError(f"{self.name} has no recording for {split}; see its split rule: {self.card.split}")
        limit = getattr(self.budget, f"{split}_samples")
        return found if limit is None or limit >= len(found) else found.select(range(limit))

    def load(self, split: Split) -> Any:
        """Return frames and classes: in memory if they fit in ``IN_MEMORY`` bytes, else each framed and cached on first use.

        What was passed over in the recordings (``notes``) is counted in ``warnings``.
        """
        found, framing = self.used(split), self.framing
        if split == "train" and self.options.jitter:
            self._streams = found
        key = f"{self._code()} {self.name} {self.checksum()} {split} {framing}"
        if len(found) * self.steps * prod(self.input_shape) > IN_MEMORY:
            return FramedRecordings(found, framing, key)

        def make() -> dict[str, np.ndarray]:
            self.notes.clear()
            frames = np.empty((len(found), self.steps, *self.input_shape), np.uint8)
            for place in range(len(found)):
                one = framed(found, place, framing)
                if one.max() > 255 and frames.dtype == np.uint8:
                    frames = frames.astype(np.int16)
                frames[place] = one
            counted = [f"{split}: {count} {note}" for note, count in Counter(self.notes).items()]
            return {"frames": frames, "notes": np.array(counted, dtype="U300")}

        stored = cached_arrays("event-frames", f"{key} {len(found)}", make)
        self.warnings += stored["notes"].tolist()
        return Data(torch.from_numpy(stored["frames"]), torch.tensor(found.targets))

    def _code(self) -> list[str]:
        # What else decides the frames, for the cache: how events are read, chosen and counted.
        files = [__file__, event_frames.__file__, event_files.__file__, recordings.__file__, sys.modules[type(self).__module__].__file__]
        return [digest(Path(file)) for file in files if file]

    def prepare(self, inputs: Tensor) -> Tensor:
        """Return the counts as floating-point numbers."""
        return inputs.float()

    def augment(self, batch: Batch, generator: torch.Generator) -> Batch:
        """Return recordings ``[B, T, P, H, W]`` changed as the options say (``suites.event_augment``); jitter reads events again."""
        o, frames = self.options, batch.inputs
        if o.jitter:
            frames = self.jittered(batch.index, generator).to(frames)
        if o.drop:
            frames = dropped(frames, o.drop, generator)
        if o.noise:
            frames = noisy(frames, o.noise, generator)
        if o.shift:
            frames = self.moved(frames, generator)
        if o.flip:
            frames = mirrored(frames, generator)
        return batch._replace(inputs=frames)

    def moved(self, frames: Tensor, generator: torch.Generator) -> Tensor:
        """Return ``frames``, each recording moved by at most ``shift`` pixels each way; what leaves the picture is lost."""
        return shifted(frames.flatten(1, 2), self.options.shift, generator).view_as(frames)

    def jittered(self, index: Tensor, generator: torch.Generator) -> Tensor:
        """Return frames of the training recordings at ``index [B]`` with noise on the times of their events."""
        random = np.random.default_rng(int(torch.randint(2**62, (), generator=generator)))
        streams = [jittered(self._streams[i], self.options.jitter, random) for i in index.tolist()]
        return torch.from_numpy(np.stack([self.framing(events) for events in streams]))


class FramedRecordings(Dataset):
    """Frames ``[T, P, H, W]`` (int16) and classes of recordings, framed on first use and kept in the cache under ``key``."""

    def __init__(self, recordings: Recordings, framing: Framing, key: str) -> None:
        """Prepare; nothing is read yet."""
        self.recordings, self.framing, self.key = recordings, framing, key
        self.targets: Sequence[int] = recordings.targets

    def __len__(self) -> int:
        """Return the number of recordings."""
        return len(self.recordings)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Return frames and class of a recording."""
        stored = cached_arrays(
            "event-frames/single", f"{self.key} {index}", lambda: {"frames": framed(self.recordings, index, self.framing)}
        )
        return torch.from_numpy(stored["frames"]), torch.tensor(self.targets[index])


def framed(recordings: Recordings, index: int, framing: Framing) -> np.ndarray:
    """Return the frames of a recording; raise DataError, naming it, if they cannot be made."""
    events = recordings[index]
    try:
        return framing(events)
    except ValueError as error:
        raise DataError(f"{recordings.names[index]}: {error}") from error
