"""Energy by firing rates, against sums done by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from methods.nn.rate_energy import RateEnergy
from methods.nn.synapse import Conv2d


class Sum(nn.Module):
    """An attention that says it adds seven times."""

    def forward(self, x):
        return x

    def synops_other(self, inputs, output):
        return 7


def network():
    return nn.Sequential(Conv2d(1, 2, 3, padding=1), nn.Threshold(0.0, 0.0), Sum(), nn.Flatten(2), nn.Linear(2 * 4 * 4, 5))


def test_energy_multiplies_in_the_first_layer_and_adds_at_the_rate_of_the_others():
    net = network()
    images = torch.rand(1, 3, 1, 4, 4).expand(2, -1, -1, -1, -1)  # T = 2, three samples
    rates = []
    net[4].register_forward_pre_hook(lambda module, args: rates.append((args[0] != 0).double().mean().item()))
    with RateEnergy(net) as meter, torch.no_grad():
        net(images)
    first, second = 2 * 16 * 2 * 9, 2 * 32 * 5  # MACs per sample, T and padding included
    assert meter.rates() == pytest.approx([1.0, rates[0]])
    assert meter.additions(3) == pytest.approx(7 / 3)
    assert meter.energy(3) == pytest.approx((4.6 * first + 0.9 * (rates[0] * second + 7 / 3)) * 1e-12)


def test_energy_per_sample_does_not_depend_on_how_samples_are_batched():
    net, images = network(), torch.rand(2, 4, 1, 4, 4)
    del net[2]
    with RateEnergy(net) as whole, torch.no_grad():
        net(images)
    with RateEnergy(net) as parts, torch.no_grad():
        net(images[:, :1]), net(images[:, 1:])
    assert whole.energy(4) == pytest.approx(parts.energy(4))


def test_no_samples_are_refused():
    with pytest.raises(ValueError, match="at least one sample"):
        RateEnergy(network()).energy(0)
