"""Latency and throughput against a clock that is set by hand."""

import pytest
import torch

from harness.meters import inference
from harness.meters.inference import latency, throughput


@pytest.fixture
def slow(monkeypatch):
    """Return a function that makes a ``predict`` whose calls last the given seconds, one after the other."""
    now = [0.0]
    monkeypatch.setattr(inference.time, "perf_counter", lambda: now[0])

    def make(*seconds: float):
        left = list(seconds)

        def predict(inputs):
            assert not torch.is_grad_enabled()
            now[0] += left.pop(0)

        return predict

    return make


def test_latency_is_the_median_of_the_calls_after_the_warm_up(slow):
    found = latency(slow(9.0, 9.0, 1.0, 4.0, 2.0), torch.zeros(1, 3), repeats=3, warmup=2)
    assert found.values == (1.0, 4.0, 2.0)
    assert (found.median, found.unit) == (2.0, "s")


@pytest.mark.parametrize(("seconds", "calls"), [(0.5, 3), (4.0, 4), (5.0, 5)])
def test_latency_stops_when_its_time_is_over_but_not_before_three_calls(slow, seconds, calls):
    found = latency(slow(*[1.0] * 9), torch.zeros(1, 3), repeats=7, warmup=0, seconds=seconds)
    assert found.values == (1.0,) * calls


def test_throughput_is_that_of_full_batches_after_the_first():
    found = throughput([(16, 9.0), (16, 2.0), (16, 4.0), (16, 8.0), (5, 1.0)])
    assert found.values == (8.0, 4.0, 2.0)
    assert (found.median, found.unit) == (4.0, "samples/s")
    assert throughput([(16, 2.0), (5, 1.0)]).values == (8.0,)


def test_latency_wants_one_sample():
    with pytest.raises(ValueError, match="batch of 2"):
        latency(lambda inputs: None, torch.zeros(2, 3))


def test_nothing_to_measure_is_an_error():
    with pytest.raises(ValueError, match="repeats = 0"):
        latency(lambda inputs: None, torch.zeros(1, 3), repeats=0)
    with pytest.raises(ValueError, match="none was answered"):
        throughput([])
