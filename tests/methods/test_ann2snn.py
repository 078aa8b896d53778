"""Rate conversion: closed forms of the integrate-and-fire neuron, normalisation, folding, wiring, factors, and the method as a whole."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.evaluate import evaluate
from harness.loop import train
from harness.plugin import UnfitError, UsageError
from harness.registry import Registries
from harness.task import Backbone, Budget, Data, Head, Task, TaskCard, Training
from methods.ann2snn import Ann2Snn
from methods.nn.calibration import Percentile, activation_factors, mean_outputs, spike_factors
from methods.nn.conversion import fold, install, integrate_and_fire, normalise
from methods.nn.layer import Layer
from methods.nn.neuron import LIF, ReLU
from methods.nn.norm import BatchNorm
from methods.nn.rate_networks import rate_network
from methods.nn.residual import ResidualBlock
from methods.nn.stepping import stepping
from methods.nn.synapse import AvgPool2d, Conv2d
from methods.nn.wiring import open_shortcuts, trace

DOUBLE = torch.float64


@pytest.fixture(scope="module")
def digits():
    return Registries().tasks.load("static/digits")()


@pytest.fixture(scope="module")
def trained(digits):
    """The method after a short training, and a copy of its ReLU network."""
    torch.manual_seed(0)
    method = Ann2Snn(digits, {"calibration": 256}, training={"epochs": 4})
    net = method.build()
    phases, relu = method.phases, None

    def keeping(net):
        nonlocal relu
        for phase in phases(net):
            yield phase
            relu = copy.deepcopy(net).eval()

    method.phases = keeping  # the generator resumes, and converts, only after the copy was made
    train(method, net, seed=0)
    return method, net, relu


def mlp(widths: tuple[int, ...] = (20, 30, 25, 8)) -> nn.Sequential:
    """A ReLU network of layers without normalisation and a linear read-out, float64."""
    torch.manual_seed(7)
    layers = [Layer(nn.Linear(i, o), nn.Identity(), ReLU()) for i, o in zip(widths[:-2], widths[1:-1], strict=True)]
    return nn.Sequential(*layers, nn.Linear(*widths[-2:])).to(DOUBLE)


def fires(z: Tensor, theta: float, v0: float, steps: int, reset: str = "soft") -> Tensor:
    """Spike counts ``[N]`` for constant currents ``z [N]``; ``v0`` is a fraction of theta."""
    with torch.no_grad():
        return integrate_and_fire(theta, v0, reset)(z.expand(steps, -1)).sum(0)


def simulate(net: nn.Module, x: Tensor, steps: int) -> Tensor:
    """Mean outputs over ``steps`` steps of constant input ``x [B, ...]``."""
    with torch.no_grad():
        return net(x.expand(steps, *x.shape)).mean(0)


def converted(net: nn.Module, x: Tensor, percent: float = 100.0, v0: float = 0.0, form: str = "weights") -> tuple[nn.Module, dict]:
    """A converted copy of ``net`` with factors from ``x [B, ...]``, and the factors in order of the layers."""
    net = copy.deepcopy(net)
    connections = trace(net, x[None])
    factors = activation_factors(net, [c.layer for c in connections if c.layer], [x[None]], len(x), percent)
    install(connections, factors, lambda theta: integrate_and_fire(theta, v0), form)
    return net, factors


# Card, tests 1 to 3: the neuron


@pytest.mark.parametrize("v0", [0.0, 0.25, 0.5, 0.9])
@pytest.mark.parametrize("steps", [1, 4, 7, 32])
def test_the_count_for_a_constant_current_has_the_closed_form(v0, steps):
    theta = 2.0
    z = theta * torch.arange(-0.7, 1.7, 1 / 257, dtype=DOUBLE)  # an odd grid keeps (T z + v0) / theta off whole numbers, save at 0
    expected = torch.floor((steps * z + v0 * theta) / theta).clamp(0, steps)
    assert torch.equal(fires(z, theta, v0, steps), expected)


@pytest.mark.parametrize("steps", [4, 8, 32])
def test_the_rate_error_is_bounded_by_the_quantisation_step(steps):
    theta = 1.5
    z = theta * torch.linspace(-0.5, 1.5, 4001, dtype=DOUBLE)
    clipped = z.clamp(0, theta)
    plain = theta * fires(z, theta, 0.0, steps) / steps - clipped
    centred = theta * fires(z, theta, 0.5, steps) / steps - clipped
    step = theta / steps
    assert plain.abs().max() <= step + 1e-12
    assert plain.max() <= 1e-12
    assert centred.abs().max() <= step / 2 + 1e-12
    inside = (z > 0) & (z < theta)
    assert plain[inside].mean().abs() > 5 * centred[inside].mean().abs()


def test_soft_reset_conserves_charge():
    torch.manual_seed(8)
    theta, v0 = 0.7, 0.25
    z = torch.randn(40, 500, dtype=DOUBLE)
    neuron = integrate_and_fire(theta, v0)
    with stepping(neuron):
        count = neuron(z).sum(0)
        (v_end,) = neuron.carried()
    torch.testing.assert_close(theta * count, z.sum(0) + v0 * theta - v_end, atol=1e-10, rtol=0)


def test_hard_reset_loses_charge():
    torch.manual_seed(9)
    theta = 0.7
    z = torch.rand(40, 500, dtype=DOUBLE)
    neuron = integrate_and_fire(theta, reset="hard")
    with stepping(neuron):
        count = neuron(z).sum(0)
        (v_end,) = neuron.carried()
    gap = (z.sum(0) - v_end) / theta - count
    assert gap.min() >= -1e-12
    assert gap.mean() > 0.5


def test_hard_reset_with_a_constant_current_has_the_period_of_whole_steps():
    theta = 1.0
    z = torch.linspace(0.043, 1.4, 60, dtype=DOUBLE)
    period = torch.ceil(theta / z)
    assert torch.equal(fires(z, theta, 0.0, 300, "hard"), torch.floor(300 / period))


# Card, tests 4 to 7 and 9: normalisation and convergence


@pytest.mark.parametrize("per_channel", [False, True])
def test_normalisation_divides_every_layer_by_its_factor(per_channel):
    torch.manual_seed(10)
    net = nn.Sequential(
        Layer(Conv2d(2, 6, 3, padding=1), nn.Identity(), ReLU()),
        Layer(Conv2d(6, 4, 3, padding=1, groups=2), nn.Identity(), ReLU()),
        AvgPool2d(2),
        nn.Flatten(2),
        nn.Linear(4 * 9, 5),
    ).to(DOUBLE)
    x = torch.randn(16, 2, 6, 6, dtype=DOUBLE)
    connections = trace(net, x[None])
    layers = [c.layer for c in connections if c.layer]
    with torch.no_grad():
        before, logits = mean_outputs(net, layers, x[None]), net(x[None])
        factors = {la: before[la].amax((0, 2, 3)) if per_channel else before[la].max() for la in layers}
        for c in connections:
            one = torch.ones(())
            normalise(c.synapse, factors[c.source] if c.source else one, factors[c.layer] if c.layer else one)
        after, same = mean_outputs(net, layers, x[None]), net(x[None])
    for la in layers:
        torch.testing.assert_close(after[la], before[la] / factors[la].view(-1, 1, 1), atol=1e-12, rtol=0)
        assert after[la].max() <= 1 + 1e-12
    torch.testing.assert_close(same, logits, atol=1e-12, rtol=0)


def test_rescaled_weights_and_balanced_thresholds_are_the_same_network():
    net, x = mlp(), torch.randn(32, 20, dtype=DOUBLE)
    outputs, trains = [], []
    for form in ("weights", "thresholds"):
        snn, _ = converted(net, x, form=form)
        seen = []
        for module in snn.modules():
            if isinstance(module, LIF):
                module.register_forward_hook(lambda m, args, s, seen=seen: seen.append(s))
        outputs.append(simulate(snn, x, 40))
        trains.append(seen)
    assert len(trains[0]) == 2
    for first, second in zip(*trains, strict=True):
        assert set(first.unique().tolist()) == {0.0, 1.0}
        assert torch.equal(first, second)
    torch.testing.assert_close(*outputs, atol=1e-9, rtol=0)


def test_the_error_of_the_logits_falls_like_one_over_time():
    net, x = mlp(), torch.randn(32, 20, dtype=DOUBLE)
    exact = net(x).detach()
    snn, _ = converted(net, x)
    errors = [(simulate(snn, x, steps) - exact).abs().mean().item() for steps in (16, 64, 256, 1024)]
    for now, later in zip(errors[:-1], errors[1:], strict=True):
        assert 3 < now / later < 5.5


def test_starting_half_way_to_threshold_helps_at_few_steps():
    net, x = mlp(), torch.randn(64, 20, dtype=DOUBLE)
    exact = net(x).detach()
    plain, half = ((simulate(converted(net, x, v0=v0)[0], x, 8) - exact).abs().mean() for v0 in (0.0, 0.5))
    assert half < 0.75 * plain


def test_a_percentile_factor_clips_the_activation():
    net, x = mlp(), torch.randn(512, 20, dtype=DOUBLE)
    first = net[0]
    activation = first(x[None])[0].detach()
    snn, factors = converted(net, x, percent=99.9)
    lam = next(iter(factors.values()))
    clipped = activation > lam
    assert clipped.any()
    rate = lam * mean_outputs(snn, [snn[0]], x.expand(1000, *x.shape))[snn[0]]
    torch.testing.assert_close(rate, torch.minimum(activation, lam), atol=float(lam) / 1000 + 1e-9, rtol=0)
    assert ((activation - rate)[clipped] > 0).all()


# Card, tests 8 and 10: folding and pooling


@pytest.mark.parametrize("bias", [True, False])
def test_batch_normalisation_folds_into_the_synapse(bias):
    torch.manual_seed(11)
    layer = Layer(Conv2d(3, 5, 3, padding=1, bias=bias), BatchNorm(5, scale=0.7), ReLU()).to(DOUBLE)
    with torch.no_grad():
        layer.norm.weight.copy_(torch.randn(5))
        layer.norm.bias.copy_(torch.randn(5))
    x = torch.randn(1, 8, 3, 6, 6, dtype=DOUBLE)
    for _ in range(3):
        layer(x)
    layer.eval()
    expected = layer(x).detach()
    fold(layer)
    assert isinstance(layer.norm, nn.Identity)
    torch.testing.assert_close(layer(x), expected, atol=1e-12, rtol=0)


def test_folding_refuses_a_normalisation_it_does_not_know():
    with pytest.raises(ValueError, match="cannot fold LayerNorm after Linear; allowed"):
        fold(Layer(nn.Linear(2, 2), nn.LayerNorm(2), ReLU()))


def test_average_pooling_commutes_with_the_rate_and_max_pooling_does_not():
    torch.manual_seed(12)
    current = torch.rand(2, 3, 6, 6, dtype=DOUBLE)
    with torch.no_grad():
        spikes = integrate_and_fire()(current.expand(50, *current.shape))
    rate = spikes.mean(0)
    torch.testing.assert_close(AvgPool2d(2)(spikes).mean(0), F.avg_pool2d(rate, 2), atol=1e-12, rtol=0)
    of_spikes, of_rates = F.max_pool2d(spikes.flatten(0, 1), 2).unflatten(0, (50, 2)).mean(0), F.max_pool2d(rate, 2)
    assert (of_spikes >= of_rates - 1e-12).all()
    assert (of_spikes > of_rates + 0.01).any()


# Factors


@pytest.mark.parametrize("percent", [50.0, 99.0, 99.9, 100.0])
@pytest.mark.parametrize("pieces", [1, 7])
def test_a_streamed_percentile_equals_that_of_numpy_over_positive_values(percent, pieces):
    torch.manual_seed(13)
    values = torch.randn(5001, dtype=DOUBLE)
    stream = Percentile(percent, most=len(values))
    for part in values.chunk(pieces):
        stream.add(part)
    positive = values[values > 0].numpy()
    assert stream.value().item() == pytest.approx(np.percentile(positive, percent), abs=1e-12)


def test_a_silent_layer_gets_the_factor_one():
    stream = Percentile(99.9, most=10)
    stream.add(-torch.rand(10))
    assert stream.value().item() == 1


def test_threshold_balancing_takes_the_largest_current_that_spikes_cause():
    net, x = mlp((6, 9, 7, 3)), torch.randn(12, 6, dtype=DOUBLE)
    factors = list(spike_factors(net, [x[None]], 30).values())
    first, second = net[0].synapse, net[1].synapse
    with torch.no_grad():
        z = first(x)
        expected = [z.max()]
        v, peak = torch.zeros_like(z), torch.tensor(-math.inf, dtype=DOUBLE)
        for _ in range(30):
            v = v + z
            s = (v >= expected[0]).to(DOUBLE)
            v = v - expected[0] * s
            peak = torch.maximum(peak, second(expected[0] * s).max())
        expected.append(peak)
    for found, wanted in zip(factors, expected, strict=True):
        torch.testing.assert_close(found, wanted, atol=1e-9, rtol=0)


def test_threshold_balancing_leaves_the_network_as_it_is():
    net, x = mlp(), torch.randn(4, 20, dtype=DOUBLE)
    before = copy.deepcopy(net.state_dict())
    spike_factors(net, [x[None]], 5)
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    assert [type(net[i].neuron) for i in range(2)] == [ReLU, ReLU]


# Wiring


def test_wiring_finds_the_layer_that_feeds_each_synapse(digits):
    net = Ann2Snn(digits).build()
    found = trace(net, torch.zeros(1, 1, 1, 8, 8))
    layers = [layer for stage in net.backbone.stages for layer in stage[:2]]
    assert [c.layer for c in found] == [*layers, None]
    assert [c.source for c in found] == [None, *layers]
    assert [c.synapse for c in found] == [*(layer.synapse for layer in layers), net.head.readout]
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())


class Branches(nn.Module):
    """Two layers on one input, joined by ``join``, and a read-out."""

    def __init__(self, join):
        super().__init__()
        self.join = join
        self.a, self.b = (Layer(nn.Linear(4, 4), nn.Identity(), ReLU()) for _ in range(2))
        self.readout = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.readout(self.join(self.a(x), self.b(x)))


@pytest.mark.parametrize("join", [torch.add, lambda a, b: torch.cat([a, b], -1)[..., 2:6]], ids=["sum", "concatenation"])
def test_wiring_refuses_a_synapse_that_two_layers_feed(join):
    with pytest.raises(ValueError, match="readout is fed by a, b; conversion needs exactly one source"):
        trace(Branches(join), torch.zeros(1, 2, 4))


def test_wiring_refuses_two_synapses_without_a_neuron_in_between():
    net = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2))
    with pytest.raises(ValueError, match="1 is fed by 0, which has no neuron"):
        trace(net, torch.zeros(1, 2, 3))


def test_wiring_refuses_a_synapse_that_is_used_twice():
    layer = Layer(nn.Linear(3, 3), nn.Identity(), ReLU())
    with pytest.raises(ValueError, match="used twice"):
        trace(nn.Sequential(layer, layer), torch.zeros(1, 2, 3))


def test_factors_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="3 norm factors do not fit 4 features"):
        normalise(nn.Linear(4, 2), torch.ones(3))
    layer = Layer(nn.Linear(3, 2), nn.Identity(), ReLU())
    with pytest.raises(ValueError, match='need the form "weights"'):
        install(trace(layer, torch.zeros(1, 1, 3)), {layer: torch.ones(2)}, form="thresholds")


@pytest.fixture
def residual(digits):
    """The residual network of the budget's widths with statistics and scales of its own, ReLU still, in double precision."""
    torch.manual_seed(3)
    method = Ann2Snn(digits, {"net": "resnet"})
    net = method.build().double().eval()
    for module in net.modules():
        if isinstance(module, BatchNorm):
            for values, low in (
                (module.running_mean, -0.2),
                (module.running_var, 0.5),
                (module.weight.data, 0.5),
                (module.bias.data, -0.1),
            ):
                values.uniform_(low, low + 0.5)
    return method, net, torch.rand(1, 3, *digits.input_shape, dtype=torch.float64)


def test_an_opened_shortcut_and_the_residual_network_around_it_compute_the_same(residual):
    _, net, x = residual
    with torch.no_grad():
        wanted = net(x)
        open_shortcuts(net)
        torch.testing.assert_close(net(x), wanted, atol=1e-12, rtol=0)


def test_wiring_leads_both_branches_of_a_residual_block_to_its_neurons(residual):
    _, net, x = residual
    open_shortcuts(net)
    connections = trace(net, x)
    names = {module: name for name, module in net.named_modules()}
    blocks = [module for module in net.modules() if isinstance(module, ResidualBlock)]
    for block in blocks:
        joined = [names[c.synapse] for c in connections if c.layer is block]
        assert joined == [f"{names[block]}.branch.1.synapse", f"{names[block]}.shortcut.synapse"]
        (source,) = {c.source for c in connections if c.synapse in (block.branch[0].synapse, block.shortcut.synapse)}
        assert isinstance(source, Layer)


def test_wiring_refuses_an_identity_shortcut_that_was_not_opened(residual):
    _, net, x = residual
    with pytest.raises(ValueError, match="adds the spikes of .* to currents; conversion needs a synapse there"):
        trace(net, x)


def test_a_residual_network_normalised_through_its_junctions_is_the_same_function(residual):
    _, net, x = residual
    open_shortcuts(net)
    connections = trace(net, x)
    with torch.no_grad():
        wanted = net(x)
        fold(net)
        factors = {c.layer: 0.5 + torch.rand((), dtype=torch.float64) for c in connections if c.layer is not None}
        install(connections, factors, lambda threshold: ReLU())
        torch.testing.assert_close(net(x), wanted, atol=1e-12, rtol=0)


def test_a_converted_residual_network_approaches_its_relu_network(residual):
    method, net, x = residual
    open_shortcuts(net)
    connections = trace(net, x)
    with torch.no_grad():
        wanted = net(x)[0]
        fold(net)
        layers = dict.fromkeys(c.layer for c in connections if c.layer is not None)
        install(connections, activation_factors(net, layers, [x], 3), integrate_and_fire)
        errors = [(net(x.expand(steps, *x.shape[1:])).mean(0) - wanted).abs().mean().item() for steps in (16, 64, 256)]
    assert errors[0] > 2 * errors[1] > 4 * errors[2]


def test_threshold_balancing_waits_for_both_branches_of_a_junction(residual):
    _, net, x = residual
    open_shortcuts(net)
    trace(net, x)
    with torch.no_grad():
        fold(net)
        factors = spike_factors(net, [x], 200)
        layers = dict.fromkeys(c.layer for c in trace(net, x) if c.layer is not None)
        peaks = activation_factors(net, layers, [x], 3)
    assert set(factors) == set(peaks)
    for layer in layers:  # with whole spikes of every branch at once the currents are at least as large as on average
        assert factors[layer] > 0.9 * peaks[layer]


def test_published_networks_need_images_of_a_size(digits):
    with pytest.raises(UnfitError, match="net = 'vgg16' needs images of 32 pixels each way, not .8, 8."):
        Ann2Snn(digits, {"net": "vgg16"})


class Narrow:
    """Parts with a sixteenth of the channels, so that published networks are small."""

    def conv(self, features_in, features_out, kernel, stride=1, first=False):
        inputs = features_in if first else features_in // 16
        return Conv2d(inputs, features_out // 16, kernel, stride, padding=kernel // 2)

    def norm(self, features, scale=1.0):
        return BatchNorm(features // 16)

    def neuron(self, features):
        return ReLU()

    def pool(self, kernel):
        return AvgPool2d(kernel)


@pytest.mark.parametrize(("name", "levels"), [("vgg16", [(64, 16), (128, 8), (256, 4), (512, 2), (512, 1)]), ("resnet34", None)])
def test_published_networks_convert(name, levels):
    torch.manual_seed(0)
    net = rate_network(name, Backbone("conv", (4,)), (3, 32, 32), Narrow()).eval()
    if levels:
        assert [(level.channels, level.size[0]) for level in net.levels] == levels
    assert not any(isinstance(module, nn.MaxPool2d) for module in net.modules())
    open_shortcuts(net)
    connections = trace(net, torch.rand(1, 1, 3, 32, 32))
    assert len(connections) == {"vgg16": 13, "resnet34": 33 + 16}[name]
    fold(net)
    install(connections, {c.layer: torch.ones(()) for c in connections})
    assert all(level.shape[:2] == (2, 1) for level in net(torch.rand(2, 1, 3, 32, 32)))


# The method


def test_the_converted_network_answers_like_the_ann_it_came_from(digits, trained):
    method, net, relu = trained
    spiking = evaluate(method, net, "test")
    ann = evaluate(method, relu, "test", method.predict_ann)
    assert spiking.metrics["accuracy"] > ann.metrics["accuracy"] - 0.02
    assert spiking.steps_used == method.steps == 64
    x = digits.gather("test", torch.arange(32)).inputs
    with torch.no_grad():
        wanted = method.predict_ann(relu, x).final()
        outputs = method.predict(net, x).outputs
    errors = [(outputs[t - 1] - wanted).abs().mean().item() for t in (4, 16, 64)]
    assert errors[0] > 2 * errors[1] > 4 * errors[2]


def test_the_converted_network_emits_zeros_and_ones(digits, trained):
    method, net, _ = trained
    seen = []
    hooks = [m.register_forward_hook(lambda m, args, s: seen.append(s)) for m in net.modules() if isinstance(m, LIF)]
    with torch.no_grad():
        method.predict(net, digits.gather("test", torch.arange(8)).inputs)
    for hook in hooks:
        hook.remove()
    assert len(hooks) == 4
    assert all(((s == 0) | (s == 1)).all() for s in seen)
    assert all(m.threshold == 1 and m.spike_kind == "binary" for m in net.modules() if isinstance(m, LIF))


def test_factors_are_taken_from_training_images_as_they_are(digits, trained):
    method, _, relu = trained
    x = digits.gather("train", torch.arange(256)).inputs
    with torch.no_grad():
        first = relu.backbone.stages[0][0](x[None])
    expected = np.percentile(first[first > 0].double().numpy(), 99.9)
    assert method.figures["norm_factors"]["backbone.stages.0.0"][0] == pytest.approx(expected, rel=1e-5)


def test_the_report_names_factors_errors_and_the_first_step_near_the_ann(trained):
    method, net, relu = trained
    report = method.report(net)
    assert len(report["norm_factors"]) == len(report["rate_error"]) == 4
    assert all(0 <= error < 0.1 for error in report["rate_error"].values())
    ann = evaluate(method, relu, "validation", method.predict_ann).metrics["accuracy"]
    near = [t for t, accuracy in enumerate(evaluate(method, net, "validation").curve, 1) if accuracy >= ann - 0.01]
    assert report["ann_validation"] == ann
    assert report["steps_to_ann"] == (near[0] if near else None)


@pytest.mark.parametrize(
    "options", [{"form": "thresholds"}, {"factors": "max", "v_init": 0.5}, {"factors": "spikes", "balancing_steps": 20}]
)
def test_every_variant_approaches_the_ann(digits, trained, options):
    relu = copy.deepcopy(trained[2])
    method = Ann2Snn(digits, {"calibration": 64, "balancing_images": 64, **options}, steps=128)
    x = digits.gather("train", torch.arange(32)).inputs
    with torch.no_grad():
        wanted = method.predict_ann(relu, x).final()
    method.convert(relu)
    with torch.no_grad():
        errors = [(answer - wanted).abs().mean().item() for answer in method.predict(relu, x).outputs[[31, 127]]]
    assert errors[0] > 2.5 * errors[1]  # 4 if nothing were clipped
    assert errors[1] < 0.2 * wanted.abs().mean()


def test_hard_reset_answers_differently_from_soft_reset(digits, trained):
    found = []
    for reset in ("soft", "hard"):
        net = copy.deepcopy(trained[2])
        method = Ann2Snn(digits, {"reset": reset, "calibration": 64})
        method.convert(net)
        with torch.no_grad():
            found.append(method.predict(net, digits.gather("test", torch.arange(8)).inputs).final())
    assert not torch.allclose(*found)


def test_simulating_in_pieces_equals_simulating_at_once(digits, trained):
    method, net, _ = trained
    x = digits.gather("test", torch.arange(4)).inputs
    with torch.no_grad():
        torch.testing.assert_close(method.predict(net, x).outputs, digits.answer(net(method.encode(x))), atol=1e-4, rtol=0)


def test_the_time_steps_are_the_methods_own_unless_asked(digits):
    assert (Ann2Snn(digits).steps, Ann2Snn(digits, steps=5).steps, Ann2Snn(digits, track="recipe").steps) == (64, 5, 256)


def test_data_with_a_time_axis_are_refused_with_a_reason():
    registries = Registries()
    for name in ("events/x", "sequences/x"):
        task = type("Other", (Boxes,), {"card": TaskCard(name, *[""] * 5)})
        assert "constant input" in Ann2Snn.supports(task)
    assert Ann2Snn.supports(registries.tasks.load("static/digits")) is None
    with pytest.raises(UsageError, match="factors"):
        Ann2Snn(registries.tasks.load("static/digits")(), {"factors": "mean"})


class Boxes(Task):
    """Random images for a detector with two levels."""

    card = TaskCard("detection/random", *["random"] * 5)
    input_shape = (3, 16, 16)
    head = Head("detect", classes=2, strides=(2, 4))
    steps = 4
    budgets = {"smoke": Budget(Training(epochs=1), Backbone("conv", (8, 12)))}

    def load(self, split):
        torch.manual_seed(len(split))
        return Data(torch.randn(64, 3, 16, 16), torch.zeros(64, 1, 5))

    def loss(self, output, targets, label_smoothing=0.0):
        return output.square().mean()

    metric = "size"

    def scorer(self):
        return Size()


class Size:
    """The mean size of the answers, for a metric."""

    def __init__(self):
        self.found = []

    def update(self, outputs, targets):
        self.found.append(outputs.abs().mean().item())

    def compute(self):
        return {"size": sum(self.found) / len(self.found)}


def test_a_detector_with_two_levels_converts():
    task = Boxes()
    torch.manual_seed(14)
    method = Ann2Snn(task, {"factors": "max"}, steps=256)
    net = method.build()
    for module in net.modules():  # statistics that are not the initial ones
        if isinstance(module, BatchNorm):
            nn.init.uniform_(module.running_mean, -0.2, 0.2)
            nn.init.uniform_(module.running_var, 0.2, 1.0)
    net.eval()
    x = task.gather("train", torch.arange(8)).inputs
    with torch.no_grad():
        wanted = method.predict_ann(net, x).final()
    towers = list(net.head.towers)
    found = trace(net, x[None, :1])
    assert [c.source for c in found if c.layer in towers] == [net.backbone.stages[i][1] for i in range(2)]
    assert [c.source for c in found if c.layer is None] == towers
    method.convert(net)
    with torch.no_grad():
        errors = [(answer - wanted).abs().mean().item() for answer in method.predict(net, x).outputs[[15, 63, 255]]]
    assert errors[0] > 2.5 * errors[1] > 6.25 * errors[2]
    assert errors[2] < 0.01 * wanted.std()
    curve = method._validation(net, method.predict)
    assert list(curve) == [1, 2, 4, 8, 16, 32, 64, 128, 256]
    near = [step for step, found in curve.items() if found >= method.report(net)["ann_validation"] - 0.01]
    assert method.report(net)["steps_to_ann"] == near[0]


@pytest.mark.parametrize("coding", ["latency", "phase"])
def test_input_that_changes_with_time_is_refused_with_the_reason(coding):
    registries = Registries()
    assert f"{coding} coding changes it" in Ann2Snn.supports(registries.task(f"static/digits[encoding={coding}]"))
    assert Ann2Snn.supports(registries.task("static/digits[encoding=rate]")) is None
