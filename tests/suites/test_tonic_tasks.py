"""Tasks whose data tonic downloads, on small folders laid out as the published ones and read by tonic's own classes."""

import sys
import types
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io
import tonic.datasets
import torch
from event_data import bin_bytes, stream

from harness.plugin import DataError, UsageError
from harness.registry import Registries
from suites.asl_dvs import LETTERS, AslDvs
from suites.cifar10_dvs import CLASSES, Cifar10Dvs
from suites.dvs_gesture import DvsGesture
from suites.event_frames import Framing
from suites.n_caltech101 import NCaltech101
from suites.nmnist import NMnist
from suites.spiking_speech import Shd, Ssc
from suites.tonic_recordings import tonic_dataset

NAMES = ["nmnist", "cifar10-dvs", "dvs-gesture", "n-caltech101", "asl-dvs", "shd", "ssc"]


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("SPIKEBENCH_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("SPIKEBENCH_CACHE", str(tmp_path / "cache"))
    (tmp_path / "data" / "events").mkdir(parents=True)
    return tmp_path / "data" / "events"


def put(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def parts(task):
    return {split: task.recordings(split) for split in ("train", "validation", "test")}


def assert_partition(found, total):
    names = [name for part in found.values() for name in part.names]
    assert len(names) == len(set(names)) == total


# N-MNIST ----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def nmnist(root, monkeypatch):
    for folder, count in (("Train", 30), ("Test", 10)):
        for number in range(1, count + 1):
            put(root / "NMNIST" / folder / str(number % 10) / f"{number:05d}.bin", bin_bytes(stream(50 + number, seed=number)))
    monkeypatch.setattr(NMnist, "sizes", {"train": 30, "test": 10})
    monkeypatch.setattr(NMnist, "held_out", 5)


def test_nmnist_is_split_in_mnists_order(nmnist):
    found = parts(NMnist())
    assert_partition(found, 40)
    assert [int(Path(name).stem) for name in found["validation"].names] == list(range(26, 31))
    assert found["train"].targets == [n % 10 for n in range(1, 26)]


def test_nmnist_equals_tonics_own_reading(nmnist, root):
    theirs = tonic_dataset("NMNIST", root, train=False)
    assert type(theirs) is tonic.datasets.NMNIST
    by_name = {Path(path).relative_to(root).as_posix(): i for i, path in enumerate(theirs.data)}
    ours = NMnist().recordings("test")
    for i, name in enumerate(ours.names):
        events, target = theirs[by_name[name]]
        assert target == ours.targets[i]
        for field in "xytp":
            np.testing.assert_array_equal(ours[i][field], events[field])


def test_a_missing_recording_is_noticed(nmnist, root):
    (root / "NMNIST" / "Train" / "1" / "00001.bin").unlink()
    with pytest.raises(DataError, match="events/NMNIST holds 29 of 30 recordings"):
        NMnist().recordings("train")


def test_a_truncated_recording_is_named(nmnist, root):
    path = root / "NMNIST" / "Test" / "1" / "00001.bin"
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(DataError, match=r"NMNIST/Test/1/00001\.bin cannot be read"):
        NMnist().split("test")


# CIFAR10-DVS -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def cifar10_dvs(root, monkeypatch):
    for kind in CLASSES:
        for number in range(20):
            put(root / "CIFAR10DVS" / kind / f"cifar10_{kind}_{number}.aedat4", b"")
    monkeypatch.setattr(Cifar10Dvs, "size", 200)


def test_cifar10_dvs_is_split_nine_to_one_in_each_class(cifar10_dvs):
    found = parts(Cifar10Dvs())
    assert_partition(found, 200)
    for split, numbers in (("train", range(16)), ("validation", range(16, 18)), ("test", range(18, 20))):
        assert found[split].names == [f"CIFAR10DVS/{kind}/cifar10_{kind}_{n}.aedat4" for n in numbers for kind in CLASSES]
        assert found[split].targets == list(range(10)) * len(numbers)


def test_cifar10_dvs_is_read_by_tonic(cifar10_dvs, monkeypatch):
    events = stream(400, 128, 128)
    theirs = np.empty(400, [("t", "u8"), ("a", "u2"), ("b", "u2"), ("on", bool)])
    theirs["t"], theirs["a"], theirs["b"], theirs["on"] = events["t"], events["x"], events["y"], events["p"]
    monkeypatch.setattr("tonic.datasets.cifar10dvs.read_aedat4", lambda path: theirs.copy())
    frames = Cifar10Dvs().split("test").inputs
    np.testing.assert_array_equal(frames[0], Framing(128, 128, 10, pool=2)(events))


def test_cifar10_dvs_says_that_it_needs_aedat(cifar10_dvs, monkeypatch):
    monkeypatch.setitem(sys.modules, "aedat", None)
    monkeypatch.setattr("suites.cifar10_dvs.find_spec", lambda name: None)
    assert "pip install aedat" in Cifar10Dvs().unavailable()
    monkeypatch.setattr("suites.cifar10_dvs.find_spec", lambda name: types.SimpleNamespace())
    assert Cifar10Dvs().unavailable() is None


# DVS128 Gesture ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def gesture(root):
    for folder, people in (("Train", (1, 9, 19, 20, 23)), ("Test", (24, 29))):
        for person in people:
            for target in range(11):
                events = stream(60, 128, 128, duration=6000, seed=100 * person + target)
                table = np.stack([events[field].astype(np.int64) for field in "xypt"], axis=1)
                path = root / "DVSGesture" / f"ibmGesture{folder}" / f"user{person:02d}_led" / f"{target}.npy"
                path.parent.mkdir(parents=True, exist_ok=True)
                np.save(path, table)


def test_gestures_are_split_by_person(gesture):
    found = parts(DvsGesture())
    assert_partition(found, 77)
    people = {split: {name.split("/user")[1][:2] for name in part.names} for split, part in found.items()}
    assert people == {"train": {"01", "09", "19"}, "validation": {"20", "23"}, "test": {"24", "29"}}
    assert found["test"].targets == list(range(11)) * 2


def test_gestures_are_read_by_tonic_in_microseconds(gesture, root):
    ours = DvsGesture().recordings("test")
    events = stream(60, 128, 128, duration=6000, seed=2400)
    np.testing.assert_array_equal(ours[0]["t"], events["t"] * 1000)
    np.testing.assert_array_equal(ours[0]["y"], events["y"])
    assert DvsGesture().split("test").inputs.shape == (22, 16, 2, 32, 32)


# N-Caltech101 ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def caltech(root, monkeypatch):
    for kind in range(101):
        for number in range(1, 12):
            path = root / "NCALTECH101" / "Caltech101" / f"kind{kind:03d}" / f"image_{number:04d}.bin"
            put(path, bin_bytes(stream(20, 200, 150, seed=kind + number)))
    monkeypatch.setattr(NCaltech101, "size", 1111)


def test_caltech_is_split_by_tens_in_each_class(caltech):
    found = parts(NCaltech101())
    assert_partition(found, 1111)
    assert {split: len(part) for split, part in found.items()} == {"train": 909, "validation": 101, "test": 101}
    assert {Path(name).name for name in found["test"].names} == {"image_0010.bin"}
    assert {Path(name).name for name in found["validation"].names} == {"image_0009.bin"}
    assert found["test"].targets == list(range(101))


def test_caltech_starts_at_its_own_corner(caltech):
    events = NCaltech101().recordings("test")[0]
    assert (events["x"].min(), events["y"].min()) == (0, 0)


def test_caltech_without_a_class_is_noticed(caltech, root, monkeypatch):
    for path in (root / "NCALTECH101" / "Caltech101" / "kind000").iterdir():
        path.unlink()
    monkeypatch.setattr(NCaltech101, "size", 1100)
    with pytest.raises(DataError, match="100 of 101 classes"):
        NCaltech101().recordings("train")


# ASL-DVS -----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def asl(root, monkeypatch):
    for letter in LETTERS:
        for number in range(10):
            events = stream(30, 240, 180, seed=number)
            path = root / "ASLDVS" / "Yin_1" / letter / f"{letter}_{number:04d}.mat"
            path.parent.mkdir(parents=True, exist_ok=True)
            columns = {name: events[field].astype(np.int64)[:, None] for name, field in (("ts", "t"), ("x", "x"), ("y", "y"), ("pol", "p"))}
            scipy.io.savemat(path, columns)
    monkeypatch.setattr(AslDvs, "size", 240)


def test_signs_are_split_in_each_letter(asl):
    found = parts(AslDvs())
    assert_partition(found, 240)
    numbers = {split: sorted({int(Path(name).stem[2:]) for name in part.names}) for split, part in found.items()}
    assert numbers == {"train": [0, 1, 2, 3, 5, 6, 7], "validation": [8], "test": [4, 9]}
    assert found["test"].targets == list(range(24)) * 2


def test_signs_are_read_by_tonic_which_turns_rows_over(asl):
    events = AslDvs().recordings("validation")[0]
    np.testing.assert_array_equal(events["y"], 179 - stream(30, 240, 180, seed=8)["y"])
    np.testing.assert_array_equal(events["x"], stream(30, 240, 180, seed=8)["x"])


# SHD and SSC -------------------------------------------------------------------------------------------------------------


def speech_file(path, count, classes, late=()):
    path.parent.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        times = file.create_dataset("spikes/times", (count,), dtype=h5py.vlen_dtype(np.float32))
        units = file.create_dataset("spikes/units", (count,), dtype=h5py.vlen_dtype(np.uint16))
        for place in range(count):
            moments = random.uniform(0, 0.9, 40)
            times[place] = np.concatenate([moments, [1.45]]) if place in late else moments
            units[place] = random.integers(0, 700, len(times[place]))
        file["labels"] = np.arange(count) % classes
        file["extra/keys"] = np.array([b"one"] * classes)
        file["extra/speaker"] = np.zeros(count)


@pytest.fixture
def shd(root):
    speech_file(root / "SHD" / "shd_train.h5", 40, 20, late=(0, 9))
    speech_file(root / "SHD" / "shd_test.h5", 12, 20)


def test_every_tenth_spoken_digit_is_for_validation(shd):
    found = parts(Shd())
    assert {split: len(part) for split, part in found.items()} == {"train": 36, "validation": 4, "test": 12}
    assert found["validation"].targets == [9, 19, 9, 19]
    assert found["validation"].names[0] == "events/SHD/shd_train.h5: recording 9"


def test_spoken_digits_are_counted_in_fixed_windows_and_groups_of_channels(shd, root):
    with h5py.File(root / "SHD" / "shd_test.h5") as file:
        moments, units = file["spikes/times"][3], file["spikes/units"][3]
    wanted = np.zeros((100, 140))
    np.add.at(wanted, ((moments.astype(np.float64) * 1e6).astype(int) // 14_000, units // 5), 1)
    task = Shd()
    np.testing.assert_array_equal(task.split("test").inputs[3], wanted)
    assert task.input_shape == (140,) and task.warnings == []


def test_late_spikes_count_in_the_last_window_and_are_noted(shd):
    for _ in range(2):  # framed, then from the cache
        task = Shd()
        assert task.split("train").inputs[0, -1].sum() == 1
        assert task.warnings == ["train: 1 recordings have spikes after 1.4 s, which count in the last window"]
    assert task.split("train").inputs.sum().item() == 36 * 40 + 1


def test_windows_that_do_not_divide_the_time_are_refused_beforehand(shd):
    assert "whole microseconds" in Shd(options={"steps": 99}).unavailable()
    assert Shd(options={"steps": 99, "frames": "count"}).unavailable() is None


def test_augmentation_of_speech_moves_channels(shd):
    task = Shd()
    batch = task.gather("train", torch.arange(8))
    moved = task.augment(batch, torch.Generator().manual_seed(0)).inputs
    assert moved.shape == batch.inputs.shape and not torch.equal(moved, batch.inputs)


def test_commands_have_splits_of_their_own(root):
    for part, count in (("train", 12), ("valid", 5), ("test", 7)):
        speech_file(root / "SSC" / f"ssc_{part}.h5", count, 35)
    assert {split: len(part) for split, part in parts(Ssc()).items()} == {"train": 12, "validation": 5, "test": 7}
    assert Ssc().split("validation").inputs.shape == (5, 100, 140)


def test_a_damaged_file_of_speech_is_named(shd, root):
    (root / "SHD" / "shd_test.h5").write_bytes(b"nothing")
    with pytest.raises(DataError, match="events/SHD cannot be read"):
        Shd().recordings("test")


# Downloads ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_without_data_a_task_says_how_to_get_them(root, name, monkeypatch):
    monkeypatch.setattr("suites.cifar10_dvs.find_spec", lambda name: types.SimpleNamespace())
    task = Registries().task(f"events/{name}")
    assert f"`spikebench data events/{name}` downloads them" in task.unavailable()
    assert task.download_size()


@pytest.mark.parametrize(("name", "files"), zip(NAMES, (2, 1, 2, 1, 1, 1, 1), strict=True))
def test_fetching_calls_tonics_download_into_the_users_folder(root, name, files, monkeypatch):
    asked = []
    monkeypatch.setattr("tonic.dataset.download_and_extract_archive", lambda url, folder, filename, md5: asked.append((url, folder, md5)))
    with pytest.raises(UsageError):  # nothing came
        Registries().task(f"events/{name}").fetch()
    assert len(asked) == files
    for url, folder, md5 in asked:
        assert url.startswith("https://") and len(md5) == 32
        assert Path(folder).parent == root


def test_loading_never_downloads(root, monkeypatch):
    monkeypatch.setattr("tonic.dataset.download_and_extract_archive", lambda *_, **__: pytest.fail("downloads"))
    (root / "NMNIST" / "Train").mkdir(parents=True)
    (root / "NMNIST" / "Test").mkdir()
    with pytest.raises(DataError, match="holds 0 of 60,000"):
        NMnist().recordings("train")
