"""Noise is no regression and a slowdown is one: the judgement of times on simulated bursts."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from harness.regress import timing
from harness.regress.plan import Timing
from harness.regress.schedule import SESSIONS
from harness.regress.settings import Settings
from harness.regress.timing import Bursts, bound, cliffs_delta, judge, p_slower, ratio_interval

STEP = Timing("step_time", "static/digits: stbp", {})
Noise = Callable[[np.random.Generator, int], np.ndarray]


def normal(random: np.random.Generator, pairs: int) -> np.ndarray:
    return random.normal(0, 0.03, pairs)


def heavy(random: np.random.Generator, pairs: int) -> np.ndarray:
    """Bursts that are now and then twice as slow or more: somebody else's work."""
    return np.abs(random.standard_t(2, pairs)) * 0.04


def drifting(random: np.random.Generator, pairs: int) -> np.ndarray:
    """A machine that gets half as fast over the session, both sides alike."""
    return np.linspace(0, 0.7, pairs) + random.normal(0, 0.01, pairs)


def bursts(random: np.random.Generator, noise: Noise, slower: float = 1.0, luck: float = 0.0, pairs: int = 24) -> Bursts:
    """Times of two processes; ``luck`` is what a process differs from another by as long as it lives."""
    shared = noise is drifting
    base = noise(random, pairs)
    head = base + random.normal(0, 0.01, pairs) if shared else noise(random, pairs)
    return Bursts(list(0.01 * np.exp(base + random.normal(0, 1) * luck)), list(0.01 * slower * np.exp(head + random.normal(0, 1) * luck)))


def compared(random: np.random.Generator, noise: Noise, slower: float = 1.0, luck: float = 0.0) -> str:
    """Return what a whole comparison says, fresh processes included."""
    found = judge(
        {STEP.name: bursts(random, noise, slower, luck)},
        [STEP],
        Settings(),
        lambda suspects: {each.name: [bursts(random, noise, slower, luck) for _ in range(SESSIONS)] for each in suspects},
    )
    return found[0].status


@pytest.fixture
def no_interval(monkeypatch):
    """Leave out the bootstrap, which decides nothing and takes most of the time of a judgement."""
    monkeypatch.setattr(timing, "ratio_interval", lambda steps: None)


@pytest.mark.usefixtures("no_interval")
@pytest.mark.parametrize("noise", [normal, heavy, drifting])
def test_of_a_thousand_comparisons_of_equal_code_fewer_than_one_in_a_hundred_alarm(noise):
    random = np.random.default_rng(0)
    alarms = sum(compared(random, noise) == "slower" for _ in range(1000))
    assert alarms < 10


@pytest.mark.usefixtures("no_interval")
def test_processes_that_differ_by_luck_raise_few_suspicions_and_hardly_any_alarm():
    random = np.random.default_rng(1)
    said = [compared(random, normal, luck=0.03) for _ in range(1000)]
    assert said.count("unconfirmed") > 20  # a test within one pair of processes is fooled
    assert said.count("slower") < 10


@pytest.mark.usefixtures("no_interval")
@pytest.mark.parametrize(("noise", "share"), [(normal, 0.85), (drifting, 0.95)])
def test_a_slowdown_by_eight_per_cent_is_found(noise, share):
    random = np.random.default_rng(2)
    assert sum(compared(random, noise, slower=1.08) == "slower" for _ in range(200)) >= 200 * share


@pytest.mark.usefixtures("no_interval")
def test_a_slowdown_by_less_than_the_threshold_is_let_pass():
    random = np.random.default_rng(3)
    assert sum(compared(random, normal, slower=1.03) == "slower" for _ in range(200)) <= 2


@pytest.mark.usefixtures("no_interval")
def test_a_speed_up_is_told_and_no_alarm():
    random = np.random.default_rng(4)
    assert [compared(random, normal, slower=0.8) for _ in range(20)].count("faster") == 20


def test_one_burst_that_takes_a_hundred_times_as_long_changes_nothing():
    found = bursts(np.random.default_rng(5), normal)
    found.head[7] *= 100
    (said,) = judge({STEP.name: found}, [STEP], Settings(), lambda suspects: pytest.fail("no reason to look again"))
    assert said.status == "same" and abs(said.change) < 0.05


def test_noise_raises_what_is_let_pass_and_never_lowers_it():
    random = np.random.default_rng(6)
    quiet, loud = (Bursts(list(np.exp(random.normal(0, s, 24))), list(np.exp(random.normal(0, s, 24)))) for s in (0.001, 0.3))
    assert bound(quiet, STEP, Settings()) == 0.05 < 0.1 < bound(loud, STEP, Settings())


def test_the_rank_test_gives_the_exact_share_of_sign_patterns():
    assert p_slower(np.array([0.1, 0.2, 0.3, 0.4, 0.5])) == pytest.approx(1 / 2**5)  # all positive: one pattern of 32
    assert p_slower(np.array([-0.1, 0.2, 0.3, 0.4, 0.5])) == pytest.approx(2 / 2**5)  # the smallest negative: rank sums 15 and 14
    assert p_slower(np.zeros(5)) == 1


def test_cliffs_delta_counts_pairs():
    assert cliffs_delta([1, 2], [3, 4]) == 1
    assert cliffs_delta([1, 2], [1, 2]) == 0
    assert cliffs_delta([1, 3], [2, 2]) == 0
    assert cliffs_delta([1, 1, 1, 4], [2]) == 0.5


def test_the_interval_covers_the_true_ratio_nineteen_times_of_twenty():
    random = np.random.default_rng(7)
    covered = 0
    for _ in range(300):
        low, high = ratio_interval(random.normal(np.log(1.1), 0.05, 24))
        covered += low <= 0.1 <= high
    assert covered / 300 == pytest.approx(0.95, abs=0.04)


def test_suspects_that_could_not_be_looked_at_again_are_not_held_to_be_slower():
    slow = bursts(np.random.default_rng(8), normal, slower=2)
    (said,) = judge({STEP.name: slow}, [STEP], Settings(), lambda suspects: {})
    assert said.status == "unmeasured"
