"""Distances of answers, spikes of inactivated neurons, and the work of burst spikes."""

import copy

import pytest
import torch
from torch import nn

from harness.energy import joules
from methods.nn.burst import BurstNeuron
from methods.nn.conversion_gap import ConversionGap, divergence, squared_error
from methods.nn.layer import Layer
from methods.nn.neuron import ReLU
from methods.nn.wiring import trace


def test_the_divergence_is_that_of_the_relu_network_from_the_spiking_one():
    p, q = torch.tensor([[0.5, 0.25, 0.25]]), torch.tensor([[0.1, 0.1, 0.8]])
    wanted = (p * (p / q).log()).sum()
    torch.testing.assert_close(divergence(p.log() + 3, q.log() - 1), wanted)  # logits have no zero
    assert not torch.isclose(divergence(q.log(), p.log()), wanted)
    assert divergence(p.log(), p.log()).abs() < 1e-7


def test_the_squared_error_is_of_raw_answers():
    assert squared_error(torch.tensor([[1.0, 2.0]]), torch.tensor([[0.0, 4.0]])) == 2.5


@pytest.fixture
def networks():
    """Two layers of 2 and 3 neurons and 1 output; weights by hand."""
    net = nn.Sequential(Layer(nn.Linear(2, 2), nn.Identity(), ReLU()), Layer(nn.Linear(2, 3), nn.Identity(), ReLU()), nn.Linear(3, 1))
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.zero_()
        net[0].synapse.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 2.0]]))
        net[1].synapse.weight.copy_(torch.tensor([[1.0, 1.0], [0.0, 1.0], [0.5, -0.5]]))
        net[2].weight.fill_(1)
    spiking = copy.deepcopy(net)
    spiking[0].neuron, spiking[1].neuron = BurstNeuron(), BurstNeuron()
    return net, spiking


def test_spikes_and_work_are_those_counted_by_hand(networks):
    net, spiking = networks
    x = torch.tensor([[1.0, 1.0]])
    gap = ConversionGap(net, spiking, trace(spiking, x[None]))
    gap.add(x[None], lambda: spiking(x.expand(4, 1, 2)))
    found = gap.figures()
    # In each of 4 steps: neuron 1 once, neuron 2 twice (one event); then 3, 2, and for -1/2 nothing.
    assert found["spikes_per_sample"] == 4 * 4
    assert found["unit_spikes_per_sample"] == 4 * (1 + 2 + 3 + 2)
    assert found["negative_spikes_per_sample"] == 0
    # Neuron 1 reaches two others, neuron 2 three (weights that are not 0), each of the last three one.
    work = 4 * (1 * 2 + 2 * 3 + 3 + 2)
    assert found["accumulations_per_sample"] == work
    assert found["energy_ratio"] == pytest.approx(joules(work, 4) / joules(0, 4 + 6 + 3))


def test_a_unit_at_rest_that_spikes_all_the_same_is_counted(networks):
    net, spiking = networks
    x = torch.tensor([[1.0, 0.0]])
    early = torch.tensor([[[1.0, -1.0]], [[1.0, 1.5]]])  # its second input would sum to 1/2 only after a spike at step 1
    gap = ConversionGap(net, spiking, None)
    gap.add(x[None], lambda: spiking(early))
    sin = gap.figures()["sin_ratio"]
    assert sin == {"0.neuron": 0.5, "1.neuron": pytest.approx(1 / 3)}
    assert "energy_ratio" not in gap.figures()
