"""Damage to event frames."""

import pytest
import torch

from methods.nn.corruption import area, blank, kinds, loss, noise


def frames(rate=0.2, shape=(10, 6, 2, 8, 8)):
    return torch.poisson(torch.full(shape, rate), generator=torch.Generator().manual_seed(0))


def generator():
    return torch.Generator().manual_seed(1)


@pytest.mark.parametrize("kind", sorted(kinds))
def test_strength_zero_changes_nothing_and_the_input_stays_as_it_was(kind):
    x = frames()
    before = x.clone()
    assert torch.equal(kinds[kind](x, 0.0, generator()), x)
    kinds[kind](x, 0.5, generator())
    assert torch.equal(x, before)


def test_noise_adds_one_event_of_either_polarity_at_a_share_of_the_pixels():
    x = frames()
    added = noise(x, 0.1, generator()) - x
    assert set(added.unique().tolist()) == {0.0, 1.0}
    assert added.sum(2).max() == 1
    assert abs(added.sum(2).mean() - 0.1) < 0.02
    assert abs(added[:, :, 0].sum() / added.sum() - 0.5) < 0.1


def test_events_are_lost_one_by_one():
    x = frames(rate=3.0)
    left = loss(x, 0.25, generator())
    assert ((left <= x) & (left == left.round())).all()
    assert abs(left.sum() / x.sum() - 0.75) < 0.02
    assert ((left > 0) & (left < x)).any()


def test_blank_removes_one_stretch_of_steps_per_sample():
    x = torch.ones(10, 64, 2, 3, 3)
    left = blank(x, 0.3, generator())
    gone = (left.flatten(2).sum(2) == 0).T.int()
    assert gone.sum(1).eq(3).all()
    assert (gone.diff(prepend=torch.zeros(64, 1)) == 1).sum(1).eq(1).all()
    assert set(gone.argmax(1).tolist()) == set(range(8))
    assert left.flatten(2).unique().tolist() == [0.0, 1.0]


def test_everything_can_be_blanked():
    assert blank(frames(), 1.0, generator()).count_nonzero() == 0


def test_the_area_is_the_mean_over_the_range():
    assert area([0.0, 0.5, 1.0], [1.0, 1.0, 1.0]) == 1.0
    assert area([0.0, 0.02, 0.1], [1.0, 0.5, 0.5]) == pytest.approx((0.02 * 0.75 + 0.08 * 0.5) / 0.1)
