"""Layer by layer from ReLU to spikes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from methods.nn.conversion import integrate_and_fire
from methods.nn.layer import Layer
from methods.nn.layerwise import Layerwise
from methods.nn.norm import BatchNorm
from methods.nn.paired_neuron import PairedNeuron
from methods.nn.paired_synapse import PairedConv2d, PairedReadout2d

T = 64


def network(steps: int = T) -> nn.Sequential:
    torch.manual_seed(0)
    shapes = [(1, 6), (6, 6), (6, 5)]
    layers = [Layer(PairedConv2d(i, o, 3, 1, steps, BatchNorm(o)), nn.Identity(), PairedNeuron(nn.Identity())) for i, o in shapes]
    return nn.Sequential(*layers, PairedReadout2d(5, 4, 1.0, steps)).eval()


def pulse(steps: int = T) -> torch.Tensor:
    image = torch.rand(1, 8, 1, 6, 6, generator=torch.Generator().manual_seed(1))
    return torch.cat([image, torch.zeros(steps - 1, 8, 1, 6, 6)])


def rule(net: nn.Module, steps: int = T, patience: int = 2) -> Layerwise:
    return Layerwise(net, integrate_and_fire, [pulse(steps)], 100.0, steps, patience)


def plain(net: nn.Sequential, x: torch.Tensor) -> torch.Tensor:
    for layer in net[:3]:
        n = layer.synapse.norm
        z = nn.functional.conv2d(x, layer.synapse.weight, layer.synapse.bias, padding=1)
        x = nn.functional.batch_norm(z, n.running_mean, n.running_var, n.weight, n.bias).relu()
    return nn.functional.conv2d(x, net[3].weight, net[3].bias)


def test_before_any_layer_is_replaced_it_is_the_relu_network():
    net = network()
    expected = plain(net, pulse()[0])
    rule(net)
    torch.testing.assert_close(net(pulse())[0], expected)


def test_every_replaced_layer_keeps_the_answers_near_and_they_come_nearer_with_more_steps():
    errors = []
    for steps in (16, 256):
        net = network(steps)
        for parameter in net.parameters():
            parameter.data.abs_()  # spikes that come before those that inhibit cannot be taken back at any T
        expected = plain(net, pulse()[0])
        found = rule(net, steps)
        for _ in range(3):
            found.replace()
            with torch.no_grad():
                answers = net(pulse(steps))
            assert answers.shape[0] == 1
            assert torch.corrcoef(torch.stack([answers.flatten(), expected.flatten()]))[0, 1] > 0.9
        found.finish()
        with torch.no_grad():
            spiking = net(pulse(steps))
        assert spiking.shape[0] == steps
        torch.testing.assert_close(spiking.mean(0), answers[0], atol=1e-4, rtol=1e-4)
        errors.append((answers[0] - expected).abs().mean().item())
    assert errors[1] < errors[0] / 4


def test_the_threshold_is_the_largest_activation_over_t():
    net = network()
    first = net[0]
    z = nn.functional.conv2d(pulse()[0], first.synapse.weight, first.synapse.bias, padding=1)
    peak = nn.functional.batch_norm(z, first.synapse.norm.running_mean, first.synapse.norm.running_var).max().item()
    weight = net[1].synapse.weight.clone()
    found = rule(net)
    found.replace()
    assert found.thresholds == [pytest.approx(peak / T, rel=1e-5)]
    assert first.neuron.neuron.threshold == found.thresholds[0]
    torch.testing.assert_close(net[1].synapse.weight, weight * found.thresholds[0])


def test_replaced_layers_are_frozen_and_the_others_train():
    net = network().train()
    found = rule(net)
    found.replace()
    net(pulse()).square().sum().backward()
    assert all(p.grad is None for p in net[0].parameters())
    assert all(p.grad is not None for p in net[1].parameters())
    mean = net[0].synapse.norm.running_mean.clone()
    net(pulse())
    assert torch.equal(net[0].synapse.norm.running_mean, mean)


def test_a_layer_is_replaced_when_patience_ends_or_its_time_has_come():
    found = rule(network(), patience=2)
    counts = []
    for epoch, score in enumerate([0.0, 0.5, 0.5, 0.5, 0.6, 0.7, 0.8, 0.8, 0.8, 0.8]):
        found.look(epoch, 30, score)
        counts.append(len(found.thresholds))
    assert counts == [1, 1, 1, 2, 2, 2, 2, 2, 3, 3]
    found = rule(network(), patience=100)
    for epoch in range(6):
        found.look(epoch, 6, epoch)
        counts.append(len(found.thresholds))
    assert counts[10:] == [1, 1, 2, 2, 3, 3]
