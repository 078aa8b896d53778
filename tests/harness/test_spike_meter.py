"""Spike counts against sums over the spikes themselves."""

import math

import pytest
import torch
from torch import Tensor, nn

from harness.meters import spikes
from harness.meters.spikes import SpikeMeter


class Threshold(nn.Module):
    """Fires where the current reaches 1."""

    spike_kind = "binary"

    def forward(self, current: Tensor) -> Tensor:
        return (current >= 1).to(current.dtype)


class Remembering(Threshold):
    """Goes on with a sequence in further calls until it is told to begin anew."""

    begun = None

    def carried(self):
        return self.begun

    def forward(self, current: Tensor) -> Tensor:
        self.begun = True
        return super().forward(current)


class Burst(nn.Module):
    """Emits up to three spikes at once, as one graded value."""

    spike_kind = "graded"

    def forward(self, current: Tensor) -> Tensor:
        return current.floor().clamp(0, 3)


class Broken(Threshold):
    """Promises binary spikes and returns whatever it gets."""

    def forward(self, current: Tensor) -> Tensor:
        return current


def count(net: nn.Module, *calls: Tensor, samples: int):
    with SpikeMeter(net) as meter:
        for x in calls:
            net(x)
    return meter.result(samples)


def test_spikes_per_sample_per_neuron_and_rate_are_those_of_the_tensor():
    x = torch.randn(4, 5, 3, 2, 2)
    fired = int((x >= 1).sum())
    found = count(nn.Sequential(Threshold()), x, samples=5)
    assert found.spikes_per_sample == fired / 5
    assert found.spikes_per_neuron == fired / 5 / 12
    assert found.firing_rate == fired / (4 * 5 * 12)
    layer = found.layers["0"]
    assert (layer.spikes, layer.elements, layer.neurons) == (fired, 240, 12)
    assert (layer.spikes_per_sample, layer.rate) == (fired / 5, fired / 240)
    assert found.offenders == ()


def test_layers_add_up_weighted_by_their_size():
    wide, narrow = nn.Linear(4, 30), nn.Linear(30, 2)
    nn.init.constant_(wide.weight, 1.0)
    nn.init.constant_(wide.bias, 1.0)
    nn.init.zeros_(narrow.weight)
    nn.init.zeros_(narrow.bias)
    found = count(nn.Sequential(wide, Threshold(), narrow, Threshold()), torch.ones(3, 7, 4), samples=7)
    assert [layer.spikes for layer in found.layers.values()] == [3 * 7 * 30, 0]
    assert found.spikes_per_sample == 90
    assert found.spikes_per_neuron == 90 / 32
    assert found.firing_rate == 30 / 32


def test_a_sequence_in_parts_counts_as_in_one_call():
    x = torch.randn(6, 4, 3)
    whole = count(nn.Sequential(Threshold()), x, samples=4)
    assert count(nn.Sequential(Remembering()), *x.split(1), samples=4) == whole
    assert whole.layers["0"].rates == (x >= 1).double().mean((1, 2)).tolist()


def test_rates_at_each_step_are_those_of_all_batches():
    x = torch.randn(6, 4, 3)
    found = count(nn.Sequential(Threshold()), *x.split(2, dim=1), samples=4)
    assert found.layers["0"].rates == pytest.approx((x >= 1).double().mean((1, 2)).tolist())


def test_spikes_at_each_step_add_up_over_layers():
    x = torch.randn(6, 4, 3)
    found = count(nn.Sequential(Threshold(), Threshold()), *x.split(2, dim=1), samples=4)
    assert found.curve == pytest.approx((2 * (x >= 1).sum((1, 2)) / 4).tolist())


def test_rates_of_long_sequences_are_not_kept_step_by_step():
    found = count(nn.Sequential(Threshold()), torch.ones(257, 1, 2), samples=1)
    assert found.layers["0"].rates is None and found.curve is None


def test_zeros_of_activations_that_do_not_spike_count_as_sparsity():
    relu = nn.ReLU()
    relu.spike_kind = "none"
    found = count(nn.Sequential(relu), torch.tensor([[[1.0, -1.0, -2.0, 3.0]]]), samples=1)
    assert found.activation_sparsity == 0.5 and found.layers == {} and found.updates_per_sample == 0


def test_every_neuron_is_updated_at_every_step_that_runs():
    assert count(nn.Sequential(Threshold()), torch.ones(6, 4, 3), samples=4).updates_per_sample == 6 * 3


def test_batches_of_any_size_count_as_one():
    net, x = nn.Sequential(Threshold()), torch.randn(6, 5, 3)
    assert count(net, x[:, :3], x[:, 3:], samples=5) == count(net, x, samples=5)


def test_samples_that_left_early_are_counted_for_the_steps_they_ran():
    net, x = nn.Sequential(Threshold()), torch.full((4, 10, 3), 2.0)
    found = count(net, x[:2], x[2:, :4], samples=10)
    assert found.spikes_per_sample == (2 * 10 + 2 * 4) * 3 / 10
    assert found.firing_rate == 1
    assert found.layers["0"].neurons == 3


def test_a_graded_value_is_one_spike():
    x = torch.tensor([0.5, 1.2, 2.9, 7.0]).view(1, 1, 4)
    found = count(nn.Sequential(Burst()), x, samples=1)
    assert found.spikes_per_sample == 3
    assert found.offenders == ()


@pytest.mark.parametrize("value", [0.5, 2.0, -1.0, math.nan, math.inf])
def test_a_binary_module_that_returns_something_else_is_named(value):
    x = torch.zeros(2, 3, 4)
    x[1, 2, 3] = value
    net = nn.ModuleDict({"good": Threshold(), "bad": Broken()})
    with SpikeMeter(net) as meter:
        net["bad"](x)
        net["bad"](torch.zeros(2, 3, 4))  # a later good call does not clear it
        net["good"](x.nan_to_num())
    assert meter.result(3).offenders == ("bad",)


def test_modules_that_did_not_run_and_empty_sequences_are_absent():
    net = nn.ModuleDict({"ran": Threshold(), "idle": Threshold(), "empty": Threshold()})
    with SpikeMeter(net) as meter:
        net["ran"](torch.ones(1, 2, 3))
        net["empty"](torch.ones(0, 2, 3))
    assert list(meter.result(2).layers) == ["ran"]


def test_a_network_without_spikes_counts_zero():
    found = count(nn.Sequential(nn.Linear(3, 3), nn.ReLU()), torch.ones(2, 4, 3), samples=4)
    assert (found.spikes_per_sample, found.spikes_per_neuron, found.firing_rate, found.layers) == (0, 0, 0, {})


def test_a_module_shared_between_feature_maps_has_the_neurons_of_both():
    net = nn.Sequential(Threshold())
    found = count(net, torch.ones(2, 3, 1, 4, 4), torch.ones(2, 3, 1, 2, 2), samples=3)
    assert found.layers["0"].neurons == 16 + 4
    assert found.spikes_per_neuron == 2


def test_counts_stay_exact_beyond_what_single_precision_can_hold():
    net, x = nn.Sequential(Threshold()), torch.ones(1, 1, 2**24 + 1)
    assert count(net, x, samples=1).layers["0"].spikes == 2**24 + 1


def test_nothing_is_counted_after_the_context():
    net = nn.Sequential(Threshold())
    with SpikeMeter(net) as meter:
        net(torch.ones(1, 1, 2))
    net(torch.ones(1, 1, 2))
    assert meter.result(1).spikes_per_sample == 2


def test_a_spiking_module_must_return_a_tensor():
    class Pair(Threshold):
        def forward(self, current):
            return current, current

    with pytest.raises(TypeError, match=r"'0' returned tuple"), SpikeMeter(net := nn.Sequential(Pair())):
        net(torch.ones(1, 1, 2))


def test_no_samples_is_an_error():
    with pytest.raises(ValueError, match="not 0"):
        SpikeMeter(nn.Sequential(Threshold())).result(0)


def test_after_the_checked_elements_spikes_are_added_up_to_the_same_counts(monkeypatch):
    x = torch.randn(6, 4, 3, 8, 8)
    whole = count(nn.Sequential(Threshold()), *x.split(1, dim=1), samples=4)
    monkeypatch.setattr(spikes, "CHECKED", 100)
    assert count(nn.Sequential(Threshold()), *x.split(1, dim=1), samples=4) == whole
    broken = torch.cat([torch.full((1, 1, 200), 0.5), torch.full((1, 1, 200), 2.0)], 1)
    found = count(nn.Sequential(Broken()), *broken.split(1, dim=1), samples=2)
    assert found.offenders == ("0",) and found.layers["0"].spikes == 400  # counted one by one, as they are not zeros and ones
