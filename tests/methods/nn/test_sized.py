"""Parts whose shape is found by one pass."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from methods.nn.neuron import LIF
from methods.nn.sized import Sized, settle
from methods.nn.synapse import AvgPool2d, Conv2d


def neurons(shape):
    return LIF(learn=("threshold",), channels=shape)


def test_every_place_gets_a_module_of_the_size_it_met():
    net = nn.Sequential(Conv2d(1, 3, 3, padding=1), Sized(neurons), AvgPool2d(2), nn.Sequential(Conv2d(3, 2, 3), Sized(neurons)))
    settle(net, torch.zeros(1, 1, 1, 8, 10))
    assert [tuple(m.threshold.shape) for m in net.modules() if isinstance(m, LIF)] == [(3, 8, 10), (2, 2, 3)]
    assert not any(isinstance(m, Sized) for m in net.modules())


def test_one_place_used_by_two_parents_stays_one_module():
    place = Sized(neurons)
    net = nn.Sequential(nn.Sequential(place), nn.Sequential(place))
    settle(net, torch.zeros(1, 1, 4))
    assert net[0][0] is net[1][0]


def test_settling_leaves_modes_and_running_statistics_alone():
    norm = nn.BatchNorm1d(4)
    net = nn.Sequential(nn.Flatten(0, 1), norm, nn.Unflatten(0, (1, 2)), Sized(neurons)).train()
    norm.eval()
    before = norm.running_mean.clone()
    settle(net, torch.ones(1, 2, 4))
    assert net.training and not norm.training
    assert torch.equal(norm.running_mean, before)


def test_a_place_that_is_not_passed_is_an_error():
    class Idle(nn.Module):
        def __init__(self):
            super().__init__()
            self.place = Sized(neurons)

        def forward(self, x):
            return x

    with pytest.raises(ValueError, match="place was not passed"):
        settle(Idle(), torch.zeros(1, 1, 4))


def test_two_sizes_at_one_place_are_an_error():
    place = Sized(neurons)
    place(torch.zeros(1, 1, 4))
    with pytest.raises(ValueError, match=r"\[4\] and of \[5\]"):
        place(torch.zeros(1, 1, 5))
