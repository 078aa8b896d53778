"""The ReLU network behind a spiking one."""

import pytest
import torch
from torch import nn

from methods.nn.conversion import Amplitude, integrate_and_fire
from methods.nn.event_layer import EventLayer, EventLinear
from methods.nn.layer import Layer
from methods.nn.neuron import LIF
from methods.nn.norm import BatchNorm
from methods.nn.relu_twin import relu_twin

DOUBLE = torch.float64


def test_rates_of_integrate_and_fire_neurons_converge_to_the_twin():
    torch.manual_seed(0)
    net = nn.Sequential(
        Layer(nn.Linear(6, 9), nn.Identity(), nn.Sequential(integrate_and_fire(1.7), Amplitude(1.7))),
        Layer(nn.Linear(9, 7), BatchNorm(7), integrate_and_fire(2.3)),
        nn.Linear(7, 3),
    )
    net = net.to(DOUBLE).eval()
    x = 0.3 * torch.randn(20, 6, dtype=DOUBLE)
    with torch.no_grad():
        wanted = relu_twin(net)(x[None])[0]
        errors = [(net(x.expand(steps, -1, -1)).mean(0) - wanted).abs().max().item() for steps in (50, 5000)]
    assert errors[1] < 1e-3 < errors[0]


def test_the_network_is_left_as_it_is():
    net = nn.Sequential(nn.Linear(4, 4), LIF())
    before = net[0].weight.clone()
    twin = relu_twin(net)
    nn.init.zeros_(twin[0].weight)
    assert torch.equal(net[0].weight, before)
    assert isinstance(net[1], LIF)
    assert not any(getattr(module, "spike_kind", "none") != "none" for module in twin.modules())


@pytest.mark.parametrize("channels", [3, (3, 2, 2)])
def test_learnt_thresholds_divide_their_own_channel_or_neuron(channels):
    neuron = LIF(threshold=1.0, learn=("threshold",), channels=channels)
    with torch.no_grad():
        neuron.threshold.uniform_(0.5, 2.0)
    x = torch.randn(2, 5, 3, 2, 2)
    found = relu_twin(nn.Sequential(neuron))(x)
    spread = neuron.threshold if isinstance(channels, tuple) else neuron.threshold[:, None, None]
    assert torch.equal(found, x.clamp_min(0) / spread)


def test_neurons_of_spike_times_have_no_twin():
    class Times(EventLayer):
        def respond(self, times):
            return times

    with pytest.raises(ValueError, match="spike times"):
        relu_twin(nn.Sequential(Times(EventLinear(2, 2))))
