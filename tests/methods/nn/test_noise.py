"""Noise on prepared images and on event frames."""

from __future__ import annotations

import torch

from harness.registry import Registries
from methods.nn.noise import event_noise, pixel_noise, pixels
from suites.static_vision import Digits


def test_pixels_are_what_the_task_normalised():
    task = Digits()
    stored = task.split("validation").inputs[:5]
    torch.testing.assert_close(pixels(task, task.prepare(stored)), stored)


def test_with_a_coding_of_its_own_a_task_hands_over_pixels():
    task = Registries().tasks.load("static/digits")(options={"encoding": "rate"})
    stored = task.split("validation").inputs[:5]
    assert torch.equal(pixels(task, task.prepare(stored)), stored)


def test_the_level_of_noise_is_in_units_of_pixels():
    task = Digits()
    inputs = torch.zeros(64, 1, 32, 32)
    torch.manual_seed(0)
    noise = pixels(task, pixel_noise(task, inputs, 0.3)) - pixels(task, inputs)
    assert abs(noise.std() - 0.3) < 0.01 and abs(noise.mean()) < 0.01
    assert pixel_noise(task, inputs, 0.0) is inputs


def test_random_events_come_at_a_share_of_the_pixels_in_one_polarity_each():
    torch.manual_seed(0)
    found = event_noise(torch.zeros(8, 5, 2, 32, 32), 0.05)
    assert set(found.unique().tolist()) == {0.0, 1.0}
    assert abs(found.amax(2).mean() - 0.05) < 0.005
    assert found.sum(2).max() == 1
    assert abs(found[:, :, 0].mean() - found[:, :, 1].mean()) < 0.005


def test_events_that_are_there_stay():
    frames = torch.randint(0, 4, (4, 3, 2, 8, 8)).float()
    found = event_noise(frames, 0.5)
    assert set((found - frames).unique().tolist()) == {0.0, 1.0} and (found - frames).sum(2).max() == 1
    assert torch.equal(event_noise(frames, 0.0), frames)


def test_channels_without_space_are_hit_each_by_itself():
    torch.manual_seed(0)
    assert abs(event_noise(torch.zeros(8, 50, 100), 0.05).mean() - 0.05) < 0.005
