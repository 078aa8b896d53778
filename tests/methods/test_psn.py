"""Parallel spiking neurons: the numbered faithfulness tests of the card, and the plugin on a task."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from harness.loop import train
from harness.meters.memory import SavedTensors
from harness.plugin import UnfitError, UsageError
from harness.registry import Registries
from harness.task import Backbone, Data
from methods.nn.neuron import LIF
from methods.nn.psn import PSN, MaskedPSN, SlidingPSN
from methods.nn.running_mean import RunningMean
from methods.nn.stepping import stepping
from methods.nn.surrogate import Arctan
from methods.psn import Psn, mask_strength, parallel_neurons
from suites.static_vision import Digits


def currents(steps=12, *shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(steps, *(shape or (3, 5)), dtype=torch.float64, generator=generator)


def few_digits():
    """Digits with little training and a small network."""
    task = Digits()
    task.budget = replace(task.budget, train_samples=128, backbone=Backbone("conv", (4, 8)))
    return task


def masked(steps, order, lam):
    torch.manual_seed(1)
    neuron = MaskedPSN(steps, order).double()
    neuron.lam.fill_(lam)
    return neuron


def sliding(order, backend, seed=2, **kwargs):
    neuron = SlidingPSN(order, backend, **kwargs).double()
    with torch.no_grad():
        neuron.weight.copy_(torch.randn(order, generator=torch.Generator().manual_seed(seed)))
        neuron.bias.fill_(-0.3)
    return neuron


def one_step_at_a_time(neuron, x):
    with stepping(neuron):
        return torch.cat([neuron(x[t : t + 1]) for t in range(len(x))])


def potentials(kernel, bias, x):
    """H[t] = sum_i w[i] X[t - k + 1 + i] + b, written out."""
    order = len(kernel)
    rows = []
    for t in range(len(x)):
        terms = [kernel[i] * x[t - order + 1 + i] for i in range(order) if t - order + 1 + i >= 0]
        rows.append(sum(terms) + bias)
    return torch.stack(rows)


# 1
def test_with_the_weights_of_a_leaky_integrator_it_is_lif_without_reset():
    steps, leak = 16, 0.5
    neuron = PSN(steps).double()
    lag = torch.arange(steps)[:, None] - torch.arange(steps)
    with torch.no_grad():
        neuron.weight.copy_(torch.where(lag >= 0, (1 - leak) * leak ** lag.clamp_min(0).double(), 0))
    x = 2 * currents(steps, 4, 50)
    lif = LIF(leak, 1.0, "none", scale_input=True)
    spikes = neuron(x)
    assert torch.equal(spikes, lif(x))
    assert 0 < spikes.mean() < 1


# 2
def test_psn_uses_the_future():
    x = currents(6, 1).requires_grad_()
    torch.manual_seed(0)
    jacobian = torch.autograd.functional.jacobian(PSN(6).double().charge, x)[:, 0, :, 0]
    assert (jacobian.triu(1)[0, 1:] != 0).all()


def test_a_masked_psn_at_full_mask_sees_the_last_k_inputs_only():
    order = 3
    jacobian = torch.autograd.functional.jacobian(masked(8, order, 1.0).charge, currents(8, 1))[:, 0, :, 0]
    for t in range(8):
        for source in range(8):
            assert (jacobian[t, source] != 0) == (t - order < source <= t)


# 3
@pytest.mark.parametrize("lam", [0.0, 0.3, 1.0])
def test_the_matrix_of_a_masked_psn_is_the_stated_mixture(lam):
    steps, order = 7, 3
    neuron = masked(steps, order, lam)
    band = torch.tensor([[float(j <= i <= j + order - 1) for j in range(steps)] for i in range(steps)], dtype=torch.float64)
    lam = neuron.lam
    assert torch.equal(neuron.matrix(), (lam * band + (1 - lam) * torch.ones(steps, steps, dtype=torch.float64)) * neuron.weight)


def test_without_a_mask_it_is_a_psn_and_with_a_full_mask_the_band_alone():
    neuron, plain, x = masked(7, 3, 0.0), PSN(7).double(), currents(7)
    plain.load_state_dict({"weight": neuron.weight, "bias": neuron.bias})
    assert torch.equal(neuron.charge(x), plain.charge(x))
    neuron.lam.fill_(1.0)
    assert torch.equal(neuron.matrix(), neuron.weight.tril().triu(-2))


# 4
@pytest.mark.parametrize("order", [1, 3, 12])
@pytest.mark.parametrize("chunk", [1, 5])
def test_a_masked_psn_runs_step_by_step_as_in_parallel(order, chunk):
    neuron, x = masked(12, order, 1.0), 8 * currents(12, 3, 5)
    with stepping(neuron):
        serial = torch.cat([neuron(part) for part in x.split(chunk)])
    assert torch.equal(serial, neuron(x))
    assert 0 < serial.mean() < 1


@pytest.mark.parametrize("lam", [0.0, 0.99])
def test_a_masked_psn_refuses_to_step_while_it_uses_the_future(lam):
    neuron = masked(4, 2, lam)
    with stepping(neuron), pytest.raises(RuntimeError, match="lam"):
        neuron(currents(1))


def test_a_masked_psn_refuses_to_step_beyond_its_length():
    neuron, x = masked(4, 2, 1.0), currents(5)
    with stepping(neuron):
        for t in range(4):
            neuron(x[t : t + 1])
        with pytest.raises(RuntimeError, match="4 time steps"):
            neuron(x[4:])


# 5
@pytest.mark.parametrize("steps", [10, 25])
@pytest.mark.parametrize("order", [1, 4, 10])
def test_a_sliding_psn_gives_the_same_spikes_as_matrix_convolution_and_step_by_step(steps, order):
    x = currents(steps, 4, 6)
    gemm, conv = sliding(order, "gemm"), sliding(order, "conv")
    expected = (potentials(gemm.weight, gemm.bias, x) >= 0).double()
    assert torch.equal(gemm(x), expected)
    assert torch.equal(conv(x), expected)
    assert torch.equal(one_step_at_a_time(gemm, x), expected)
    assert torch.equal(one_step_at_a_time(conv, x), expected)


@pytest.mark.parametrize("features", [5, 48])
@pytest.mark.parametrize("order", [1, 7, 40])
@pytest.mark.parametrize("backend", ["gemm", "conv"])
def test_a_long_sequence_is_computed_in_pieces_with_the_same_potentials_and_gradients(backend, order, features):
    neuron, x = sliding(order, backend), currents(131, features).requires_grad_()
    weights = currents(131, features, seed=5)
    wanted = (x, neuron.weight, neuron.bias)
    expected = potentials(neuron.weight, neuron.bias, x)
    torch.testing.assert_close(neuron.charge(x), expected, rtol=0, atol=1e-12)
    found = torch.autograd.grad((neuron.charge(x) * weights).sum(), wanted)
    for a, b in zip(found, torch.autograd.grad((expected * weights).sum(), wanted), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-11)


@pytest.mark.parametrize("backend", ["gemm", "conv"])
def test_what_a_sliding_psn_saves_is_linear_in_the_number_of_steps(backend):
    saved = []
    for steps in (512, 1024, 2048):
        with SavedTensors() as meter:
            neuron = sliding(8, backend)
            held = neuron(currents(steps, 32).requires_grad_())
        saved.append(meter.peak)
        assert held.requires_grad
    assert saved[2] - saved[1] == pytest.approx(2 * (saved[1] - saved[0]), rel=0.01)
    assert saved[2] < 4 * 2048 * 32 * 8


@pytest.mark.parametrize("backend", ["gemm", "conv"])
def test_a_longer_run_of_a_sliding_psn_begins_like_a_shorter_one(backend):
    neuron, x = sliding(4, backend), currents(30)
    assert torch.equal(neuron(x)[:10], neuron(x[:10]))


# 6
@pytest.mark.parametrize("backend", ["gemm", "conv"])
def test_gradients_of_serial_and_parallel_sliding_psn_agree(backend):
    neuron, x = sliding(4, backend), currents(12).requires_grad_()
    weights = currents(12, seed=5)
    wanted = (x, neuron.weight, neuron.bias)
    parallel = torch.autograd.grad((neuron(x) * weights).sum(), wanted)
    serial = torch.autograd.grad((one_step_at_a_time(neuron, x) * weights).sum(), wanted)
    for a, b in zip(parallel, serial, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


def test_the_gradient_is_the_arctan_surrogate_through_the_linear_map():
    neuron, x = sliding(3, "gemm"), currents(6).requires_grad_()
    h = potentials(neuron.weight, neuron.bias, x)
    surrogate = (1 / (1 + (torch.pi * h) ** 2)).detach()
    expected = torch.autograd.grad((h * surrogate).sum(), (x, neuron.weight, neuron.bias))
    found = torch.autograd.grad(neuron(x).sum(), (x, neuron.weight, neuron.bias))
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


# 7
def test_thresholds_start_at_one_and_a_sliding_kernel_at_powers_of_a_half():
    for neuron in (PSN(5), MaskedPSN(5, 2), SlidingPSN(4)):
        assert (neuron.bias == -1).all()
    assert SlidingPSN(4).weight.tolist() == [0.125, 0.25, 0.5, 1.0]
    assert PSN(64).weight.abs().max() <= 64**-0.5  # Kaiming uniform with a = sqrt 5


# 8
def test_the_number_of_parameters_is_that_of_the_card():
    def count(module):
        return sum(p.numel() for p in module.parameters())

    assert (count(PSN(9)), count(MaskedPSN(9, 4)), count(SlidingPSN(4))) == (90, 90, 5)


def test_psn_refuses_to_step_and_refuses_another_length():
    neuron = PSN(4)
    with stepping(neuron), pytest.raises(RuntimeError, match="future"):
        neuron(torch.zeros(1, 2))
    with pytest.raises(ValueError, match="4 time steps, got 6"):
        neuron(torch.zeros(6, 2))


def test_the_mask_is_full_after_an_eighth_of_the_training():
    assert [mask_strength(epoch, 17) for epoch in range(17)] == [0.0, 0.5] + [1.0] * 15
    assert mask_strength(0, 1) == 1.0


@pytest.mark.parametrize("variant", ["psn", "masked", "sliding"])
def test_the_plugin_trains_a_short_while_and_reports(variant):
    torch.manual_seed(0)
    method = Psn(few_digits(), {"variant": variant, "order": 2}, training={"epochs": 2, "batch_size": 64})
    net = method.build()
    traces = train(method, net, seed=0).traces
    report = method.report(net)
    assert torch.isfinite(torch.tensor([trace.loss for trace in traces])).all()
    assert report["causal"] == (variant != "psn")
    assert report["neuron_parameters"] == [{"psn": 20, "masked": 20, "sliding": 3}[variant]] * 4
    assert report.get("lam") == (1.0 if variant == "masked" else None)
    assert report.get("serial_agreement", 1.0) == 1.0


@pytest.mark.parametrize(("variant", "optimizer", "lr"), [("psn", "sgd", 0.1), ("sliding", "adamw", 1e-3)])
def test_sliding_neurons_have_another_optimiser_on_sequences(variant, optimizer, lr):
    training = Psn(Registries().task("sequences/digits-pixels"), {"variant": variant}, track="recipe").training
    assert (training.optimizer, training.lr) == (optimizer, lr)


@pytest.mark.parametrize("variant", ["psn", "masked", "sliding", "lif", "plif", "lif_no_reset"])
def test_parameters_of_a_layer_by_the_number_of_steps(variant):
    method = Psn(Digits(), {"variant": variant, "order": 3})
    found = method.report(method.build())["neuron_parameters_at"]
    expected = {"psn": lambda t: t * t + t, "masked": lambda t: t * t + t, "sliding": lambda t: min(t, 3) + 1, "plif": lambda t: 1}
    assert found == {str(t): expected.get(variant, lambda t: 0)(t) for t in (2, 4, 8, 16, 32, 64)}


def by_hand(x, reset):
    """h = v + (I - v) / 2, s = H(h - 1), v = h (1 - s) or h."""
    v, spikes = torch.zeros_like(x[0]), []
    for now in x:
        h = v + (now - v) / 2
        spikes.append((h >= 1).double())
        v = h * (1 - spikes[-1]) if reset else h
    return torch.stack(spikes)


@pytest.mark.parametrize("variant", ["lif", "plif", "lif_no_reset"])
def test_the_baselines_are_leaky_neurons_of_tau_two(variant):
    neuron = Psn(Digits(), {"variant": variant}).neuron(4).double()
    x = 2 * currents(9, 3, 4)
    spikes = neuron(x)
    assert torch.equal(spikes, by_hand(x, reset=variant != "lif_no_reset"))
    assert 0 < spikes.mean() < 1
    assert neuron.surrogate == Arctan(2.0)
    assert sum(p.numel() for p in neuron.parameters()) == (variant == "plif")


def test_serial_and_parallel_runs_of_the_whole_network_agree():
    for variant in ("sliding", "lif_no_reset"):
        method = Psn(Digits(), {"variant": variant, "order": 2})
        report = method.report(method.build())
        assert report["serial_agreement"] == 1.0
        assert report["serial_difference"] < 1e-5


def test_sliding_neurons_are_scored_beyond_the_steps_they_were_trained_for():
    method = Psn(Digits(), {"variant": "sliding", "order": 2}, steps=2)
    net = method.build().eval()
    right = total = 0
    for batch in method.task.batches("validation", 64):
        with torch.no_grad():
            answers = net(method.task.encode(batch.inputs, 4)).mean(0).argmax(1)
        right, total = right + int((answers == batch.targets).sum()), total + len(answers)
    assert method.report(net)["metric_beyond"] == pytest.approx(right / total)
    assert "metric_beyond" not in Psn(Digits(), steps=2).report(Psn(Digits(), steps=2).build())


class Columns(Registries().tasks.load("sequences/scifar10-jpeg")):
    """Random images, so that no data are needed."""

    def load(self, split):
        generator = torch.Generator().manual_seed(0)
        images = torch.randint(0, 256, (24, 3, 32, 32), dtype=torch.uint8, generator=generator)
        return Data(images, torch.arange(24) % 10)


def convolutions(net):
    return [tuple(m.weight.shape) for m in net.modules() if isinstance(m, nn.Conv1d | nn.Conv2d)]


def linears(net):
    return [tuple(m.weight.shape) for m in net.modules() if isinstance(m, nn.Linear)]


def test_the_column_network_is_that_of_the_card():
    method = Psn(Columns(), track="recipe")
    assert method.options.net == "columns"
    net = method.build()
    assert convolutions(net) == [(128, 3, 3)] + [(128, 128, 3)] * 5
    assert linears(net) == [(256, 1024), (10, 256)]
    assert len(parallel_neurons(net)) == 7
    assert {neuron.steps for neuron in parallel_neurons(net)} == {32}


def test_the_column_network_convolves_the_pixels_of_a_column_colour_by_colour_and_answers_by_the_mean_over_time():
    torch.manual_seed(0)
    method = Psn(Columns(), {"net": "columns", "width": 4, "variant": "sliding", "order": 3})
    net = method.build().eval()
    batch = next(method.task.batches("test", 3))
    x = method.encode(batch.inputs)
    assert x.shape == (32, 3, 96)
    first = net.backbone.layers[0].synapse
    with torch.no_grad():
        found = first(x.unflatten(-1, (3, 32)))
        image = batch.inputs.view(3, 32, 3, 32)  # sample, column, colour, row
        assert torch.allclose(found[5, 1], nn.functional.conv1d(image[1, 5][None], first.weight, padding=1)[0], atol=1e-5)
        raw = net.head.readout[:-1](net.backbone(x)[-1].flatten(2))
        torch.testing.assert_close(method.task.final(net(x)), raw.mean(0))
        with stepping(net):
            serial = torch.cat([net(part) for part in x.split(5)])
        torch.testing.assert_close(serial, net(x))


@pytest.mark.parametrize("chunk", [1, 3, 7])
def test_a_running_mean_is_the_mean_so_far(chunk):
    mean, x = RunningMean(), currents(7)
    expected = torch.stack([x[: t + 1].mean(0) for t in range(7)])
    torch.testing.assert_close(mean(x), expected)
    with stepping(mean):
        torch.testing.assert_close(torch.cat([mean(part) for part in x.split(chunk)]), expected)


def test_the_cifar_network_is_that_of_the_card():
    method = Psn(Digits(), {"net": "cifar", "width": 8}, steps=2)
    net = method.build()
    assert convolutions(net) == [(8, 1, 3, 3)] + [(8, 8, 3, 3)] * 5
    assert linears(net) == [(8 * 4 // 4, 8 * 4), (10, 8)]
    recipe = Psn(Registries().task("static/cifar10"), track="recipe")
    assert (recipe.options.net, recipe.steps, recipe.backbone().levels[-1].features) == ("cifar", 4, 256 * 64)


@pytest.mark.parametrize(("task", "net", "shapes"), [("events/cifar10-dvs", "vgg", 8), ("static/imagenet", "18", 20)])
def test_the_recipes_of_events_and_imagenet_take_their_networks_and_losses(task, net, shapes):
    method = Psn(Registries().task(task), track="recipe")
    assert (method.options.net, method.options.tet, method.training.weight_decay) == (net, True, 0.0)
    backbone = method.backbone()
    assert len(convolutions(backbone)) == shapes
    assert {type(neuron) for neuron in parallel_neurons(backbone)} == {SlidingPSN if net == "vgg" else PSN}
    if net == "vgg":
        assert {neuron.order for neuron in parallel_neurons(backbone)} == {2}
        assert [shape[0] for shape in convolutions(backbone)] == [64, 128, 256, 256, 512, 512, 512, 512]


class Keep:
    """An update that keeps the loss."""

    def minimise(self, loss):
        self.loss = loss


def test_tet_is_the_mean_of_the_losses_of_all_steps_and_a_squared_error():
    method = Psn(Digits(), {"tet": True}, steps=3, training={"label_smoothing": 0.1})
    net, batch, update = method.build(), next(Digits().batches("train", 8)), Keep()
    method.step(net, batch, update)
    outputs = net(method.encode(batch.inputs))
    errors = sum(nn.functional.cross_entropy(now, batch.targets, label_smoothing=0.1) for now in outputs) / 3
    torch.testing.assert_close(update.loss, 0.999 * errors + 0.001 * ((outputs - 1) ** 2).mean())


def test_training_begins_with_the_weights_of_the_same_network_with_relus():
    torch.manual_seed(0)
    options = {"variant": "masked", "order": 2, "ann_share": 1.5}
    method = Psn(few_digits(), options, steps=2, training={"epochs": 2, "batch_size": 64})
    net = method.build()
    before = [neuron.weight.clone() for neuron in parallel_neurons(net)]
    phases = method.phases(net)
    ann = next(phases)
    assert (ann.name, ann.epochs) == ("ann", 3)
    x = torch.randn(1, 4, 3)
    assert torch.equal(parallel_neurons(net)[0](x), x.clamp_min(0))
    batch = next(Digits().batches("train", 8))
    update = Keep()
    ann.step(net, batch, update)
    update.loss.backward()
    assert net.backbone.stages[0][0].synapse.weight.grad.abs().sum() > 0
    assert all(neuron.weight.grad is None for neuron in parallel_neurons(net))
    next(phases)
    assert set(parallel_neurons(net)[0](torch.randn(2, 4, 3)).unique().tolist()) <= {0.0, 1.0}
    traces = train(method, net, seed=0).traces
    assert [trace.phase for trace in traces] == ["ann"] * 3 + ["train"] * 2
    assert any((neuron.weight != start).any() for neuron, start in zip(parallel_neurons(net), before, strict=True))


@pytest.mark.parametrize(
    ("task", "options", "message"),
    [
        ("sequences/digits-pixels", {"net": "cifar"}, "net=cifar is for images"),
        ("static/digits", {"net": "columns"}, "net=columns is for a vector per step"),
        ("static/digits", {"width": 8}, "width is of net=columns and net=cifar"),
        ("sequences/digits-pixels", {"tet": True}, "tet asks for one class per sample"),
        ("static/digits", {"variant": "lif", "ann_share": 0.5}, "ann_share is for parallel neurons"),
    ],
)
def test_options_that_do_not_fit_are_refused(task, options, message):
    with pytest.raises(UsageError, match=message):
        Psn(Registries().task(task), options)


def test_inputs_that_are_too_small_for_a_network_are_refused():
    with pytest.raises(UsageError, match="8x8 cannot be halved 4 times"):
        Psn(Digits(), {"net": "vgg"}).build()
    with pytest.raises(UsageError, match="1 pixels cannot be halved 2 times"):
        Psn(Registries().task("sequences/digits-pixels"), {"net": "columns"}).build()


def test_an_answer_at_every_step_is_for_variants_that_do_not_see_the_steps_to_come():
    task = Registries().task("sequences/copy-memory[length=5]", "smoke")
    for variant in ("psn", "masked"):
        with pytest.raises(UnfitError, match=f"variant={variant} would have seen the steps to come; allowed: sliding"):
            Psn(task, {"variant": variant})
    method = Psn(task, {"variant": "sliding", "order": 3})
    net, x = method.build().eval(), torch.rand(method.steps, 2, *task.input_shape)
    later = x.clone()
    later[10:] = 0
    with torch.no_grad():
        assert net(x)[:10].equal(net(later)[:10])
