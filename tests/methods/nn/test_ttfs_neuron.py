"""Neurons of one spike: card, tests 1, 3, 4, 5, and the windows that layers listen and fire in."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from methods.nn.earliest_pool import EarliestPool2d
from methods.nn.layer import Layer
from methods.nn.stepping import stepping
from methods.nn.synapse import AvgPool2d, Conv2d
from methods.nn.time_code import TimeCode
from methods.nn.ttfs_conversion import gather_biases, place
from methods.nn.ttfs_neuron import PixelCode, TtfsNeuron, set_mode
from methods.nn.ttfs_readout import TtfsReadout

DOUBLE = torch.float64
CODE = TimeCode(12, 2.0)


def neuron(code: TimeCode = CODE, mode: str = "spikes") -> TtfsNeuron:
    found = TtfsNeuron(code)
    set_mode(found, mode)
    return found


def fired(u: Tensor, code: TimeCode) -> Tensor:
    """Spikes ``[2T, ...]`` of neurons that are charged to ``u`` in the first step of the window that they hear."""
    current = torch.zeros(2 * code.levels, *u.shape, dtype=u.dtype)
    current[0] = u
    return neuron(code)(current)


def mlp(code: TimeCode) -> nn.Sequential:
    """Pixels, two layers and a read-out: three weight layers with biases, float64."""
    torch.manual_seed(3)
    layers = [Layer(nn.Linear(i, o), nn.Identity(), TtfsNeuron(code)) for i, o in ((20, 40), (40, 30))]
    with torch.no_grad():
        for layer in layers:
            layer.synapse.weight.mul_(2)
    return nn.Sequential(PixelCode(code, 20), *layers, TtfsReadout(nn.Linear(30, 8), code)).to(DOUBLE)


def simulate(net: nn.Module, x: Tensor, steps: int, chunk: int) -> Tensor:
    """Answers ``[steps, B, ...]`` of the clocked network to ``x [B, ...]``, ``chunk`` steps in a call."""
    set_mode(net, "spikes")
    with torch.no_grad(), stepping(net):
        return torch.cat([net(part) for part in x.expand(steps, *x.shape).split(chunk)])


# Card, test 1
@pytest.mark.parametrize("code", [TimeCode(24, 4.0), CODE, TimeCode(6, 1.0), TimeCode(1, 1.0)])
def test_the_clocked_network_equals_the_network_with_phi_and_not_the_one_with_the_clip(code):
    net, x = mlp(code), torch.rand(16, 20, dtype=DOUBLE)
    windows = place(net, x[None])
    gather_biases(net, x[None])
    found = simulate(net, x, windows * code.levels, code.levels)[-1]
    set_mode(net, "code")
    with torch.no_grad():
        torch.testing.assert_close(found, net(x[None])[0], atol=1e-12, rtol=0)
        set_mode(net, "clip")
        assert (found - net(x[None])[0]).abs().max() > 1e-3
    assert windows == 3


def test_moving_biases_into_neurons_changes_no_answer():
    net, x = mlp(CODE), torch.rand(4, 20, dtype=DOUBLE)
    set_mode(net, "code")
    with torch.no_grad():
        before = net(x[None])
        gather_biases(net, x[None])
        torch.testing.assert_close(net(x[None]), before, atol=1e-12, rtol=0)
    assert all(layer.synapse.bias is None for layer in net[1:])


@pytest.mark.parametrize("chunk", [1, 5, 36])
def test_any_number_of_steps_in_a_call_gives_the_same_answers(chunk):
    net, x = mlp(CODE), torch.rand(4, 20, dtype=DOUBLE)
    place(net, x[None])
    gather_biases(net, x[None])
    assert torch.equal(simulate(net, x, 36, chunk), simulate(net, x, 36, 12))


def test_layers_fire_in_their_windows_only():
    net, x = mlp(CODE), torch.rand(4, 20, dtype=DOUBLE)
    place(net, x[None])
    gather_biases(net, x[None])
    set_mode(net, "spikes")
    seen = []
    for part in net.modules():
        if isinstance(part, TtfsNeuron):
            part.register_forward_hook(lambda module, args, out: seen.append(out.sum((1, 2))))
    with torch.no_grad():
        net(x.expand(36, *x.shape))
    for window, counts in enumerate(seen):
        per_window = counts.view(3, 12).sum(1)
        assert per_window[window] > 0 and per_window.sum() == per_window[window]


def test_the_answer_is_the_bias_until_the_last_layer_fires():
    net, x = mlp(CODE), torch.rand(4, 20, dtype=DOUBLE)
    place(net, x[None])
    gather_biases(net, x[None])
    found = simulate(net, x, 36, 12)
    assert torch.equal(found[:24], net[-1].bias.detach().expand(24, 4, 8))
    assert not torch.equal(found[-1], found[0])


# Card, test 3
@pytest.mark.parametrize("mode", ["clip", "code"])
def test_gradients_pass_between_zero_and_the_threshold_only(mode):
    u = torch.tensor([-0.3, 0.2, 0.9, 1.4]).view(1, 1, 4).requires_grad_()
    neuron(mode=mode)(u).sum().backward()
    assert u.grad.flatten().tolist() == [0, 1, 1, 0]


def test_each_mode_is_its_function():
    u = torch.linspace(-1, 2, 61).view(1, 1, -1)
    assert torch.equal(neuron(mode="relu")(u), F.relu(u))
    assert torch.equal(neuron(mode="clip")(u), u.clamp(0, 1))
    assert torch.equal(neuron(mode="code")(u), CODE.phi(u))
    with pytest.raises(ValueError, match="allowed: relu, clip, code, spikes"):
        set_mode(neuron(), "rate")


# Card, test 4
@pytest.mark.parametrize("code", [TimeCode(24, 4.0), CODE, TimeCode(6, 1.0)])
def test_a_neuron_fires_once_at_most_and_its_spike_decodes_to_phi(code):
    torch.manual_seed(4)
    u = torch.cat([torch.randn(2000, dtype=DOUBLE), code.kernel(torch.empty(0, dtype=DOUBLE))]).view(1, -1)
    spikes = fired(u, code)
    assert spikes.sum(0).max() == 1 and spikes.sum(0).min() == 0
    assert not spikes[: code.levels].any()
    decoded = (spikes[code.levels :] * code.kernel(u).view(-1, 1, 1)).sum(0)
    assert torch.equal(decoded, code.phi(u))


def test_a_firing_membrane_hears_nothing():
    current = torch.zeros(24, 1, 1)
    current[0] = 0.3
    with_noise = current.clone()
    with_noise[12:] = 5.0
    assert torch.equal(neuron()(current), neuron()(with_noise))


# Card, test 5
def test_pooling_the_earliest_spikes_is_pooling_values_and_phi_commutes_with_it():
    torch.manual_seed(5)
    u = torch.randn(3, 2, 8, 8, dtype=DOUBLE)
    pool = EarliestPool2d(2, CODE)
    set_mode(pool, "spikes")
    spikes = pool(fired(u, CODE)[CODE.levels :])
    assert spikes.sum(0).max() == 1
    decoded = (spikes * CODE.kernel(u).view(-1, 1, 1, 1, 1)).sum(0)
    assert torch.equal(decoded, F.max_pool2d(CODE.phi(u), 2))
    assert torch.equal(decoded, CODE.phi(F.max_pool2d(u, 2)))


@pytest.mark.parametrize("chunk", [1, 4])
def test_a_pooling_remembers_what_has_passed(chunk):
    torch.manual_seed(6)
    spikes = fired(torch.rand(2, 3, 4, 4), CODE)
    pool = EarliestPool2d(2, CODE)
    set_mode(pool, "spikes")
    with stepping(pool):
        parts = torch.cat([pool(part) for part in spikes.split(chunk)])
    assert torch.equal(parts, pool(spikes))


def test_average_pooling_after_phi_leaves_the_code_and_stands_before_the_next_one():
    u = torch.rand(1, 3, 2, 4, 4, dtype=DOUBLE)
    pooled = AvgPool2d(2)(CODE.phi(u))
    assert not torch.equal(CODE.phi(pooled), pooled)


def test_pixels_fire_what_they_are_in_the_first_window():
    torch.manual_seed(7)
    data = torch.randn(50, 2, 3, 3) * torch.tensor([1.0, 4.0]).view(2, 1, 1) + 2
    pixels = PixelCode(CODE, 2)
    pixels.measure(data)
    set_mode(pixels, "clip")
    raw = pixels(data[None])[0]
    assert raw.amin((0, 2, 3)).tolist() == [0, 0] and raw.amax((0, 2, 3)).tolist() == [1, 1]
    set_mode(pixels, "spikes")
    spikes = pixels(data.expand(24, *data.shape))
    assert not spikes[12:].any()
    assert torch.equal((spikes[:12] * CODE.kernel(data).view(-1, 1, 1, 1, 1)).sum(0), CODE.phi(raw))


class Fork(nn.Module):
    """A layer whose output is added to what two more make of it, before the last neurons and a read-out."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(8)
        self.pixels = PixelCode(CODE, 1)
        self.first = Layer(Conv2d(1, 4, 3, padding=1), nn.Identity(), TtfsNeuron(CODE))
        self.branch = Layer(Conv2d(4, 4, 3, padding=1), nn.Identity(), TtfsNeuron(CODE))
        self.second = Conv2d(4, 4, 3, padding=1)
        self.shortcut = Conv2d(4, 4, 1)
        self.last = TtfsNeuron(CODE)
        self.readout = TtfsReadout(Conv2d(4, 3, 1), CODE)

    def forward(self, x: Tensor) -> Tensor:
        first = self.first(self.pixels(x))
        return self.readout(self.last(self.second(self.branch(first)) + self.shortcut(first)))


def test_a_residual_sum_hears_several_windows_and_loses_nothing():
    net, x = Fork().to(DOUBLE), torch.rand(4, 1, 6, 6, dtype=DOUBLE)
    windows = place(net, x[None])
    assert [(part.opens, part.window) for part in (net.first.neuron, net.branch.neuron, net.last, net.readout)] == [
        (0, 1),
        (1, 2),
        (1, 3),
        (3, 4),
    ]
    set_mode(net, "code")
    with torch.no_grad():
        before = net(x[None])[0]
        gather_biases(net, x[None])
        found = simulate(net, x, windows * CODE.levels, CODE.levels)[-1]
    assert before.std() > 1e-3
    torch.testing.assert_close(found, before, atol=1e-12, rtol=0)


def test_a_network_without_read_out_is_refused():
    with pytest.raises(ValueError, match="no TtfsReadout"):
        place(nn.Sequential(TtfsNeuron(CODE)), torch.rand(1, 1, 3))


def test_an_image_that_is_repeated_is_pooled_once():
    image = torch.rand(1, 2, 3, 4, 4, requires_grad=True)
    pooled = AvgPool2d(2)(image.expand(5, -1, -1, -1, -1))
    assert pooled.stride(0) == 0
    torch.testing.assert_close(pooled, AvgPool2d(2)(image.repeat(5, 1, 1, 1, 1)))
    pooled.sum().backward()
    torch.testing.assert_close(image.grad, torch.full_like(image, 5 / 4))
