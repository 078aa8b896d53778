"""BNTT against formulas and torch's own batch normalisation, in double precision; numbers are those of the card's list of tests."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from harness.evaluate import evaluate
from harness.loader import Loader
from harness.loop import make_optimizer, make_schedule, train
from harness.meters.spikes import SpikeMeter
from harness.plugin import UsageError
from harness.registry import Registries
from harness.task import Backbone, Budget, Data, Head, TaskCard, Training
from methods.bntt import Bntt, signed_poisson
from methods.nn.bntt import BatchNormThroughTime, decay_exponent, exit_step, gamma_table
from methods.nn.norm import BatchNorm
from methods.nn.stepping import stepping
from methods.nn.surrogate import Triangle
from methods.nn.synapse import AvgPool2d
from suites.classification import ClassificationTask


class Bars(ClassificationTask):
    """Noisy images with one bright row; its place is the class."""

    card = TaskCard("test/bars", "", "", "", "", "")
    head = Head("classify", classes=4)
    input_shape = (1, 4, 4)
    steps = 6
    budgets = {"smoke": Budget(Training(epochs=3, batch_size=16, lr=0.05, optimizer="sgd", schedule="constant"), Backbone("conv", (4,)))}

    def load(self, split):
        drawn = torch.Generator().manual_seed({"train": 0, "validation": 1, "test": 2}[split])
        classes = torch.arange(64) % 4
        images = 0.3 * torch.randn(64, 1, 4, 4, generator=drawn)
        images[torch.arange(64), 0, classes] += 2.0
        return Data(images, classes)


class Films(Bars):
    """The same with a time axis of its own."""

    card = TaskCard("test/films", "", "", "", "", "")
    temporal = True

    def load(self, split):
        data = super().load(split)
        return Data(data.inputs.unsqueeze(1).repeat(1, self.steps, 1, 1, 1), data.targets)


class Masks(Bars):
    """A class for every pixel."""

    card = TaskCard("test/masks", "", "", "", "", "")
    head = Head("segment", classes=2, strides=(2,))


class Lines(Films):
    """The same, one row of pixels per sample and step."""

    card = TaskCard("test/lines", "", "", "", "", "")
    input_shape = (16,)
    budgets = {"smoke": Budget(Training(epochs=1, batch_size=16), Backbone("sequence", (8, 8)))}

    def load(self, split):
        data = super().load(split)
        return Data(data.inputs.flatten(2), data.targets)


def make(task=Bars, **options):
    bound = Bntt(task(), options)
    torch.manual_seed(0)
    return bound, bound.build()


def currents(steps=6, seed=0):
    """Currents ``[T, B, C, H, W]`` whose mean and scale differ from step to step."""
    torch.manual_seed(seed)
    level = torch.arange(steps, dtype=torch.float64).view(-1, 1, 1, 1, 1)
    return torch.randn(steps, 8, 3, 5, 5, dtype=torch.float64) * (1 + level) + level


def bntt(features=3, steps=6, seed=1):
    torch.manual_seed(seed)
    norm = BatchNormThroughTime(features, steps).double()
    with torch.no_grad():
        norm.gamma.uniform_(0.5, 1.5)
    return norm


def test_1_every_step_is_normalised_by_its_own_statistics():
    x, norm = currents(), bntt()
    y = norm(x)
    var = x.var((1, 3, 4), correction=0)
    assert y.mean((1, 3, 4)).abs().max() < 1e-10
    assert (y.var((1, 3, 4), correction=0) - norm.gamma**2 * var / (var + 1e-4)).abs().max() < 1e-10
    together = BatchNorm(3).double()(x)
    assert together.mean((1, 3, 4)).abs().max() > 0.2


def test_1_running_means_move_a_tenth_of_the_way_to_those_of_the_batch():
    x, norm = currents(), bntt()
    norm(x)
    assert (norm.running_mean - 0.1 * x.mean((1, 3, 4))).abs().max() < 1e-12
    assert (norm.running_var - (0.9 + 0.1 * x.var((1, 3, 4)))).abs().max() < 1e-12


def test_2_there_is_one_gamma_per_step_and_channel_and_no_shift():
    norm = bntt(features=3, steps=6)
    assert [(name, p.numel()) for name, p in norm.named_parameters()] == [("gamma", 18)]
    assert sum(buffer.numel() for buffer in norm.buffers()) == 2 * 18


def test_3_tied_bntt_is_one_batch_normalisation_in_evaluation():
    x, norm, one = currents(), bntt().eval(), BatchNorm(3, eps=1e-4).double().eval()
    with torch.no_grad():
        one.weight.copy_(torch.tensor([0.7, 1.2, 0.9]))
        one.running_mean.copy_(torch.tensor([0.1, -0.3, 2.0]))
        one.running_var.copy_(torch.tensor([0.5, 3.0, 1.1]))
        for own, shared in ((norm.gamma, one.weight), (norm.running_mean, one.running_mean), (norm.running_var, one.running_var)):
            own.copy_(shared.expand(6, 3))
    assert torch.equal(norm(x), one(x))


def test_4_steps_after_the_last_with_a_loss_get_no_gradient():
    bound, net = make()
    batch = next(bound.task.batches("train"))
    net.train()(bound.encode(batch.inputs))[:4].square().sum().backward()
    for module in net.modules():
        if isinstance(module, BatchNormThroughTime):
            assert module.gamma.grad[4:].abs().max() == 0
            assert all(module.gamma.grad[t].abs().max() > 0 for t in range(3))


def potential_slope(neuron, first):
    """Return ``dv[1]/dI[0]`` and the first spike; without a second spike ``v[1] = u[1]``."""
    current = torch.tensor([[first], [-0.5]], dtype=torch.float64, requires_grad=True)
    with stepping(neuron):
        spike = neuron(current[:1])
        assert neuron(current[1:]).item() == 0
        (slope,) = torch.autograd.grad(neuron.carried()[0].sum(), current)
    return slope[0].item(), spike.item()


@pytest.mark.parametrize(("first", "fired"), [(0.4, 0.0), (1.3, 1.0)])
def test_5_potential_hands_on_the_leak_whether_or_not_it_fired(first, fired):
    neuron = make()[0].neuron(1)
    assert potential_slope(neuron, first) == (0.95, fired)
    neuron.detach_reset = False
    assert potential_slope(neuron, first)[0] != pytest.approx(0.95, abs=0.01)


def test_6_surrogate_is_a_triangle_of_height_and_area_three_tenths():
    d = torch.linspace(-2, 2, 4001, dtype=torch.float64)
    current = (d + 1).unsqueeze(0).requires_grad_()
    make()[0].neuron(1)(current).sum().backward()
    wanted = torch.tensor([0.3 * max(0.0, 1 - abs(value)) for value in d.tolist()], dtype=torch.float64)
    assert (current.grad[0] - wanted).abs().max() < 1e-12
    assert torch.trapezoid(current.grad[0], d).item() == pytest.approx(0.3, abs=1e-6)
    assert Triangle(scale=0.3)(torch.zeros(1)).item() == pytest.approx(0.3)


def test_6_neuron_fires_strictly_above_threshold():
    assert make()[0].neuron(1)(torch.tensor([[1.0, 1.0 + 1e-6]])).tolist() == [[0.0, 1.0]]


def test_7_answer_is_the_readout_of_the_mean_spikes():
    bound, net = make()
    net.double().eval()
    x = bound.task.load("test").inputs.double()
    features = net.backbone(bound.encode(x))[-1].flatten(2)
    wanted = features.mean(0) @ net.head.readout.weight.T
    assert net.head.readout.bias is None
    assert (bound.predict(net, x).final() - wanted).abs().max() < 1e-12


def test_8_signed_poisson_spikes_have_half_the_input_as_mean():
    torch.manual_seed(0)
    x = torch.tensor([-3.0, -2.0, -0.7, 0.0, 0.3, 1.0, 1.9, 2.5])
    spikes = signed_poisson(x, 40_000)
    assert set(spikes.unique().tolist()) == {-1.0, 0.0, 1.0}
    assert (spikes.mean(0) - (x / 2).clamp(-1, 1)).abs().max() < 0.015


LOW, HIGH = 0.05, 0.5


@pytest.mark.parametrize(
    ("table", "steps"),
    [
        ([[HIGH, HIGH, HIGH, HIGH, LOW, LOW], [HIGH, LOW, LOW, LOW, LOW, LOW]], 4),
        ([[HIGH, LOW, HIGH, HIGH, LOW, LOW], [HIGH, LOW, HIGH, LOW, LOW, -0.03]], 4),  # an early dip does not count
        ([[HIGH] * 6, [LOW] * 6], 6),
        ([[LOW] * 6, [LOW] * 6], 1),
    ],
)
def test_9_exit_is_where_every_layer_stays_below_the_threshold(table, steps):
    assert exit_step(torch.tensor(table), 0.1) == steps


def faded(net, first):
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, BatchNormThroughTime):
                module.gamma[first:] = 0
    return net


def summed_outputs(bound, net, x):
    """Return ``t * logits(t)`` for every t, and the spikes of the last layer."""
    spikes = []
    handle = net.backbone.stages[0][1].neuron.register_forward_hook(lambda module, given, result: spikes.append(result))
    outputs = net(bound.encode(x)).cumsum(0)
    handle.remove()
    return outputs, spikes[0]


def test_10_silence_after_the_exit_answers_nothing():
    bound, net = make()
    net.double()
    x = bound.task.load("test").inputs.double()
    for module in net.modules():
        if isinstance(module, BatchNormThroughTime):
            module.momentum = 1.0  # running statistics are those of the one batch
        if hasattr(module, "leak"):
            module._leak = 0.1  # so little that no potential stays above threshold
    with torch.no_grad():
        net(bound.encode(x))
    faded(net.eval(), 3)
    outputs, spikes = summed_outputs(bound, net, x)
    assert spikes[:3].sum() > 0
    assert spikes[3:].sum() == 0
    assert (outputs[5] - outputs[2]).abs().max() == 0
    assert bound.exit_step(net) == 3
    assert (outputs[5] - 3 * bound.predict(net, x).final()).abs().max() < 1e-12


def test_10_potential_left_above_threshold_still_fires_after_the_exit():
    neuron = make()[0].neuron(1)
    current = torch.zeros(5, 1, dtype=torch.float64)
    current[0] = 3.5  # v = 2.5 after the first spike
    assert neuron(current)[:, 0].tolist() == [1.0, 1.0, 1.0, 0.0, 0.0]


@pytest.mark.parametrize(("decay", "momentum"), [(1e-2, 0.9), (5e-3, 0.9), (0.0, 0.9)])
def test_11_gamma_without_gradient_falls_by_the_decay_law(decay, momentum):
    bound, net = make(gamma_decay=decay)
    (phase,) = bound.phases(net)
    optimizer = make_optimizer(list(phase.parameters), replace(bound.training, lr=0.1, momentum=momentum))
    for p in net.parameters():
        p.grad = torch.zeros_like(p)
    weights = net.head.readout.weight.clone()
    for _ in range(300):
        optimizer.step()
    tolerance = 0.02 if decay else 1e-12
    assert gamma_table(net).sub(math.exp(-0.1 * decay * 300 / (1 - momentum))).abs().max() < tolerance
    assert torch.equal(net.head.readout.weight, weights)


def test_gamma_decays_like_all_parameters_unless_said_otherwise():
    bound = Bntt(Bars(), training={"weight_decay": 1e-4})
    groups = bound.parameter_groups(bound.build())
    assert groups[1]["weight_decay"] == 1e-4
    assert bound.parameter_groups(bound.build())[0].keys() == {"params"}


def test_decay_of_gamma_leads_to_an_early_exit_that_still_answers():
    training = {"epochs": 20, "lr": 0.1}
    bound = Bntt(Bars(), {"gamma_decay": 0.05}, training=training)
    torch.manual_seed(0)
    net = bound.build()
    train(bound, net, seed=0)
    steps = bound.exit_step(net)
    found = evaluate(bound, net, "test")
    assert steps < bound.steps
    assert found.steps_used == steps == len(found.curve)
    assert found.metrics["accuracy"] > 0.9
    whole = Bntt(Bars(), {"early_exit": False}, training=training)
    assert evaluate(whole, net, "test").steps_used == bound.steps
    report = bound.report(net)
    assert report["exit_step"] == steps
    assert report["metric_per_step"] == evaluate(whole, net, "test").curve
    assert report["metric_all_steps"] == report["metric_per_step"][-1]
    assert report["metric_per_step"][:steps] == found.curve
    with SpikeMeter(net) as meter:
        evaluate(bound, net, "test")
    assert sum(report["spikes_per_step"][:steps]) == pytest.approx(meter.result(found.samples).spikes_per_sample)
    assert report["spikes_saved"] == pytest.approx(1 - sum(report["spikes_per_step"][:steps]) / sum(report["spikes_per_step"]))
    assert len(report["spikes_per_step"]) == 6
    assert report["gamma_abs_max"] == gamma_table(net, largest=True).tolist()
    assert report["gamma_decay_exponent"] == pytest.approx(0.05 * 0.1 * 4 * 20 / 0.1)  # 4 iterations, 20 epochs
    assert (len(report["gamma"]), len(report["gamma"][0])) == (2, 6)
    assert report["gamma_parameters"] == 2 * 6 * 4


def test_one_step_at_a_time_equals_the_whole_sequence():
    x, norm = currents(), bntt()
    twin = bntt()
    whole = norm(x)
    with stepping(twin):
        steps = torch.cat([twin(now) for now in x.split([1, 2, 3])])
    assert (whole - steps).abs().max() < 1e-12
    assert torch.equal(norm.running_mean, twin.running_mean)


def test_gradient_is_that_of_a_batch_normalisation_per_step():
    x, norm = currents().requires_grad_(), bntt()
    weights = torch.randn_like(x)
    found = torch.autograd.grad((norm(x) * weights).sum(), (x, norm.gamma))
    parts = [F.batch_norm(now, None, None, gamma, None, True, eps=1e-4) for now, gamma in zip(x, norm.gamma, strict=True)]
    wanted = torch.autograd.grad((torch.stack(parts) * weights).sum(), (x, norm.gamma))
    assert all((a - b).abs().max() < 1e-12 for a, b in zip(found, wanted, strict=True))


def test_more_steps_than_trained_are_refused():
    with pytest.raises(ValueError, match="built for 6 time steps.* 7 were given"):
        bntt()(currents(7))
    norm = bntt()
    with stepping(norm), pytest.raises(ValueError, match="7 were given"):
        for now in currents(7).split(1):
            norm(now)


def test_films_and_sequences_are_learned_too():
    for task in (Films, Lines):
        bound, net = make(task)
        before = gamma_table(net)
        train(Bntt(task(), training={"epochs": 1}), net, seed=0)
        assert not torch.equal(before, gamma_table(net))
        assert len(evaluate(bound, net, "test").curve) == bound.steps


def test_random_encoder_is_reported_with_the_spread_of_its_draws():
    bound, net = make(encoder="signed_poisson")
    inputs = bound.task.load("test").inputs
    assert not torch.equal(bound.encode(inputs), bound.encode(inputs))
    report = bound.report(net.eval())
    assert len(report["metric_draws"]) == 3
    assert report["metric_spread"] == max(report["metric_draws"]) - min(report["metric_draws"])


def test_random_encoder_on_data_with_a_time_axis_is_refused():
    with pytest.raises(UsageError, match="for static data; test/films has a time axis"):
        Bntt(Films(), {"encoder": "signed_poisson"})


def test_recipe_divides_the_learning_rate_by_ten_after_half_seven_tenths_and_nine_tenths_of_the_epochs():
    assert Bntt(Bars(), track="recipe").training.schedule == "drops"
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], 0.3)
    schedule = make_schedule(optimizer, Training(epochs=20, schedule="drops"))
    rates = []
    for _ in range(20):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates == pytest.approx([0.3] * 10 + [0.03] * 4 + [0.003] * 4 + [0.0003] * 2)


def test_recipe_is_the_published_one():
    task = Bars()
    task.budget_name = "paper"
    bound = Bntt(task, track="recipe")
    assert (bound.steps, bound.options.encoder, bound.options.leak) == (25, "signed_poisson", 0.95)
    assert (bound.training.lr, bound.training.weight_decay, bound.training.batch_size) == (0.3, 1e-4, 256)
    assert bound.parameter_groups(nn.Sequential(bound.norm(2)))[1]["weight_decay"] == 1e-4


def test_weights_start_xavier_uniform_with_gain_two():
    _, net = make()
    weight = net.head.readout.weight
    limit = 2 * math.sqrt(6 / sum(weight.shape))
    assert 0.9 * limit < weight.abs().max() <= limit


def test_published_networks_have_the_published_layers():
    class Small(Bars):
        input_shape = (3, 8, 8)

    class Large(Bars):
        input_shape = (3, 16, 16)

    net = Bntt(Small(), {"network": "vgg9"}, steps=2).build()
    channels = [module.out_channels for module in net.modules() if isinstance(module, nn.Conv2d)]
    assert channels == [64, 64, 128, 128, 256, 256, 256, 1024]
    assert sum(isinstance(module, BatchNormThroughTime) for module in net.modules()) == 8
    assert net.eval()(torch.zeros(2, 1, 3, 8, 8)).shape == (2, 1, 4)
    assert [module.kernel_size for module in net.modules() if isinstance(module, AvgPool2d)] == [2, 2, 2]
    net = Bntt(Large(), {"network": "vgg11"}, steps=1).build()
    channels = [module.out_channels for module in net.modules() if isinstance(module, nn.Conv2d)]
    assert channels == [64, 128, 256, 256, 512, 512, 512, 512, 4096]
    assert [level.size for level in net.backbone.levels] == [(8, 8), (4, 4), (2, 2), (1, 1), (1, 1)]
    assert net.eval()(torch.zeros(1, 1, 3, 16, 16)).shape == (1, 1, 4)


def test_recipe_of_cifar_100_has_its_own_network_leak_and_steps():
    task = Registries().tasks.load("static/cifar100")("paper")
    bound = Bntt(task, track="recipe")
    assert (bound.steps, bound.options.network, bound.options.leak, bound.training.batch_size) == (30, "vgg11", 0.99, 128)
    assert Bntt(Registries().tasks.load("static/cifar10")("paper"), track="recipe").options.network == "vgg9"


def test_baseline_normalises_all_steps_together_and_has_the_same_neurons():
    x = currents()
    baseline = Bntt(Bars(), {"norm": "bn"})
    norm = baseline.norm(3).double()
    mean, var = x.mean((0, 1, 3, 4)), x.var((0, 1, 3, 4), correction=0)
    expected = (x - mean.view(3, 1, 1)) / (var + 1e-4).sqrt().view(3, 1, 1)
    torch.testing.assert_close(norm(x), expected, atol=1e-10, rtol=0)
    assert repr(baseline.neuron(3)) == repr(Bntt(Bars()).neuron(3))
    assert Bntt(Bars(), {"norm": "none"}).norm(3)(x) is x


@pytest.mark.parametrize("norm", ["bn", "none"])
def test_baselines_train_and_never_exit(norm):
    bound, net = make(norm=norm)
    before = net.head.readout.weight.clone()
    train(Bntt(Bars(), {"norm": norm}, training={"epochs": 1}), net, seed=0)
    assert not torch.equal(before, net.head.readout.weight)
    assert evaluate(bound, net, "test").steps_used == bound.steps
    report = bound.report(net)
    assert report["spikes_saved"] == 0
    assert "gamma" not in report


def test_largest_gamma_of_a_layer_and_step_is_that_in_size():
    _, net = make()
    faded(net, 0)
    first = next(module for module in net.modules() if isinstance(module, BatchNormThroughTime))
    with torch.no_grad():
        first.gamma[2, 1] = -0.7
    table = gamma_table(net, largest=True)
    assert table[0, 2].item() == pytest.approx(0.7)
    assert table.count_nonzero() == 1


@pytest.mark.parametrize("schedule", ["constant", "cosine", "drops"])
@pytest.mark.parametrize("epochs", [1, 7, 20])
def test_decay_exponent_sums_the_learning_rates_of_the_schedule(schedule, epochs):
    training = Training(epochs=epochs, optimizer="sgd", lr=0.2, momentum=0.8, schedule=schedule)
    optimizer = make_optimizer([nn.Parameter(torch.zeros(1))], training)
    scheduler = make_schedule(optimizer, training)
    total = 0.0
    for _ in range(epochs):
        total += 13 * optimizer.param_groups[0]["lr"]
        optimizer.step()
        scheduler.step()
    assert decay_exponent(training, 13, 0.01) == pytest.approx(0.01 * total / 0.2, rel=1e-9)


@pytest.mark.parametrize(("count", "batch_size"), [(64, 16), (49, 16), (50, 16), (60, 16), (1, 16)])
def test_automatic_decay_shrinks_an_idle_gamma_to_exp_minus_three(count, batch_size):
    training = {"epochs": 20, "lr": 0.1, "batch_size": batch_size}
    bound = Bntt(Bars(), {"gamma_decay": "auto"}, training=training)
    bound.task.budget = replace(bound.task.budget, train_samples=count)
    updates = len(Loader(bound.task, batch_size, seed=0))
    assert decay_exponent(bound.training, updates, bound.decay()) == pytest.approx(3)
    assert bound.parameter_groups(nn.Sequential(bound.norm(2)))[1]["weight_decay"] == bound.decay()


def test_automatic_decay_is_refused_where_its_law_does_not_hold():
    with pytest.raises(UsageError, match="not that of adam; allowed: optimizer = sgd"):
        Bntt(Bars(), {"gamma_decay": "auto"}, training={"optimizer": "adam"})


def test_every_step_is_answered_where_each_has_an_answer_of_its_own():
    bound = Bntt(Registries().tasks.load("sequences/copy-memory")())
    bound.task.budget = replace(bound.task.budget, test_samples=8)
    net = faded(bound.build().eval(), 3)
    assert bound.exit_step(net) == bound.steps
    assert len(bound.predict(net, next(bound.task.batches("test")).inputs).outputs) == bound.steps
    report = bound.report(net)
    assert len(report["metric_per_step"]) == bound.steps
    assert report["metric_all_steps"] == evaluate(bound, net, "test").metrics["accuracy"]


def test_segmenters_answer_nothing_to_silence_and_detectors_have_their_prior():
    bound, net = make(Masks)
    assert net.eval()(torch.zeros(2, 3, 1, 4, 4)).abs().max() == 0
    assert all(readout.bias is None for readout in net.head.readouts)
    task = Registries().tasks.load("detection/digit-scenes")()
    assert all(readout.bias is not None for readout in Bntt(task).build().head.readouts)
