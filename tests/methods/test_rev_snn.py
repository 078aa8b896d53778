"""RevSNN: the numbered faithfulness tests of its card, and the plugin on tasks."""

from __future__ import annotations

import copy
import functools
import gc
from dataclasses import replace

import pytest
import torch
from torch import nn

from harness.meters.memory import SavedTensors
from harness.plugin import UsageError
from harness.registry import Registries
from methods.nn.membrane_block import MembraneBlock
from methods.nn.neuron import LIF
from methods.nn.norm import BatchNorm
from methods.nn.reversible import ReversibleBlock, ReversibleSequence
from methods.nn.spike_transformer import TransformerBlock
from methods.nn.stepping import Stateful
from methods.nn.surrogate import Arctan, Sigmoid
from methods.nn.synapse import Conv2d, Linear
from methods.rev_snn import RevSnn
from suites.static_vision import Digits

PARTS = {network: RevSnn(Digits(), {"network": network}) for network in ("revsresnet", "revsformer")}
NETWORKS = pytest.mark.parametrize("network", list(PARTS))


def block(network, features=8):
    parts = PARTS[network]
    if network == "revsresnet":
        return ReversibleBlock(*(MembraneBlock(features, features, 1, parts, zero_init=False).branch for _ in "fg"))
    transformer = TransformerBlock(features, parts, parts.attention)
    return ReversibleBlock(transformer.attention, transformer.perceptron)


def twins(network, count=4, dtype=torch.float64):
    """Return a sequence of spiking blocks and the same with plain autograd."""
    torch.manual_seed(0)
    one = ReversibleSequence([block(network) for _ in range(count)]).to(dtype)
    two = copy.deepcopy(one)
    two.reversible = False
    return one, two


def streams(steps=4, batch=3, features=8, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(steps, batch, features, 8, 8, dtype=dtype, generator=generator).requires_grad_() for _ in "12")


def backward(sequence, x):
    """Return the gradients of streams and parameters of a loss that weighs every output differently."""
    y1, y2 = sequence(*x)
    weights = streams(*y1.shape[:3], dtype=y1.dtype, seed=1)
    loss = (y1 * weights[0]).sum() + (y2 * weights[1]).sum()
    return torch.autograd.grad(loss, [*x, *sequence.parameters()])


def assert_same_gradients(found, exact):
    """Compare within 1e-9 of each gradient's largest value; of all where it is 0 but for rounding (a bias before a normalisation)."""
    largest = max(grad.abs().max() for grad in exact)
    for a, b in zip(found, exact, strict=True):
        scale = b.abs().max()
        assert (a - b).abs().max() <= 1e-9 * (scale if scale > 1e-10 * largest else largest)


# 1
@NETWORKS
def test_the_forward_pass_is_that_of_plain_blocks_bit_for_bit(network):
    one, two = twins(network)
    y, x = one(*streams()), streams()
    for part in two.blocks:
        y1 = x[0] + part.f(x[1])
        x = y1, x[1] + part.g(y1)
    assert torch.equal(y[0], x[0]) and torch.equal(y[1], x[1])


# 2
@NETWORKS
@pytest.mark.parametrize(
    ("count", "dtype", "bound"), [(4, torch.float64, 1e-12), (4, torch.float32, 1e-5), (64, torch.float32, 1e-4)], ids=str
)
def test_the_input_is_recovered_from_the_output(network, count, dtype, bound):
    one, _ = twins(network, count, dtype)
    x = streams(dtype=dtype)
    with torch.no_grad():
        y = one(*x)
        found = one.inverse(*y)
    assert max((a - b).abs().max() for a, b in zip(found, x, strict=True)) < bound
    assert (y[0] - x[0]).abs().max() > 1  # the blocks do something


# 3
@NETWORKS
def test_gradients_are_those_of_plain_autograd(network):
    one, two = twins(network)
    assert_same_gradients(backward(one, streams()), backward(two, streams()))


@NETWORKS
def test_gradients_in_single_precision_point_where_those_of_plain_autograd_do(network):
    one, two = twins(network, dtype=torch.float32)
    x = streams(dtype=torch.float32)
    found, exact = (torch.cat([grad.flatten() for grad in backward(sequence, x)]) for sequence in (one, two))
    assert torch.cosine_similarity(found, exact, dim=0) > 0.9999


# 4
@pytest.fixture
def quick_collection():
    """Have the garbage collector, which the meter calls, pass over what is there already."""
    gc.freeze()
    yield
    gc.unfreeze()


@functools.cache
def saved(reversible, depth, network="revsresnet"):
    torch.manual_seed(0)
    method = RevSnn(Digits(), {"reversible": reversible, "blocks": depth, "network": network})
    net = method.build()
    with SavedTensors(net) as meter:
        net(method.encode(torch.rand(4, 1, 8, 8))).square().sum().backward()
    return meter.peak


@NETWORKS
@pytest.mark.usefixtures("quick_collection")
def test_what_is_saved_does_not_depend_on_depth(network):
    assert len({saved(True, depth, network) for depth in (1, 2, 4, 8)}) == 1


@NETWORKS
@pytest.mark.usefixtures("quick_collection")
def test_what_plain_autograd_saves_grows_by_the_same_with_every_block(network):
    one, two, four, eight = (saved(False, depth, network) for depth in (1, 2, 4, 8))
    assert four - two == 2 * (two - one) and eight - four == 4 * (two - one)
    assert two - one > one / 4
    assert saved(True, 1, network) < one


@pytest.mark.parametrize(("count", "ratio"), [(4, 6.3), (8, 12.6)])
@pytest.mark.usefixtures("quick_collection")
def test_plain_autograd_saves_as_many_times_as_much_as_the_card_has_measured(count, ratio):
    peaks = []
    for sequence in twins("revsresnet", count, torch.float32):
        with SavedTensors(sequence) as meter:
            backward(sequence, streams(dtype=torch.float32))
        peaks.append(meter.peak)
    assert peaks[1] / peaks[0] == pytest.approx(ratio, rel=0.1)


# 5
@NETWORKS
def test_running_statistics_move_once_in_a_training_step(network):
    one, two = twins(network)
    for sequence in (one, two):
        backward(sequence, streams())
    buffers = dict(two.named_buffers())
    assert len(buffers) > 8
    for name, buffer in one.named_buffers():
        assert torch.equal(buffer, buffers[name])
    fresh = twins(network)[0]
    assert not all(torch.equal(a, b) for a, b in zip(one.buffers(), fresh.buffers(), strict=True))


def test_batches_are_counted_once():
    class Norm(nn.BatchNorm2d):
        def forward(self, x):
            return super().forward(x.flatten(0, 1)).unflatten(0, x.shape[:2])

    torch.manual_seed(0)
    functions = [nn.Sequential(LIF(), Conv2d(8, 8, 3, padding=1), Norm(8)) for _ in "fg"]
    sequence = ReversibleSequence([ReversibleBlock(*functions)]).double()
    backward(sequence, streams())
    assert [function[2].num_batches_tracked.item() for function in functions] == [1, 1]


# 6
@NETWORKS
def test_every_function_starts_and_ends_at_rest(network):
    one, _ = twins(network)
    y = one(*streams())
    assert all(part.carried() is None for part in one.modules() if isinstance(part, Stateful))
    (y[0].sum() + y[1].square().sum()).backward()
    assert all(part.carried() is None for part in one.modules() if isinstance(part, Stateful))
    again = one(*streams())
    assert torch.equal(y[0], again[0]) and torch.equal(y[1], again[1])


@NETWORKS
def test_another_batch_between_forward_and_backward_pass_does_not_matter(network):
    one, two = twins(network)
    x, other = streams(), streams(seed=5)
    y1, y2 = one(*x)
    backward(one, [part[:, [2, 0, 1]] for part in other])
    found = torch.autograd.grad(y1.sum() + y2.square().sum(), [*x, *one.parameters()])
    y1, y2 = two(*x)
    exact = torch.autograd.grad(y1.sum() + y2.square().sum(), [*x, *two.parameters()])
    assert_same_gradients(found, exact)


# 7
@NETWORKS
def test_one_set_of_weights_serves_sequences_of_any_length(network):
    method = PARTS[network]
    torch.manual_seed(0)
    net = method.build()
    x = torch.rand(1, 3, 1, 8, 8)
    for steps in (1, 4, 7):
        out = net(x.expand(steps, -1, -1, -1, -1))
        assert out.shape == (steps, 3, 10)
        net.zero_grad()
        out.mean(0).logsumexp(-1).sum().backward()
        assert all(p.grad.isfinite().all() for p in net.parameters())


# Networks


@NETWORKS
def test_the_twin_has_the_same_weights_answers_and_gradients(network):
    nets = []
    for reversible in (True, False):
        torch.manual_seed(0)
        nets.append(RevSnn(Digits(), {"reversible": reversible, "network": network, "blocks": 2}).build().double())
    x = torch.rand(1, 3, 1, 8, 8, dtype=torch.float64).expand(4, -1, -1, -1, -1)
    outs = [net(x) for net in nets]
    assert torch.equal(*outs)
    grads = [torch.autograd.grad(out.square().sum(), list(net.parameters())) for out, net in zip(outs, nets, strict=True)]
    assert_same_gradients(*grads)


def paper(name, **options):
    return RevSnn(Registries().tasks.load(name)("paper"), options)


@pytest.mark.parametrize(
    ("task", "network", "size", "millions"),
    [
        ("static/cifar100", "revsresnet", "21", 11.05),
        ("static/cifar100", "revsresnet", "37", 23.59),
        ("static/cifar10", "revsformer", "2-384", 5.77),  # the paper says 5.76
        ("static/cifar10", "revsformer", "4-384", 9.32),
    ],
)
def test_networks_have_the_published_number_of_parameters(task, network, size, millions):
    with torch.device("meta"):
        net = paper(task, network=network, size=size).build()
    assert round(sum(p.numel() for p in net.parameters()) / 1e6, 2) == millions


@pytest.mark.parametrize(("task", "size"), [("static/cifar10", "21"), ("static/cifar10", "37"), ("events/dvs-gesture", "24")])
def test_a_residual_network_is_named_by_its_layers_with_weights(task, size):
    with torch.device("meta"):
        net = paper(task, size=size).build()
    assert sum(isinstance(module, Conv2d | Linear) for module in net.modules()) == int(size)


def test_neurons_are_if_for_images_and_lif_for_events_and_transformers():
    def settings(method):
        neuron = method.neuron(1)
        return neuron.leak, neuron.threshold, neuron.reset, neuron.detach_reset, neuron.surrogate, neuron.scale_input

    assert settings(PARTS["revsresnet"]) == (1.0, 1.0, "hard", True, Arctan(2.0), False)
    assert settings(PARTS["revsformer"]) == (0.5, 1.0, "hard", True, Sigmoid(4.0), True)
    leak, *rest = settings(paper("events/dvs-gesture"))
    assert leak == pytest.approx(1 / 3)
    assert rest == [1.0, "hard", True, Sigmoid(4.0), True]
    assert settings(RevSnn(Digits(), {"neuron": "lif"}))[0] == pytest.approx(1 / 3)
    assert settings(RevSnn(Digits(), {"network": "revsformer", "neuron": "if"}))[0] == 1.0


def test_neurons_of_tau_one_and_a_half_divide_their_input_by_it():
    neuron = RevSnn(Digits(), {"neuron": "lif"}).neuron(1).double()
    x = torch.tensor([1.2, 0.3, 1.7, 0.1], dtype=torch.float64)
    v, expected = 0.0, []
    for now in x.tolist():
        u = v + (now - v) / 1.5
        expected.append(float(u >= 1))
        v = u * (1 - expected[-1])
    assert neuron(x[:, None]).flatten().tolist() == expected


def test_attention_has_the_fixed_scale_and_a_threshold_of_a_half():
    for method, heads in ((PARTS["revsformer"], 4), (paper("static/cifar10", network="revsformer", size="2-384"), 12)):
        attention = method.attention(384 if heads == 12 else 128)
        assert (attention.scale, attention.neuron.threshold, attention.heads) == (0.125, 0.5, heads)


def test_attention_of_a_width_that_heads_of_32_channels_do_not_fit_has_one():
    assert [PARTS["revsformer"].attention(width).heads for width in (8, 104)] == [1, 1]


@pytest.mark.parametrize(("network", "size"), [("revsresnet", "2-384"), ("revsformer", "37")])
def test_a_size_of_the_other_network_is_refused(network, size):
    with pytest.raises(UsageError, match=f"size = '{size}' is not one of {network}"):
        RevSnn(Digits(), {"network": network, "size": size})


def test_answers_at_places_need_the_network_of_the_budget():
    scenes = Registries().tasks.load("detection/digit-scenes")()
    with pytest.raises(UsageError, match="no features at the strides"):
        RevSnn(scenes, {"size": "21"})
    for network in PARTS:
        assert RevSnn(scenes, {"network": network}, track="recipe").options.size == "budget"


@pytest.mark.parametrize("task", ["static/digits", "detection/digit-scenes"])
@NETWORKS
def test_levels_describe_the_features(network, task):
    method = RevSnn(Registries().tasks.load(task)(), {"network": network})
    backbone = method.build().backbone
    found = backbone(torch.rand(1, 2, *method.task.input_shape))
    assert [tuple(x.shape[2:]) for x in found] == [(level.channels, *level.size) for level in backbone.levels]


def test_levels_of_the_event_net_describe_its_features():
    method = RevSnn(Digits(), {"size": "24"})
    backbone = method.build().backbone
    found = backbone(torch.rand(1, 2, 1, 8, 8))
    assert [tuple(x.shape[2:]) for x in found] == [(level.channels, *level.size) for level in backbone.levels]
    assert [level.stride for level in backbone.levels] == [8, 16, 8]


def test_depth_of_the_budget_multiplies_blocks_of_a_stage_only():
    counts = []
    for depth in (1, 3):
        task = Digits()
        task.budget = replace(task.budget, backbone=replace(task.budget.backbone, depth=depth))
        net = RevSnn(task, {"blocks": 2}).build()
        counts.append([len(module.blocks) for module in net.modules() if isinstance(module, ReversibleSequence)])
    assert counts == [[2, 2], [6, 6]]


@pytest.mark.parametrize(
    ("task", "network", "expected"),
    [
        ("static/cifar10", "revsresnet", ("37", "sgd", 0.1, 1e-4, 200, 32, 0.0)),
        ("static/cifar10", "revsformer", ("4-384", "adamw", 5e-4, 0.06, 310, 64, 0.1)),
        ("events/dvs-gesture", "revsresnet", ("24", "adamw", 1e-3, 0.0, 106, 16, 0.0)),
        ("events/dvs-gesture", "revsformer", ("2-256", "adamw", 1e-3, 0.06, 106, 16, 0.0)),
    ],
)
def test_the_recipe_is_that_of_the_code(task, network, expected):
    method = RevSnn(Registries().tasks.load(task)("paper"), {"network": network}, track="recipe")
    t = method.training
    assert (method.options.size, t.optimizer, t.lr, t.weight_decay, t.epochs, t.batch_size, t.label_smoothing) == expected


def test_the_rate_of_the_residual_networks_falls_to_a_tenth_at_epochs_100_and_150():
    training = RevSnn(Registries().tasks.load("static/cifar10")("paper"), track="recipe").training
    shares = [training.lr_share(epoch) for epoch in (0, 99, 100, 149, 150, 199)]
    assert shares == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])


def test_small_images_keep_the_network_of_the_budget_in_the_recipe():
    assert RevSnn(Digits(), track="recipe").options.size == "budget"


def test_sequences_and_events_without_pixels_are_refused_with_a_reason():
    for name in ("sequences/adding", "events/shd"):
        assert "a sequence has no space" in RevSnn.supports(Registries().tasks.load(name)())


# Report


@NETWORKS
def test_the_report_tells_how_exactly_the_network_runs_backwards_and_leaves_it_as_it_was(network):
    torch.manual_seed(0)
    method = RevSnn(Digits(), {"network": network, "blocks": 2})
    net = method.build().eval()
    before = copy.deepcopy(net.state_dict())
    report = method.report(net)
    stages = 2 if network == "revsresnet" else 1
    assert len(report["reconstruction_error"]) == len(report["spike_flip_rate"]) == stages
    assert all(0 < error < 1e-5 for error in report["reconstruction_error"])
    assert all(0 <= rate < 1e-3 for rate in report["spike_flip_rate"])
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert not net.training


def test_normalisations_are_ordinary_batch_normalisations():
    norm, other = PARTS["revsresnet"].norm(5, 0.7), nn.BatchNorm2d(5)
    x = 3 * torch.randn(4, 3, 5, 6, 6, generator=torch.Generator().manual_seed(0)) + 1
    assert isinstance(norm, BatchNorm)
    torch.testing.assert_close(norm(x), other(x.flatten(0, 1)).unflatten(0, (4, 3)))
