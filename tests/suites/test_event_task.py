"""The base of event tasks, on a folder of generated files."""

import pickle

import numpy as np
import pytest
import torch
from event_data import bin_bytes, stream

from harness.loader import Loader
from harness.plugin import DataError, UsageError
from harness.task import Data
from suites import event_task
from suites.event_folder import EventFolder
from suites.event_frames import Framing

SIZE = {"path": "digits", "width": 34, "height": 34}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("SPIKEBENCH_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("SPIKEBENCH_CACHE", str(tmp_path / "cache"))
    root = tmp_path / "data" / "events" / "digits"
    for kind in range(2):
        (root / str(kind)).mkdir(parents=True)
        for number in range(10):
            (root / str(kind) / f"{number}.bin").write_bytes(bin_bytes(stream(80 + number, seed=10 * kind + number)))
    return root


def task(**options):
    return EventFolder(options=SIZE | options)


def test_frames_are_those_of_the_recordings(folder):
    some = task(steps=4, pool=2)
    frames, recordings = some.split("train"), some.recordings("train")
    assert frames.inputs.dtype == torch.uint8
    assert frames.targets.tolist() == recordings.targets
    for i in range(len(recordings)):
        np.testing.assert_array_equal(frames.inputs[i], Framing(34, 34, 4, pool=2)(recordings[i]))


def test_the_network_sees_time_first_and_numbers(folder):
    some = task(steps=3)
    batch = some.gather("train", torch.arange(2))
    sequence = some.encode(batch.inputs, some.steps)
    assert sequence.shape == (3, 2, *some.input_shape) and sequence.dtype == torch.float32


def test_options_decide_shape_and_name(folder):
    some = task(steps=7, pool=4, frames="count")
    assert (some.steps, some.input_shape) == (7, (2, 9, 9))
    assert some.name == "events/folder[frames=count,height=34,path=digits,pool=4,steps=7,width=34]"
    assert some.split("train").inputs.shape[1:] == (7, 2, 9, 9)


@pytest.mark.parametrize(("name", "value"), [("frames", "events"), ("steps", 0), ("pool", 0), ("drop", 1.0), ("jitter", -1)])
def test_options_out_of_range_are_refused(name, value):
    with pytest.raises(UsageError, match=name):
        task(**{name: value})


def test_frames_come_from_the_cache_once_made(folder, monkeypatch):
    first = task().split("train").inputs
    monkeypatch.setattr(event_task, "framed", lambda *_: pytest.fail("framed again"))
    assert torch.equal(task().split("train").inputs, first)


def test_other_framings_have_caches_of_their_own(folder):
    assert not torch.equal(task().split("train").inputs, task(frames="count").split("train").inputs)
    assert task(steps=5).split("train").inputs.shape[1] == 5


def test_changed_files_are_framed_anew(folder):
    before = len(task().split("train"))
    (folder / "0" / "99.bin").write_bytes(bin_bytes(stream(5, seed=99)))
    assert len(task().split("train")) + len(task().split("test")) + len(task().split("validation")) == 21
    assert before == 14


def test_a_file_that_changed_and_kept_its_size_is_framed_anew(folder):
    before, checksum = task().split("train").inputs, task().checksum()
    for number in range(10):
        (folder / "0" / f"{number}.bin").write_bytes(bin_bytes(stream(80 + number, seed=1000 + number)))
    assert task().checksum() != checksum
    assert not torch.equal(task().split("train").inputs, before)


def test_splits_too_large_for_memory_are_read_one_by_one_with_the_same_frames(folder, monkeypatch):
    whole = task().split("train")
    monkeypatch.setattr(event_task, "IN_MEMORY", 10)
    some = task()
    single = some.split("train")
    assert isinstance(whole, Data) and not isinstance(single, Data)
    assert len(single) == len(whole) and list(single.targets) == whole.targets.tolist()
    batch, wanted = some.gather("train", torch.tensor([3, 0])), task().gather("train", torch.tensor([3, 0]))
    assert torch.equal(batch.inputs, wanted.inputs) and torch.equal(batch.targets, wanted.targets)
    assert torch.equal(pickle.loads(pickle.dumps(single))[1][0], single[1][0])


def test_worker_processes_read_the_same_batches(folder, monkeypatch):
    wanted = list(Loader(task(), 5, seed=1))
    monkeypatch.setattr(event_task, "IN_MEMORY", 10)
    found = list(Loader(task(), 5, seed=1))
    for ours, theirs in zip(found, wanted, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_a_budget_reads_no_more_files_than_it_uses(folder, monkeypatch):
    from dataclasses import replace

    monkeypatch.setitem(EventFolder.budgets, "smoke", replace(EventFolder.budgets["smoke"], train_samples=4))
    monkeypatch.setattr(event_task, "framed", (seen := Counted(event_task.framed)))
    assert len(task().split("train")) == seen.calls == 4


class Counted:
    def __init__(self, function):
        self.function, self.calls = function, 0

    def __call__(self, *arguments):
        self.calls += 1
        return self.function(*arguments)


def augmented(some, seed=0):
    return some.augment(some.gather("train", torch.arange(14)), torch.Generator().manual_seed(seed)).inputs


def test_without_any_augmentation_nothing_changes(folder):
    some = task(shift=0)
    assert torch.equal(augmented(some), some.gather("train", torch.arange(14)).inputs)


def test_shift_moves_all_frames_of_a_recording_alike(folder):
    some = task(shift=2)
    before, after = some.gather("train", torch.arange(14)).inputs, augmented(some)
    for one, other in zip(before, after, strict=True):
        moves = [(dy, dx) for dy in range(-2, 3) for dx in range(-2, 3) if torch.equal(other, moved(one, dy, dx))]
        assert len(moves) == 1


def moved(frames, dy, dx):
    padded = torch.nn.functional.pad(frames, (2, 2, 2, 2))
    return padded[..., 2 - dy : 36 - dy, 2 - dx : 36 - dx]


def test_jitter_frames_the_events_anew_and_loses_none(folder):
    some = task(shift=0, jitter=20_000)
    before, after = some.gather("train", torch.arange(14)).inputs, augmented(some)
    assert not torch.equal(before, after)
    assert torch.equal(before.sum(1), after.sum(1))  # pixels stay, times move
    assert torch.equal(augmented(some), after) and not torch.equal(augmented(some, seed=1), after)


def test_jitter_much_shorter_than_a_window_changes_little(folder):
    some = task(shift=0, jitter=1)
    changed = (augmented(some) != some.gather("train", torch.arange(14)).inputs).float().mean()
    assert changed < 1e-3


def test_drop_noise_and_flip_are_applied(folder):
    plain = task(shift=0).gather("train", torch.arange(14)).inputs.sum()
    assert augmented(task(shift=0, drop=0.5)).sum() < 0.6 * plain
    assert augmented(task(shift=0, noise=7)).sum() == plain + 7 * 14
    flipped = augmented(task(shift=0, flip=True))
    assert flipped.sum() == plain and not torch.equal(flipped, task(shift=0).gather("train", torch.arange(14)).inputs)


def test_counts_above_a_byte_are_kept(folder):
    events = stream(700)
    events["x"], events["y"], events["p"] = 0, 0, 0
    for number in range(10):
        (folder / "1" / f"{number}.bin").write_bytes(bin_bytes(events))
    some = task(steps=1)
    frames = some.split("train")
    assert frames.inputs.dtype == torch.int16
    recordings = some.recordings("train")
    assert frames.inputs.long().sum((1, 2, 3, 4)).tolist() == [len(recordings[i]) for i in range(len(recordings))]


def test_a_recording_whose_frames_overflow_is_named(folder):
    events = stream(40_000)
    events["x"], events["y"], events["t"], events["p"] = 0, 0, 5, 0
    for number in range(10):
        (folder / "0" / f"{number}.bin").write_bytes(bin_bytes(events))
    with pytest.raises(DataError, match=r"0/\d\.bin: 40000 events, .*32,767"):
        task().split("train")


def test_without_tonic_the_task_says_what_to_install(folder, monkeypatch):
    assert task().unavailable() is None
    monkeypatch.setattr("suites.event_task.find_spec", lambda name: None)
    assert "pip install 'spikebench[events]'" in task().unavailable()
