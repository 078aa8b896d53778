"""Google's Speech Commands v0.02: thirty-five words by thousands of speakers, as log-mel frames.

    spikebench data sequences/speech-commands       # downloads 2.4 GB
    spikebench run -t sequences/speech-commands -m stbp --budget laptop

The split is the data set's own, by its two lists of files. Files are read while training, by worker processes.
"""

from __future__ import annotations

import tarfile
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import Dataset

from harness.plugin import DataError
from harness.task import Backbone, Budget, Head, Split, TaskCard, Training
from suites.audio import MelSpec, log_mel, read_wav
from suites.classification import ClassificationTask
from suites.sources import FileTask, Source
from suites.splits import interleaved

FOLDER = "sequences/SpeechCommands/speech_commands_v0.02"
ARCHIVE = "https://storage.googleapis.com/download.tensorflow.org/data/speech_commands_v0.02.tar.gz"
SHA256 = "af14739ee7dc311471de98f5f9d2c9191b18aedfe957f4a6ff791c709868ff58"
# fmt: off
WORDS = (
    "backward", "bed", "bird", "cat", "dog", "down", "eight", "five", "follow", "forward", "four", "go", "happy", "house", "learn",
    "left", "marvin", "nine", "no", "off", "on", "one", "right", "seven", "sheila", "six", "stop", "three", "tree", "two", "up",
    "visual", "wow", "yes", "zero",
)
# fmt: on


def download(root: Path) -> None:
    """Download the archive, compare its SHA-256, and unpack it below ``root``."""
    folder = root / FOLDER
    part = folder.with_name(f"{folder.name}.part")  # complete or not at all
    part.mkdir(parents=True, exist_ok=True)
    archive = folder.with_name(f"{folder.name}.tar.gz")
    torch.hub.download_url_to_file(ARCHIVE, str(archive), hash_prefix=SHA256, progress=False)
    with tarfile.open(archive) as file:
        file.extractall(part, filter="data")
    archive.unlink()
    part.rename(folder)


class Recordings(Dataset):
    """The recordings of a split, read when asked for; ``targets [N]`` are known before."""

    rate, longest = 16000, 16000
    spec = MelSpec(16000, window=512, hop=256)

    def __init__(self, folder: Path, names: list[str]) -> None:
        """Take the files ``names`` (word/file) of ``folder``, words taking turns."""
        labels = torch.tensor([WORDS.index(name.partition("/")[0]) for name in names], dtype=torch.long)
        order = interleaved(labels.numpy())
        self.folder, self.names, self.targets = folder, [names[place] for place in order], labels[torch.from_numpy(order)]

    def __len__(self) -> int:
        """Return the number of recordings."""
        return len(self.names)

    def __getitem__(self, place: int) -> tuple[Tensor, Tensor]:
        """Return the frames ``[63, 40]`` of a recording, mean 0 and deviation 1 over all of it, and its word."""
        name = self.names[place]
        try:
            content = (self.folder / name).read_bytes()
        except OSError as error:
            raise DataError(f"cannot read {name}: {error.strerror}; the folder is not complete, get it again") from None
        wave = torch.from_numpy(read_wav(content, self.rate, name)[: self.longest].copy())
        frames = log_mel(torch.nn.functional.pad(wave, (self.longest - len(wave), 0)), self.spec)
        deviation, mean = torch.std_mean(frames)
        return (frames - mean) / deviation.clamp(min=1e-3), self.targets[place]


class SpeechCommands(FileTask, ClassificationTask):
    """Spoken words, ``[B, 63, 40]``: 16 ms per step; recordings of less than a second have silence in front."""

    card = TaskCard(
        name="sequences/speech-commands",
        title="Speech Commands v0.02",
        data="105,829 recordings of 35 words, one second each, 16 bits at 16 kHz",
        licence="CC BY 4.0",
        split="the data set's own: validation_list.txt, testing_list.txt, and the rest",
        source="P. Warden, Speech Commands: a dataset for limited-vocabulary speech recognition, 2018",
    )
    source = Source(
        variants=({f"{FOLDER}/testing_list.txt": "", f"{FOLDER}/validation_list.txt": "", FOLDER: ""},),
        download=download,
        size="2.4 GB",
    )
    temporal = True
    readout = "last"
    input_shape = (Recordings.spec.bands,)
    steps = -(-Recordings.longest // Recordings.spec.hop)
    head = Head("classify", classes=len(WORDS))
    budgets = {
        "smoke": Budget(
            Training(epochs=3, batch_size=64, lr=4e-3),
            Backbone("sequence", (64,) * 3),
            train_samples=1400,
            validation_samples=350,
            test_samples=700,
            time_limit=300,
        ),
        "laptop": Budget(
            Training(epochs=5, batch_size=64, lr=4e-3), Backbone("sequence", (128,) * 3), train_samples=14_000, time_limit=3600
        ),
        "paper": Budget(Training(epochs=100, batch_size=256, lr=1e-3), Backbone("sequence", (512,) * 6), time_limit=7 * 86400),
    }

    def load(self, split: Split) -> Recordings:
        """Return the recordings of a split; raise DataError if a list names what is not there, or a folder is no known word."""
        folder = self.source.require().path(FOLDER)
        words = {each.name for each in folder.iterdir() if each.is_dir() and not each.name.startswith("_")}
        if words != set(WORDS):
            raise DataError(f"{FOLDER} has folders {sorted(words ^ set(WORDS))} too many or too few; get it again")
        here = {f"{word}/{file.name}" for word in WORDS for file in (folder / word).glob("*.wav")}
        listed = {name: _listed(folder / f"{name}_list.txt") for name in ("validation", "testing")}
        for name, files in listed.items():
            if missing := sorted(files - here):
                raise DataError(f"{name}_list.txt names {missing[0]} and {len(missing) - 1} others that are not in {FOLDER}; get it again")
        chosen = {"train": here - listed["validation"] - listed["testing"], "validation": listed["validation"], "test": listed["testing"]}
        return Recordings(folder, sorted(chosen[split]))


def _listed(path: Path) -> set[str]:
    return set(path.read_text(encoding="utf-8").split())
