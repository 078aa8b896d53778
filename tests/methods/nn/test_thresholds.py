"""What is noted of thresholds and rates."""

from __future__ import annotations

import torch
from torch import nn

from methods.nn.neuron import LIF
from methods.nn.thresholds import ThresholdWatch


def test_figures_are_those_of_the_spikes_and_of_the_thresholds():
    net = nn.Sequential(LIF(0.0, 1.0, learn=("threshold",), channels=(4,)), LIF(0.0, 0.5))
    with torch.no_grad():
        net[0].threshold.copy_(torch.tensor([0.5, 1.0, 1.5, 4.0]))
    sequence = torch.tensor([0.7, 1.2]).view(2, 1, 1).expand(2, 3, 4).clone()
    watch = ThresholdWatch()
    watch.look(net, sequence)
    with torch.no_grad():
        net[0].threshold.add_(1.0)
    net.train()
    found = watch.figures(net, sequence)
    assert net.training
    assert found["threshold_layers"] == ["0"]  # the second one learns none
    assert found["threshold_parameters"] == [4]
    assert found["threshold_means"] == [[1.75], [2.75]]
    assert found["rates"] == [[3 / 8], [0.0]]  # spikes at 2 and 1 of the 2 steps, by neurons 0 and 1
    assert found["silent_neurons"] == [1.0]
    assert found["threshold_range"] == [[1.5, 5.0]]
    assert sum(found["threshold_histogram"][0]) == 4 and found["rate_histogram"][0][0] == 4
    assert found["rate_std"] == [0.0]  # of one look, the first one left out
