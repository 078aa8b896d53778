"""Waiting for a core, from figures of the kernel that are made up, and from the kernel's own."""

import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from harness.meters import contention, yardstick
from harness.meters.contention import Contention, others, waited
from harness.runner import distrust


@pytest.fixture
def kernel(monkeypatch, tmp_path):
    """Return a function that sets the waiting times of threads (ns) and the clock (s)."""
    monkeypatch.setattr(contention, "TASKS", tmp_path)
    monkeypatch.setattr(contention, "STAT", tmp_path / "stat")
    monkeypatch.setattr(contention.os, "times", lambda: SimpleNamespace(user=1.0, system=0.5, children_user=0.25, children_system=0.25))
    monkeypatch.setattr(contention, "STAT", tmp_path / "stat")
    monkeypatch.setattr(contention.os, "times", lambda: SimpleNamespace(user=1.0, system=0.5, children_user=0.25, children_system=0.25))
    now = [0.0]
    monkeypatch.setattr(contention.time, "perf_counter", lambda: now[0])

    def tell(clock: float, **threads: object) -> None:
        now[0] = clock
        for name, nanoseconds in threads.items():
            (tmp_path / name).mkdir(exist_ok=True)
            (tmp_path / name / "schedstat").write_text(f"5 {nanoseconds} 7\n", encoding="ascii")

    return tell


def test_the_share_is_what_all_threads_waited_over_the_time(kernel):
    kernel(10.0, a=1_000_000_000, b=0)
    with Contention() as found:
        kernel(14.0, a=2_000_000_000, b=500_000_000, new=500_000_000)
    assert found.core_wait == pytest.approx(0.5)


def test_threads_whose_figures_cannot_be_read_are_left_out(kernel):
    kernel(0.0, a=1, broken="?")
    assert waited() == {"a": 1}


def test_a_system_that_does_not_tell_leaves_no_share(kernel):
    with Contention() as found:
        kernel(1.0)
    assert found.core_wait is None and found.other_cores is None


def test_what_others_use_is_the_busy_time_of_all_cores_without_our_own(kernel, monkeypatch, tmp_path):
    tick = os.sysconf("SC_CLK_TCK")
    kernel(0.0)
    (tmp_path / "stat").write_text(f"cpu  {10 * tick} 0 0 500 9 0 0 0 0 0\ncpu0 1 1\n", encoding="ascii")
    with Contention() as found:
        kernel(4.0)
        (tmp_path / "stat").write_text(f"cpu  {13 * tick} {tick} {tick} 900 99 0 0 {tick} 0 0\n", encoding="ascii")
        monkeypatch.setattr(contention.os, "times", lambda: SimpleNamespace(user=4.0, system=0.5, children_user=1.25, children_system=0.25))
    assert found.other_cores == pytest.approx((6 - 4) / 4)


@pytest.mark.parametrize("text", ["", "cpu 1 2", "intr 1 2 3 4 5 6 7 8", "cpu a b c d e f g h"])
def test_a_file_of_another_form_tells_nothing(kernel, tmp_path, text):
    (tmp_path / "stat").write_text(text, encoding="ascii")
    assert others() is None


@pytest.mark.skipif(not Path("/proc/self/schedstat").exists(), reason="this system does not tell how long threads waited")
def test_real_threads_are_seen():
    with Contention() as found:
        sum(range(100_000))
    assert found.core_wait is not None and found.core_wait >= 0 and waited()


@pytest.mark.parametrize(
    ("load", "wait", "cores", "spread", "gpus", "said"),
    [
        (1.0, 0.02, 0.05, 1.1, 0, []),
        (None, None, None, None, None, []),
        (2.5, 0.0, 0.0, 1.0, 0, ["load average 2.5 exceeded the 2 cores"]),
        (0.0, 0.25, 0.0, 1.0, 0, ["threads of this run waited 25% of the training time for a core"]),
        (0.0, 0.0, 0.8, 1.0, 0, ["other processes used 0.8 of the 2 cores during training"]),
        (0.0, 0.0, 0.0, 1.3, 0, ["step times were unsteady (the 90th percentile is 1.30 times the median)"]),
        (0.0, 0.0, 0.0, 1.0, 2, ["2 other process(es) computed on the GPUs"]),
    ],
)
def test_what_disturbs_times_is_said(load, wait, cores, spread, gpus, said):
    measured = SimpleNamespace(core_wait=wait, other_cores=cores, unsteadiness=spread, yardstick=[2.0, 2.1])
    assert distrust(SimpleNamespace(load_average=load, cores=2), measured, gpus) == said


def test_a_run_that_measured_nothing_is_not_doubted():
    assert distrust(None, None, None) == []


def test_a_machine_that_became_slower_is_told_of():
    quiet = SimpleNamespace(core_wait=0.0, other_cores=0.0, unsteadiness=1.0, yardstick=[2.0, 3.0])
    assert distrust(None, quiet, 0) == ["the machine's speed changed by a factor of 1.50 meanwhile"]


def test_the_yardstick_is_the_least_of_its_times(monkeypatch):
    now = iter([0, 9, 10, 13, 20, 28, 30, 37, 40, 46])
    monkeypatch.setattr(yardstick.time, "perf_counter", lambda: next(now))
    assert yardstick.yardstick(torch.device("cpu")) == 3
