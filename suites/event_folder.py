"""Event recordings of your own: a folder of files per class.

    spikebench run -t "events/folder[path=birds]" -m stbp,ann      # events/birds/owl/1.npz ... below SPIKEBENCH_DATA

With subfolders ``train`` and ``test`` (and ``validation``) these are the splits; without, the folder is split by a hash of the names.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from harness.plugin import DataError
from harness.task import Backbone, Budget, Head, Split, TaskCard, Training
from suites.event_files import read_events
from suites.event_task import EventOptions, EventTask
from suites.recordings import Recordings, interleaved, natural
from suites.sources import Source, digest

ENDINGS = (".bin", ".aedat", ".npy", ".npz")


class FileReader:
    """Reads event files, one at a time."""

    def __init__(self, files: Sequence[Path], names: Sequence[str], kind: str, columns: str, notes: list[str]) -> None:
        """Keep what ``suites.event_files.read_events`` is to be given."""
        self.files, self.names, self.kind, self.columns, self.notes = files, names, kind, columns, notes

    def __call__(self, place: int) -> np.ndarray:
        """Return the events of a file."""
        return read_events(self.names[place], self.files[place].read_bytes(), self.kind, self.columns, self.notes)


class EventFolder(EventTask):
    """Any folder of recordings, a subfolder per class: ``[B, T, 2, height / pool, width / pool]``."""

    card = TaskCard(
        name="events/folder",
        title="A folder of event recordings",
        data="files .npz (arrays x, y, t, p), .npy (structured, or columns), .bin (N-MNIST) or .aedat (2.0, DVS128), a subfolder per class",
        licence="the user's",
        split="subfolders train, test and validation if there are train and test; else of each class, in the order of the SHA-256 of "
        "class/name, the first fifth is test and the next tenth validation; without a folder validation, the first tenth of train so",
        source="the user",
    )
    budgets = {
        "smoke": Budget(
            Training(epochs=5, batch_size=16, lr=4e-3, augment=True),
            Backbone("conv", (8, 16)),
            train_samples=400,
            validation_samples=200,
            test_samples=400,
            time_limit=600,
        ),
        "laptop": Budget(Training(epochs=20, batch_size=32, lr=4e-3, augment=True), Backbone("conv", (16, 32)), time_limit=3600),
        "paper": Budget(Training(epochs=100, batch_size=32, lr=1e-3, augment=True), Backbone("conv", (64, 128, 128)), time_limit=200_000),
    }

    class Options(EventOptions):
        """Where the files are and what they hold; framing and augmentation."""

        path: str = Field("", description="the folder: below events/ in SPIKEBENCH_DATA, or absolute")
        format: Literal["auto", "bin", "aedat", "npy", "npz"] = Field("auto", description="kind of file; auto: by their endings")
        columns: str = Field("txyp", pattern="^[txyp]{4}$", description="columns of .npy files without field names")
        width: int = Field(128, ge=1, le=4096, description="pixels of the sensor")
        height: int = Field(128, ge=1, le=4096, description="pixels of the sensor")

    @property
    def source(self) -> Source:  # type: ignore[override]  # depends on the options
        """The folder."""
        return Source(({f"events/{self.options.path}" if not Path(self.options.path).is_absolute() else self.options.path: ""},))

    @property
    def sensor(self) -> tuple[int, int]:  # type: ignore[override]
        """Width and height."""
        return self.options.width, self.options.height

    @cached_property
    def classes(self) -> list[str]:
        """Names of the classes, sorted: the subfolders (of ``train``, if the parts have folders)."""
        folder = self._folder()
        return sorted(each.name for each in (folder / "train" if self._parted(folder) else folder).iterdir() if each.is_dir())

    @property
    def head(self) -> Head:  # type: ignore[override]
        """A class per subfolder; two as long as there is no folder."""
        return Head("classify", classes=len(self.classes) if self.unavailable() is None else 2)

    def unavailable(self) -> str | None:
        """Return what is missing or what the folder lacks, or None."""
        if not self.options.path:
            return "say which folder: events/folder[path=...]"
        if problem := super().unavailable():
            return problem
        if len(self.classes) < 2:
            return (
                f"{self.options.path} holds {len(self.classes)} folders of recordings; a folder for each of at least two classes is needed"
            )
        return None

    def checksum(self) -> str:
        """Return a hash of the names and contents of all files: your own change, and keep their size."""
        folder = self._folder()
        files = sorted((each.relative_to(folder).as_posix(), each) for each in folder.rglob("*") if each.is_file())
        return hashlib.sha256("".join(f"{name} {digest(path)}\n" for name, path in files).encode()).hexdigest()[:16]

    def recordings(self, split: Split) -> Recordings:
        """Return the recordings, the classes in turn."""
        folder = self._folder()
        if not self._parted(folder):
            return self._recordings(folder, _by_hash(self._names(folder), ("test", 5), ("validation", 10))[split])
        if split == "test" or (folder / "validation").is_dir():
            return self._recordings(folder / split, self._names(folder / split))
        return self._recordings(folder / "train", _by_hash(self._names(folder / "train"), ("validation", 10))[split])

    def _folder(self) -> Path:
        found = self.source.require()
        return found.path(next(iter(found.files)))

    @staticmethod
    def _parted(folder: Path) -> bool:
        return (folder / "train").is_dir() and (folder / "test").is_dir()

    def _names(self, folder: Path) -> list[str]:
        unknown = sorted(each.name for each in folder.iterdir() if each.is_dir() and each.name not in self.classes)
        if unknown:
            raise DataError(f"{self.options.path}/{folder.name} has the class {unknown[0]}, which training has not")
        endings = ENDINGS if self.options.format == "auto" else (f".{self.options.format}",)
        found: list[str] = []
        for kind in self.classes:
            own = [f"{kind}/{each.name}" for each in (folder / kind).glob("*") if each.suffix.lower() in endings]
            if not own:
                raise DataError(f"{self.options.path}/{kind} holds no file that ends in {', '.join(endings)}; add some or remove it")
            found += own
        return sorted(found, key=natural)

    def _recordings(self, folder: Path, names: Sequence[str]) -> Recordings:
        targets = [self.classes.index(name.partition("/")[0]) for name in names]
        reader = FileReader([folder / name for name in names], names, self.options.format, self.options.columns, self.notes)
        found = Recordings(names, targets, reader, *self.sensor)
        return found.select(interleaved(targets))


def _by_hash(names: Sequence[str], *parts: tuple[str, int]) -> dict[str, list[str]]:
    """Return split -> names: of each class, ordered by hash, one in ``n`` for each of ``parts`` (at least one), the rest for training."""
    split: dict[str, list[str]] = {"train": [], **{part: [] for part, _ in parts}}
    for kind in sorted({name.partition("/")[0] for name in names}):
        own = [name for name in names if name.partition("/")[0] == kind]
        dealt = sorted(own, key=lambda name: hashlib.sha256(name.encode()).hexdigest())
        if len(dealt) <= len(parts):
            raise DataError(f"class {kind} has {len(dealt)} recordings; to be split it needs {len(parts) + 1} or more")
        start = 0
        for part, share in parts:
            end = start + max(1, len(dealt) // share)
            split[part] += dealt[start:end]
            start = end
        split["train"] += dealt[start:]
    return {part: sorted(chosen, key=natural) for part, chosen in split.items()}
