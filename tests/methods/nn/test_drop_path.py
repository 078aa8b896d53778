"""Stochastic depth."""

from __future__ import annotations

import pytest
import torch

from methods.nn.drop_path import DropPath
from methods.nn.stepping import stepping


def test_a_branch_is_dropped_for_whole_samples_and_the_others_are_scaled():
    torch.manual_seed(0)
    found = DropPath(0.25)(torch.ones(3, 400, 2, 2))
    one = found[0, :, 0, 0]
    assert torch.equal(found, one.view(1, -1, 1, 1).expand_as(found))
    torch.testing.assert_close(one.unique(), torch.tensor([0.0, 4 / 3]))
    assert abs((one == 0).double().mean() - 0.25) < 0.07


def test_nothing_is_dropped_in_eval_mode():
    x = torch.rand(2, 5, 3)
    assert DropPath(0.9).eval()(x) is x


def test_what_is_dropped_stays_dropped_while_stepping():
    drop, x = DropPath(0.5), torch.ones(4, 64, 1)
    torch.manual_seed(0)
    whole = drop(x)
    torch.manual_seed(0)
    with stepping(drop):
        stepped = torch.cat([drop(now[None]) for now in x])
    assert torch.equal(whole, stepped)
    assert 0 < whole.count_nonzero() < whole.numel()


@pytest.mark.parametrize("p", [-0.1, 1.0])
def test_a_probability_out_of_range_is_refused(p):
    with pytest.raises(ValueError, match="in \\[0, 1\\)"):
        DropPath(p)
