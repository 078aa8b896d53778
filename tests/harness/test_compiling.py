"""Compilation is noticed wherever it happens, and kept out of step times and epochs."""

from __future__ import annotations

import time

import pytest
import torch
from torch import nn

from harness.loop import Observer, train
from harness.meters.compiling import CompileMeter
from harness.meters.memory import TransientPeak
from harness.meters.training import TrainingMeter

SLOW = 0.3  # seconds that compiling takes, at least


def sluggish(graph, inputs):
    """A compiler that takes its time and changes nothing."""
    time.sleep(SLOW)
    return graph.forward


@pytest.fixture(autouse=True)
def forget():
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def test_the_first_call_is_counted_and_the_second_is_not():
    double = torch.compile(lambda x: 2 * x, backend=sluggish)
    with CompileMeter() as outer:
        with CompileMeter() as first:
            double(torch.ones(3))
        with CompileMeter() as second:
            double(torch.ones(3))
    assert first.seconds >= SLOW
    assert second.seconds == 0
    assert outer.seconds == pytest.approx(first.seconds, rel=0.1)


def test_what_is_compiled_outside_is_not_counted():
    with CompileMeter() as meter:
        pass
    torch.compile(lambda x: 3 * x, backend=sluggish)(torch.ones(3))
    assert meter.seconds == 0


class Compiles(nn.Module):
    """A linear map of what a compiled function returns."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 2)
        self.compiled = torch.compile(lambda x: x.tanh(), backend=sluggish, dynamic=False)

    def forward(self, x):
        return self.linear(self.compiled(x))


def test_steps_that_compile_are_left_out_of_step_times_and_epochs(toy_task, toy_method):
    class Method(toy_method):
        def build(self):
            return Compiles()

    method = Method(toy_task(), training={"epochs": 2, "batch_size": 3})
    with CompileMeter() as compiling:
        trained = train(method, method.build(), seed=0)
    steps = trained.clocks[0][1].samples()["total"]
    batches = sum(trace.batches for trace in trained.traces)
    assert compiling.seconds >= 2 * SLOW
    assert len(steps) == batches - 2  # the first batch of three samples and the first of two
    assert max(steps) < SLOW
    assert all(trace.seconds < SLOW for trace in trained.traces)


def test_transient_memory_of_a_compiled_function_is_that_of_its_steps_uncompiled():
    plain = lambda x: (x * 2).tanh().sum()  # noqa: E731
    peaks = []
    for function in (plain, torch.compile(plain, backend=sluggish, fullgraph=True)):
        x = torch.ones(1000, requires_grad=True)
        with TransientPeak() as meter:
            function(x).backward()
        peaks.append(meter.peak)
    assert peaks[0] == peaks[1] > 8000


def test_resident_memory_is_measured_in_a_step_in_which_nothing_is_compiled(toy_task, toy_method):
    measured = []

    class Meter(TrainingMeter):
        def around_step(self, phase, step):
            found = super().around_step(phase, step)
            if found is not None:
                measured.append(step)
            return found

    class Method(toy_method):
        def build(self):
            net = Compiles()
            net.calls = 0
            return net

        def step(self, net, batch, update):
            net.calls += 1
            if net.calls == 3:
                torch.compile(lambda x: x + 1, backend=sluggish)(torch.ones(2))
            return super().step(net, batch, update)

    method = Method(toy_task(), training={"epochs": 3, "batch_size": 2})
    net = method.build()
    meter = Meter(net, torch.device("cpu"))
    train(method, net, seed=0, observer=meter)
    assert measured == [0, 1, 2, 3]
    assert meter.result().peak_rss_growth_bytes is not None


def test_an_observer_without_measurements_leaves_every_step_on_the_clock(toy_task, toy_method):
    method = toy_method(toy_task(), training={"epochs": 2, "batch_size": 3})
    trained = train(method, method.build(), seed=0, observer=Observer())
    assert len(trained.clocks[0][1].samples()["total"]) == sum(trace.batches for trace in trained.traces)
