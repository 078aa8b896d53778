"""The step clock against a clock that is set by hand."""

import time

import pytest
import torch

from harness.meters import clock as clock_module
from harness.meters.clock import StepClock


@pytest.fixture
def hand(monkeypatch):
    """Return a function that moves the clock on by some seconds."""
    now = [100.0]
    monkeypatch.setattr(clock_module.time, "perf_counter", lambda: now[0])

    def move(seconds: float) -> None:
        now[0] += seconds

    return move


def step(clock: StepClock, move, forward: float, *parts: tuple[str, float]) -> None:
    clock.start()
    move(forward)
    for name, seconds in parts:
        with clock.part(name):
            move(seconds)
    clock.stop()


def test_a_step_is_split_into_parts_and_the_forward_pass_is_the_rest(hand):
    clock = StepClock(torch.device("cpu"))
    step(clock, hand, 2.0, ("backward", 4.0), ("optimizer", 1.0))
    assert clock.samples() == {"total": [7.0], "forward": [2.0], "backward": [4.0], "optimizer": [1.0]}


def test_several_backward_passes_in_a_step_add_up(hand):
    clock = StepClock(torch.device("cpu"))
    step(clock, hand, 1.0, ("backward", 2.0), ("optimizer", 0.5), ("backward", 3.0), ("optimizer", 0.25))
    assert clock.samples() == {"total": [6.75], "forward": [1.0], "backward": [5.0], "optimizer": [0.75]}


def test_every_step_is_kept_in_order_and_time_between_steps_is_not_counted(hand):
    clock = StepClock(torch.device("cpu"))
    for seconds in (1.0, 3.0, 2.0):
        step(clock, hand, seconds)
        hand(50.0)
    assert clock.samples()["total"] == [1.0, 3.0, 2.0]
    assert clock.samples()["backward"] == [0, 0, 0]


def test_parts_outside_a_step_are_not_timed(hand):
    clock = StepClock(torch.device("cpu"))
    with clock.part("backward"):
        hand(9.0)
    step(clock, hand, 1.0)
    with clock.part("backward"):
        hand(9.0)
    assert clock.samples() == {"total": [1.0], "forward": [1.0], "backward": [0], "optimizer": [0]}


def test_a_clock_that_was_never_started_has_no_samples():
    assert StepClock(torch.device("cpu")).samples() == {"total": [], "forward": [], "backward": [], "optimizer": []}


def test_real_time_is_measured_in_seconds():
    clock = StepClock(torch.device("cpu"))
    clock.start()
    with clock.part("backward"):
        time.sleep(0.02)
    clock.stop()
    found = clock.samples()
    assert found["backward"][0] >= 0.02
    assert found["total"][0] == pytest.approx(found["forward"][0] + found["backward"][0])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_work_on_a_gpu_is_timed_to_its_end():
    device = torch.device("cuda")
    a = torch.randn(4096, 4096, device=device)
    torch.cuda.synchronize()
    clock = StepClock(device)
    clock.start()
    begin = time.perf_counter()
    for _ in range(20):
        a = a @ a / 4096
    issued = time.perf_counter() - begin
    clock.stop()
    torch.cuda.synchronize()
    whole = time.perf_counter() - begin
    assert clock.samples()["total"][0] == pytest.approx(whole, rel=0.5) and whole > issued
