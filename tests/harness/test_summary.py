"""Times from traces."""

import math

import pytest

from harness.loop import EpochTrace
from harness.metrics import as_task_metric, metric
from harness.summary import seconds_to_target, unsteadiness


def traces(*validation):
    return [EpochTrace("train", i, 0.0, 2.0, value, 1, 1, 0.0) for i, value in enumerate(validation)]


@pytest.mark.parametrize(("target", "seconds"), [(0.5, 4.0), (0.7, 6.0), (0.9, math.inf), (None, None)])
def test_time_to_target_is_that_of_the_epochs_until_then(target, seconds):
    assert seconds_to_target(traces(0.4, 0.6, 0.7), target, as_task_metric(metric("validation_accuracy"), "accuracy")) == seconds


def test_an_error_must_fall_to_its_target():
    assert seconds_to_target(traces(0.4, 0.3, 0.2), 0.3, as_task_metric(metric("validation_accuracy"), "mse")) == 4.0


def test_unsteadiness_is_that_of_the_worst_phase_with_enough_steps():
    steady, uneven = [1.0] * 30, [1.0] * 17 + [2.0] * 3
    assert unsteadiness([steady]) == 1
    assert unsteadiness([steady, uneven]) == 2
    assert unsteadiness([[1.0, 9.0] * 9]) is None and unsteadiness([]) is None
