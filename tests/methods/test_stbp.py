"""STBP: neurons, surrogates, tdBN and stepping against formulas written out here and against autograd."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from harness.plugin import UsageError
from harness.registry import Registries
from methods.nn.neuron import LIF
from methods.nn.norm import BatchNorm
from methods.nn.stepping import stepping
from methods.nn.surrogate import SURROGATES, Arctan, Rectangle, Triangle, spike
from methods.nn.synapse import Conv2d, DelayLine
from methods.stbp import Stbp

DOUBLE = torch.float64


@pytest.fixture(scope="module")
def digits():
    return Registries().tasks.load("static/digits")()


def network(task, steps: int, dtype: torch.dtype = torch.float32, **options) -> tuple[Stbp, nn.Module]:
    torch.manual_seed(0)
    method = Stbp(task, options, steps=steps)
    return method, method.build().to(dtype)


def derivative(name: str, d: Tensor) -> Tensor:
    """Surrogates with their formulas from the card, width 1 (arctan: a = 2)."""
    if name == "rectangle":
        return (d.abs() < 0.5).to(d.dtype)
    if name == "triangle":
        return torch.clamp(1 - d.abs(), min=0)
    return 1 / (1 + (math.pi * d) ** 2)


def hand_written(current: Tensor, g: Tensor, reset: str, detach: bool, name: str, leak: float, theta: float) -> tuple[Tensor, Tensor]:
    """The card's recursion: spikes, and dL/dI for gradients ``g`` arriving at the spikes."""
    us, ss, v = [], [], torch.zeros_like(current[0])
    for now in current:
        u = leak * v + now
        s = (u > theta).to(u.dtype)
        v = u * (1 - s) if reset == "hard" else u - theta * s
        us.append(u)
        ss.append(s)
    found, g_v = torch.zeros_like(current), torch.zeros_like(current[0])
    for t in reversed(range(len(current))):
        u, s = us[t], ss[t]
        h = derivative(name, u - theta)
        through = (1 - s) if reset == "hard" else torch.ones_like(s)
        if not detach:
            through = through - (u * h if reset == "hard" else theta * h)
        found[t] = g[t] * h + g_v * through
        g_v = leak * found[t]
    return torch.stack(ss), found


# Card, tests 1 to 4: neuron and surrogate


@pytest.mark.parametrize("reset", ["hard", "soft"])
@pytest.mark.parametrize("detach", [True, False])
@pytest.mark.parametrize("name", ["rectangle", "triangle", "arctan"])
@pytest.mark.parametrize("backend", ["reference", "auto"])  # autograd through the loop, and the backend that networks use
def test_hand_written_bptt_equals_autograd(reset, detach, name, backend):
    torch.manual_seed(1)
    current = torch.randn(7, 3, 11, dtype=DOUBLE).mul_(1.5).requires_grad_()
    g = torch.randn(7, 3, 11, dtype=DOUBLE)
    neuron = LIF(0.6, 0.8, reset, detach, SURROGATES[name], strict=True, backend=backend)
    spikes = neuron(current)
    (found,) = torch.autograd.grad(spikes, current, g)
    expected_spikes, expected = hand_written(current.detach(), g, reset, detach, name, 0.6, 0.8)
    assert 0.1 < spikes.mean() < 0.9
    assert torch.equal(spikes, expected_spikes)
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("reset", ["hard", "soft"])
def test_detaching_the_reset_changes_the_gradient_and_not_the_spikes(reset):
    torch.manual_seed(2)
    current = torch.randn(7, 2, 9, dtype=DOUBLE, requires_grad=True)
    attached, detached = LIF(reset=reset, detach_reset=False), LIF(reset=reset, detach_reset=True)
    first, second = attached(current), detached(current)
    assert torch.equal(first, second)
    grads = [torch.autograd.grad(s.square().sum() + s.cumsum(0).sum(), current)[0] for s in (first, second)]
    assert not torch.allclose(*grads)


@pytest.mark.parametrize("name", sorted(SURROGATES))
def test_a_surrogate_integrates_to_one(name):
    # Arctan and the fast sigmoid have tails of 1/(pi^2 d) and 1/(2 d): +-2000 leaves less than 3e-4 outside.
    reach, n = (2000.0, 4_000_001) if name in ("arctan", "fast_sigmoid") else (20.0, 400_001)
    d = torch.linspace(-reach, reach, n, dtype=DOUBLE)
    assert torch.trapezoid(SURROGATES[name](d), d).item() == pytest.approx(1, abs=2e-3)


@pytest.mark.parametrize("width", [0.5, 1.0, 3.0])
def test_a_surrogate_integrates_to_one_at_any_width(width):
    d = torch.linspace(-10, 10, 400_001, dtype=DOUBLE)
    for surrogate in (Rectangle(width), Triangle(width)):
        assert torch.trapezoid(surrogate(d), d).item() == pytest.approx(1, abs=2e-3)
    assert torch.trapezoid(Triangle(width, scale=0.3)(d), d).item() == pytest.approx(0.3, abs=2e-3)


@pytest.mark.parametrize(("name", "surrogate"), [("rectangle", Rectangle()), ("triangle", Triangle()), ("arctan", Arctan())])
def test_the_gradient_of_a_spike_is_the_formula_of_its_surrogate(name, surrogate):
    d = torch.linspace(-2, 2, 401, dtype=DOUBLE).add_(1e-3).requires_grad_()
    upstream = torch.randn(401, dtype=DOUBLE)
    (found,) = torch.autograd.grad(spike(d, surrogate), d, upstream)
    torch.testing.assert_close(found, upstream * derivative(name, d.detach()), atol=1e-14, rtol=1e-14)


def test_stbp_does_not_fire_exactly_at_threshold_and_the_default_neuron_does(digits):
    at_threshold = torch.ones(1, 1)
    assert Stbp(digits).neuron(1)(at_threshold).item() == 0
    assert LIF()(at_threshold).item() == 1


def test_wus_form_equals_the_three_stage_form():
    torch.manual_seed(3)
    current = torch.randn(50, 4, 8, dtype=DOUBLE)
    leak, theta = 0.25, 0.5
    u = s = torch.zeros(4, 8, dtype=DOUBLE)
    expected = []
    for now in current:
        u = leak * u * (1 - s) + now
        s = (u > theta).to(DOUBLE)
        expected.append(s)
    assert torch.equal(LIF(leak, theta, "hard", strict=True)(current), torch.stack(expected))


# Card, test 5: steps


@pytest.mark.parametrize("norm", ["tdbn", "none"])
def test_step_by_step_equals_layer_by_layer(digits, norm):
    method, net = network(digits, 6, DOUBLE, norm=norm)
    net.eval()
    x = method.encode(torch.randn(5, 1, 8, 8, dtype=DOUBLE) * 3)
    with torch.no_grad():
        whole = net(x)
        with stepping(net):
            single = torch.cat([net(x[t : t + 1]) for t in range(6)])
    assert whole.std() > 0
    torch.testing.assert_close(single, whole, atol=1e-12, rtol=0)


def test_two_forwards_in_a_row_are_identical(digits):
    method, net = network(digits, 4)
    net.eval()
    x = method.encode(torch.randn(3, 1, 8, 8))
    with torch.no_grad():
        assert torch.equal(net(x), net(x))


def test_with_one_step_the_network_has_plain_binary_activations(digits):
    method, net = network(digits, 1, DOUBLE)
    net.eval()
    x = torch.randn(5, 1, 8, 8, dtype=DOUBLE) * 3
    a = x
    for stage in net.backbone.stages:
        for layer in stage[:2]:
            n = layer.norm
            a = F.conv2d(a, layer.synapse.weight, padding=1)
            a = F.batch_norm(a, n.running_mean, n.running_var, n.weight, n.bias)
            a = (a > 1).to(DOUBLE)
        a = F.avg_pool2d(a, 2)
    expected = F.linear(a.flatten(1), net.head.readout.weight, net.head.readout.bias)
    with torch.no_grad():
        torch.testing.assert_close(net(method.encode(x))[0], expected, atol=1e-12, rtol=0)


NEURONS = [
    dict(zip(("reset", "strict", "scale_input", "learnable_leak"), v, strict=True))
    for v in itertools.product(("hard", "soft", "none"), (False, True), (False, True), (False, True))
]


@pytest.mark.parametrize("variant", NEURONS, ids=lambda v: "-".join(str(x) for x in v.values()))
def test_a_neuron_is_the_scan_of_single_steps(variant):
    torch.manual_seed(4)
    current = torch.randn(9, 2, 5, dtype=DOUBLE) * 2
    neuron = LIF(0.7, 0.9, v_init=0.3, **variant).to(DOUBLE)
    with torch.no_grad(), stepping(neuron):
        single = torch.cat([neuron(now[None]) for now in current])
    with torch.no_grad():
        assert torch.equal(neuron(current), single)


@settings(max_examples=40, deadline=None)
@given(
    cuts=st.lists(st.integers(1, 5), min_size=1, max_size=5),
    taps=st.integers(1, 4),
    dilation=st.integers(1, 5),
    seed=st.integers(0, 10_000),
)
def test_a_delay_line_is_the_same_in_pieces_of_any_length(cuts, taps, dilation, seed):
    torch.manual_seed(seed)
    line = DelayLine(3, 2, taps, dilation).to(DOUBLE)
    x = torch.randn(sum(cuts), 2, 3, dtype=DOUBLE)
    with torch.no_grad():
        whole = line(x)
        with stepping(line):
            pieces = torch.cat([line(part) for part in x.split(cuts)])
        expected = torch.stack(
            [
                line.conv.bias
                + sum(x[t - (taps - 1 - k) * dilation] @ line.conv.weight[:, :, k].T for k in range(taps) if t >= (taps - 1 - k) * dilation)
                for t in range(len(x))
            ]
        )
    torch.testing.assert_close(pieces, whole, atol=1e-12, rtol=0)
    torch.testing.assert_close(whole, expected, atol=1e-12, rtol=0)


@settings(max_examples=40, deadline=None)
@given(
    cuts=st.lists(st.integers(1, 6), min_size=1, max_size=5),
    leak=st.floats(0, 1),
    threshold=st.floats(0.1, 2),
    reset=st.sampled_from(["hard", "soft", "none"]),
    seed=st.integers(0, 10_000),
)
def test_a_neuron_is_the_same_in_pieces_of_any_length_and_its_spikes_are_zero_or_one(cuts, leak, threshold, reset, seed):
    torch.manual_seed(seed)
    current = torch.randn(sum(cuts), 2, 3, dtype=DOUBLE)
    neuron = LIF(leak, threshold, reset)
    with stepping(neuron):
        pieces = torch.cat([neuron(part) for part in current.split(cuts)])
    whole = neuron(current)
    assert torch.equal(whole, pieces)
    assert ((whole == 0) | (whole == 1)).all()


def test_no_state_survives_the_stepping_context():
    neuron, line = LIF(), DelayLine(2, 2, 3, 1)
    net = nn.Sequential(line, neuron)
    x = torch.randn(3, 1, 2)
    before = net(x)
    with pytest.raises(KeyError), stepping(net):
        net(x)
        raise KeyError
    assert neuron.carried() is None
    assert line.carried() is None
    assert torch.equal(net(x), before)
    with stepping(net), pytest.raises(RuntimeError, match="already stepping"), stepping(net):
        pass


def test_stepping_with_detach_cuts_the_graph_between_calls():
    x = torch.tensor([[[0.6, 0.9, 1.3]], [[0.7, 0.4, 0.8]]], requires_grad=True)
    neuron = LIF(leak=0.9, detach_reset=False)
    with stepping(neuron, detach=True):
        neuron(x[:1])
        second = neuron(x[1:])
    (cut,) = torch.autograd.grad(second.sum(), x)
    (full,) = torch.autograd.grad(neuron(x)[1].sum(), x)
    assert (cut[0] == 0).all()
    assert (full[0] != 0).any()


@pytest.mark.parametrize("reset", ["hard", "soft", "none"])
def test_a_current_that_is_not_a_number_stays_visible(reset):
    current = torch.zeros(4, 1, 3)
    current[1, 0, 2] = math.nan
    spikes = LIF(reset=reset)(current)
    assert spikes[:, 0, :2].isfinite().all()
    assert spikes[0].isfinite().all()
    assert spikes[1:, 0, 2].isnan().all()


@pytest.mark.parametrize("steps", [1, 3])
def test_an_empty_batch_gives_empty_outputs(digits, steps):
    method, net = network(digits, steps)
    net.eval()
    with torch.no_grad():
        assert net(method.encode(torch.zeros(0, 1, 8, 8))).shape == (steps, 0, 10)
        assert DelayLine(3, 2, 4, 2)(torch.zeros(steps, 0, 3)).shape == (steps, 0, 2)


def test_a_learnable_leak_starts_where_it_is_told_and_gets_a_gradient():
    neuron = LIF(leak=0.7, learnable_leak=True)
    assert neuron.leak.item() == pytest.approx(0.7)
    assert "leak=0.7" in repr(neuron)
    neuron(torch.rand(5, 2, 3)).sum().backward()
    assert neuron.leak_logit.grad.abs() > 0


# Card, tests 6 and 7: tdBN


@pytest.mark.parametrize("scale", [0.5, 1.0, 0.5 / math.sqrt(2)])
def test_tdbn_pools_time(scale):
    torch.manual_seed(5)
    drift = torch.arange(6, dtype=DOUBLE).view(-1, 1, 1, 1, 1)
    x = torch.randn(6, 4, 3, 5, 5, dtype=DOUBLE) * 2 + drift
    norm = BatchNorm(3, scale=scale).to(DOUBLE)
    with torch.no_grad():
        norm.bias.copy_(torch.randn(3))
        y = norm(x) - norm.bias.view(3, 1, 1)
    mean, variance = x.mean((0, 1, 3, 4)), x.var((0, 1, 3, 4), correction=0)
    expected = scale * (x - mean.view(3, 1, 1)) / torch.sqrt(variance + 1e-5).view(3, 1, 1)
    torch.testing.assert_close(y, expected, atol=1e-10, rtol=0)
    torch.testing.assert_close(y.std((0, 1, 3, 4), correction=0), torch.full((3,), scale, dtype=DOUBLE), atol=1e-5, rtol=0)
    assert (y.mean((1, 3, 4))[0].abs() > 0.1 * scale).all()
    torch.testing.assert_close(norm.running_mean, 0.1 * mean)
    torch.testing.assert_close(norm.running_var, 0.9 + 0.1 * x.var((0, 1, 3, 4)))


def test_the_norm_of_stbp_is_scaled_to_the_threshold(digits):
    method = Stbp(digits, {"threshold": 0.5})
    norm = method.norm(4, 1 / math.sqrt(2))
    y = norm(torch.randn(4, 8, 4, 6, 6))
    torch.testing.assert_close(y.std((0, 1, 3, 4)), torch.full((4,), 0.5 / math.sqrt(2)), atol=1e-3, rtol=0)


def test_tdbn_folds_into_the_convolution():
    torch.manual_seed(6)
    conv, norm = Conv2d(3, 5, 3, padding=1, bias=False).to(DOUBLE), BatchNorm(5, scale=0.5).to(DOUBLE)
    x = torch.randn(4, 2, 3, 6, 6, dtype=DOUBLE)
    with torch.no_grad():
        norm.weight.copy_(torch.rand(5) + 0.5)
        norm.bias.copy_(torch.randn(5))
        for _ in range(3):
            norm(conv(x))
        norm.eval()
        a, b = norm.affine()
        folded = F.conv2d(x.flatten(0, 1), conv.weight * a.view(-1, 1, 1, 1), b, padding=1).unflatten(0, (4, 2))
        torch.testing.assert_close(norm(conv(x)), folded, atol=1e-12, rtol=0)


# Card, test 8: memory


def saved_bytes(task, steps: int) -> int:
    """Bytes of distinct tensors that the forward pass keeps for the backward pass, weights excluded."""
    method, net = network(task, steps)
    weights = {p.data_ptr() for p in net.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = method.loss(task.final(net(method.encode(torch.randn(8, 1, 8, 8)))), torch.zeros(8, dtype=torch.long))
    found = sum(kept.values())
    loss.backward()
    return found


def test_memory_for_the_backward_pass_is_linear_in_the_number_of_steps(digits):
    at = {steps: saved_bytes(digits, steps) for steps in (4, 8, 16)}
    first, second = at[8] - at[4], at[16] - at[8]
    assert first > 0
    assert 1.8 < second / first < 2.2


def test_the_recipe_track_uses_the_published_neuron(digits):
    method = Stbp(digits, track="recipe")
    neuron = method.neuron(1)
    assert (neuron.leak, neuron.threshold, neuron.reset, neuron.detach_reset) == (0.25, 0.5, "hard", False)
    assert neuron.surrogate == Rectangle(1.0)
    assert (method.training.optimizer, method.training.lr, method.training.momentum) == ("sgd", 0.1, 0.9)


# What the papers' own settings need


@pytest.mark.parametrize("a", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("name", ["rectangle", "polynomial", "sigmoid", "gauss", "triangle", "arctan"])
def test_the_width_of_a_surrogate_is_that_of_the_cards_formula(digits, name, a):
    d = torch.linspace(-3, 3, 1001, dtype=DOUBLE)
    e = torch.exp(-d.abs() / a)
    expected = {
        "rectangle": (d.abs() < a / 2).to(DOUBLE) / a,
        "polynomial": (math.sqrt(a) / 2 - a * d.abs() / 4).clamp(min=0),
        "sigmoid": e / (a * (1 + e) ** 2),
        "gauss": torch.exp(-(d**2) / (2 * a)) / math.sqrt(2 * math.pi * a),
        "triangle": (a - d.abs()).clamp(min=0) / a**2,
        "arctan": a / 2 / (1 + (math.pi * a * d / 2) ** 2),
    }[name]
    neuron = Stbp(digits, {"surrogate": name, "surrogate_width": a}).neuron(1)
    torch.testing.assert_close(neuron.surrogate(d), expected, atol=1e-12, rtol=0)


def test_rates_are_the_mean_spikes_of_output_neurons(digits):
    method, net = network(digits, 5, readout="rate", threshold=0.3)
    x = torch.randn(6, 1, 8, 8) * 3  # in training mode, as the running statistics of a new network say nothing
    spikes = net(method.encode(x))
    assert set(spikes.unique().tolist()) == {0.0, 1.0}
    answers = method.predict(net, x).outputs
    torch.testing.assert_close(answers[-1], spikes.mean(0))
    torch.testing.assert_close(answers[2], spikes[:3].mean(0))


def test_the_loss_of_rates_is_the_mean_squared_error_to_one_hot_classes(digits):
    rates = torch.rand(7, 10, dtype=DOUBLE)
    targets = torch.arange(7) % 10
    expected = sum((rates[i, c] - float(c == targets[i])) ** 2 for i in range(7) for c in range(10)) / 70
    assert Stbp(digits, {"readout": "rate"}).loss(rates, targets).item() == pytest.approx(expected.item())


def test_rates_reach_the_weights_of_every_layer(digits):
    method, net = network(digits, 4, readout="rate", threshold=0.5)
    batch = next(digits.batches("train", 16))
    method.loss(digits.final(net(method.encode(batch.inputs))), batch.targets).backward()
    assert all(p.grad.abs().max() > 0 for p in net.parameters())


@pytest.mark.parametrize("name", ["detection/digit-scenes", "sequences/copy-memory", "sequences/digits-pixels"])
def test_rates_are_refused_where_the_answer_is_no_class_over_all_steps(name):
    with pytest.raises(UsageError, match="allowed: 'mean'"):
        Stbp(Registries().tasks.load(name)(), {"readout": "rate"})


def test_the_network_of_stbps_code_has_its_layers():
    net = Stbp(Registries().tasks.load("static/mnist")(), {"network": "cnn", "norm": "none"}).build()
    convs = [(m.in_channels, m.out_channels, m.kernel_size[0], m.bias is not None) for m in net.modules() if isinstance(m, Conv2d)]
    assert convs == [(1, 32, 3, True), (32, 32, 3, True), (32 * 7 * 7, 128, 1, True)]
    assert sum(isinstance(m, nn.AvgPool2d) for m in net.modules()) == 2
    assert net.head.readout.in_features == 128


def test_the_network_of_images_is_refused_for_sequences():
    with pytest.raises(UsageError, match="is for images, not for sequences/digits-pixels"):
        Stbp(Registries().tasks.load("sequences/digits-pixels")(), {"network": "cnn"})


def test_the_recipe_of_mnist_is_that_of_stbps_code():
    method = Stbp(Registries().tasks.load("static/mnist")("paper"), track="recipe")
    o, neuron, t = method.options, method.neuron(1), method.training
    assert (neuron.leak, neuron.threshold, neuron.reset, neuron.detach_reset, neuron.surrogate) == (0.2, 0.5, "hard", False, Rectangle(1.0))
    assert (o.readout, o.network, o.norm, method.steps) == ("rate", "cnn", "none", 20)
    assert (t.optimizer, t.lr, t.batch_size, t.epochs) == ("adam", 1e-3, 100, 100)
    assert [t.lr_share(epoch) for epoch in (0, 39, 40, 79, 80, 99)] == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])
