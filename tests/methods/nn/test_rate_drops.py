"""Learning rates that fall to a tenth again and again."""

from __future__ import annotations

import pytest

from harness.task import Training
from methods.nn.rate_drops import rate_drops


def phases(epochs, period):
    return [phase.training for phase in rate_drops(Training(epochs=epochs, lr=1.0, schedule="cosine"), period)]


@pytest.mark.parametrize(
    ("epochs", "period", "lengths"), [(192, 1 / 3, [64, 64, 64]), (100, 0.4, [40, 40, 20]), (10, 1.0, [10]), (10, 0.25, [2, 3, 3, 2])]
)
def test_the_rate_falls_to_a_tenth_after_every_period(epochs, period, lengths):
    found = phases(epochs, period)
    assert [each.epochs for each in found] == lengths
    assert [each.lr for each in found] == pytest.approx([0.1**i for i in range(len(lengths))])
    assert {each.schedule for each in found} == {"constant"}


@pytest.mark.parametrize("epochs", [1, 2, 3, 7])
@pytest.mark.parametrize("period", [0.1, 1 / 3, 0.4, 0.7])
def test_short_trainings_keep_all_their_epochs(epochs, period):
    found = phases(epochs, period)
    assert sum(each.epochs for each in found) == epochs
    assert min(each.epochs for each in found) > 0


def test_no_epochs_give_no_phase():
    assert phases(0, 0.5) == []
