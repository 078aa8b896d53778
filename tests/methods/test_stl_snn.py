"""STL-SNN: the numbered faithfulness tests of its card (readout and normalisation: tests/methods/nn), and the plugin on tasks."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from harness.loop import train
from harness.plugin import UsageError
from harness.registry import Registries
from methods.nn.demo_net import DemoNet
from methods.nn.neuron import LIF
from methods.nn.norm import BatchNorm
from methods.nn.step_norm import StepBatchNorm
from methods.nn.stepping import stepping
from methods.stl_snn import StlSnn
from suites.static_vision import Digits

DOUBLE = torch.float64
SHAPE = (2, 3, 3)


def task(name):
    return Registries().tasks.load(name)()


def layer(theta0=1.0, backend="auto", **options) -> LIF:
    """The plugin's neurons for maps of SHAPE, in double precision, all thresholds different."""
    torch.manual_seed(0)
    lif = StlSnn(Digits(), {"theta0": theta0, **options})._neuron(SHAPE).to(DOUBLE)
    lif.backend = backend
    with torch.no_grad():
        lif.threshold.copy_(theta0 + 0.3 * torch.rand(SHAPE, dtype=DOUBLE))
    return lif


def current(steps, batch=4, seed=1):
    return torch.randn(steps, batch, *SHAPE, dtype=DOUBLE, generator=torch.Generator().manual_seed(seed)) + 0.8


def slope(distance):
    return 1 / (1 + (math.pi * distance) ** 2)


# 1
@pytest.mark.parametrize("backend", ["auto", "reference"])
def test_at_one_step_the_gradient_of_a_threshold_is_minus_the_sum_of_the_surrogate(backend):
    lif, x = layer(backend=backend), current(1)
    (found,) = torch.autograd.grad(lif(x).sum(), [lif.threshold])
    torch.testing.assert_close(found, -slope(x - lif.threshold.detach()).sum((0, 1)), rtol=1e-5, atol=0)


# 2
@pytest.mark.parametrize("backend", ["auto", "reference"])
def test_over_time_gradients_are_those_of_the_recursion_with_the_reset_attached(backend):
    lif, x = layer(backend=backend), current(3).requires_grad_()
    spikes = lif(x)
    w = torch.randn(x.shape, dtype=DOUBLE, generator=torch.Generator().manual_seed(2))
    found = torch.autograd.grad(spikes, [lif.threshold, x], w)
    theta, m, potentials = lif.threshold.detach(), 0.0, []
    for now in x.detach():
        u = 0.5 * m + now
        potentials.append(u)
        m = (1 - (u >= theta).double()) * u
    g_theta, dm, g_x = torch.zeros(SHAPE, dtype=DOUBLE), 0.0, []
    for t in (2, 1, 0):
        u = potentials[t]
        ds = w[t] - dm * u
        g_theta -= (ds * slope(u - theta)).sum(0)
        du = ds * slope(u - theta) + dm * (1 - (u >= theta).double())
        g_x.insert(0, du)
        dm = 0.5 * du
    assert 0.2 < spikes.mean() < 0.8
    torch.testing.assert_close(found[0], g_theta, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(found[1], torch.stack(g_x), rtol=1e-10, atol=1e-10)


# 3
@pytest.mark.parametrize(("mode", "weights", "thresholds"), [("sl", True, False), ("tl", False, True), ("stl", True, True)])
@pytest.mark.parametrize("votes", [0, 2])
def test_a_mode_trains_its_family_and_leaves_the_other_bit_equal(mode, weights, thresholds, votes):
    method = StlSnn(Digits(), {"mode": mode, "votes": votes, "theta0": 0.6}, training={"epochs": 1, "batch_size": 512})
    torch.manual_seed(0)
    net = method.build()
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    train(method, net, seed=0)
    changed = {name: not torch.equal(before[name], p) for name, p in net.named_parameters()}
    levels = {name for name in changed if name.endswith("threshold")}
    assert len(levels) == (5 if votes else 4)
    assert all(changed[name] == thresholds for name in levels)
    assert all(flag == weights for name, flag in changed.items() if name not in levels)


# 4
def test_every_neuron_has_its_own_threshold_and_gradient():
    method = StlSnn(Digits())
    net = method.build()
    widths = method.task.budget.backbone.widths
    expected = [(width, 8 // 2**stage, 8 // 2**stage) for stage, width in enumerate(widths) for _ in range(2)]
    assert [tuple(threshold.shape) for threshold in method.watch.thresholds(net)] == expected
    lif = layer()
    x = torch.zeros(1, 1, *SHAPE, dtype=DOUBLE)
    x[..., 1, 2, 0] = 1.0
    (found,) = torch.autograd.grad(lif(x).sum(), [lif.threshold])
    at_rest = -slope(lif.threshold.detach())
    elsewhere = torch.ones(SHAPE, dtype=torch.bool)
    elsewhere[1, 2, 0] = False
    torch.testing.assert_close(found[elsewhere], at_rest[elsewhere])
    assert found[1, 2, 0] < 2 * at_rest[1, 2, 0]


def test_the_demo_network_has_as_many_thresholds_as_the_card_counts():
    method = StlSnn(task("static/mnist"), {"net": "demo", "votes": 10})
    with torch.device("meta"):
        places = DemoNet((1, 28, 28), method)
    sizes = [128 * 28 * 28, 128 * 14 * 14, 2048, 10 * 10]
    assert sum(sizes) == 127_588
    digits = StlSnn(Digits(), {"net": "demo", "votes": 10})
    found = [threshold.numel() for threshold in digits.watch.thresholds(digits.build())]
    assert found == [128 * 8 * 8, 128 * 4 * 4, 2048, 100]
    weights = [module.weight for module in places.modules() if isinstance(module, (nn.Conv2d, nn.Linear))]
    assert [tuple(weight.shape) for weight in weights] == [(128, 1, 5, 5), (128, 128, 5, 5), (2048, 128 * 7 * 7)]
    assert all(module.bias is None for module in places.modules() if isinstance(module, (nn.Conv2d, nn.Linear)))


# 5
@pytest.mark.parametrize("weights", ["equal", "learnt"])
def test_the_answer_of_votes_is_the_mean_over_votes_and_time(weights):
    method = StlSnn(Digits(), {"votes": 3, "theta0": 0.3, "vote_weights": weights, "step_weights": weights})
    torch.manual_seed(0)
    net = method.build()  # in training mode, where statistics of the batch keep the network from silence
    spikes = []
    net.head.readout.neuron.register_forward_hook(lambda module, args, out: spikes.append(out))
    with torch.no_grad():
        found = method.predict(net, next(method.task.batches("validation", 6)).inputs).final()
    assert spikes[0].mean() > 0
    torch.testing.assert_close(found, spikes[0].view(4, 6, 10, 3).mean((0, 3)))


def test_votes_are_trained_by_squared_error_to_the_one_hot_class():
    method = StlSnn(Digits(), {"votes": 3})
    output, targets = torch.rand(5, 10), torch.tensor([3, 1, 4, 1, 5])
    wanted = torch.zeros(5, 10)
    wanted[range(5), targets] = 1
    torch.testing.assert_close(method.loss(output, targets), ((output - wanted) ** 2).mean())


# 6
def test_a_neuron_fires_at_its_threshold_and_is_reset_to_zero():
    lif = layer()
    with torch.no_grad():
        lif.threshold.fill_(1.0)
        x = torch.full((1, 1, *SHAPE), 1.0, dtype=DOUBLE)
        x = torch.cat([x, 1.6 * x, 0.7 * x])
        assert lif(x).mean((1, 2, 3, 4)).tolist() == [1.0, 1.0, 0.0]  # after subtraction 0.3 would be left, and 0.7 + 0.15 too little
        with stepping(lif):
            lif(x[:2])
            assert lif.carried()[0].count_nonzero() == 0


# 7: tests/methods/nn/test_step_norm.py; here, that the option uses it
def test_the_recipe_normalises_step_by_step():
    method = StlSnn(Digits(), track="recipe")
    norm = method.norm(3)
    assert type(norm) is StepBatchNorm
    x = torch.randn(1, 6, 3, 2, 2, generator=torch.Generator().manual_seed(0)) + 1
    norm(x.repeat(4, 1, 1, 1, 1))
    torch.testing.assert_close(norm.running_mean, (1 - 0.9**4) * x.mean((0, 1, 3, 4)))


# 8
@pytest.mark.parametrize("leak", [0.0, 0.5, 1.0])
def test_a_higher_threshold_never_fires_more(leak):
    counts = []
    x = torch.randn(20, 20_000, generator=torch.Generator().manual_seed(5)).mul(1.5)[:, :, None].to(DOUBLE)
    for theta in (0.2, 0.5, 1.0, 2.0):
        lif = StlSnn(Digits(), {"leak": leak, "theta0": theta})._neuron((1,)).to(DOUBLE)
        with torch.no_grad():
            counts.append(lif(x).sum(0))
    for lower, higher in zip(counts, counts[1:], strict=False):
        assert (higher <= lower).all() and (higher < lower).any()


def test_thresholds_start_almost_equal_at_theta0():
    threshold = StlSnn(Digits(), {"theta0": 2.0})._neuron((40, 10, 10)).threshold
    assert abs(threshold.mean() - 2) < 1e-5 and abs(threshold.std() / 1e-4 - 1) < 0.1


@pytest.mark.parametrize(("per", "numbers"), [("layer", [1, 1, 1, 1]), ("channel", [24, 24, 48, 48])])
def test_thresholds_can_be_shared(per, numbers):
    method = StlSnn(Digits(), {"per": per})
    assert [threshold.numel() for threshold in method.watch.thresholds(method.build())] == numbers


def test_bernoulli_coding_has_the_pixels_as_rates():
    method = StlSnn(Digits(), {"coding": "bernoulli"}, steps=400)
    stored = method.task.split("validation").inputs[:4]
    torch.manual_seed(0)
    found = method.encode(method.task.prepare(stored))
    assert set(found.unique().tolist()) == {0.0, 1.0}
    assert (found.mean(0) - stored).abs().max() < 0.12
    assert not torch.equal(found, method.encode(method.task.prepare(stored)))


def test_the_floor_holds_and_without_one_thresholds_may_fall():
    class Push:
        def minimise(self, loss):
            with torch.no_grad():
                for threshold in thresholds:
                    threshold.sub_(5.0)

    for floor in (0.1, None):
        method = StlSnn(Digits(), {"floor": floor})
        net = method.build()
        thresholds = method.watch.thresholds(net)
        method.step(net, next(method.task.batches("train", 8)), Push())
        assert all((threshold == 0.1).all() if floor else (threshold < 0).all() for threshold in thresholds)


def test_thresholds_have_a_weight_decay_of_their_own_if_asked():
    method = StlSnn(Digits(), {"threshold_decay": 0.5}, training={"weight_decay": 0.1})
    net = method.build()
    weights, thresholds = method.groups(net)
    assert thresholds["weight_decay"] == 0.5 and "weight_decay" not in weights
    assert len(weights["params"]) + len(thresholds["params"]) == len(list(net.parameters()))
    assert StlSnn(Digits(), training={"weight_decay": 0.1}).groups(net)[1]["weight_decay"] == 0.1


@pytest.mark.parametrize("name", ["detection/digit-scenes", "events/digits-saccade", "sequences/adding", "static/digits"])
@pytest.mark.parametrize("track", ["matched", "recipe"])
def test_steps_one_by_one_answer_like_the_whole_sequence(name, track):
    options = {"theta0": 0.5} | ({"step_weights": "learnt"} if name == "static/digits" and track == "recipe" else {})
    method = StlSnn(task(name), options, track)
    torch.manual_seed(0)
    net = method.build()
    x = method.encode(next(method.task.batches("validation", 2, 2)).inputs)
    x = x if method.task.readout == "mean" else x[:8]
    for module in net.modules():
        if isinstance(module, BatchNorm):
            module.momentum = 0.9  # so that one pass fills the running statistics, and neurons fire in eval mode
    with torch.no_grad():
        net(x)
        net.eval()
        with stepping(net):
            serial = torch.cat([net(now) for now in x.split(1)])
        whole = net(x)
    torch.testing.assert_close(serial, whole, rtol=1e-4, atol=1e-4)
    assert whole.std(0).max() > 0  # steps differ, so state was carried


def test_the_report_has_thresholds_rates_noise_and_draws():
    method = StlSnn(
        Digits(), {"coding": "bernoulli", "votes": 2, "noise_samples": 40, "theta0": 0.4}, training={"epochs": 2, "batch_size": 512}
    )
    torch.manual_seed(0)
    net = method.build()
    train(method, net, seed=0)
    found = method.report(net)
    assert [len(found[name]) for name in ("threshold_means", "threshold_deviations", "rates")] == [3, 3, 3]  # two epochs and the end
    assert len(found["threshold_parameters"]) == len(found["silent_neurons"]) == 5
    assert found["threshold_means"][0] != found["threshold_means"][-1]
    assert len(found["noise"]) == len(found["noise_metric"]) == 6 and len(found["metric_draws"]) == 3
    assert method.report(net)["noise_metric"] == found["noise_metric"]  # draws are seeded


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("detection/digit-scenes", {"votes": 3}, "votes"),
        ("sequences/adding", {"votes": 3}, "votes"),
        ("static/digits", {"vote_weights": "learnt"}, "set votes to 1"),
        ("events/digits-saccade", {"coding": "bernoulli"}, "still images"),
        ("sequences/adding", {"net": "demo"}, "net = 'task'"),
    ],
)
def test_what_cannot_be_is_refused(name, options, message):
    with pytest.raises(UsageError, match=message):
        StlSnn(task(name), options)
