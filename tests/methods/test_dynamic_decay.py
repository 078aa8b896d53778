"""Dynamic decay neurons: the numbered faithfulness tests of the card, and the plugin on tasks."""

from __future__ import annotations

import math
import time
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from harness.loop import train
from harness.meters.spikes import SpikeMeter
from harness.plugin import UsageError
from harness.registry import Registries
from harness.runner import extrapolate, state_bytes
from methods.dynamic_decay import DynamicDecayMethod
from methods.nn.dynamic_decay import DynamicDecay
from methods.nn.psn import PSN
from methods.nn.rounded_spike import planes
from methods.nn.stepping import stepping
from methods.nn.watch import Watch
from suites.adding import Adding
from suites.static_vision import Digits

DOUBLE = torch.float64
SCANS = ["auto", "log_depth", "chunked"]


def neuron(channels=3, seed=1, **settings):
    torch.manual_seed(seed)
    return DynamicDecay(channels, **{"gate_bias": 1.0, **settings}).double()


def like(module, **settings):
    """Return the same neurons with other settings."""
    other = DynamicDecay(module.channels, **{"gate": module.gate, "taps": module.taps, "tau": module.tau, **settings})
    other.to(module.weight.dtype).load_state_dict(module.state_dict())
    return other


def currents(steps, *shape, seed=0, scale=2.0):
    return scale * torch.randn(steps, *(shape or (2, 3)), dtype=DOUBLE, generator=torch.Generator().manual_seed(seed))


def constant(alpha, tau=0.25, channels=2):
    """Return neurons whose decay is alpha at every step."""
    module = neuron(channels, tau=tau)
    with torch.no_grad():
        module.weight.zero_()
        module.bias.fill_(math.log(alpha**tau / (1 - alpha**tau)))
    return module


# 1
@pytest.mark.parametrize("backend", SCANS)
@pytest.mark.parametrize("gate", ["depthwise", "full"])
def test_scans_give_potentials_spikes_and_gradients_of_the_serial_loop(backend, gate):
    x = currents(300).requires_grad_()
    weights = currents(300, seed=4)
    serial = neuron(gate=gate, backend="reference")
    scanned = like(serial, backend=backend)
    assert torch.equal(scanned(x), serial(x))
    torch.testing.assert_close(scanned.potentials(x), serial.potentials(x), rtol=0, atol=1e-12)
    found, expected = (torch.autograd.grad((module(x) * weights).sum(), (x, module.weight, module.bias)) for module in (scanned, serial))
    torch.testing.assert_close(found[0], expected[0], rtol=0, atol=1e-12)
    for one, other in zip(found[1:], expected[1:], strict=True):  # sums over all steps
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("backend", SCANS)
def test_in_single_precision_potentials_of_2000_steps_agree_with_the_serial_loop(backend):
    x = currents(2000).float()
    serial = neuron(backend="reference").float()
    with torch.no_grad():
        torch.testing.assert_close(like(serial, backend=backend).potentials(x), serial.potentials(x), rtol=0, atol=1e-5)


# 2
@pytest.mark.parametrize("backend", [*SCANS, "reference"])
@pytest.mark.parametrize("gate", ["depthwise", "full"])
@pytest.mark.parametrize("cuts", [[1] * 17, [5, 12], [16, 1], [2, 1, 14]])
def test_single_steps_and_pieces_reproduce_the_parallel_run(backend, gate, cuts):
    module, x = neuron(gate=gate, backend=backend), currents(17)
    with stepping(module):
        pieces = torch.cat([module(part) for part in x.split(cuts)])
    assert torch.equal(pieces, module(x))
    assert 0 < pieces.mean() < 4


def test_the_state_is_the_last_inputs_and_the_potential():
    method = DynamicDecayMethod(Digits())
    features = [layer.channels for layer in method.build().modules() if isinstance(layer, DynamicDecay)]
    assert features == [24, 24, 48, 48]
    neurons = sum(width * side**2 for width, side in zip(features, (8, 8, 4, 4), strict=True))
    assert state_bytes(method, method.build().eval()) == 4 * 4 * neurons


# 3
@pytest.mark.parametrize("backend", SCANS)
@pytest.mark.parametrize("gate", ["depthwise", "full"])
def test_later_inputs_do_not_change_earlier_potentials(backend, gate):
    module, x = neuron(gate=gate, backend=backend), currents(40)
    changed = x.clone()
    changed[20:] += 1
    before, after = module.potentials(x), module.potentials(changed)
    torch.testing.assert_close(after[:20], before[:20], rtol=0, atol=1e-14)
    assert (after[20] != before[20]).all()


def test_no_parameter_depends_on_the_number_of_steps():
    shapes = [{name: p.shape for name, p in DynamicDecayMethod(Digits(), steps=steps).build().named_parameters()} for steps in (1, 9)]
    assert shapes[0] == shapes[1]


# 4
@pytest.mark.parametrize("backend", SCANS)
def test_potentials_never_exceed_the_largest_input_so_far(backend):
    module, x = neuron(backend=backend, gate_bias=3.0), currents(5000)
    largest = x.abs().cummax(0).values
    with torch.no_grad():
        h = module.potentials(x)
    assert (h.abs() <= largest * (1 + 1e-12)).all()
    assert h.abs().max() > 0.1 * largest.max()


# 5
def test_potentials_are_no_linear_function_of_inputs():
    module, u, v = neuron(), currents(30), currents(30, seed=1)
    assert (module.potentials(u + v) - module.potentials(u) - module.potentials(v)).abs().max() > 0.1


def test_with_weights_of_zero_potentials_are_linear_in_inputs():
    module, u, v = constant(0.6, channels=3), currents(30), currents(30, seed=1)
    torch.testing.assert_close(module.potentials(u + v), module.potentials(u) + module.potentials(v), rtol=0, atol=1e-12)


# 6
def test_a_closed_gate_forgets_all_at_once():
    module, x = neuron(gate_bias=-60.0), currents(20)
    torch.testing.assert_close(module.potentials(x), x, rtol=0, atol=1e-20)


def test_a_constant_decay_is_the_exponential_moving_average():
    alpha, x = 0.7, currents(25, 1, 2)
    expected, h = [], torch.zeros(1, 2, dtype=DOUBLE)
    for now in x:
        h = alpha * h + (1 - alpha) * now
        expected.append(h)
    torch.testing.assert_close(constant(alpha).potentials(x), torch.stack(expected), rtol=0, atol=1e-14)


@pytest.mark.parametrize("alpha", [0.3, 0.9, 0.99])
def test_a_large_potential_falls_below_threshold_after_the_steps_of_the_formula(alpha):
    start, later, threshold = 50.0, 0.2, 0.5
    x = torch.full((1000, 1, 2), later, dtype=DOUBLE)
    x[0] = start / (1 - alpha)  # H[0] = 50
    h = constant(alpha).potentials(x)[:, 0, 0]
    assert h[0].item() == pytest.approx(start)
    expected = math.ceil(math.log((threshold - later) / (start - later)) / math.log(alpha))
    assert (h >= threshold).sum() == expected  # the step of the large input, and those until it is forgotten
    assert h[expected] < threshold <= h[expected - 1]


# 7
@pytest.mark.parametrize("levels", [1, 4])
def test_a_linear_layer_on_integers_is_its_sum_over_binary_planes(levels):
    spikes = neuron(levels=levels)(currents(30, scale=6.0))
    assert set(spikes.unique().tolist()) == set(map(float, range(levels + 1)))
    found = planes(spikes, levels)
    assert ((found == 0) | (found == 1)).all()
    weight, bias = currents(5, 3), currents(5)[:, 0, 0]
    torch.testing.assert_close(F.linear(spikes, weight, bias), F.linear(found, weight).sum(0) + bias, rtol=0, atol=1e-13)


def test_a_convolution_of_integers_is_its_sum_over_binary_planes():
    spikes = neuron()(currents(4, 2, 3, 6, 6, scale=6.0)).flatten(0, 1)
    kernel = torch.randn(5, 3, 3, 3, dtype=DOUBLE, generator=torch.Generator().manual_seed(0))
    summed = sum(F.conv2d(plane, kernel, padding=1) for plane in planes(spikes, 4))
    torch.testing.assert_close(F.conv2d(spikes, kernel, padding=1), summed, rtol=0, atol=1e-12)


# 8
@pytest.mark.parametrize("backend", SCANS)
def test_long_sequences_in_single_precision_give_numbers_where_dividing_by_products_does_not(backend):
    x = currents(2000).float().requires_grad_()
    module = neuron(backend=backend, gate_bias=0.0).float()
    h = module.potentials(x)
    gradients = torch.autograd.grad(module(x).sum() + h.sum(), (x, module.weight, module.bias))
    assert all(part.isfinite().all() for part in (h, *gradients))
    product = module.decay(x.detach()).cumprod(0)
    assert not (product * (x * (1 - module.decay(x.detach())) / product).cumsum(0)).isfinite().all()


@pytest.mark.parametrize("gate", ["depthwise", "full"])
def test_32k_steps_run_and_train(gate):
    module, x = neuron(gate=gate).float(), currents(32_768, 1, 3).float().requires_grad_()
    module(x).mean().backward()
    assert x.grad.isfinite().all()
    assert (x.grad[-1] != 0).any()


@pytest.mark.parametrize("backend", ["auto", "log_depth"])
def test_it_is_faster_than_psn_at_2048_steps(backend):
    def seconds(module):
        x = torch.randn(2048, 1, 128, requires_grad=True)
        begin = time.perf_counter()
        module(x).sum().backward()
        return time.perf_counter() - begin

    fast, slow = DynamicDecay(128, backend=backend), PSN(2048)
    pairs = [(seconds(fast), seconds(slow)) for _ in range(4)]
    assert min(mine for mine, _ in pairs) < min(theirs for _, theirs in pairs)


# The plugin


@pytest.mark.parametrize("options", [{}, {"levels": 1, "surrogate": "arctan"}, {"gate": "full", "tau": 1.0}, {"backend": "log_depth"}])
def test_the_plugin_trains_a_short_while_and_reports(options):
    torch.manual_seed(0)
    task = Digits()
    task.budget = replace(task.budget, train_samples=192)
    method = DynamicDecayMethod(task, options, training={"epochs": 2, "batch_size": 64})
    net = method.build()
    traces = train(method, net, seed=0).traces
    assert traces[-1].loss < traces[0].loss
    report = method.report(net)
    levels = options.get("levels", 4)
    assert (report["levels"], report["steps"], report["virtual_steps"]) == (levels, 4, 4 * levels)
    x = method.encode(next(method.task.batches("test", 64)).inputs)
    with Watch([layer for layer in net.modules() if isinstance(layer, DynamicDecay)]) as seen, torch.no_grad():
        net.eval()(x)
    means = [spikes.double().mean().item() for spikes in seen.outputs]
    assert report["layers"]["spike_mean"] == pytest.approx(means)
    assert report["layers"]["rate"] == pytest.approx([each / levels for each in means])
    total = sum(spikes.double().sum().item() for spikes in seen.outputs) / sum(spikes.numel() for spikes in seen.outputs)
    assert (report["spike_mean"], report["rate"]) == pytest.approx((total, total / levels))
    layers = [(24, 64), (24, 64), (48, 16), (48, 16)]  # channels and places
    per_step = [5 + (4 * width if options.get("gate") == "full" else 4) - 2 * (options.get("tau") == 1.0) for width, _ in layers]
    expected = 4 * sum(width * places * each for (width, places), each in zip(layers, per_step, strict=True))
    assert (report["neuron_macs"], report["neuron_macs_lif"]) == (expected, 4 * sum(width * places for width, places in layers))
    assert report["neuron_energy"] == pytest.approx(expected * 4.6e-12)
    assert sum(report["neuron_backends"].values()) == 4
    assert all(0 < each < 1 for each in report["layers"]["decay"])


def test_binary_neurons_are_counted_as_binary_and_integer_ones_as_graded():
    for levels, kind in ((1, "binary"), (4, "graded")):
        method = DynamicDecayMethod(Digits(), {"levels": levels})
        net = method.build().eval()
        assert {layer.spike_kind for layer in net.modules() if isinstance(layer, DynamicDecay)} == {kind}
        x = method.encode(next(method.task.batches("test", 8)).inputs)
        with SpikeMeter(net) as meter, torch.no_grad():
            net(x)
        count = meter.result(8)
        assert count.offenders == ()
        if levels == 1:
            assert method.report(net)["rate"] > 0
            assert count.firing_rate > 0


@pytest.mark.parametrize("options", [{}, {"gate": "full"}, {"backend": "log_depth"}, {"levels": 1}])
@pytest.mark.parametrize("name", ["sequences/digits-pixels", "static/digits"])
def test_a_network_answers_step_by_step_as_in_parallel(options, name):
    torch.manual_seed(0)
    method = DynamicDecayMethod(Registries().task(name), options)
    net = method.build().double().eval()
    x = method.encode(next(method.task.batches("test", 1)).inputs.double())
    with torch.no_grad(), stepping(net):
        serial = torch.cat([net(x[t : t + 1]) for t in range(len(x))])
    with torch.no_grad():
        torch.testing.assert_close(serial, net(x), rtol=0, atol=1e-10)


def test_a_network_trained_at_one_length_is_evaluated_at_up_to_fifteen_times_it():
    torch.manual_seed(0)
    task = Adding(options={"length": 20})
    task.budget = replace(task.budget, train_samples=64, validation_samples=16, test_samples=16)
    method = DynamicDecayMethod(task, {"tau": 1.0}, training={"epochs": 1, "batch_size": 32})
    net = method.build()
    train(method, net, seed=0)
    found = extrapolate(method, net.eval())
    assert set(found) == {"length x2", "length x4", "length x8", "length x15"}
    assert all(isinstance(value, float) and math.isfinite(value) for value in found.values())


def test_integer_spikes_have_no_arctan():
    with pytest.raises(UsageError, match="surrogate=arctan is for levels=1, not levels=4; allowed: rect"):
        DynamicDecayMethod(Digits(), {"surrogate": "arctan"})


def test_the_recipe_is_that_of_the_host_networks():
    find = Registries().task
    sequence = DynamicDecayMethod(find("sequences/scifar10", "paper"), track="recipe").training
    assert (sequence.optimizer, sequence.lr, sequence.epochs, sequence.batch_size) == ("sgd", 0.1, 256, 128)
    assert (sequence.label_smoothing, sequence.schedule, sequence.augment) == (0.1, "cosine", True)
    events = DynamicDecayMethod(find("events/cifar10-dvs", "paper"), track="recipe")
    assert (events.training.epochs, events.training.batch_size) == (200, 32)
    images = DynamicDecayMethod(find("static/imagenet", "paper"), track="recipe")
    assert (images.training.epochs, images.steps) == (320, 4)
    text = DynamicDecayMethod(find("sequences/wikitext2", "paper"), track="recipe")
    assert text.training == text.task.budget.training
