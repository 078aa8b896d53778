"""Spike calibration: which spikes are taken back, and the two ways of keeping account."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from methods.nn.spike_calibration import SpikeCalibration, calibrate, no_history
from methods.nn.stepping import stepping


def train(times: list[int], steps: int) -> Tensor:
    """One neuron ``[T, 1]`` that spikes at these steps."""
    spikes = torch.zeros(steps, 1)
    spikes[times] = 1
    return spikes


def by_the_card(spikes: list[float], allowance: float, ledger: bool) -> list[float]:
    """The rule as the card writes it, one neuron in plain numbers."""
    last = avg = n = total = 0.0
    found = []
    for t, x in enumerate(spikes):
        if x > 0:
            n += 1
            avg += (t - last - avg) / n
            last = t
        if t - last > avg + allowance + 1e-9 and (total >= 1 or not ledger):
            x -= 1
        total += x
        found.append(0.0 if total <= -1 and not ledger else x)
    return found


def random_trains(steps: int = 120, neurons: int = 60) -> Tensor:
    """Random bursts with a long silence in their midst, ``[T, neurons]``."""
    torch.manual_seed(1)
    spikes = (torch.rand(steps, neurons) < torch.linspace(0.05, 0.6, neurons)) * torch.randint(1, 4, (steps, neurons)).float()
    spikes[steps // 4 : steps // 2 + 20] = 0
    return spikes


# Card, test 4


def test_without_an_allowance_nothing_is_changed():
    spikes = random_trains()
    assert torch.equal(SpikeCalibration(0)(spikes), spikes)


@pytest.mark.parametrize("mode", ["reference", "ledger"])
def test_a_neuron_that_falls_silent_takes_its_two_spikes_back_at_steps_10_and_11(mode):
    found = SpikeCalibration(3, mode)(train([2, 4], 30)).flatten()
    assert found.nonzero().flatten().tolist() == [2, 4, 10, 11]
    assert found[[2, 4, 10, 11]].tolist() == [1, 1, -1, -1]


@pytest.mark.parametrize("mode", ["reference", "ledger"])
@pytest.mark.parametrize("allowance", [1, 3, 7.5])
def test_what_was_emitted_never_sums_to_less_than_nothing(mode, allowance):
    found = SpikeCalibration(allowance, mode)(random_trains())
    assert found.min() == -1  # something was taken back
    assert found.cumsum(0).min() >= 0


@pytest.mark.parametrize("mode", ["reference", "ledger"])
@pytest.mark.parametrize("gap", [1, 2, 5, 9])
def test_a_regular_train_whose_first_spike_comes_within_the_allowance_is_left_alone(mode, gap):
    spikes = train(list(range(gap - 1, 100, gap)), 100)
    assert torch.equal(SpikeCalibration(gap, mode)(spikes), spikes)
    assert mode == "ledger" or gap < 9 or not torch.equal(SpikeCalibration(2, mode)(spikes), spikes)


# Card, test 5


def test_both_modes_agree_until_a_total_first_reaches_minus_one():
    spikes, allowance = random_trains(), 3
    reference, ledger = (SpikeCalibration(allowance, mode)(spikes) for mode in ("reference", "ledger"))
    below = torch.zeros(spikes.shape[1], dtype=torch.bool)
    history, agreed, left = no_history(spikes[0]), 0, 0
    for t, now in enumerate(spikes):
        _, history = calibrate(now, history, allowance, "reference")
        below |= history[3] <= -1
        assert torch.equal(reference[t, ~below], ledger[t, ~below])
        agreed += int((~below).sum())
    left = int((reference != ledger).sum())
    assert agreed > 1000
    assert left > 0


def test_the_account_of_the_ledger_is_what_was_emitted():
    history, emitted = no_history(torch.zeros(60)), torch.zeros(60)
    for now in random_trains():
        found, history = calibrate(now, history, 2, "ledger")
        emitted += found
        assert torch.equal(history[3], emitted)


def test_the_ledger_swallows_no_spike_after_a_long_silence():
    spikes = train(list(range(50, 120)), 120)
    assert SpikeCalibration(2, "ledger")(spikes).sum() == 70
    assert SpikeCalibration(2, "reference")(spikes).sum() < 70 - 20


def test_the_reference_loses_the_first_four_spikes_of_a_train_with_gap_9_and_allowance_2():
    spikes = train(list(range(8, 200, 9)), 200)
    found = SpikeCalibration(2)(spikes).flatten()
    assert (spikes.flatten() - found).nonzero().flatten().tolist()[:4] == [8, 17, 26, 35]


# Both


@pytest.mark.parametrize("mode", ["reference", "ledger"])
@pytest.mark.parametrize("allowance", [1, 2.5, 6])
def test_the_rule_is_that_of_the_card(mode, allowance):
    spikes = random_trains()
    found = SpikeCalibration(allowance, mode)(spikes)
    for neuron in range(spikes.shape[1]):
        assert found[:, neuron].tolist() == by_the_card(spikes[:, neuron].tolist(), allowance, mode == "ledger")


def test_steps_taken_singly_are_calibrated_alike_and_state_does_not_survive():
    spikes, module = random_trains(), SpikeCalibration(3)
    with stepping(module):
        singly = torch.cat([module(now[None]) for now in spikes])
    assert torch.equal(singly, module(spikes))
    assert torch.equal(singly, module(spikes))
