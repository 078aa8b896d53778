"""SEW ResNet: the numbered faithfulness tests of its card, and the plugin on a task."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from harness.plugin import UsageError
from harness.registry import Registries
from harness.task import Backbone, Budget, Data, Head, TaskCard, Training
from methods.nn.block_figures import accumulations, block_figures
from methods.nn.neuron import LIF
from methods.nn.norm import BatchNorm
from methods.nn.residual import DEPTHS, DeepResNet, MaxPool2d, ResidualBlock, ResNet
from methods.nn.surrogate import Arctan
from methods.nn.synapse import AvgPool2d, Conv2d
from methods.sew_resnet import SewResnet
from suites.classification import ClassificationTask
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


def paper_task(name, options=None):
    return Registries().tasks.load(name)("paper", options=options or {})


class Recordings(ClassificationTask):
    """Random films with a time axis."""

    card = TaskCard("test/recordings", "", "", "", "", "")
    head = Head("classify", classes=10)
    input_shape, steps, temporal = (2, 8, 8), 6, True
    budgets = {"smoke": Budget(Training(epochs=1, batch_size=16), Backbone("conv", (4, 4)))}

    def load(self, split):
        drawn = torch.Generator().manual_seed(0)
        return Data((torch.rand(32, 6, 2, 8, 8, generator=drawn) < 0.3).float(), torch.arange(32) % 10)


class Recorder:
    """An update that changes nothing."""

    def minimise(self, loss):
        loss.backward()


# What goes wrong in deep networks


def figures(method, net, samples=16):
    batch = next(method.task.batches("test", samples))
    return block_figures(net, lambda: method.loss(method.task.final(net(method.encode(batch.inputs))), batch.targets), samples)


def settled(connect, blocks=8, neuron="if"):
    """Return method and net with 2 stages of so many blocks, its running statistics those of a batch."""
    torch.manual_seed(0)
    method = SewResnet(Digits(), {"connect": connect, "blocks": blocks, "neuron": neuron})
    net = method.build()
    for module in net.modules():
        if isinstance(module, BatchNorm):
            module.momentum = 1.0
    with torch.no_grad():
        net(method.encode(next(method.task.batches("train", 32)).inputs))
    return method, net


@pytest.mark.parametrize(("connect", "reaches"), [("add", True), ("iand", True), ("vanilla", False), ("plain", False)])
def test_gradients_reach_the_first_of_sixteen_blocks_of_lif_neurons_by_add_and_iand_only(connect, reaches):
    norms = figures(*settled(connect, neuron="lif"))["block_gradient_norm"]
    assert len(norms) == 16
    assert (norms[0] > 0.3 * norms[-1]) == reaches
    assert (norms[0] > 0.1 * norms[-1]) == reaches


# Reports


def test_gradient_norms_of_the_report_are_those_of_a_backward_pass():
    method, net = settled("add", 1)
    norms = method.report(net)["block_gradient_norm"]
    batch = next(method.task.batches("test", 32))
    method.loss(method.task.final(net.eval()(method.encode(batch.inputs))), batch.targets).backward()
    blocks = [module for module in net.modules() if isinstance(module, ResidualBlock)]
    expected = [torch.cat([p.grad.flatten() for p in part.branch.parameters()]).norm().item() for part in blocks]
    assert norms == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (3, 2), (1, 2)])
def test_accumulations_are_counted_tap_by_tap(kernel, stride):
    conv = Conv2d(3, 4, kernel, stride=stride, padding=kernel // 2, bias=False)
    x = torch.randint(0, 4, (2, 2, 3, 5, 5), generator=torch.Generator().manual_seed(0)).float()
    nn.init.ones_(conv.weight)
    assert accumulations(conv, x) == conv(x).sum().item()  # weights of one add up the inputs
    assert accumulations(conv, x, multiplicity=False) == conv((x != 0).float()).sum().item()


def test_averages_count_as_one_operation_each():
    conv = Conv2d(1, 1, 1, bias=False)
    assert accumulations(conv, torch.tensor([0.0, 0.25, 1.0, 3.0]).view(1, 1, 1, 2, 2)) == 5
    assert accumulations(conv, torch.tensor([0.0, 0.25, 1.0, 3.0]).view(1, 1, 1, 2, 2), multiplicity=False) == 3


def test_add_costs_more_accumulations_than_binary_inputs_would_and_iand_does_not():
    for connect, dearer in (("add", True), ("iand", False)):
        report = figures(*settled(connect, 3))
        assert (report["accumulations"] > report["accumulations_if_binary"] > 0) == dearer
        assert (max(report["block_max"]) > 1) == dearer


def test_the_rate_of_a_block_is_that_of_its_neurons_and_the_mean_is_of_its_outputs():
    method, net = settled("add", 1)
    spikes, outputs = [], []
    first = next(module for module in net.modules() if isinstance(module, ResidualBlock))
    for neuron in (first.branch[0].neuron, first.branch[1].neuron):
        neuron.register_forward_hook(lambda module, args, out: spikes.append(out.detach()))
    first.register_forward_hook(lambda module, args, out: outputs.append(out.detach()))
    with torch.no_grad():
        net.eval()(method.encode(next(method.task.batches("test", 32)).inputs))
    expected = torch.stack(spikes).double().mean().item(), outputs[0].double().mean().item()
    report = method.report(net)
    assert (report["block_rate"][0], report["block_mean"][0]) == pytest.approx(expected, rel=1e-5)
    assert 0 < report["block_rate"][0] < report["block_mean"][0]


def test_the_metric_on_training_data_is_that_of_the_first_thousand_samples():
    method, net = settled("add", 1)
    batch = next(method.task.batches("train", 1000))
    with torch.no_grad():
        right = method.task.final(net.eval()(method.encode(batch.inputs))).argmax(-1) == batch.targets
    assert method.report(net)["metric_train"] == pytest.approx(right.double().mean().item(), abs=2e-3)


# Networks, pooling and recipes


@pytest.mark.parametrize(("pool", "whole"), [("max", True), ("auto", False)])
def test_max_pooling_keeps_whole_numbers_whole_in_the_matched_network(pool, whole):
    torch.manual_seed(0)
    net = SewResnet(Digits(), {"pool": pool}).build()
    x = net.backbone(torch.rand(4, 8, 1, 8, 8) * 4)[0].detach()
    assert torch.equal(x, x.round()) == whole
    assert isinstance(net.backbone.stages[0][-1], MaxPool2d if whole else AvgPool2d)


def test_the_event_net_keeps_seven_blocks_on_few_pixels_and_leaves_out_the_last_poolings():
    method = SewResnet(Recordings(), {"net": "7b"})
    net = method.build()
    assert sum(isinstance(module, ResidualBlock) for module in net.modules()) == 7
    assert sum(isinstance(module, MaxPool2d) for module in net.modules()) == 3
    assert [level.stride for level in net.backbone.levels] == [2, 4, 8, 8, 8, 8, 8]
    assert net(method.encode(next(method.task.batches("train", 3)).inputs)).shape == (6, 3, 10)


def test_the_wide_event_net_changes_channels_twice():
    net = SewResnet(Recordings(), {"net": "wide7b"}).build()
    changes = [(m.in_channels, m.out_channels) for m in net.modules() if isinstance(m, Conv2d) and m.kernel_size == (1, 1)]
    assert changes == [(2, 64), (64, 128)]


def test_neurons_of_data_with_a_time_axis_learn_their_leak():
    assert SewResnet(Recordings()).neuron(1).leak.item() == 0.5
    assert SewResnet(Recordings(), {"neuron": "lif"}).neuron(1).leak == 0.5


def test_training_batches_have_as_many_frames_as_asked_in_order_and_tests_have_all():
    method = SewResnet(Recordings(), {"train_frames": 4})
    net = method.build()
    batch = next(method.task.batches("train", 4))
    seen = []
    net.register_forward_pre_hook(lambda module, args: seen.append(args[0].clone()))
    for _ in range(8):
        method.step(net, batch, Recorder())
    whole = method.encode(batch.inputs)
    drawn = set()
    for x in seen:
        places = tuple(next(t for t in range(6) if torch.equal(frame, whole[t])) for frame in x)
        assert len(places) == 4
        assert places == tuple(sorted(set(places)))
        drawn.add(places)
    assert len(drawn) > 1
    assert len(method.predict(net.eval(), batch.inputs).outputs) == 6


def test_frames_cannot_be_drawn_from_an_image_nor_more_than_there_are():
    with pytest.raises(UsageError, match="one image per sample"):
        SewResnet(Digits(), {"train_frames": 2})
    with pytest.raises(UsageError, match="has 6 steps"):
        SewResnet(Recordings(), {"train_frames": 7})


def test_events_of_a_sensor_without_pixels_are_refused_with_a_reason():
    assert "a sequence has no space: [140]" in SewResnet.supports(paper_task("events/shd"))
    assert SewResnet.supports(Recordings()) is None
    assert SewResnet.supports(Registries().tasks.load("static/npz")()) is None  # its shape is that of a file not named yet


def test_the_recipe_of_dvs_gesture_is_that_of_its_log():
    method = SewResnet(paper_task("events/dvs-gesture", {"pool": 1}), track="recipe")
    o, t = method.options, method.training
    assert (o.net, o.zero_init, o.train_frames, method.steps, method.kind) == ("7b", True, 12, 16, "plif")
    assert (t.optimizer, t.momentum, t.weight_decay, t.batch_size) == ("sgd", 0.9, 0.0, 16)
    assert (t.epochs, t.lr) == (192, 1e-3)
    assert [t.lr_share(epoch) for epoch in (0, 63, 64, 127, 128, 191)] == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])


def test_the_recipe_of_cifar10_dvs_is_that_of_its_log():
    method = SewResnet(paper_task("events/cifar10-dvs"), track="recipe")
    o, t = method.options, method.training
    assert (o.net, o.zero_init, o.train_frames) == ("wide7b", False, None)
    assert (t.lr, t.schedule, t.epochs, t.batch_size, t.weight_decay) == (0.01, "cosine", 64, 16, 0.0)


@pytest.mark.parametrize(("connect", "zero_init"), [("add", False), ("vanilla", True)])
def test_the_recipe_of_imagenet_starts_the_baseline_only_as_identity(connect, zero_init):
    method = SewResnet(paper_task("static/imagenet"), {"connect": connect}, track="recipe")
    o, t = method.options, method.training
    assert (o.net, o.zero_init, method.steps, method.kind) == ("18", zero_init, 4, "if")
    assert (t.optimizer, t.lr, t.schedule, t.epochs, t.batch_size, t.weight_decay) == ("sgd", 0.1, "cosine", 320, 256, 0.0)


@pytest.mark.parametrize("connect", ["add", "and", "iand", "vanilla", "plain"])
@pytest.mark.parametrize("name", ["static/digits", "detection/digit-scenes", "events/dvs-gesture"])
def test_every_connection_has_a_recipe_that_can_be_built(connect, name):
    task = Registries().tasks.load(name)()
    method = SewResnet(task, {"connect": connect}, track="recipe")
    assert method.build() is not None
