import pytest
import torch
from torch import nn

from harness.meters.spikes import SpikeMeter
from harness.meters.synops import SynopsMeter
from methods.nn.event_layer import EventConv2d, EventLayer, EventLinear, MergePool2d
from methods.nn.spike_times import SILENT


class Delayed(EventLayer):
    """Neurons that repeat the first neuron's train, later: as many spikes out as are easily counted."""

    def respond(self, times):
        features = self.synapse.weight.shape[0]
        if isinstance(self.synapse, nn.Linear):
            return times[:, :1].expand(-1, features, -1) + 0.1
        height, width = (times.shape[2] - 2, times.shape[3] - 2)
        return times[:, :1, :height, :width].expand(-1, features, -1, -1, -1) + 0.1


def trains(*shape):
    torch.manual_seed(0)
    times = torch.rand(shape)
    return torch.where(times < 0.6, times, SILENT).sort(-1).values


def test_meters_find_every_spike_and_every_operation_once():
    net, times = Delayed(EventLinear(6, 5)).eval(), trains(4, 6, 3)
    with SpikeMeter(net) as spikes, SynopsMeter(net) as synops:
        output = net(times)
    fired = int(output.isfinite().sum())
    assert fired > 0
    assert spikes.result(4).spikes_per_sample == fired / 4
    assert not spikes.result(4).offenders
    assert synops.result(4).effective == int(times.isfinite().sum()) * 5 / 4
    assert synops.result(4).ac == synops.result(4).effective
    assert synops.result(4).dense == 3 * 6 * 5


def test_operations_of_a_convolution_are_exact_at_borders():
    net, times = Delayed(EventConv2d(2, 3, 3)).eval(), trains(2, 2, 5, 4, 2)
    with SpikeMeter(net) as spikes, SynopsMeter(net) as synops:
        output = net(times)
    patches = times.isfinite().unfold(2, 3, 1).unfold(3, 3, 1)
    assert synops.result(2).effective == int(patches.sum()) * 3 / 2
    assert spikes.result(2).spikes_per_sample == int(output.isfinite().sum()) / 2


def test_nothing_is_shown_while_training():
    net = Delayed(EventLinear(6, 5)).train()
    with SpikeMeter(net) as spikes:
        net(trains(4, 6, 3))
    assert not spikes.result(4).layers


def test_a_readout_of_potentials_emits_no_spikes():
    net = Delayed(EventLinear(6, 5)).eval()
    net.spiking = False
    with SpikeMeter(net) as spikes:
        net(trains(4, 6, 3))
    assert not spikes.result(4).layers


def test_pooling_merges_the_trains_of_a_window_and_leaves_out_a_border():
    times = trains(2, 3, 5, 4, 2)
    found = MergePool2d(2)(times)
    assert found.shape == (2, 3, 2, 2, 8)
    for row, column in ((0, 0), (1, 1), (0, 1)):
        window = times[1, 2, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2].flatten()
        assert torch.equal(found[1, 2, row, column], window.sort().values)


@pytest.mark.parametrize("synapse", [EventLinear(6, 5), EventConv2d(2, 3, 3)])
def test_synapses_compute_nothing(synapse):
    shape = (2, 4, 6) if isinstance(synapse, nn.Linear) else (2, 4, 2, 5, 4)
    assert synapse(torch.ones(shape)).untyped_storage().nbytes() == 4
    assert synapse.bias is None
