"""Integer spikes: values, gradients, and the binary planes that they are the sum of."""

from __future__ import annotations

import pytest
import torch

from methods.nn.rounded_spike import RoundedSpike, planes
from methods.nn.surrogate import Arctan


def test_spikes_are_rounded_and_cut_with_halves_to_the_even_neighbour():
    h = torch.tensor([-3.0, -0.4, 0.0, 0.5, 0.51, 1.5, 2.5, 3.4, 3.6, 9.0])
    assert RoundedSpike(4).value(h).tolist() == [0, 0, 0, 0, 1, 2, 2, 3, 4, 4]
    assert RoundedSpike(1).value(h).tolist() == [0, 0, 0, 0, 1, 1, 1, 1, 1, 1]


def test_the_gradient_is_one_from_zero_to_the_largest_spike():
    h = torch.tensor([-0.01, 0.0, 0.3, 2.0, 2.01], requires_grad=True)
    (g,) = torch.autograd.grad((RoundedSpike(2)(h) * 3).sum(), h)
    assert g.tolist() == [0, 3, 3, 3, 0]


def test_binary_spikes_may_have_a_surrogate_around_one_half():
    h = torch.linspace(-2, 3, 21, dtype=torch.float64, requires_grad=True)
    (g,) = torch.autograd.grad(RoundedSpike(1, Arctan(2.0))(h).sum(), h)
    torch.testing.assert_close(g, 1 / (1 + (torch.pi * (h.detach() - 0.5)) ** 2))


@pytest.mark.parametrize("levels", [1, 3, 4])
def test_planes_are_binary_and_sum_up_to_the_spikes(levels):
    spikes = RoundedSpike(levels).value(3 * torch.randn(50, generator=torch.Generator().manual_seed(0)))
    found = planes(spikes, levels)
    assert found.shape == (levels, 50)
    assert ((found == 0) | (found == 1)).all()
    assert torch.equal(found.sum(0), spikes)


def test_what_is_not_a_number_stays_so():
    assert RoundedSpike(4).value(torch.tensor([torch.nan])).isnan().all()
    assert planes(torch.tensor([torch.nan]), 4).isnan().all()


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="1 or more, not 0"):
        RoundedSpike(0)
    with pytest.raises(ValueError, match="levels=1, not 4"):
        RoundedSpike(4, Arctan())
    with pytest.raises(ValueError, match="1 or more, not 0"):
        planes(torch.zeros(1), 0)
