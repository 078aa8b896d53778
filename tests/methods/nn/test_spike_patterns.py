"""Where spikes of two runs begin to differ."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from methods.nn.neuron import LIF
from methods.nn.spike_patterns import SpikePatterns
from methods.nn.stepping import stepping


class Shown(nn.Module):
    """Emits what it gets."""

    spike_kind = "binary"

    def forward(self, spikes: Tensor) -> Tensor:
        return spikes


def seen(net: nn.Module, *inputs: Tensor) -> SpikePatterns:
    with SpikePatterns(net) as patterns:
        for x in inputs:
            net(x)
    return patterns


def test_the_first_step_is_that_of_the_samples_that_deviate():
    net, before = nn.Sequential(Shown()), torch.zeros(5, 3, 2)
    before[0] = 1
    after = before.clone()
    after[1, 0, 1] = after[3, 1, 0] = after[4, 1, 0] = 1
    layers, whole = seen(net, before).against(seen(net, after))
    assert layers["0"] == whole
    assert (whole.rate_change, whole.deviating, whole.first_step) == (3 / 6, 2 / 3, (2 + 4) / 2)


def test_the_earliest_layer_decides_for_the_whole():
    net = nn.ModuleList([Shown(), Shown()])
    zeros, late, early = torch.zeros(4, 1, 1), torch.zeros(4, 1, 1), torch.zeros(4, 1, 1)
    late[3], early[1] = 1, 1

    def run(first: Tensor, second: Tensor) -> SpikePatterns:
        with SpikePatterns(net) as patterns:
            net[0](first)
            net[1](second)
        return patterns

    layers, whole = run(zeros, zeros).against(run(late, early))
    assert [layers[name].first_step for name in ("0", "1")] == [4, 2]
    assert whole.first_step == 2
    assert whole.rate_change is None  # there was no spike to begin with


def test_a_sequence_in_parts_is_one_sequence():
    net, x = nn.Sequential(LIF()), 2 * torch.rand(6, 4, 5, generator=torch.Generator().manual_seed(0))
    changed = x.clone()
    changed[4] = 0
    whole = seen(net, x).against(seen(net, changed))[1]
    with stepping(net):
        parts = seen(net, *x.split(2))
    with stepping(net):
        others = seen(net, *changed.split(2))
    assert whole.first_step == 5
    assert parts.against(others)[1] == whole


def test_equal_runs_do_not_deviate_and_unlike_ones_are_not_compared():
    net, spikes = nn.Sequential(Shown()), torch.ones(3, 4, 2)
    assert seen(net, spikes).against(seen(net, spikes))[1].deviating == 0
    assert seen(net, spikes).against(seen(net, spikes))[1].first_step is None
    assert seen(net, spikes).against(seen(net, spikes[:, :2]))[1].deviating is None
    assert seen(net, spikes).against(seen(net, spikes), clocked=False)[1].deviating is None
