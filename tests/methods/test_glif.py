"""GLIF: the numbered faithfulness tests of its card, and the plugin on a task."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import nn

from harness.loop import make_optimizer
from harness.plugin import UsageError
from methods.glif import Glif, glifs
from methods.nn.glif import GLIF, Start
from methods.nn.membrane_block import MembraneBlock
from methods.nn.neuron import LIF
from methods.nn.norm import BatchNorm
from methods.nn.residual import MaxPool2d, ResidualBlock
from methods.nn.stepping import stepping
from methods.nn.synapse import AvgPool2d, Conv2d
from suites.sequences import DigitsPixels
from suites.static_vision import Digits

GATES = list(itertools.product([0, 1], repeat=3))


def currents(*shape, seed=0, scale=1.0):
    return scale * torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def random_neuron(steps, channels, seed=1, **options):
    """A neuron whose constants differ between channels."""
    neuron = GLIF(steps, channels, backend="reference", **options).double()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in neuron.parameters():
            parameter.copy_(torch.randn(parameter.shape, dtype=torch.float64, generator=generator))
    return neuron


def plain_lif(x, exponential, weighted, to_zero, tau, vth, leak, revth, g):
    """One of the eight neurons that the gates can make, written out: x [T, B, C], constants [C], g [T, C]."""
    u, s = torch.zeros_like(x[0]), torch.zeros_like(x[0])
    potentials, spikes = [], []
    for now, weight in zip(x, g, strict=True):
        if to_zero:
            u = torch.where(s == 1, 0.0, u)
        u = tau * u if exponential else u - leak
        if not to_zero:
            u = torch.where(s == 1, u - revth, u)
        u = u + (weight * now if weighted else now)
        s = (u > vth).double()
        potentials.append(u)
        spikes.append(s)
    return torch.stack(potentials), torch.stack(spikes)


# 1
@pytest.mark.parametrize("gates", GATES)
def test_gates_at_a_corner_make_the_plain_neuron_of_that_corner(gates):
    neuron = random_neuron(6, 5)
    with torch.no_grad():
        neuron.gates.copy_(100.0 * (torch.tensor(gates, dtype=torch.float64)[:, None] - 0.5))
    x = currents(6, 50, 5, scale=2.0) + 1
    with torch.no_grad():
        v = neuron.values()
        potentials, spikes = plain_lif(x, *gates, v.tau, v.vth, v.leak, v.revth, v.g)
        torch.testing.assert_close(neuron.potentials(x), potentials, rtol=0, atol=1e-5)
        assert torch.equal(neuron(x), spikes)
    assert 0.1 < spikes.mean() < 0.9


def test_at_the_corner_1_0_1_it_is_the_lif_of_the_suite():
    neuron = GLIF(6, 3, Start(tau=0.3, vth=0.8), backend="reference").double()
    with torch.no_grad():
        neuron.gates.copy_(torch.tensor([[100.0], [-100.0], [100.0]]))
    x = currents(6, 2, 3, 4, 4)
    expected = LIF(0.3, 0.8, strict=True, backend="reference")(x)
    assert torch.equal(neuron(x), expected)
    assert 0 < expected.mean() < 1


# 2
def test_gates_start_at_055_065_055_and_a_layer_has_7_plus_t_numbers_per_channel():
    neuron = GLIF(4, 6)
    expected = torch.tensor([0.55, 0.65, 0.55])[:, None].expand(3, 6)
    torch.testing.assert_close(torch.stack(neuron.values()[:3]), expected)
    assert sum(p.numel() for p in neuron.parameters()) == (7 + 4) * 6
    assert sum(p.numel() for p in GLIF(4).parameters()) == 7 + 4


def test_constants_start_at_what_was_asked_for_and_random_gates_within_0475_and_0525():
    torch.manual_seed(0)
    v = GLIF(3, 200, Start(0.5, 0.99999, 0.03125, 0.9, gates=None)).values()
    for found, expected in [(v.tau, 0.5), (v.vth, 0.99999), (v.revth, 0.99999), (v.leak, 0.03125), (v.g, 0.9)]:
        torch.testing.assert_close(found, torch.full_like(found, expected))
    gates = torch.stack(v[:3])
    assert 0.475 < gates.min() < 0.48
    assert 0.52 < gates.max() < 0.525


# 3
@pytest.mark.parametrize("channels", [5, None])
def test_every_parameter_gets_a_gradient_and_g_of_later_steps_none_from_a_loss_on_earlier_ones(channels):
    neuron = random_neuron(6, channels)
    spikes = neuron(currents(6, 20, 5))
    for grad in torch.autograd.grad(spikes.sum(), list(neuron.parameters()), retain_graph=True):
        assert (grad != 0).all()
    (grad,) = torch.autograd.grad(spikes[:3].sum(), neuron.conductance)
    assert (grad[:3] != 0).all()
    assert grad[3:].count_nonzero() == 0


# 4
def test_without_spikes_gradients_of_the_potential_are_finite_differences():
    neuron = random_neuron(5, 3)
    with torch.no_grad():
        neuron.constants[1] = torch.tensor(0.99).logit()  # vth
    x = currents(5, 7, 3, scale=0.1)
    u = neuron.potentials(x)
    assert u.max() < 0.49  # below the window of the surrogate, which begins at vth - 0.5
    parameters = list(neuron.parameters())
    grads = torch.autograd.grad(u.sum(), parameters)
    step = 1e-4
    with torch.no_grad():
        for parameter, grad in zip(parameters, grads, strict=True):
            flat = parameter.view(-1)
            for i, analytic in enumerate(grad.view(-1)):
                flat[i] += step
                up = neuron.potentials(x).sum()
                flat[i] -= 2 * step
                down = neuron.potentials(x).sum()
                flat[i] += step
                assert abs((up - down) / (2 * step) - analytic) < 1e-6
    gates, constants, conductance = grads
    for grad in (gates[:2], constants[0], constants[2], conductance):  # al, be; tau; leak; g
        assert (grad != 0).all()
    for grad in (gates[2], constants[1], constants[3]):  # ga, vth, revth matter after spikes only
        assert grad.count_nonzero() == 0


# 5
def test_the_reset_is_not_kept_out_of_the_gradient():
    neuron = random_neuron(2, 4)
    v = neuron.values()
    x = torch.zeros(2, 1, 4, dtype=torch.float64)
    c, k = 1 - v.be * (1 - v.g[0]), 1 - v.al * (1 - v.tau)
    x[0] = ((v.vth - 0.2 + (1 - v.al) * v.leak) / c).detach()  # u[0] = vth - 0.2: silent, and inside the window
    x.requires_grad_()
    u = neuron.potentials(x)
    torch.testing.assert_close(u[0, 0], v.vth - 0.2)
    (grad,) = torch.autograd.grad(u[1].sum(), x)
    torch.testing.assert_close(grad[0, 0], c * (k - (k * v.ga * u[0, 0] + (1 - v.ga) * v.revth)))


# 6
@pytest.mark.parametrize("size", [-1e6, -30.0, 0.0, 30.0, 1e6])
@pytest.mark.parametrize("hard", [False, True])
def test_gates_and_constants_stay_between_0_and_1(size, hard):
    neuron = GLIF(3, 2, hard=hard, backend="reference")
    with torch.no_grad():
        for parameter in neuron.parameters():
            parameter.fill_(size)
        assert all(((value >= 0) & (value <= 1)).all() for value in neuron.values())
        assert neuron(torch.randn(3, 4, 2)).isfinite().all()


# 7
def test_gates_learn_at_a_tenth_of_the_rate_and_neither_they_nor_constants_decay():
    training = {"optimizer": "sgd", "lr": 0.1, "weight_decay": 4e-5}
    method = Glif(Digits(), training=training)
    net = method.build()
    (phase,) = method.phases(net)
    groups = make_optimizer(list(phase.parameters), method.training).param_groups
    of = {id(p): (group["lr"], group["weight_decay"]) for group in groups for p in group["params"]}
    assert sorted(map(id, net.parameters())) == sorted(id(p) for group in groups for p in group["params"])
    assert len(glifs(net)) == 4
    for neuron in glifs(net):
        assert of.pop(id(neuron.gates)) == (pytest.approx(0.01), 0)
        assert of.pop(id(neuron.constants)) == of.pop(id(neuron.conductance)) == (0.1, 0)
    assert set(of.values()) == {(0.1, 4e-5)}
    assert {id(m.weight) for m in net.modules() if isinstance(m, nn.Conv2d)} <= of.keys()


# 8
@pytest.mark.parametrize("vth", [0.5, 0.99999])
def test_tdbn_gives_half_alpha_as_standard_deviation_and_two_branches_add_up_to_a_half(vth):
    method = Glif(Digits(), {"vth": vth})
    x, y = (currents(4, 50, 3, 8, 8, seed=seed).float() * 3 + 1 for seed in (0, 1))
    channels = (0, 1, 3, 4)
    torch.testing.assert_close(method.norm(3)(x).std(channels), torch.full((3,), 0.5), rtol=1e-3, atol=0)
    one, other = method.norm(3, 2**-0.5)(x), method.norm(3, 2**-0.5)(y)
    torch.testing.assert_close(one.std(channels), torch.full((3,), 0.5 / math.sqrt(2)), rtol=1e-3, atol=0)
    torch.testing.assert_close((one + other).std(channels), torch.full((3,), 0.5), rtol=0.03, atol=0)


@pytest.mark.parametrize(("channels_out", "stride"), [(4, 1), (6, 2)])
def test_every_shortcut_of_the_published_nets_is_normalised_to_half_of_the_variance(channels_out, stride):
    method = Glif(Digits(), {"net": "18", "backend": "reference"})
    x = (currents(4, 20, 4, 8, 8) > 0).float()
    for block in (
        ResidualBlock(4, channels_out, stride, method, "vanilla", norm_identity=True),
        MembraneBlock(4, channels_out, stride, method, zero_init=False, balanced=True),
    ):
        torch.testing.assert_close(block.shortcut(x).std((0, 1, 3, 4)), torch.full((channels_out,), 0.5 / math.sqrt(2)), rtol=1e-2, atol=0)


def test_neurons_after_the_sum_emit_spikes_and_preactivated_blocks_pass_currents_on():
    method = Glif(Digits(), {"backend": "reference"})
    x = currents(4, 2, 3, 6, 6).float()
    assert set(ResidualBlock(3, 3, 1, method, "vanilla", norm_identity=True)(x).unique().tolist()) == {0.0, 1.0}
    block = MembraneBlock(3, 3, 1, method, zero_init=False, balanced=True)
    y = block(x)
    torch.testing.assert_close(y, block.branch(x) + block.shortcut(x))
    assert y.unique().numel() > 100
    inputs = []
    for conv in (module for module in block.modules() if isinstance(module, Conv2d)):
        conv.register_forward_hook(lambda module, args, out: inputs.append(args[0]))
    block(x)
    assert [set(part.unique().tolist()) for part in inputs] == [{0.0, 1.0}] * 2


def conv_and_norm(net):
    return sum(p.numel() for m in net.modules() if isinstance(m, (Conv2d, BatchNorm)) for p in m.parameters(recurse=False))


RESNET18 = 11_689_512 - 512 * 1000 - 1000  # torchvision's, without the classifier


@pytest.mark.parametrize(
    ("net", "expected"),
    [
        # 3x3 stem instead of 7x7; normalised identity shortcuts
        ("18", RESNET18 - 3 * 64 * (49 - 9) + 2 * (64 + 64 + 128 + 256 + 512)),
        # besides, the first block of the first stage has stride 2 and so a 1x1 convolution
        ("18ms", RESNET18 + 64 * 64 + 2 * (64 + 64 + 128 + 256 + 512)),
    ],
)
def test_the_published_nets_have_the_weights_of_resnet_18_and_normalised_shortcuts(net, expected):
    task = Digits()
    task.input_shape = (3, 32, 32)
    with torch.device("meta"):
        assert conv_and_norm(Glif(task, {"net": net, "neuron": "lif"}).backbone()) == expected


@pytest.mark.parametrize(("net", "layers", "size"), [("18", 17, (8, 8)), ("19", 17, (8, 8)), ("18ms", 17, (1, 1)), ("34ms", 33, (1, 1))])
def test_the_published_nets_have_their_depth_and_resolution(net, layers, size):
    task = Digits()
    task.input_shape = (3, 32, 32)
    with torch.device("meta"):
        backbone = Glif(task, {"net": net}).backbone()
    assert sum(isinstance(m, Conv2d) and m.kernel_size != (1, 1) for m in backbone.modules()) == layers
    assert len(glifs(backbone)) == layers
    assert backbone.levels[-2].size == size


def test_the_event_net_has_seven_added_blocks_and_average_poolings_after_the_last_four():
    task = Digits()
    task.input_shape = (2, 48, 48)
    with torch.device("meta"):
        backbone = Glif(task, {"net": "wide7b"}).backbone()
    blocks = [m for m in backbone.modules() if isinstance(m, ResidualBlock)]
    assert [block.connect for block in blocks] == ["add"] * 7
    assert [len(stage) for stage in backbone.stages] == [2, 1, 1, 2, 3, 2, 2]  # a change of channels before blocks 1 and 5
    assert [isinstance(stage[-1], AvgPool2d) for stage in backbone.stages] == [False] * 3 + [True] * 4
    assert not any(isinstance(m, MaxPool2d) for m in backbone.modules())
    assert [(level.channels, level.size[0], level.stride) for level in backbone.levels][2:4] == [(64, 48, 1), (64, 24, 2)]
    assert backbone.levels[-1].size == (3, 3)


@pytest.mark.parametrize("net", ["18", "19", "wide7b", "34ms"])
def test_the_published_nets_answer(net):
    task = Digits()
    task.input_shape = (1, 16, 16)
    net = Glif(task, {"net": net, "neuron": "lif"}, steps=2).build().eval()
    with torch.no_grad():
        answers = net(torch.rand(2, 1, 1, 16, 16))
    assert answers.shape == (2, 1, 10)
    assert answers.isfinite().all()


def test_cifar_read_outs_have_no_bias_and_for_cifar10_two_layers_without_activation():
    one = Glif(Digits(), {"net": "19"}).readout(512, 100)
    two = Glif(Digits(), {"net": "18", "hidden": 256}).readout(512, 10)
    assert [tuple(p.shape) for p in one.parameters()] == [(100, 512)]
    assert [tuple(p.shape) for p in two.parameters()] == [(256, 512), (10, 256)]
    assert [p.dim() for p in Glif(Digits()).readout(5, 2).parameters()] == [2, 1]


def test_another_number_of_steps_than_it_was_made_for_is_refused():
    net = Glif(Digits(), {"backend": "reference"}, steps=4).build().eval()
    for steps in (3, 6):
        with pytest.raises(ValueError, match=f"made for 4 time steps.*got {steps}"):
            net(torch.rand(steps, 2, 1, 8, 8))
    with stepping(net), torch.no_grad():
        for _ in range(4):
            net(torch.rand(1, 2, 1, 8, 8))
        with pytest.raises(ValueError, match="made for 4 time steps.*cannot run step 5"):
            net(torch.rand(1, 2, 1, 8, 8))


@pytest.mark.parametrize("options", [{}, {"granularity": "layer", "hard": True}, {"neuron": "plif"}])
@pytest.mark.parametrize("kind", [Digits, DigitsPixels])
def test_step_by_step_it_answers_as_in_one_run(options, kind):
    task = kind()
    torch.manual_seed(0)
    method = Glif(task, options, steps=3)
    net = method.build().double().eval()
    x = torch.rand(method.steps, 1, *task.input_shape, dtype=torch.float64)
    with torch.no_grad():
        whole = net(x)
        with stepping(net):
            steps = torch.cat([net(part) for part in x.split(max(1, len(x) // 3))])
    torch.testing.assert_close(steps, whole)


def lif(**options):
    return Glif(Digits(), options).neuron(8)


def test_the_neurons_it_is_compared_with_have_its_constants_and_surrogate():
    hard, soft, plif = lif(neuron="lif"), lif(neuron="lif_soft"), lif(neuron="plif")
    assert [n.reset for n in (hard, soft, plif)] == ["hard", "soft", "hard"]
    assert {(n.threshold, n.detach_reset, n.strict, n.surrogate) for n in (hard, soft, plif)} == {(0.5, False, True, GLIF(1).surrogate)}
    assert hard.leak == soft.leak == 0.25
    assert plif.leak.item() == pytest.approx(0.25)
    assert plif.leak.requires_grad
    x = currents(4, 3, 8)
    corner = GLIF(4, 8, backend="reference").double()
    with torch.no_grad():
        corner.gates.copy_(torch.tensor([[100.0], [-100.0], [100.0]]))
    assert torch.equal(corner(x), hard(x))


def test_granularity_and_the_automatic_leak_reach_the_neurons():
    torch.manual_seed(0)
    layer = Glif(Digits(), {"granularity": "layer", "leak": "auto", "vth": 0.8}, steps=5).neuron(7)
    assert {name: tuple(p.shape) for name, p in layer.named_parameters()} == {"gates": (3, 1), "constants": (4, 1), "conductance": (5, 1)}
    assert layer.values().leak.item() == pytest.approx(0.8 / 10)
    assert lif().conductance.shape == (4, 8)
    assert lif(random_gates=False, alpha=1.0, beta=0.0).values().al[0].item() == pytest.approx(0.75)


@pytest.mark.parametrize(
    ("kind", "options", "told"),
    [
        (Digits, {"net": "wide7b"}, "halves images 4 times.*use net=18 or budget"),
        (DigitsPixels, {"net": "18"}, "is for images.*allowed: budget"),
        (Digits, {"leak": 0.0}, "leak = 0.0 is not allowed; allowed: auto, or"),
        (Digits, {"leak": "none"}, "leak"),
        (Digits, {"neuron": "if"}, "neuron"),
    ],
)
def test_what_does_not_fit_is_refused(kind, options, told):
    with pytest.raises(UsageError, match=told):
        Glif(kind(), options)


def test_the_recipe_names_the_published_settings():
    digits = Glif(Digits(), track="recipe")
    assert (digits.options.net, digits.options.hidden, digits.steps) == ("18", 256, 6)
    assert (digits.training.optimizer, digits.training.lr, digits.training.weight_decay) == ("sgd", 0.1, 4e-5)
    assert digits.options.gate_lr == 0.1
    assert Glif(DigitsPixels(), track="recipe").options.net == "budget"


def test_training_makes_neurons_differ_and_the_report_says_how():
    torch.manual_seed(0)
    training = {"lr": 0.05, "epochs": 25}
    method = Glif(Digits(), {"random_gates": False, "backend": "reference", "gate_lr": 1.0}, steps=2, training=training)
    net = method.build()
    before = method.report(net)
    assert all(std == pytest.approx(0, abs=1e-6) for stds in before["std"].values() for std in stds)
    (phase,) = method.phases(net)
    optimizer = make_optimizer(list(phase.parameters), method.training)
    batch = next(method.task.batches("train", 32))
    net.train()
    for epoch in range(6):
        phase.on_epoch(epoch, 25)
        optimizer.zero_grad()
        method.loss(method.task.final(net(method.encode(batch.inputs))), batch.targets).backward()
        optimizer.step()
    after = method.report(net)
    assert all(std > 1e-3 for stds in after["std"].values() for std in stds)
    assert list(after["histograms"]) == ["0", "3", "end"]
    widths = [neuron.channels for neuron in glifs(net)]
    assert after["histograms"]["0"]["al"][0] == [0, 0, 0, 0, 0, widths[0], 0, 0, 0, 0]
    assert sum(after["histograms"]["end"]["g"][-1]) == 2 * widths[-1]
    assert after["neuron_parameters"] == (7 + 2) * sum(widths)
    assert after["extra_multiplications"] == 2 * sum(width * size for width, size in zip(widths, (64, 64, 16, 16), strict=True))
    assert len(after["firing_rate"]) == 4
    assert all(0 < rate < 1 for rate in after["firing_rate"])


def test_the_baselines_report_firing_rates_and_train_all_parameters():
    method = Glif(Digits(), {"neuron": "plif"})
    net = method.build()
    (phase,) = method.phases(net)
    assert [len(group["params"]) for group in phase.parameters] == [len(list(net.parameters()))]
    phase.on_epoch(0, 1)
    report = method.report(net)
    assert len(report["firing_rate"]) == 4
    assert "std" not in report
