"""MS-ResNet: the numbered faithfulness tests of its card, and the plugin on tasks."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from harness.meters.spikes import SpikeMeter
from harness.meters.synops import SynopsMeter
from harness.registry import Registries
from methods.ms_resnet import IMAGENET, MsResnet
from methods.nn.membrane_block import MembraneBlock, isometry
from methods.nn.neuron import LIF
from methods.nn.norm import BatchNorm
from methods.nn.residual import ResidualBlock
from methods.nn.stepping import stepping
from methods.nn.surrogate import Arctan
from methods.nn.synapse import AvgPool2d, Conv2d
from methods.nn.watch import Watch
from suites.static_vision import Digits

PARTS = MsResnet(Digits())


class LeakyParts:
    """The parts of the baseline of the card: LIF neurons of time constant 2, arctan surrogate, ordinary batch normalisation."""

    conv = staticmethod(PARTS.conv)

    def neuron(self, features):
        return LIF(0.5, scale_input=True, surrogate=Arctan(2.0))

    def norm(self, features, scale=1.0):
        return BatchNorm(features)


def blocks(count, channels=8, **options):
    torch.manual_seed(1)
    return nn.Sequential(*[MembraneBlock(channels, channels, 1, PARTS, **options) for _ in range(count)]).double()


def normal(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


# 1
@pytest.mark.parametrize("training", [True, False])
def test_stacked_blocks_start_as_exact_identities_and_pass_the_gradient_on_unchanged(training):
    x, g = normal(4, 2, 8, 6, 6).requires_grad_(), normal(4, 2, 8, 6, 6, seed=1)
    y = blocks(20).train(training)(x)
    assert torch.equal(y, x)
    assert torch.equal(torch.autograd.grad(y, x, g)[0], g)


# 2
def test_convolutions_of_a_branch_see_spikes_and_the_block_returns_reals():
    block = blocks(1, zero_init=False)[0]
    with Watch([m for m in block.modules() if isinstance(m, Conv2d)]) as seen:
        y = block(normal(4, 2, 8, 6, 6))
    assert [set(x.unique().tolist()) for x in seen.inputs] == [{0.0, 1.0}] * 2
    assert len(y.unique()) > 1000


# 3
def test_tdbn_is_batch_normalisation_of_steps_and_samples_with_a_gain_that_starts_at_the_threshold():
    norm, other = PARTS.norm(5).double(), nn.BatchNorm2d(5).double()
    nn.init.constant_(other.weight, 0.5)
    x = 3 * normal(4, 3, 5, 6, 6) + 1
    torch.testing.assert_close(norm(x), other(x.flatten(0, 1)).unflatten(0, (4, 3)))
    torch.testing.assert_close(norm.running_var, other.running_var)
    torch.testing.assert_close(norm.running_mean, other.running_mean)
    torch.testing.assert_close(norm.eval()(x), other.eval()(x.flatten(0, 1)).unflatten(0, (4, 3)))


# 4
def test_the_second_moment_of_the_stream_grows_linearly_with_depth():
    stack = blocks(40, channels=16, zero_init=False)
    with Watch(stack) as seen, torch.no_grad():
        stack(normal(4, 2, 16, 8, 8))
    moments = [x.square().mean().item() for x in (seen.inputs[0], *seen.outputs)]
    assert (moments[-1] - moments[0]) / 40 == pytest.approx(0.25, rel=0.35)
    ratios = [after / before for before, after in zip(moments, moments[1:], strict=False)]
    assert ratios[0] > ratios[10] > ratios[-1]
    assert ratios[-1] < 1.06


def gain(stack, x):
    """Return the norm of the gradient of the input over that of the output."""
    x = x.requires_grad_()
    y = stack(x)
    g = normal(*y.shape, seed=1)
    return (torch.autograd.grad(y, x, g)[0].norm() / g.norm()).item()


def test_gradients_survive_forty_membrane_blocks_and_vanish_in_forty_vanilla_blocks_of_leaky_neurons():
    torch.manual_seed(1)
    vanilla = nn.Sequential(*[ResidualBlock(8, 8, 1, LeakyParts(), "vanilla") for _ in range(40)]).double()
    x = normal(4, 2, 8, 6, 6)
    assert gain(vanilla, (x > 0).double()) < 1e-2
    assert 1 < gain(blocks(40, zero_init=False), x) < 40
    assert gain(blocks(40), x) == 1


def test_the_squared_gain_of_a_block_falls_towards_one_as_the_stream_grows():
    block = blocks(1, zero_init=False)[0]
    gains = [isometry(block, scale * normal(4, 2, 8, 6, 6), probes=8) for scale in (1, 3, 9)]
    assert gains[0] > gains[1] > gains[2] > 1
    assert gains[2] < 1.15


def test_isometry_is_the_squared_frobenius_norm_of_the_jacobian_per_output():
    linear = nn.Linear(12, 30, bias=False, dtype=torch.float64)
    nn.init.normal_(linear.weight, generator=torch.Generator().manual_seed(0))
    exact = (linear.weight.square().sum() / 30).item()
    assert isometry(linear, normal(1, 12), probes=4000) == pytest.approx(exact, rel=0.03)
    assert isometry(blocks(1)[0], normal(2, 2, 8, 4, 4)) == 1


# 5
def test_the_reset_path_carries_no_gradient():
    neuron = PARTS.neuron(1)
    x = torch.tensor([[0.7], [0.2]], dtype=torch.float64, requires_grad=True)
    spikes = neuron(x)
    assert spikes.flatten().tolist() == [1.0, 0.0]
    assert torch.autograd.grad(spikes[1].sum(), x)[0].flatten().tolist() == [0.0, 1.0]


# 6
def test_the_threshold_is_strict_and_the_surrogate_a_box():
    x = torch.tensor([[-0.1, 0.0, 0.01, 0.5, 0.51, 0.99, 1.0]], dtype=torch.float64, requires_grad=True)
    spikes = PARTS.neuron(1)(x)
    assert spikes[0].tolist() == [0, 0, 0, 0, 1, 1, 1]
    assert torch.autograd.grad(spikes.sum(), x)[0][0].tolist() == [0, 0, 1, 1, 1, 1, 0]


def test_a_potential_below_threshold_leaks_to_a_quarter():
    neuron = PARTS.neuron(1)
    with stepping(neuron):
        neuron(torch.tensor([[0.4], [0.3]], dtype=torch.float64))
        assert neuron.carried()[0].item() == pytest.approx(0.4)
        assert neuron(torch.tensor([[0.41]], dtype=torch.float64)).item() == 1
        assert neuron.carried()[0].item() == 0


# 7
@pytest.mark.parametrize(
    ("options", "layers"),
    [({"net": "18"}, 18), ({"net": "34"}, 34), ({"net": "104"}, 104), ({"net": "cifar", "blocks": 18}, 110)]
    + [({"net": "cifar", "blocks": 80}, 482)],
)
def test_the_depth_of_a_network_counts_its_3x3_layers_stem_and_classifier(options, layers):
    method = MsResnet(Digits(), options)
    with torch.device("meta"):
        net = method.backbone()
    inside = [m for stage in net.stages for m in stage.modules() if isinstance(m, Conv2d) and m.kernel_size == (3, 3)]
    assert 1 + len(inside) + 1 == layers
    assert options["net"] == "cifar" or len(inside) == 2 * sum(IMAGENET[options["net"]])
    assert len([m for m in net.stem.modules() if isinstance(m, Conv2d)]) == (3 if options["net"] == "104" else 1)


# 8
@pytest.mark.parametrize("pooled", [False, True])
def test_the_shortcut_convolution_sees_reals_and_counts_as_multiply_accumulates(pooled):
    torch.manual_seed(0)
    block = MembraneBlock(4, 6, 2, PARTS, pooled=pooled).double()
    shortcut = next(m for m in block.shortcut.modules() if isinstance(m, Conv2d))
    with Watch([shortcut]) as seen, SynopsMeter(block) as meter, torch.no_grad():
        y = block(normal(3, 2, 4, 8, 8))
    assert y.shape == (3, 2, 6, 4, 4)
    assert len(seen.inputs[0].unique()) > 2
    layers = meter.result(2).layers
    name = next(name for name, module in block.named_modules() if module is shortcut)
    assert (layers[name].ac, layers[name].mac) == (0, 3 * 4 * 6 * 16)
    assert all(count.mac == 0 and count.ac > 0 for other, count in layers.items() if other != name)


def test_a_pooled_shortcut_averages_before_it_convolves_and_a_plain_one_strides():
    assert isinstance(MembraneBlock(4, 6, 2, PARTS, pooled=True).shortcut[0], AvgPool2d)
    assert MembraneBlock(4, 6, 2, PARTS).shortcut.synapse.stride == (2, 2)


@pytest.mark.parametrize("side", [7, 8])
def test_a_pooled_shortcut_fits_images_of_odd_size(side):
    assert MembraneBlock(4, 6, 2, PARTS, pooled=True)(torch.rand(2, 1, 4, side, side)).shape == (2, 1, 6, 4, 4)


def test_zero_init_of_a_block_without_normalisation_is_refused():
    class Bare(LeakyParts):
        def norm(self, features, scale=1.0):
            return nn.Identity()

    with pytest.raises(ValueError, match="normalisation with a weight, not Identity"):
        MembraneBlock(4, 4, 1, Bare())


def test_other_blocks_at_zero_init_would_be_dead_with_these_neurons():
    block = ResidualBlock(8, 8, 1, PARTS, "add", zero_init=True).double()
    block((normal(2, 2, 8, 6, 6) > 0).double()).sum().backward()
    assert all(p.grad is None or p.grad.count_nonzero() == 0 for p in block.parameters())


# The plugin ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{"net": "cifar", "blocks": 2, "width": 4}, {"net": "18"}, {"net": "104"}, {"blocks": 2}])
def test_levels_describe_what_heads_get_and_the_one_read_is_of_spikes(options):
    method = MsResnet(Digits(), options)
    with torch.device("meta"):
        net = method.backbone()
        found = net(torch.empty(1, 2, 1, 8, 8))
    assert [tuple(x.shape[2:]) for x in found] == [(level.channels, *level.size) for level in net.levels]
    assert [type(end) for end in net.ends] == [nn.Identity] * (len(net.ends) - 1) + [LIF]


def test_heads_at_strides_get_spikes_of_these_levels_only():
    method = MsResnet(Registries().task("detection/digit-scenes"))
    net = method.backbone()
    assert [level.stride for level in net.levels] == [2, 4]
    assert [type(end) for end in net.ends] == [nn.Identity, LIF]


@pytest.mark.parametrize("connect", ["membrane", "add", "vanilla", "plain"])
def test_the_blocks_compared_differ_in_nothing_else(connect):
    method = MsResnet(Digits(), {"connect": connect, "blocks": 2})
    torch.manual_seed(0)
    net = method.build()
    report = method.report(net)
    assert len(report["stream_second_moment"]) == len(report["block_rate"]) == 4
    assert all(math.isfinite(value) for value in report["stream_gradient_norm"])
    assert {(m.leak, m.threshold) for m in net.modules() if isinstance(m, LIF)} == {(0.25, 0.5)}
    if connect == "membrane":
        assert report["block_isometry"][0] == report["block_isometry"][1] == 1


def test_the_report_finds_the_one_convolution_that_sees_reals_and_counts_spikes():
    method = MsResnet(Digits(), {"blocks": 2})
    torch.manual_seed(0)
    net = method.build()
    report = method.report(net)
    assert len(report["non_binary_inputs"]) == 9
    assert [fraction > 0 for fraction in report["non_binary_inputs"]].count(True) == 1  # of the shortcut that changes the channels
    neurons = [m for m in net.modules() if isinstance(m, LIF)]
    inputs = next(method.task.batches("test", 16)).inputs
    with SpikeMeter(net) as meter, torch.no_grad():
        method.predict(net, inputs)
    assert len(neurons) == 9
    assert report["spikes_per_neuron"] == pytest.approx(meter.result(16).spikes_per_neuron)
    assert 0 < report["spikes_per_neuron"] < method.steps


def test_the_image_net_of_104_layers_pools_its_shortcuts_and_drops_out():
    method = MsResnet(Digits(), {"net": "104"})
    with torch.device("meta"):
        net = method.build()
    pools = [m for m in net.backbone.stages.modules() if isinstance(m, AvgPool2d)]
    assert len(pools) == 4
    assert net.head.readout[0].p == 0.2
    assert isinstance(MsResnet(Digits(), {"net": "104", "dropout": 0.0}).readout(2, 2), nn.Linear)
    assert MsResnet(Digits(), {"dropout": 0.5}).readout(2, 2)[0].p == 0.5


def test_the_recipe_is_that_of_the_code():
    method = MsResnet(Registries().task("static/cifar10", budget="paper"), track="recipe")
    assert (method.options.net, method.options.blocks, method.steps) == ("cifar", 80, 6)
    t = method.training
    assert (t.lr, t.weight_decay, t.label_smoothing, t.epochs, t.batch_size) == (0.1, 1e-5, 0.1, 125, 256)
    assert MsResnet(Registries().task("static/imagenet", budget="paper"), track="recipe").options.net == "104"
    assert MsResnet(Registries().task("detection/digit-scenes"), track="recipe").options.net == "budget"


@pytest.mark.parametrize("options", [{}, {"net": "cifar", "blocks": 2}, {"connect": "vanilla"}])
def test_single_steps_equal_the_parallel_run(options):
    method = MsResnet(Digits(), options)
    torch.manual_seed(0)
    net = method.build().double()
    x = torch.randn(4, 3, 1, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    net(x)  # statistics of its own
    net.eval()
    with torch.no_grad(), stepping(net):
        serial = torch.cat([net(x[t : t + 1]) for t in range(4)])
    assert serial.abs().max() > 0
    torch.testing.assert_close(serial, net(x).detach())


@pytest.mark.parametrize("options", [{}, {"net": "cifar"}])
def test_one_sample_and_one_step_can_be_learnt_from(options):
    method = MsResnet(Digits(), options, steps=1)
    torch.manual_seed(0)
    net = method.build().train()
    inputs, targets, _ = next(method.task.batches("train", 1))
    loss = method.loss(method.task.final(net(method.encode(inputs))), targets)
    loss.backward()
    assert all(p.grad.isfinite().all() for p in net.parameters() if p.grad is not None)
    assert net.head.readout.weight.grad.count_nonzero() > 0
