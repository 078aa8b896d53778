"""The event recordings below SPIKEBENCH_DATA: what is read from them, and that networks learn it."""

import os
import tarfile

import numpy as np
import pytest
import tonic.datasets
from tonic.transforms import Downsample, ToFrame

from harness.record import read_record
from harness.registry import Registries
from suites.tonic_recordings import tonic_dataset

SIZES = {  # train, validation, test; classes
    "events/nmnist-small": ((800, 200, 100), 10),
    "events/poker-dvs": ((40, 8, 20), 4),
    "events/poker-dvs-131": ((81, 25, 25), 4),
}


@pytest.fixture
def real(monkeypatch, tmp_path_factory):
    """Return a task by its name, or skip if its files are not here."""
    if not os.environ.get("SPIKEBENCH_DATA"):
        pytest.skip("SPIKEBENCH_DATA is not set")
    monkeypatch.setenv("SPIKEBENCH_CACHE", str(tmp_path_factory.getbasetemp() / "event-cache"))

    def get(name):
        found = Registries().task(name)
        if reason := found.unavailable():
            pytest.skip(reason)
        return found

    return get


@pytest.fixture(params=SIZES)
def task(request, real):
    return real(request.param)


def unpacked(task, folder):
    for file in task.source.require().files:
        with tarfile.open(task.source.require().path(file)) as archive:
            archive.extractall(folder, filter="data")


def test_splits_are_disjoint_and_have_their_sizes(task):
    parts = {split: task.recordings(split) for split in ("train", "validation", "test")}
    sizes, classes = SIZES[task.card.name]
    assert tuple(len(part) for part in parts.values()) == sizes
    # Names repeat between the two archives of poker-dvs only in their folder, which is part of the name.
    assert len({name for part in parts.values() for name in part.names}) == sum(sizes)
    for part in parts.values():
        assert set(part.targets) == set(range(classes))


def test_the_first_samples_hold_every_class(task):
    _, classes = SIZES[task.card.name]
    assert set(task.recordings("train").targets[: 5 * classes]) == set(range(classes))


@pytest.mark.parametrize("by", ["time", "count"])
def test_no_recording_loses_an_event(task, by):
    some = type(task)(options={"frames": by, "steps": 7})
    frames, recordings = some.split("test").inputs, some.recordings("test")
    assert frames.long().sum((1, 2, 3, 4)).tolist() == [len(recordings[i]) for i in range(len(frames))]


def test_frames_equal_tonics_on_the_same_recordings(task):
    width, height = task.sensor
    recordings = task.recordings("test")
    for i in range(0, len(recordings), 7):
        events = recordings[i]
        whole = events[: len(events) // 10 * 10]  # tonic leaves the rest out
        some = type(task)(options={"frames": "count"}).framing(whole)
        np.testing.assert_array_equal(some, ToFrame((width, height, 2), n_event_bins=10)(whole))
        window = -(-int(events["t"][-1] - events["t"][0] + 1) // 10)
        theirs = ToFrame((width, height, 2), time_window=window, include_incomplete=True)(events)
        np.testing.assert_array_equal(task.framing(events)[: len(theirs)], theirs)
        assert not task.framing(events)[len(theirs) :].any()
        half = Downsample(spatial_factor=0.5)(events)
        size = (-(-width // 2), -(-height // 2), 2)
        pooled = type(task)(options={"pool": 2}).framing(events)
        np.testing.assert_array_equal(pooled[: len(theirs)], ToFrame(size, time_window=window, include_incomplete=True)(half))


def test_nmnist_small_equals_tonics_own_reading(real, tmp_path):
    task = real("events/nmnist-small")
    unpacked(task, tmp_path)
    for split, train in (("train", True), ("test", False)):
        theirs = tonic_dataset("NMNIST", tmp_path, train=train)
        places = {"/".join(path.split("/")[-4:]): i for i, path in enumerate(theirs.data)}
        ours = task.recordings(split)
        for i in range(0, len(ours), 25):
            events, target = theirs[places[ours.names[i]]]
            assert target == ours.targets[i]
            for field in "xytp":
                np.testing.assert_array_equal(ours[i][field], events[field])


def test_nmnist_small_is_in_mnists_order(real):
    assert real("events/nmnist-small").recordings("train").targets[:10] == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert real("events/nmnist-small").recordings("test").targets[:10] == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]


def test_poker_dvs_equals_tonics_own_reading(real, tmp_path):
    task = real("events/poker-dvs")
    unpacked(task, tmp_path / "POKERDVS")
    for train, splits in ((True, ("train", "validation")), (False, ("test",))):
        theirs = tonic_dataset("POKERDVS", tmp_path, train=train)
        assert type(theirs) is tonic.datasets.POKERDVS
        wanted = sorted((int(target), as_bytes(events)) for events, target in (theirs[i] for i in range(len(theirs))))
        found = []
        for split in splits:
            part = task.recordings(split)
            found += [(part.targets[i], as_bytes(part[i])) for i in range(len(part))]
        assert sorted(found) == wanted


def as_bytes(events):
    return np.stack([events[field].astype(np.int64) for field in "xytp"]).tobytes()


def test_both_forms_of_poker_dvs_hold_the_same_recordings(real):
    some, every = (contents(real(name)) for name in ("events/poker-dvs", "events/poker-dvs-131"))
    assert len(some) == 68 and len(every) == 131 and some < every


def contents(task):
    parts = [task.recordings(split) for split in ("train", "validation", "test")]
    return {(part.targets[i], as_bytes(part[i])) for part in parts for i in range(len(part))}


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("method", ["stbp", "ann"])
def test_networks_learn_it_at_the_smoke_budget(task, method, command, tmp_path):
    outcome = command("run", "-t", task.card.name, "-m", method, "--threads", "1", "--results", tmp_path)
    assert outcome.status == 0, outcome
    (path,) = tmp_path.glob("*.json")
    record = read_record(path)
    assert record.status == "ok", record.failure
    _, classes = SIZES[task.card.name]
    assert record.accuracy.test > 3 / classes if classes == 10 else record.accuracy.test >= 0.6
