"""SEW ResNet: the numbered faithfulness tests of its card, and the plugin on a task."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from harness.plugin import UsageError
from methods.nn.neuron import LIF
from methods.nn.norm import BatchNorm
from methods.nn.residual import DEPTHS, DeepResNet, ResidualBlock, ResNet
from methods.nn.surrogate import Arctan
from methods.nn.synapse import AvgPool2d, Conv2d
from methods.sew_resnet import SewResnet
from suites.static_vision import Digits

IF = {"leak": 1.0}
LIF2 = {"leak": 0.5, "scale_input": True}


class StubParts:
    """Parts of a block with neurons of choice."""

    def __init__(self, **neuron: float):
        self.settings = neuron or IF

    def neuron(self, features):
        return LIF(surrogate=Arctan(2.0), **self.settings)

    def norm(self, features, scale=1.0):
        return BatchNorm(features)

    def conv(self, features_in, features_out, kernel, stride=1, first=False):
        return Conv2d(features_in, features_out, kernel, stride=stride, padding=kernel // 2, bias=False)

    def pool(self, kernel):
        return AvgPool2d(kernel)


def block(connect="add", channels=8, stride=1, channels_out=None, neuron=None, **kwargs):
    return ResidualBlock(channels, channels_out or channels, stride, StubParts(**(neuron or IF)), connect, **kwargs).double()


def binary(*shape, rate=0.4, seed=0):
    return (torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) < rate).double()


def lively(module):
    """Give the normalisations random affine weights, so that neurons fire at many rates."""
    torch.manual_seed(3)
    for part in module.modules():
        if isinstance(part, BatchNorm):
            nn.init.uniform_(part.weight, 0.5, 2)
            nn.init.uniform_(part.bias, -0.5, 1)
    return module


# 1
@pytest.mark.parametrize("connect", ["add", "and", "iand"])
@pytest.mark.parametrize("bottleneck", [False, True])
@pytest.mark.parametrize("training", [True, False])
def test_a_zero_initialised_block_is_exactly_the_identity(connect, bottleneck, training):
    x = binary(4, 3, 8, 5, 5)
    assert torch.equal(block(connect, bottleneck=bottleneck, zero_init=True).train(training)(x), x)


# 2
def test_and_with_bias_zero_returns_nothing():
    sew = block("and", zero_init=True)
    nn.init.zeros_(sew.branch[-1].norm.bias)
    assert sew(binary(4, 3, 8, 5, 5)).count_nonzero() == 0


# 3
@pytest.mark.parametrize("neuron", [{**IF, "threshold": 0.3}, {**IF, "threshold": 1.5}, LIF2])
@pytest.mark.parametrize("connect", ["add", "iand"])
def test_the_identity_of_add_and_iand_does_not_depend_on_the_neuron(connect, neuron):
    x = binary(4, 3, 8, 5, 5)
    assert torch.equal(block(connect, neuron=neuron, zero_init=True)(x), x)


@pytest.mark.parametrize(("neuron", "identity"), [(IF, True), (LIF2, False), ({**IF, "threshold": 1.5}, False)])
def test_a_vanilla_block_is_an_identity_for_if_neurons_of_threshold_one_only(neuron, identity):
    x = binary(4, 3, 8, 5, 5)
    assert torch.equal(block("vanilla", neuron=neuron, zero_init=True)(x), x) == identity


# 4
def test_add_blocks_pass_the_gradient_on_unchanged_and_vanilla_blocks_multiply_it_by_the_surrogate():
    x = binary(1, 2, 4, 3, 3).requires_grad_()
    weights = torch.randn(1, 2, 4, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))

    def gradient(connect):
        stack = nn.Sequential(*[block(connect, 4, zero_init=True) for _ in range(12)])
        return torch.autograd.grad((stack(x) * weights).sum(), x)[0]

    assert torch.equal(gradient("add"), weights)
    factor = torch.where(x.detach() == 1, torch.ones_like(x), (1 / (1 + math.pi**2)) ** 12).detach()
    torch.testing.assert_close(gradient("vanilla"), weights * factor, rtol=1e-12, atol=0)


# 5
def test_add_outputs_are_whole_numbers_up_to_the_number_of_blocks_plus_one():
    stack = lively(nn.Sequential(*[block("add") for _ in range(6)]))
    x = binary(4, 3, 8, 5, 5)
    for count, part in enumerate(stack, start=1):
        x = part(x).detach()
        assert torch.equal(x, x.round())
        assert x.min() >= 0
        assert x.max() <= count + 1
    assert x.max() > 2


def test_a_block_that_changes_the_shape_adds_spikes_to_spikes():
    x = lively(nn.Sequential(*[block("add") for _ in range(4)]))(binary(4, 3, 8, 6, 6))
    changed = lively(block("add", 8, stride=2, channels_out=12))(x)
    assert changed.shape == (4, 3, 12, 3, 3)
    assert set(changed.unique().tolist()) <= {0.0, 1.0, 2.0}


@pytest.mark.parametrize("connect", ["and", "iand"])
def test_and_and_iand_outputs_are_binary_and_never_exceed_their_input(connect):
    x = binary(4, 3, 8, 5, 5, rate=0.7)
    y = lively(block(connect))(x)
    assert set(y.unique().tolist()) == {0.0, 1.0}
    assert (y <= x).all() and (y < x).any()


# 6
@pytest.mark.parametrize("bottleneck", [False, True])
def test_iand_returns_the_shortcut_where_the_branch_is_silent(bottleneck):
    iand = lively(block("iand", bottleneck=bottleneck))
    x = binary(4, 3, 8, 5, 5)
    nn.init.zeros_(iand.branch[-1].norm.weight)
    nn.init.constant_(iand.branch[-1].norm.bias, -1.0)
    assert iand.branch(x).count_nonzero() == 0
    assert torch.equal(iand(x), x)
    nn.init.constant_(iand.branch[-1].norm.bias, 1.0)
    assert iand(x).count_nonzero() == 0


# 7
def test_a_stack_of_add_blocks_is_its_input_plus_the_spikes_of_all_branches():
    stack = lively(nn.Sequential(*[block("add") for _ in range(5)]))
    branches = []
    for part in stack:
        part.branch.register_forward_hook(lambda module, args, out: branches.append(out.detach()))
    x = binary(1, 3, 8, 5, 5)
    assert torch.equal(stack(x), x + sum(branches))
    assert sum(branches).count_nonzero() > 0


def test_a_plain_block_has_no_shortcut():
    plain = lively(block("plain", stride=2, channels_out=12))
    x = binary(2, 2, 8, 6, 6)
    assert isinstance(plain.shortcut, nn.Identity)
    assert torch.equal(plain(x), plain.branch(x))


def test_the_shortcut_of_a_vanilla_block_that_changes_the_shape_is_a_current():
    vanilla = lively(block("vanilla", stride=2, channels_out=12))
    assert not set(vanilla.shortcut(binary(2, 2, 8, 6, 6)).unique().tolist()) <= {0.0, 1.0}


def test_levels_describe_the_features_like_those_of_the_reference_network():
    net = ResNet((3, 16, 24), (4, 8, 16), StubParts(), lambda i, o, s: ResidualBlock(i, o, s, StubParts()))
    found = net(binary(2, 2, 3, 16, 24).float())
    assert [level.stride for level in net.levels] == [2, 4, 8]
    assert [tuple(x.shape[2:]) for x in found] == [(level.channels, *level.size) for level in net.levels]


@pytest.mark.parametrize(("depth", "weights"), [("18", 18), ("34", 34), ("50", 50), ("101", 101), ("152", 152)])
def test_the_depth_of_an_imagenet_net_counts_its_weight_layers(depth, weights):
    depths, bottleneck = DEPTHS[depth]
    assert sum(depths) * (3 if bottleneck else 2) + 2 == weights  # stem and classifier


@pytest.mark.parametrize("bottleneck", [False, True])
def test_the_imagenet_net_has_levels_of_strides_4_to_32_and_a_pooled_one(bottleneck):
    parts = StubParts()
    net = DeepResNet(
        (3, 64, 64), (1, 1, 1, 1), parts, lambda i, o, s: ResidualBlock(i, o, s, parts, bottleneck=bottleneck), 4 if bottleneck else 1
    )
    found = net.eval()(torch.rand(1, 2, 3, 64, 64))
    assert [level.stride for level in net.levels] == [4, 8, 16, 32, 64]
    assert [tuple(x.shape[2:]) for x in found] == [(level.channels, *level.size) for level in net.levels]


def test_resnet_18_for_imagenet_has_the_known_number_of_weights():
    parts = StubParts()
    net = DeepResNet((3, 224, 224), DEPTHS["18"][0], parts, lambda i, o, s: ResidualBlock(i, o, s, parts))
    assert sum(p.numel() for p in net.parameters()) + 512 * 1000 + 1000 == 11_689_512  # torchvision's resnet18


def test_the_event_net_of_the_paper_has_about_130_thousand_weights():
    parts = StubParts()
    net = ResNet((2, 128, 128), (32,) * 7, parts, lambda i, o, s: ResidualBlock(i, o, s, parts), kernels=(1, 1))
    assert round(sum(p.numel() for p in net.parameters()) / 1e6, 2) == 0.13
    assert net.levels[-1].size == (1, 1)


def test_neurons_are_if_for_images_and_plif_learns_one_over_tau():
    assert SewResnet(Digits()).neuron(1).leak == 1.0
    plif = SewResnet(Digits(), {"neuron": "plif"}).neuron(1).double()
    x = torch.randn(5, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) + 1
    v, spikes = torch.zeros(7, dtype=torch.float64), []
    for now in x:
        u = v + (now - v) * torch.sigmoid(torch.zeros((), dtype=torch.float64))  # tau = 2
        spikes.append((u >= 1).double())
        v = u * (1 - spikes[-1])
    assert torch.equal(plif(x), torch.stack(spikes))
    assert [p.numel() for p in plif.parameters()] == [1]


@pytest.mark.parametrize("options", [{"connect": "plain"}, {"connect": "and", "neuron": "lif"}])
def test_zero_init_that_cannot_be_an_identity_is_refused(options):
    with pytest.raises(UsageError, match="zero_init"):
        SewResnet(Digits(), {**options, "zero_init": True})


@pytest.mark.parametrize("connect", ["add", "and", "iand", "vanilla", "plain"])
def test_the_plugin_builds_answers_and_reports_on_digits(connect):
    torch.manual_seed(0)
    method = SewResnet(Digits(), {"connect": connect, "blocks": 2})
    net = method.build()
    batch = next(method.task.batches("validation", 8))
    assert method.predict(net.eval(), batch.inputs).outputs.shape == (4, 8, 10)
    report = method.report(net)
    assert len(report["block_max"]) == len(report["block_gradient_norm"]) == 4
    assert all(math.isfinite(norm) for norm in report["block_gradient_norm"])
    values = [len(histogram) - 1 for histogram in report["block_histogram"]]
    assert max(values) <= (3 if connect == "add" else 1)
    assert all(p.grad is None for p in net.parameters())
