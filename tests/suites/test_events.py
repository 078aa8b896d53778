import numpy as np
import pytest
import torch

from harness.task import Batch
from suites import saccade
from suites.events import DigitsSaccade


@pytest.fixture(scope="module")
def task():
    return DigitsSaccade()


@pytest.fixture(scope="module")
def streams(task):
    return task.streams("validation")


def test_framing_conserves_every_event(task, streams):
    frames = task.split("validation").inputs
    assert frames.sum((1, 2, 3, 4)).tolist() == [len(events) for events in streams[0]]


def test_frames_equal_a_histogram(task, streams):
    frames = task.split("validation").inputs
    for n in (0, 7, 143):
        events = streams[0][n]
        wanted = np.zeros((9, 2, 20, 20))
        for x, y, t, p in events:
            wanted[t // 35_000, p, y, x] += 1
        np.testing.assert_array_equal(frames[n].numpy(), wanted)


def test_polarities_of_digits_are_balanced(streams):
    for events in streams[0]:
        assert abs(events["p"].mean() - 0.5) < 0.1


def test_the_network_sees_time_first(task):
    batch = task.gather("validation", torch.arange(3))
    assert task.encode(batch.inputs, task.steps).shape == (9, 3, *task.input_shape)


def test_augmentation_moves_all_frames_of_a_sample_alike(task):
    inputs = torch.zeros(5, 9, 2, 20, 20)
    inputs[..., 10, 10] = 1
    batch = Batch(inputs, torch.zeros(5), torch.arange(5))
    moved = task.augment(batch, torch.Generator().manual_seed(0)).inputs
    assert (moved.flatten(1, 2) == moved.flatten(1, 2)[:, :1]).all()
    assert moved.sum() == inputs.sum()


def test_without_tonic_the_task_says_what_to_install(monkeypatch):
    assert DigitsSaccade().unavailable() is None
    monkeypatch.setattr("suites.events.find_spec", lambda name: None)
    assert "pip install 'spikebench[events]'" in DigitsSaccade().unavailable()


def test_title_and_data_say_that_events_are_simulated():
    assert "simulated saccades" in DigitsSaccade.card.title
    assert "simulated" in DigitsSaccade.card.data


def test_the_checksum_changes_with_the_camera(task, monkeypatch):
    before = task.checksum()
    monkeypatch.setattr(DigitsSaccade, "camera", saccade.Camera(threshold=0.4))
    assert task.checksum() != before
