"""A read-out of spikes."""

import torch

from methods.nn.neuron import LIF
from methods.nn.population import PopulationReadout


def test_the_answer_of_a_class_is_the_mean_of_its_own_neurons():
    torch.manual_seed(0)
    readout = PopulationReadout(6, 3, LIF(threshold=0.2), size=5)
    x = torch.rand(4, 2, 6)
    spikes = LIF(threshold=0.2)(readout.synapse(x))
    expected = torch.stack([spikes[..., 5 * k : 5 * k + 5].mean(-1) for k in range(3)], -1)
    assert torch.equal(readout(x), expected)
    assert 0 < expected.mean() < 1
    assert readout.synapse.bias is not None
