"""Burst neurons: conservation of charge, rates, scales, and the compiled form of the loop."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from methods.nn import burst
from methods.nn.burst import BurstNeuron, absorb
from methods.nn.layer import Layer
from methods.nn.stepping import stepping
from methods.nn.synapse import Conv2d
from methods.nn.wiring import trace

DOUBLE = torch.float64

# Card, test 3


@pytest.mark.parametrize("gamma", [1, 2, 5])
def test_spikes_and_what_is_left_are_the_charge_that_came(gamma):
    torch.manual_seed(0)
    neuron, current = BurstNeuron(gamma), torch.randn(50, 4, 30, dtype=DOUBLE) * 2
    with stepping(neuron):
        spikes = neuron(current)
        (m,) = neuron.carried()
    torch.testing.assert_close(spikes.sum(0) + m, current.sum(0), atol=1e-12, rtol=0)
    assert set(spikes.unique().tolist()) == set(range(gamma + 1))


@pytest.mark.parametrize("gamma", [1, 2, 5])
@pytest.mark.parametrize("steps", [1, 7, 100])
def test_the_rate_is_the_clamped_current_up_to_one_spike(gamma, steps):
    a = torch.arange(-1, 7, 1 / 97, dtype=DOUBLE)
    rate = BurstNeuron(gamma)(a.expand(steps, 1, -1)).mean(0)[0]
    assert (rate - a.clamp(0, gamma)).abs().max() <= 1 / steps + 1e-12


@pytest.mark.parametrize(("gamma", "needed"), [(1, 5), (2, 3), (5, 1)])
def test_five_units_of_charge_leave_at_once_with_gamma_5(gamma, needed):
    current = torch.zeros(8, 1, 1)
    current[0] = 5
    spikes = BurstNeuron(gamma)(current).flatten()
    assert spikes.sum() == 5
    assert spikes.nonzero().max() == needed - 1


# Scales


def test_a_scale_per_channel_divides_before_and_multiplies_after():
    torch.manual_seed(0)
    scale, current = torch.tensor([0.5, 2.0, 3.0]), torch.randn(20, 2, 3, 4, 4) * 3
    found = BurstNeuron(scale=scale)(current)
    plain = BurstNeuron()(current / scale.view(3, 1, 1))
    assert torch.equal(found, plain * scale.view(3, 1, 1))
    neuron = BurstNeuron(scale=scale)
    assert torch.equal(neuron.units(found), plain)


def test_absorbed_scales_leave_the_answers_and_make_spikes_whole_numbers():
    torch.manual_seed(0)
    layers = [Layer(Conv2d(1, 4, 3), nn.Identity(), BurstNeuron(scale=torch.rand(4) + 0.3))]
    layers += [Layer(Conv2d(4, 5, 3), nn.Identity(), BurstNeuron(scale=0.7, allowance=3))]
    net = nn.Sequential(*layers, nn.Flatten(2), nn.Linear(5 * 16, 3)).to(DOUBLE)
    x = torch.randn(1, 2, 1, 8, 8, dtype=DOUBLE).expand(12, -1, -1, -1, -1)
    with torch.no_grad():
        before, spikes = net(x), net[:2](x)
        absorbed = copy.deepcopy(net)
        connections = trace(absorbed, x[:1])
        absorb(connections, {c.layer: c.layer.neuron.scale for c in connections if c.layer is not None})
        torch.testing.assert_close(absorbed(x), before, atol=1e-10, rtol=0)
        whole = absorbed[:2](x)
    assert torch.equal(whole, whole.round())
    assert not torch.equal(spikes, spikes.round())


# Backends, state, errors


@pytest.mark.parametrize("allowance", [0, 1.5])
def test_the_compiled_blocks_are_the_loop(monkeypatch, allowance):
    torch.manual_seed(0)
    monkeypatch.setattr(burst, "BLOCK", 256)
    current = (
        torch.randn(2 * 4, 5, 9, 9).contiguous(memory_format=torch.channels_last).unflatten(0, (2, 4))
    )  # 1620 neurons: 6 blocks and a bit
    plain, fast = (BurstNeuron(5, allowance, backend=backend) for backend in ("reference", "compiled"))
    with stepping(plain), stepping(fast), torch.no_grad():
        for _ in range(3):
            assert torch.equal(plain(current), fast(current))
        for one, other in zip(plain.carried(), fast.carried(), strict=True):
            assert torch.equal(one, other)
    assert (plain.used, fast.used) == ("reference", "compiled")


def test_auto_compiles_long_calls_only(monkeypatch):
    neuron = BurstNeuron()
    neuron(torch.rand(2, 1, 10))
    assert neuron.used == "reference"
    monkeypatch.setattr(burst, "WORTH", 20)
    monkeypatch.setattr(burst, "BLOCK", 256)
    neuron(torch.rand(2, 1, 10))
    assert neuron.used == "compiled"


@pytest.mark.parametrize("allowance", [0, 2])
def test_single_steps_are_the_whole_run(allowance):
    torch.manual_seed(0)
    neuron, current = BurstNeuron(2, allowance, scale=0.5), torch.randn(30, 3, 4)
    with stepping(neuron):
        singly = torch.cat([neuron(now[None]) for now in current])
    assert torch.equal(singly, neuron(current))


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"gamma": 0}, "1 or more, not 0"), ({"scale": -1.0}, "above 0, not -1"), ({"mode": "book"}, "reference, ledger")],
)
def test_settings_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        BurstNeuron(**settings)
