"""Waiting for a core, from figures of the kernel that are made up, and from the kernel's own."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from harness.meters import contention
from harness.meters.contention import CoreWait, waited
from harness.runner import distrust


@pytest.fixture
def kernel(monkeypatch, tmp_path):
    """Return a function that sets the waiting times of threads (ns) and the clock (s)."""
    monkeypatch.setattr(contention, "TASKS", tmp_path)
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
    with CoreWait() as wait:
        kernel(14.0, a=2_000_000_000, b=500_000_000, new=500_000_000)
    assert wait.share == pytest.approx(0.5)


def test_threads_whose_figures_cannot_be_read_are_left_out(kernel):
    kernel(0.0, a=1, broken="?")
    assert waited() == {"a": 1}


def test_a_system_that_does_not_tell_leaves_no_share(kernel):
    with CoreWait() as wait:
        kernel(1.0)
    assert wait.share is None


@pytest.mark.skipif(not Path("/proc/self/schedstat").exists(), reason="this system does not tell how long threads waited")
def test_real_threads_are_seen():
    with CoreWait() as wait:
        sum(range(100_000))
    assert wait.share is not None and wait.share >= 0 and waited()


@pytest.mark.parametrize(
    ("load", "share", "others", "said"),
    [
        (1.0, 0.02, 0, []),
        (None, None, None, []),
        (2.5, 0.0, 0, ["load average 2.5 exceeded the 2 cores"]),
        (0.0, 0.25, 0, ["threads of this run waited 25% of the training time for a core"]),
        (0.0, 0.0, 2, ["2 other process(es) computed on the GPUs"]),
    ],
)
def test_what_disturbs_times_is_said(load, share, others, said):
    assert distrust(SimpleNamespace(load_average=load, cores=2), SimpleNamespace(core_wait=share), others) == said


def test_a_run_that_measured_nothing_is_not_doubted():
    assert distrust(None, None, None) == []
