"""TCL: the clipping layer, what it means for the converted network, the residual junction, and the method as a whole."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.evaluate import evaluate
from harness.loop import make_optimizer, train
from harness.registry import Registries
from harness.task import Training
from methods.ann2snn import Ann2Snn
from methods.nn.calibration import activation_factors
from methods.nn.conversion import install, integrate_and_fire
from methods.nn.layer import Layer
from methods.nn.neuron import LIF, ReLU
from methods.nn.residual import ResidualBlock
from methods.nn.synapse import Conv2d
from methods.nn.wiring import open_shortcuts, trace
from methods.tcl import ClippedReLU, Tcl

DOUBLE = torch.float64


@pytest.fixture(scope="module")
def digits():
    return Registries().tasks.load("static/digits")()


def clip(bound: float) -> ClippedReLU:
    layer = ClippedReLU(bound).to(DOUBLE)
    nn.init.constant_(layer.bound, bound)  # the number itself, not its float32 neighbour
    return layer


def clipped_mlp(bounds: tuple[float, float] = (0.6, 0.5)) -> nn.Sequential:
    """Two clipped layers and a linear read-out, float64."""
    torch.manual_seed(7)
    return nn.Sequential(
        Layer(nn.Linear(20, 30), nn.Identity(), ClippedReLU(bounds[0])),
        Layer(nn.Linear(30, 25), nn.Identity(), ClippedReLU(bounds[1])),
        nn.Linear(25, 8),
    ).to(DOUBLE)


def converted(net: nn.Module, x: Tensor, form: str = "weights") -> nn.Module:
    """A copy of ``net`` whose factors are its bounds."""
    net = copy.deepcopy(net)
    connections = trace(net, x[None])
    install(connections, {c.layer: c.layer.neuron.bound.detach() for c in connections if c.layer}, form=form)
    return net


class Clipped(nn.Module):
    """ReLU clipped at ``bound``, a scalar or one value per channel."""

    def __init__(self, bound: Tensor) -> None:
        super().__init__()
        self.bound = bound

    def forward(self, x: Tensor) -> Tensor:
        return torch.minimum(F.relu(x), self.bound.view(-1, 1, 1))


class Plain:
    """Parts: convolutions without normalisation; neurons are taken from a row."""

    def __init__(self, neurons) -> None:
        self.neurons = neurons

    def neuron(self, features: int) -> nn.Module:
        return next(self.neurons)

    def norm(self, features: int, scale: float = 1.0) -> nn.Module:
        return nn.Identity()

    def conv(self, features_in: int, features_out: int, kernel: int, stride: int = 1, first: bool = False) -> nn.Module:
        return Conv2d(features_in, features_out, kernel, stride, padding=kernel // 2)


def simulate(net: nn.Module, x: Tensor, steps: int) -> Tensor:
    """Mean outputs over ``steps`` steps of constant input ``x [B, ...]``."""
    with torch.no_grad():
        return net(x.expand(steps, *x.shape)).mean(0)


# Card, tests 1 to 4: the clipping layer


@pytest.mark.parametrize("lam", [0.3, 1.0, 2.5])
def test_value_and_gradients_are_those_of_the_formulas(lam):
    torch.manual_seed(1)
    x = torch.cat([torch.randn(500, dtype=DOUBLE) * 2, torch.tensor([lam, lam, 0.0, -lam], dtype=DOUBLE)]).view(1, 2, -1).requires_grad_()
    upstream = torch.randn_like(x)
    layer = clip(lam)
    y = layer(x)
    assert torch.equal(y, x.clamp(0, lam))
    dx, dlam = torch.autograd.grad(y, [x, layer.bound], upstream)
    assert torch.equal(dx, upstream * ((x > 0) & (x < lam)))
    torch.testing.assert_close(dlam, (upstream * (x >= lam)).sum(), atol=1e-12, rtol=0)


def test_both_algebraic_forms_of_clipping_agree():
    torch.manual_seed(2)
    lam = torch.tensor(0.8, dtype=DOUBLE, requires_grad=True)
    x = torch.cat([torch.randn(300, dtype=DOUBLE), torch.tensor([0.8], dtype=DOUBLE)]).view(1, 1, -1).requires_grad_()
    upstream = torch.randn_like(x)
    layer = clip(0.8)
    other = lam - F.relu(lam - F.relu(x))
    ours = layer(x)
    torch.testing.assert_close(ours, other, atol=1e-15, rtol=0)
    for found, expected in zip(
        torch.autograd.grad(ours, [x, layer.bound], upstream), torch.autograd.grad(other, [x, lam], upstream), strict=True
    ):
        torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)


def test_one_bound_per_channel_clips_each_channel_by_its_own():
    layer = ClippedReLU(1.0, channels=3)
    with torch.no_grad():
        layer.bound.copy_(torch.tensor([0.5, 1.0, 2.0]))
    images, vectors = torch.full((2, 1, 3, 4, 4), 3.0), torch.full((2, 1, 3), 3.0)
    assert layer(images)[1, 0, :, 2, 3].tolist() == layer(vectors)[1, 0].tolist() == [0.5, 1.0, 2.0]
    layer(images).sum().backward()
    assert layer.bound.grad.tolist() == [32.0] * 3


def test_a_large_bound_leaves_relu_as_it_is():
    x = torch.randn(3, 4, 50, requires_grad=True)
    layer = ClippedReLU(1e3)
    y = layer(x)
    assert torch.equal(y, F.relu(x))
    y.square().sum().backward()
    assert layer.bound.grad == 0


def test_the_bound_is_in_the_graph_as_a_clamp_by_number_is_not():
    x = torch.rand(1, 1, 10) + 1
    layer = ClippedReLU(0.5)
    layer(x).sum().backward()
    assert layer.bound.grad == 10
    assert not F.relu(x).clamp(max=layer.bound.item()).requires_grad


def test_decay_acts_alone_when_nothing_clips(digits):
    torch.manual_seed(3)
    method = Tcl(digits, {"bound": 1e4, "lambda_decay": 0.05})
    net = method.build().double()
    lr, steps = 0.1, 6
    optimizer = make_optimizer(method.groups(net), Training(epochs=1, optimizer="sgd", lr=lr, momentum=0.0, weight_decay=0.0))
    x = torch.randn(4, 1, 8, 8, dtype=DOUBLE)
    for _ in range(steps):
        optimizer.zero_grad()
        net(method.task.encode(x, 1)).square().mean().backward()
        optimizer.step()
    for bound in method.bounds(net):
        assert bound.item() == pytest.approx(1e4 * (1 - lr * 0.05) ** steps, rel=1e-12)


# Card, tests 5 to 7 and 9: after conversion


@pytest.mark.parametrize("lam", [0.7, 2.0])
@pytest.mark.parametrize("steps", [4, 32, 250])
def test_conversion_adds_no_clipping_error(lam, steps):
    z = lam * torch.arange(-1.0, 2.5, 1 / 257, dtype=DOUBLE)
    with torch.no_grad():
        count = integrate_and_fire(lam)(z.expand(steps, -1)).sum(0)
    error = lam * count / steps - torch.minimum(F.relu(z), torch.tensor(lam, dtype=DOUBLE))
    assert error.abs().max() <= lam / steps + 1e-12
    assert (count[z >= lam] == steps).all()


def test_the_bound_is_the_norm_factor():
    net, x = clipped_mlp(), torch.randn(32, 20, dtype=DOUBLE)
    trains, outputs = [], []
    for form in ("weights", "thresholds"):
        snn, seen = converted(net, x, form), []
        for module in snn.modules():
            if isinstance(module, LIF):
                assert module.threshold == 1 or form == "thresholds"
                module.register_forward_hook(lambda m, args, s, seen=seen: seen.append(s))
        outputs.append(simulate(snn, x, 40))
        trains.append(seen)
    for first, second in zip(*trains, strict=True):
        assert 0 < first.mean() < 1
        assert torch.equal(first, second)
    torch.testing.assert_close(*outputs, atol=1e-9, rtol=0)


def test_the_spiking_network_converges_to_the_clipped_network_faster_than_to_plain_relu_with_the_maximum_as_factor():
    net, x = clipped_mlp(), torch.randn(64, 20, dtype=DOUBLE)
    exact = net(x[None])[0].detach()
    snn = converted(net, x)
    plain = copy.deepcopy(net)
    for layer in plain[:2]:
        layer.neuron = ReLU()
    plain_exact = plain(x[None])[0].detach()
    connections = trace(plain, x[None])
    install(connections, activation_factors(plain, list(plain[:2]), [x[None]], len(x)))
    sweep = (16, 64, 256, 1024)
    errors = [(simulate(snn, x, steps) - exact).abs().mean().item() for steps in sweep]
    others = [(simulate(plain, x, steps) - plain_exact).abs().mean().item() for steps in sweep]
    for now, later in zip(errors[:-1], errors[1:], strict=True):
        assert 3 < now / later < 5.5
    assert all(ours < other for ours, other in zip(errors, others, strict=True))


def test_latency_scales_with_the_bound():
    torch.manual_seed(4)
    found = []
    for lam, steps in ((1.0, 40), (4.0, 160)):
        z = torch.rand(20_000, dtype=DOUBLE)
        with torch.no_grad():
            rate = lam * integrate_and_fire(lam)(z.expand(steps, -1)).mean(0)
        found.append((rate - z).abs().mean().item())
    assert found[0] == pytest.approx(found[1], rel=0.05)


# Card, test 8: the residual junction


@pytest.mark.parametrize("projection", [False, True])
@pytest.mark.parametrize("per_channel", [False, True])
def test_a_normalised_residual_block_times_its_output_factor_is_the_block(projection, per_channel):
    torch.manual_seed(5)
    after = 8 if projection else 6
    sizes = (6, after, after) if per_channel else (None,) * 3
    neurons = iter(Clipped(0.5 + 0.5 * torch.rand(size or (), dtype=DOUBLE)) for size in sizes)
    parts = Plain(neurons)
    head = Layer(Conv2d(3, 6, 1), nn.Identity(), next(neurons))
    block = ResidualBlock(6, after, 1, parts, connect="vanilla")
    net = nn.Sequential(head, block).to(DOUBLE)
    x = torch.rand(1, 3, 3, 5, 5, dtype=DOUBLE)
    with torch.no_grad():
        expected = net(x)
        open_shortcuts(net)
        connections = trace(net, x)
        factors = {c.layer: c.layer.neuron.bound for c in connections}
        install(connections, factors, lambda threshold: Clipped(torch.tensor(threshold, dtype=DOUBLE)))
        found = net(x) * factors[block].view(-1, 1, 1)
        if not projection:
            nn.init.ones_(block.shortcut.synapse.weight)  # as if it had been left unscaled
            assert not torch.allclose(net(x) * factors[block].view(-1, 1, 1), expected)
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)


# The method


@pytest.fixture(scope="module")
def trained(digits):
    """The method after a short training, its spiking network, and what the ReLU network answered to test images."""
    torch.manual_seed(0)
    method = Tcl(digits, training={"epochs": 4})
    net = method.build()
    answers = []
    convert = method.convert

    def keeping(net):
        answers.append(evaluate(method, net, "test", method.predict_ann).metrics["accuracy"])
        answers.append([bound.item() for bound in method.bounds(net)])
        convert(net)

    method.convert = keeping
    train(method, net, seed=0)
    return method, net, answers


def test_the_converted_network_answers_like_its_own_ann(trained):
    method, net, (accuracy, _) = trained
    assert evaluate(method, net, "test").metrics["accuracy"] > accuracy - 0.03
    assert method.steps == 32


def test_the_trained_bounds_are_the_factors_and_no_data_are_read(trained):
    method, net, (_, bounds) = trained
    assert [factor for (factor,) in method.report(net)["norm_factors"].values()] == pytest.approx(bounds, rel=1e-6)
    assert all(bound != 2.0 for bound in bounds)
    assert not any(isinstance(m, ClippedReLU) for m in net.modules())


def test_weights_and_bounds_are_two_groups_that_cover_the_network(digits):
    method = Tcl(digits, {"lambda_decay": 0.05})
    net = method.build()
    weights, bounds = method.groups(net)
    assert "weight_decay" not in weights
    assert bounds["weight_decay"] == 0.05
    assert len(bounds["params"]) == 4
    assert {id(p) for p in weights["params"] + bounds["params"]} == {id(p) for p in net.parameters()}


def test_a_bound_never_falls_below_the_floor(digits):
    torch.manual_seed(0)
    method = Tcl(digits, {"lambda_decay": 50.0, "bound": 0.05}, training={"epochs": 1, "optimizer": "sgd", "lr": 0.05})
    net = method.build()
    (phase,) = [next(method.phases(net))]
    method.phases = lambda net: iter([phase])
    train(method, net, seed=0)
    assert min(bound.item() for bound in method.bounds(net)) == pytest.approx(0.01)
    assert method.clamped > 0


def test_bounds_per_channel_convert_exactly(digits):
    torch.manual_seed(0)
    method = Tcl(digits, {"per_channel": True, "bound": 0.8, "v_init": 0.5}, steps=400)
    net = method.build().eval()
    with torch.no_grad():
        for bound in method.bounds(net):
            bound.mul_(torch.rand_like(bound) + 0.5)
        x = digits.gather("test", torch.arange(16)).inputs
        wanted = method.predict_ann(net, x).final()
        method.convert(net)
        outputs = method.predict(net, x).outputs
    errors = [(outputs[t - 1] - wanted).abs().mean().item() for t in (25, 400)]
    assert errors[1] < 0.02 * wanted.abs().mean()
    assert errors[0] > 8 * errors[1]  # 16 in the limit


def test_the_recipe_track_follows_the_qcfs_repository(digits, monkeypatch):
    monkeypatch.setattr(digits, "budget_name", "paper")
    method = Tcl(digits, track="recipe")
    t = method.training
    assert (t.optimizer, t.lr, t.momentum, t.weight_decay, t.epochs, t.batch_size) == ("sgd", 0.1, 0.9, 5e-4, 120, 128)
    assert method.steps == 250


def test_without_clipping_factors_are_percentiles_as_those_of_plain_conversion(digits):
    task = Registries().task("static/digits")
    task.budget = replace(task.budget, train_samples=48, validation_samples=16, test_samples=16)
    factors = []
    for kind, options in ((Tcl, {"clip": False}), (Ann2Snn, {})):
        method = kind(task, options, steps=2, training={"epochs": 1})
        torch.manual_seed(0)
        train(method, method.build(), seed=0)
        factors.append(method.figures["norm_factors"])
    assert factors[0] == factors[1]
