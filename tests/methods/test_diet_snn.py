"""DIET-SNN: the numbered faithfulness tests of its card (6 to 9), and the plugin on a task."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from harness.loop import make_optimizer, train
from harness.plugin import UsageError
from harness.registry import Registries
from methods.diet_snn import DietSnn
from methods.nn.diet import DietNeuron, ThresholdConv2d, balance_thresholds, kth_percentile
from methods.nn.layer import Layer
from methods.nn.neuron import ReLU
from methods.nn.stepping import stepping
from suites.static_vision import Digits

DOUBLE = torch.float64
T, B, C, SIZE = 4, 3, 5, 6


def layer(threshold: float = 0.8, leak: float = 0.7) -> tuple[ThresholdConv2d, DietNeuron]:
    torch.manual_seed(0)
    conv = ThresholdConv2d(2, C, 3).to(DOUBLE)
    conv.set_threshold(threshold)
    return conv, DietNeuron(leak).to(DOUBLE)


def inputs() -> torch.Tensor:
    return torch.rand(T, B, 2, SIZE, SIZE, dtype=DOUBLE, generator=torch.Generator().manual_seed(1)) * 2


def recursion(current, g, theta, leak, theta_in_reset=True):
    """The card's recursion for currents W o_in and gradients g of the spikes: spikes, dL/dtheta, dL/dlambda, dL/dcurrent."""
    before, potentials, spikes = torch.zeros_like(current[0]), [], []
    posts = [before]
    for now in current:
        u = leak * before + now
        s = (u / theta - 1 > 0).to(u.dtype)
        before = u - theta * s
        potentials.append(u)
        spikes.append(s)
        posts.append(before)
    g_theta, g_leak, g_current, g_post = 0.0, 0.0, [], torch.zeros_like(current[0])
    for t in reversed(range(len(current))):
        g_z = g[t] * 0.3 * (1 - (potentials[t] / theta - 1).abs()).clamp_min(0)
        g_u = g_post + g_z / theta
        g_theta = g_theta + (g_z * (-potentials[t] / theta**2)).sum()
        if theta_in_reset:
            g_theta = g_theta - (g_post * spikes[t]).sum()
        g_leak = g_leak + (g_u * posts[t]).sum()
        g_current.insert(0, g_u)
        g_post = leak * g_u
    return torch.stack(spikes), g_theta, g_leak, torch.stack(g_current)


# 6
def test_gradients_of_threshold_leak_and_inputs_are_those_of_the_hand_recursion():
    conv, neuron = layer()
    x = inputs().requires_grad_()
    plain = nn.functional.conv2d(x.flatten(0, 1), conv.weight, padding=1).unflatten(0, (T, B))
    g = torch.randn(plain.shape, dtype=DOUBLE, generator=torch.Generator().manual_seed(2))
    spikes = neuron(conv(x))
    found = torch.autograd.grad(spikes, [conv.threshold, neuron.decay, x, conv.weight], g)
    theta, leak = conv.threshold.item(), neuron.decay.item()
    expected = recursion(plain.detach(), g, theta, leak)
    assert 0.1 < spikes.mean() < 0.9
    assert torch.equal(spikes, expected[0])
    torch.testing.assert_close(found[0], expected[1], rtol=1e-9, atol=0)
    torch.testing.assert_close(found[1], expected[2], rtol=1e-9, atol=0)
    for one, other in zip(found[2:], torch.autograd.grad(plain, [x, conv.weight], expected[3]), strict=True):
        torch.testing.assert_close(one, other)


def test_a_threshold_detached_in_the_reset_would_have_another_gradient():
    conv, neuron = layer()
    plain = nn.functional.conv2d(inputs().flatten(0, 1), conv.weight.detach(), padding=1).unflatten(0, (T, B))
    g = torch.rand(plain.shape, dtype=DOUBLE, generator=torch.Generator().manual_seed(2))
    (found,) = torch.autograd.grad(neuron(conv(inputs())), [conv.threshold], g)
    detached = recursion(plain, g, conv.threshold.item(), neuron.decay.item(), theta_in_reset=False)[1]
    assert abs(found - detached) > 0.05 * abs(found)


# 7
def test_the_answer_is_the_read_out_of_the_sum_of_the_last_layers_spikes():
    method = DietSnn(Digits())
    torch.manual_seed(0)
    net = method.build().eval()
    method.convert(net)
    spikes = []
    net.backbone.stages[-1].register_forward_hook(lambda module, args, out: spikes.append(out))
    images = next(method.task.batches("validation", 16)).inputs
    with torch.no_grad():
        outputs = method.predict(net, images).outputs
    torch.testing.assert_close(outputs[-1], spikes[0].sum(0).flatten(1) @ net.head.readout.weight.T)
    torch.testing.assert_close(outputs[1], spikes[0][:2].sum(0).flatten(1) @ net.head.readout.weight.T)
    assert outputs.count_nonzero()


# 8
@pytest.mark.parametrize(("percent", "n"), [(99.7, 1000), (99.7, 37), (50.0, 11), (100.0, 8), (0.0, 8)])
def test_the_percentile_is_the_kth_value(percent, n):
    values = torch.randn(3, n, generator=torch.Generator().manual_seed(0))
    k = 1 + round(0.01 * percent * (n - 1))
    assert torch.equal(kth_percentile(values, percent), values.sort(1).values[:, k - 1])


class HandUpdate:
    """An update by plain SGD with a large rate, so that a step leaves the allowed range."""

    def __init__(self, parameters, lr):
        self.parameters, self.lr = parameters, lr

    def minimise(self, loss):
        gradients = torch.autograd.grad(loss, self.parameters)
        with torch.no_grad():
            for parameter, gradient in zip(self.parameters, gradients, strict=True):
                parameter.sub_(self.lr * gradient.sign())


def test_after_a_step_no_leak_is_above_one_and_no_threshold_below_its_least():
    method = DietSnn(Digits())
    torch.manual_seed(0)
    net = method.build()
    method.convert(net)
    group = method.learnt(net)[0]
    batch = next(method.task.batches("train", 16))
    method.tune(net, batch, HandUpdate(group["params"], 10.0))
    leaks = [m.decay.item() for m in net.modules() if isinstance(m, DietNeuron)]
    thresholds = [m.threshold.item() for m in net.modules() if isinstance(m, ThresholdConv2d)]
    assert max(leaks) <= 1.0 and min(thresholds) >= 0.00099
    assert 1.0 in leaks or pytest.approx(1e-3) in thresholds


# 9
@pytest.mark.parametrize(("leak", "agree"), [(1.0, True), (0.6, False)])
def test_the_reset_comes_before_the_leak(leak, agree):
    conv, neuron = layer(leak=leak)
    with torch.no_grad():
        plain = nn.functional.conv2d(inputs().flatten(0, 1), conv.weight, padding=1).unflatten(0, (T, B))
        theta, u, s, first, second = 0.8, 0.0, 0.0, [], []
        for now in plain:
            u = leak * (u - theta * s) + now
            s = (u > theta).double()
            first.append(s)
        u = s = 0.0
        for now in plain:
            u = leak * u + now - theta * s
            s = (u > theta).double()
            second.append(s)
        spikes = neuron(conv(inputs()))
    assert torch.equal(spikes, torch.stack(first))
    assert torch.equal(spikes, torch.stack(second)) == agree


def test_a_neuron_fires_strictly_above_its_threshold():
    assert DietNeuron()(torch.tensor([[[1.0, 1.0001]]])).tolist() == [[[0.0, 1.0]]]


def relu_net() -> nn.Sequential:
    torch.manual_seed(3)
    return nn.Sequential(*[Layer(ThresholdConv2d(i, o, 3), nn.Identity(), ReLU()) for i, o in [(2, 4), (4, 4), (4, 3)]])


def test_thresholds_are_percentiles_of_the_currents_that_spikes_of_balanced_layers_cause():
    net, image, steps = relu_net(), torch.rand(1, 8, 2, 5, 5), 6
    weights = [part.synapse.weight.detach().clone() for part in net]
    found = balance_thresholds(net, list(net), image, steps, 99.7)
    sequence = image[0].expand(steps, 8, 2, 5, 5)
    for part, weight in zip(net, weights, strict=True):
        current = nn.functional.conv2d(sequence.flatten(0, 1), weight, padding=1).unflatten(0, (steps, 8))
        values = current.flatten(1).sort(1).values
        expected = values[:, round(0.997 * (values.shape[1] - 1))].max().item()
        assert found[part] == pytest.approx(expected, rel=1e-5)
        u, spikes = torch.zeros_like(current[0]), []
        for now in current:
            u = u + now
            spikes.append((u > expected).float())
            u = u - expected * spikes[-1]
        sequence = torch.stack(spikes)


def test_conversion_keeps_the_weights_and_starts_without_leak():
    method = DietSnn(Digits(), {"scaling": 0.3})
    torch.manual_seed(0)
    net = method.build()
    before = [m.weight.clone() for m in net.modules() if isinstance(m, ThresholdConv2d)]
    method.convert(net)
    for weight, module in zip(before, [m for m in net.modules() if isinstance(m, ThresholdConv2d)], strict=True):
        assert torch.equal(module.weight, weight)
        assert module.threshold.item() > 0
    assert [m.decay.item() for m in net.modules() if isinstance(m, DietNeuron)] == [1.0] * 4


def test_the_scaling_factor_multiplies_the_thresholds_only():
    found = []
    for scaling in (1.0, 0.25):
        method = DietSnn(Digits(), {"scaling": scaling})
        torch.manual_seed(0)
        net = method.build()
        method.convert(net)
        found.append(torch.tensor([m.threshold.item() for m in net.modules() if isinstance(m, ThresholdConv2d)]))
    torch.testing.assert_close(found[1], 0.25 * found[0])


@pytest.mark.parametrize(
    ("learn", "thresholds", "leaks"), [("weights", False, False), ("weights+threshold", True, False), ("all", True, True)]
)
def test_tuning_changes_what_it_learns_and_nothing_else(learn, thresholds, leaks):
    method = DietSnn(Digits(), {"learn": learn, "ann_share": 0.0, "dropout": 0.1}, training={"epochs": 1, "batch_size": 512})
    method.task.split("train")
    torch.manual_seed(0)
    net = method.build()
    before = {}
    original = method.learnt
    method.learnt = lambda net: before.update({n: p.detach().clone() for n, p in net.named_parameters()}) or original(net)
    train(method, net, seed=0)
    changed = {name: not torch.equal(before[name], p) for name, p in net.named_parameters()}
    assert all(flag for name, flag in changed.items() if name.endswith("weight"))
    assert any(flag for name, flag in changed.items() if name.endswith("threshold")) == thresholds
    assert any(flag for name, flag in changed.items() if name.endswith("decay")) == leaks


def test_without_tuning_the_converted_network_is_the_result():
    method = DietSnn(Digits(), {"ann_share": 1.0}, training={"epochs": 1, "batch_size": 512})
    net = method.build()
    phases = [trace.phase for trace in train(method, net, seed=0).traces]
    assert phases == ["ann"]
    assert method.report(net)["converted_validation"] == method.final_validation(net, method.predict)


def test_detection_answers_of_the_converted_network_come_near_those_of_the_relu_network():
    task = Registries().tasks.load("detection/digit-scenes")()
    method = DietSnn(task, {"scaling": 1.0, "calibration": 8, "calibration_steps": 10, "percentile": 100.0}, steps=256)
    torch.manual_seed(0)
    net = method.build().eval()
    images = next(task.batches("train", 2, 2)).inputs
    with torch.no_grad():
        bias = net.head.readouts[0].bias
        expected = (method.predict_ann(net, images).outputs[0] - bias).flatten()
        method.convert(net)
        found = (method.predict(net, images).outputs[-1] - bias).flatten()
    assert torch.corrcoef(torch.stack([expected, found]))[0, 1] > 0.95
    assert 0.6 < (expected @ found) / (expected @ expected) < 1.1  # spikes are late, so that rates approach from below


def test_steps_one_by_one_answer_like_the_whole_sequence():
    method = DietSnn(Digits())
    torch.manual_seed(0)
    net = method.build().eval()
    method.convert(net)
    x = method.encode(next(method.task.batches("validation", 4)).inputs)
    with torch.no_grad(), stepping(net):
        serial = torch.cat([net(now) for now in x.split(1)])
    torch.testing.assert_close(serial, net(x).detach())


def test_the_recipe_tunes_with_amsgrad_at_a_tenth_of_the_rate_and_half_of_the_batch():
    method = DietSnn(Digits(), track="recipe", training={"batch_size": 128})
    tuning = method.tuning()
    assert (method.training.lr, tuning.lr, tuning.batch_size, method.steps) == (1e-3, pytest.approx(1e-4), 64, 5)
    net = method.build()
    assert make_optimizer(method.learnt(net), tuning).param_groups[0]["amsgrad"]


def test_vgg16_has_sixteen_layers_with_weights_less_the_second_hidden_one():
    task = Registries().tasks.load("static/cifar10")()
    with torch.device("meta"):
        backbone = DietSnn(task, {"net": "vgg16"}).backbone()
    assert sum(isinstance(module, ThresholdConv2d) for module in backbone.modules()) == 14


def test_a_residual_backbone_is_refused_before_anything_is_trained():
    task = Registries().tasks.load("static/cifar10")("paper")
    with pytest.raises(UsageError, match="net = 'vgg16'"):
        DietSnn(task)
