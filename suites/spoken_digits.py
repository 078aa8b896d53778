"""The Free Spoken Digit Dataset: six people say the digits, as log-mel frames, as raw sound, or as spikes.

    spikebench run -t sequences/fsdd -m stbp
    spikebench run -t "sequences/fsdd[features=spikes]" -m stbp,ann

The repository's own test part is used: recordings 0 to 4 of every speaker and digit. Of the rest, 45 to 49 are validation.
"""

from __future__ import annotations

import lzma
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from harness import plugin
from harness.plugin import DataError
from harness.task import Backbone, Budget, Data, Head, Split, TaskCard, Training
from suites.audio import MelSpec, delta_spikes, log_mel, read_wav
from suites.classification import ClassificationTask
from suites.sources import FileTask, Source, cached_arrays

RATE = 8000
NAME = re.compile(r"(\d)_([a-z]+)_(\d+)\.wav")


class Fsdd(FileTask, ClassificationTask):
    """Spoken digits. ``mel``: ``[B, 64, 40]``, 16 ms per step; ``spikes``: ``[B, 64, 80]``, 0 or 1; ``raw``: ``[B, 8192, 1]``.

    Recordings longer than 8,192 samples (about 1 s; 17 of 3,000) lose their end, and ``warnings`` counts them; shorter ones come last,
    after zeros. Frames and sound are normalised by mean and deviation (of each band) of the training split; spikes stay spikes.
    """

    class Options(plugin.Options):
        """What a step is."""

        features: Literal["mel", "spikes", "raw"] = Field("mel", description="log-mel frames, send-on-delta spikes of these, or samples")
        threshold: float = Field(1.0, gt=0, description="change of the logarithm of a band's power that makes a spike")

    card = TaskCard(
        name="sequences/fsdd",
        title="Free Spoken Digit Dataset",
        data="3,000 recordings of the digits by six speakers, 16 bits at 8 kHz, 0.44 s on average",
        licence="CC BY-SA 4.0",
        split="the repository's: recordings 0-4 of each speaker and digit test; of 5-49, the last five validation",
        source="Z. Jackson et al., Free Spoken Digit Dataset, 2016",
    )
    source = Source(
        variants=(
            {"sequences/fsdd/fsdd_recordings.tar.xz": "a7a94d414dd19ff9d2220c96af72a2e4e36bf9d945c08c2b9b8e1d5de2c3bdec"},
            {"sequences/fsdd/recordings": ""},
        ),
        advice="or put the folder recordings of the repository Jakobovski/free-spoken-digit-dataset into sequences/fsdd",
    )
    mel = MelSpec(RATE)
    longest = 8192  # samples
    temporal = True
    readout = "last"
    head = Head("classify", classes=10)
    budgets = {
        "smoke": Budget(
            Training(epochs=6, batch_size=32, lr=4e-3),
            Backbone("sequence", (64,) * 3),
            train_samples=1200,
            time_limit=300,
        ),
        "laptop": Budget(Training(epochs=15, batch_size=32, lr=4e-3), Backbone("sequence", (128,) * 4), time_limit=1800),
        "paper": Budget(Training(epochs=200, batch_size=64, lr=1e-3), Backbone("sequence", (256,) * 6), time_limit=86400),
    }

    @property
    def input_shape(self) -> tuple[int, ...]:  # type: ignore[override]
        """Numbers per step."""
        return {"mel": (self.mel.bands,), "spikes": (2 * self.mel.bands,), "raw": (1,)}[self.options.features]

    @property
    def steps(self) -> int:  # type: ignore[override]
        """Steps of a sequence."""
        return self.longest if self.options.features == "raw" else self.longest // self.mel.hop

    def load(self, split: Split) -> Data:
        """Return the sequences and digits, speakers and digits taking turns; raise DataError for files that are damaged or missing."""
        found = self.source.require()
        (name,) = found.files
        stored = cached_arrays("fsdd", f"1 {self.source.checksum()} {self.mel}", lambda: self._read(found.path(name)))
        index = stored["index"]
        part = np.where(index < 5, "test", np.where(index >= 45, "validation", "train"))
        chosen = {one: np.flatnonzero(part == one) for one in ("train", split)}
        kind = "wave" if self.options.features == "raw" else "mel"
        starts = np.concatenate([[0], np.cumsum(stored[f"{kind}_lengths"])])
        series = {
            one: [torch.from_numpy(stored[kind][starts[place] : starts[place + 1]])[: self.steps] for place in places]
            for one, places in chosen.items()
        }
        inputs = torch.zeros(len(chosen[split]), self.steps, *self.input_shape)
        for row, each in zip(inputs, self._features(series[split], series["train"]), strict=True):
            row[self.steps - len(each) :] = each
        if cut := int((stored["wave_lengths"][chosen[split]] > self.longest).sum()):
            self.warnings.append(f"{split}: {cut} recordings longer than {self.longest} samples were cut at their end")
        return Data(inputs, torch.from_numpy(stored["digit"][chosen[split]]))

    def _features(self, series: list[Tensor], training: list[Tensor]) -> Iterator[Tensor]:
        if self.options.features == "spikes":
            yield from (delta_spikes(each, self.options.threshold) for each in series)
            return
        joined = torch.cat(training)
        mean, deviation = joined.mean(0), joined.std(0)
        yield from ((each - mean) / deviation for each in series)

    def _read(self, path: Path) -> dict[str, np.ndarray]:
        rows = []
        for name, content in _recordings(path):
            fits = NAME.fullmatch(name)
            if fits is None:
                raise DataError(f"{path.name}: {name} is not named DIGIT_SPEAKER_INDEX.wav")
            sound = read_wav(content, RATE, f"{path.name}: {name}")
            rows.append((int(fits[3]), int(fits[1]), fits[2], sound, log_mel(torch.from_numpy(sound), self.mel).numpy()))
        speakers = {row[2] for row in rows}
        expected = {(index, digit, speaker) for index in range(50) for digit in range(10) for speaker in speakers}
        if not rows or {row[:3] for row in rows} != expected:
            raise DataError(f"{path.name} holds {len(rows)} recordings, not 50 of each digit and speaker; it is not complete, get it again")
        rows.sort(key=lambda row: row[:3])
        return {
            "index": np.array([row[0] for row in rows]),
            "digit": np.array([row[1] for row in rows]),
            "wave": np.concatenate([row[3] for row in rows])[:, None],
            "wave_lengths": np.array([len(row[3]) for row in rows]),
            "mel": np.concatenate([row[4] for row in rows]),
            "mel_lengths": np.array([len(row[4]) for row in rows]),
        }


def _recordings(path: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the name and content of every wav file of an archive or a folder."""
    if path.is_dir():
        yield from ((file.name, file.read_bytes()) for file in sorted(path.glob("*.wav")))
        return
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                file = archive.extractfile(member) if member.name.endswith(".wav") else None
                if file is not None:
                    yield Path(member.name).name, file.read()
    except (tarfile.TarError, lzma.LZMAError, EOFError) as error:
        raise DataError(f"{path.name} cannot be unpacked ({error}); it is damaged or cut off, get it again") from None
