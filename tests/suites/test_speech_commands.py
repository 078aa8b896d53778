import hashlib
import tarfile

import numpy as np
import pytest
import torch
from test_audio import wav

from harness.loader import Loader
from harness.plugin import DataError, UsageError
from suites import speech_commands
from suites.audio import log_mel, read_wav
from suites.speech_commands import FOLDER, WORDS, Recordings, SpeechCommands


def make(folder):
    """Three recordings of every word: one for each split."""
    generator = np.random.default_rng(0)
    for word in WORDS:
        (folder / word).mkdir(parents=True)
        for name in ("a", "b", "c"):
            (folder / word / f"{name}_nohash_0.wav").write_bytes(wav(generator.integers(-9000, 9000, 1600), rate=16000))
    (folder / "_background_noise_").mkdir()
    for name, part in (("b", "validation"), ("c", "testing")):
        (folder / f"{part}_list.txt").write_text("".join(f"{word}/{name}_nohash_0.wav\n" for word in WORDS))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("SPIKEBENCH_DATA", str(tmp_path))
    monkeypatch.setenv("SPIKEBENCH_CACHE", str(tmp_path / "cache"))
    make(tmp_path / FOLDER)
    return tmp_path / FOLDER


@pytest.mark.parametrize(("split", "letter"), [("train", "a"), ("validation", "b"), ("test", "c")])
def test_the_lists_make_the_splits(folder, split, letter):
    data = SpeechCommands().load(split)
    assert sorted(data.names) == [f"{word}/{letter}_nohash_0.wav" for word in sorted(WORDS)]
    assert [WORDS[label] for label in data.targets] == [name.split("/")[0] for name in data.names]


def test_words_are_those_of_the_folders_in_alphabetical_order():
    assert list(WORDS) == sorted(set(WORDS))
    assert len(WORDS) == 35


def test_a_recording_is_its_normalised_frames_with_silence_in_front(folder):
    data = SpeechCommands().load("test")
    inputs, target = data[4]
    wave = torch.zeros(16000)
    wave[-1600:] = torch.from_numpy(read_wav((folder / data.names[4]).read_bytes(), 16000, "-").copy())
    frames = log_mel(wave, Recordings.spec)
    assert inputs.shape == (SpeechCommands.steps, *SpeechCommands.input_shape)
    torch.testing.assert_close(inputs, (frames - frames.mean()) / frames.std())
    assert target == data.targets[4]


def test_silence_is_not_divided_by_zero(folder):
    (folder / "yes" / "c_nohash_0.wav").write_bytes(wav(np.zeros(16000), rate=16000))
    data = SpeechCommands().load("test")
    assert (data[data.names.index("yes/c_nohash_0.wav")][0].abs() < 1e-2).all()


def test_training_batches_come_from_workers(folder):
    batches = list(Loader(SpeechCommands(), batch_size=16, seed=0))
    assert [tuple(batch.inputs.shape) for batch in batches] == [(16, 63, 40), (16, 63, 40), (3, 63, 40)]
    assert sorted(int(label) for batch in batches for label in batch.targets) == list(range(35))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "testing_list.txt").write_text("yes/z_nohash_0.wav\n"), r"testing_list\.txt names yes/z_nohash_0\.wav"),
        (lambda folder: (folder / "maybe").mkdir(), r"\['maybe'\] too many or too few"),
        (lambda folder: (folder / "yes").rename(folder / "_yes"), r"\['yes'\] too many or too few"),
    ],
)
def test_a_folder_that_is_not_what_it_should_be_is_refused(folder, damage, message):
    damage(folder)
    with pytest.raises(DataError, match=message):
        SpeechCommands().load("test")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.write_bytes(b"RIFF"), r"yes/c_nohash_0\.wav cannot be read as wav"),
        (lambda path: path.unlink(), r"cannot read yes/c_nohash_0\.wav"),
    ],
)
def test_a_recording_that_cannot_be_read_is_named(folder, damage, message):
    data = SpeechCommands().load("test")
    damage(folder / "yes" / "c_nohash_0.wav")
    with pytest.raises(DataError, match=message):
        data[data.names.index("yes/c_nohash_0.wav")]


@pytest.fixture
def archive(tmp_path, monkeypatch):
    """An archive in place of the one on the net, and an empty data folder."""
    make(tmp_path / "made")
    path = tmp_path / "made.tar.gz"
    with tarfile.open(path, "w:gz") as file:
        for each in (tmp_path / "made").iterdir():
            file.add(each, f"./{each.name}")
    (tmp_path / "data").mkdir()
    monkeypatch.setenv("SPIKEBENCH_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(speech_commands, "ARCHIVE", path.as_uri())
    monkeypatch.setattr(speech_commands, "SHA256", hashlib.sha256(path.read_bytes()).hexdigest())
    return path


def test_the_archive_is_downloaded_and_unpacked(archive, tmp_path):
    task = SpeechCommands()
    assert task.download_size() == "2.4 GB"
    task.fetch()
    assert task.unavailable() is None
    assert len(task.load("test")) == 35
    assert [each.name for each in (tmp_path / "data" / "sequences" / "SpeechCommands").iterdir()] == ["speech_commands_v0.02"]


def test_an_archive_of_other_content_is_refused(archive, monkeypatch):
    monkeypatch.setattr(speech_commands, "SHA256", "0" * 64)
    with pytest.raises(UsageError, match="invalid hash value"):
        SpeechCommands().fetch()
    assert SpeechCommands().unavailable()
