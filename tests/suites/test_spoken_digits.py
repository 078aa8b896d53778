import io
import os
import tarfile

import numpy as np
import pytest
import torch
from test_audio import wav

from harness.plugin import DataError, UsageError
from suites.audio import MelSpec, delta_spikes, log_mel, read_wav
from suites.spoken_digits import Fsdd

SPEAKERS = ("ann", "bob")


def sound(digit, speaker, index):
    samples = 9000 if (digit, speaker, index) == (3, "bob", 7) else 300 + 40 * digit
    generator = np.random.default_rng(1000 * digit + 100 * SPEAKERS.index(speaker) + index)
    return wav(generator.integers(-3000, 3000, samples))


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """Two speakers, ten digits, fifty recordings each, of noise."""
    root = tmp_path_factory.mktemp("fsdd")
    recordings = root / "sequences" / "fsdd" / "recordings"
    recordings.mkdir(parents=True)
    for digit in range(10):
        for speaker in SPEAKERS:
            for index in range(50):
                (recordings / f"{digit}_{speaker}_{index}.wav").write_bytes(sound(digit, speaker, index))
    return root


@pytest.fixture
def here(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("SPIKEBENCH_DATA", str(folder))
    monkeypatch.setenv("SPIKEBENCH_CACHE", str(tmp_path / "cache"))


def names(split):
    wanted = {"test": range(5), "train": range(5, 45), "validation": range(45, 50)}[split]
    return [(digit, speaker, index) for index in wanted for digit in range(10) for speaker in SPEAKERS]


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_splits_are_those_of_the_repository_speakers_and_digits_taking_turns(here, split):
    data = Fsdd().load(split)
    assert data.inputs.shape == (len(names(split)), 64, 40)
    assert data.targets.tolist() == [digit for digit, _, _ in names(split)]


def test_frames_are_normalised_by_training_data_and_padded_in_front(here):
    task = Fsdd()
    frames = [log_mel(torch.from_numpy(read_wav(sound(*name), 8000, "-")), MelSpec(8000))[:64] for name in names("train")]
    joined = torch.cat(frames)
    digit, speaker, index = names("test")[13]
    expected = log_mel(torch.from_numpy(read_wav(sound(digit, speaker, index), 8000, "-")), MelSpec(8000))
    found = task.load("test").inputs[13]
    torch.testing.assert_close(found[64 - len(expected) :], (expected - joined.mean(0)) / joined.std(0), atol=1e-4, rtol=1e-4)
    assert (found[: 64 - len(expected)] == 0).all()


def test_raw_sound_ends_at_the_last_step(here):
    task = Fsdd(options={"features": "raw"})
    assert (task.steps, task.input_shape) == (8192, (1,))
    found = task.load("test").inputs[13, :, 0]
    expected = read_wav(sound(*names("test")[13]), 8000, "-")
    assert np.corrcoef(found[-len(expected) :].numpy(), expected)[0, 1] > 0.9999
    assert (found[: -len(expected)] == 0).all()


def test_spikes_are_those_of_the_frames(here):
    task = Fsdd(options={"features": "spikes", "threshold": 0.5})
    assert task.input_shape == (80,)
    found = task.load("test").inputs[13]
    expected = delta_spikes(log_mel(torch.from_numpy(read_wav(sound(*names("test")[13]), 8000, "-")), MelSpec(8000)), 0.5)
    assert expected.sum() > 0
    torch.testing.assert_close(found[64 - len(expected) :], expected)
    assert set(found.unique().tolist()) == {0, 1}


def test_recordings_that_are_cut_are_counted(here):
    task = Fsdd()
    for split in ("train", "validation", "test"):
        task.load(split)
    assert task.warnings == ["train: 1 recordings longer than 8192 samples were cut at their end"]


def test_features_that_do_not_exist_are_refused():
    with pytest.raises(UsageError, match="features = 'mfcc'"):
        Fsdd(options={"features": "mfcc"})


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("3_bob_7.wav", None, r"recordings holds 999 recordings, not 50 of each digit and speaker"),
        ("3_bob_7.wav", b"RIFF", r"recordings: 3_bob_7\.wav cannot be read as wav"),
        ("3_bob_7.wav", wav(np.zeros(100), rate=16000), r"3_bob_7\.wav has 1 channels of 16 bits at 16000 Hz"),
        ("three.wav", b"", r"three\.wav is not named DIGIT_SPEAKER_INDEX\.wav"),
        ("3_bob_50.wav", wav(np.zeros(100)), r"holds 1001 recordings"),
    ],
)
def test_a_folder_that_is_not_what_it_should_be_is_named(folder, tmp_path, monkeypatch, name, content, message):
    copy = tmp_path / "data" / "sequences" / "fsdd" / "recordings"
    copy.mkdir(parents=True)
    for file in (folder / "sequences" / "fsdd" / "recordings").iterdir():
        (copy / file.name).hardlink_to(file)
    (copy / name).unlink(missing_ok=True)
    if content is not None:
        (copy / name).write_bytes(content)
    monkeypatch.setenv("SPIKEBENCH_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("SPIKEBENCH_CACHE", str(tmp_path / "cache"))
    with pytest.raises(DataError, match=message):
        Fsdd().load("train")


def test_an_archive_that_is_cut_off_is_named(tmp_path):
    path = tmp_path / "recordings.tar.xz"
    with tarfile.open(path, "w:xz") as archive:
        member = tarfile.TarInfo("recordings/1_ann_0.wav")
        content = sound(1, "ann", 0)
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match=r"recordings\.tar\.xz cannot be unpacked"):
        Fsdd()._read(path)


def test_the_real_recordings_are_read_as_scipy_reads_them():
    if not os.environ.get("SPIKEBENCH_DATA"):
        pytest.skip("SPIKEBENCH_DATA is not set")
    if reason := Fsdd().unavailable():
        pytest.skip(reason)
    from scipy.io import wavfile

    found = Fsdd.source.require()
    (name,) = found.files
    if not name.endswith(".tar.xz"):
        pytest.skip("the recordings are not in an archive")
    with tarfile.open(found.path(name)) as archive:
        content = archive.extractfile("recordings/7_theo_2.wav").read()
    rate, expected = wavfile.read(io.BytesIO(content))
    task = Fsdd(options={"features": "raw"})
    assert [len(task.load(split)) for split in ("train", "validation", "test")] == [2400, 300, 300]
    data = task.load("test")
    speakers = ["george", "jackson", "lucas", "nicolas", "theo", "yweweler"]
    row = data.inputs[2 * 60 + 7 * 6 + speakers.index("theo"), :, 0]
    assert rate == 8000
    assert np.corrcoef(row[-len(expected) :], expected)[0, 1] > 0.9999
