"""Change points: steps and drifts are found, noise and single stray points are not. The series are made by hand or drawn by chance."""

import numpy as np
import pytest

from harness.report.changes import Level, changes, noise


def levels(values, std=None, n=1):
    return [Level(float(value), std, n) for value in values]


def drawn(seed, count, sigma=1.0):
    return np.random.default_rng(seed).normal(100.0, sigma, count)


def test_a_step_is_found_where_it_is_with_both_levels():
    values = drawn(1, 30) + 5.0 * (np.arange(30) >= 17)
    (change,) = changes(levels(values), higher=True)
    assert change.index == 17 and change.better
    assert change.before == pytest.approx(values[:17].mean()) and change.after == pytest.approx(values[17:].mean())
    assert change.relative == pytest.approx(0.05, abs=0.01)


def test_a_step_down_of_a_metric_of_which_less_is_better_is_better():
    (change,) = changes(levels(drawn(2, 20) - 6.0 * (np.arange(20) >= 8)), higher=False)
    assert change.index == 8 and change.better


def test_steps_up_and_down_again_are_two_changes():
    values = drawn(6, 30) + 6.0 * ((np.arange(30) >= 10) & (np.arange(30) < 20))
    assert [(change.index, change.better) for change in changes(levels(values), higher=True)] == [(10, True), (20, False)]


def test_a_slow_drift_is_found_and_goes_one_way():
    found = changes(levels(drawn(4, 60) + 0.3 * np.arange(60)), higher=True)
    assert found and all(change.better for change in found)


@pytest.mark.parametrize("count", [6, 12, 30])
def test_noise_alone_seldom_shows_a_change(count):
    alarms = sum(bool(changes(levels(drawn(seed, count)), higher=True)) for seed in range(200))
    assert alarms <= 8  # four in a hundred


def test_noise_that_the_seeds_tell_of_seldom_shows_a_change():
    alarms = 0
    for seed in range(200):
        runs = np.random.default_rng(seed).normal(100.0, 2.0, (12, 3))
        alarms += bool(changes([Level(row.mean(), row.std(ddof=1), 3) for row in runs], higher=True))
    assert alarms <= 8


@pytest.mark.parametrize("place", [0, 7, 14])
def test_one_stray_point_is_no_change_however_far_it_lies(place):
    values = drawn(5, 15)
    values[place] += 1000.0
    assert not changes(levels(values), higher=True)


def test_where_seeds_agree_to_the_last_digit_every_difference_is_a_change():
    found = changes(levels([1000, 1000, 1001, 1001, 1000], std=0.0, n=3), higher=False)
    assert [(change.index, change.better) for change in found] == [(2, False), (4, True)]


def test_where_most_neighbours_are_equal_every_difference_is_a_change():
    assert [change.index for change in changes(levels([7, 7, 7, 7, 8, 8, 8]), higher=True)] == [4]


def test_two_single_runs_do_not_tell_a_change_unless_the_metric_is_exact():
    assert not changes(levels([1.0, 2.0]), higher=True)
    assert [change.index for change in changes(levels([1.0, 2.0]), higher=True, exact=True)] == [1]


def test_noise_is_not_less_than_what_seeds_and_neighbours_say():
    of_seeds = noise([Level(1.0, 0.3, 9), Level(1.0, 0.3, 9)])
    assert of_seeds == (pytest.approx(0.1), True)
    values = np.random.default_rng(0).normal(0.0, 2.0, 2000)
    assert noise(levels(values))[0] == pytest.approx(2.0, rel=0.1)
    assert noise([Level(0.5, None, 1, floor=0.05)])[0] == 0.05


def test_a_change_from_zero_has_no_relative_size():
    (change,) = changes(levels([0, 0, 1, 1], std=0.0, n=2), higher=True)
    assert change.relative is None


def test_nothing_and_one_point_have_no_change():
    assert changes([], True) == [] == changes(levels([1.0]), True)
