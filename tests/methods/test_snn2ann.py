"""SNN2ANN: the numbered faithfulness tests of its card (5, 6, 9 and 10 also in test_pair and test_adapted_if), networks and options."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from harness.meters.memory import SavedTensors
from harness.plugin import UnfitError
from harness.registry import Registries
from harness.task import Batch
from methods.nn.adapted_if import AdaptedIF
from methods.nn.pair import Pair
from methods.nn.paired_synapse import PairedConv2d
from methods.nn.sized import settle
from methods.nn.watch import Watch
from methods.snn2ann import MappedBlock, MappingUnit, Snn2Ann
from suites.static_vision import Digits
from tests.methods.counting_update import CountingUpdate

DOUBLE = torch.float64


def snn2ann(steps: int = 5, task=None, **options) -> tuple[Snn2Ann, nn.Module]:
    method = Snn2Ann(task or Digits(), options, steps=steps)
    torch.manual_seed(0)
    return method, method.build().double()


def batch(method: Snn2Ann, size: int = 6):
    found = next(method.task.batches("train", size, size))
    return found._replace(inputs=found.inputs.to(DOUBLE))


def units(net: nn.Module) -> list[MappingUnit]:
    return [module for module in net.modules() if isinstance(module, MappingUnit)]


def lowered(net: nn.Module) -> nn.Module:
    """Thresholds so low that there are noisy spikes."""
    for unit in units(net):
        unit.neuron.threshold.mul_(0.3)
    return net


# 1
@pytest.mark.parametrize("unit", ["stsu", "resu"])
def test_activations_of_the_ann_branch_are_spike_counts(unit):
    method, net = snn2ann(unit=unit)
    with Watch(units(lowered(net.train()))) as seen:
        method.branch(net, batch(method).inputs)
    for given, found in zip(seen.inputs, seen.outputs, strict=True):
        count = found.spikes.sum(0, keepdim=True)
        assert torch.equal(found.counts, count if unit == "stsu" else count * (given.counts > 0))
        assert count.sum() > 0


# 2
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("unit", ["stsu", "resu"])
def test_both_branches_answer_alike_if_all_spikes_pass_and_differ_with_noisy_spikes_rectified(unit, training):
    method, net = snn2ann(unit=unit)
    with torch.no_grad(), Watch([lowered(net.train(training)).head.readout]) as seen:
        answers = method.branch(net, batch(method).inputs)[0]
        spiking = net.head.readout(seen.inputs[0].spikes).mean(0)
    assert (answers - spiking).abs().max() < 1e-12 if unit == "stsu" else (answers - spiking).abs().max() > 1e-3


def test_outside_training_the_network_is_the_spiking_branch():
    method, net = snn2ann(unit="stsu")
    inputs = batch(method).inputs
    with torch.no_grad():
        torch.testing.assert_close(method.predict(net.eval(), inputs).final(), method.branch(net, inputs)[0], atol=1e-12, rtol=0)


# 3 and 4
@pytest.mark.parametrize("unit", ["stsu", "resu"])
def test_the_gradient_of_a_layer_is_the_product_of_counts_and_the_masked_error(unit):
    method, net = snn2ann(unit=unit)
    lowered(net.train())
    second, images = net.backbone.stages[0][1], batch(method)
    with Watch([second.synapse, second.neuron]) as seen:
        loss = method.loss(method.branch(net, images.inputs)[0], images.targets)
    z, x = seen.outputs[0].counts, seen.outputs[1].counts
    error, passed, gradient = torch.autograd.grad(loss, [z, x, second.synapse.weight])
    assert torch.equal(error, passed * (z > 0))
    norm = second.synapse.norm
    c = seen.inputs[0].counts[0].detach()
    assert torch.equal(c, c.round()) and c.max() > 1
    y = F.conv2d(c, second.synapse.weight, second.synapse.bias, padding=1).detach()
    std = (y.var((0, 2, 3), correction=0, keepdim=True) + norm.eps).sqrt()
    normed = (y - y.mean((0, 2, 3), keepdim=True)) / std
    g = error[0]
    inner = g - g.mean((0, 2, 3), keepdim=True) - normed * (g * normed).mean((0, 2, 3), keepdim=True)
    dy = norm.weight.view(-1, 1, 1) / std * inner
    expected = nn.grad.conv2d_weight(c, second.synapse.weight.shape, dy, padding=1)
    torch.testing.assert_close(gradient, expected, atol=1e-10, rtol=0)


# 5
@pytest.mark.parametrize("input_scale", ["image", "mean"])
def test_currents_sum_up_to_the_ann_except_for_a_factor_of_the_image(input_scale):
    method, net = snn2ann(input_scale=input_scale, unit="stsu")
    inputs = batch(method).inputs
    convs = [module for module in net.modules() if isinstance(module, PairedConv2d)]
    with torch.no_grad():
        for _ in range(3):
            method.branch(net.train(), inputs)  # running statistics that are no defaults
        with Watch(convs) as seen:
            method.branch(net.eval(), inputs)
    for pair in seen.outputs[1:]:
        torch.testing.assert_close(pair.spikes.sum(0), pair.counts[0], atol=1e-10, rtol=0)
    a, c = convs[0].norm.affine()
    image = a.view(-1, 1, 1) * F.conv2d(inputs, convs[0].weight, padding=1)
    bias = (a * convs[0].bias + c).view(-1, 1, 1)
    times = 5 if input_scale == "image" else 1
    torch.testing.assert_close(seen.outputs[0].spikes.sum(0), times * image + bias, atol=1e-10, rtol=0)
    torch.testing.assert_close(seen.outputs[0].counts[0], image + bias, atol=1e-10, rtol=0)


# 7
@pytest.mark.parametrize(("noisy", "rises"), [(11, True), (10, False), (0, False)])
def test_thresholds_of_a_layer_rise_together_iff_more_than_a_tenth_is_noisy(noisy, rises):
    unit = MappingUnit(AdaptedIF((100,), membrane_dropout=False), True, True).train()
    before = unit.neuron.threshold.clone()
    z = torch.ones(1, 1, 100)
    z[..., :noisy] = -1
    unit(Pair(torch.full((3, 1, 100), 2.0), z))
    assert unit.noisy.item() == pytest.approx(noisy / 100)
    torch.testing.assert_close(unit.neuron.threshold, before + 0.01 * rises, atol=1e-6, rtol=0)
    unit.eval()(Pair(torch.full((3, 1, 100), 2.0), -torch.ones(1, 1, 100)))
    torch.testing.assert_close(unit.neuron.threshold, before + 0.01 * rises, atol=1e-6, rtol=0)


def test_a_noisy_layer_becomes_quiet_and_thresholds_never_fall():
    torch.manual_seed(0)
    unit = MappingUnit(AdaptedIF((1000,), membrane_dropout=False), True, True).train()
    unit.neuron.threshold.fill_(0.2)
    current, z = torch.zeros(1, 1, 1000), torch.ones(1, 1, 1000)
    current[..., :157], z[..., :157] = torch.linspace(0.21, 1.5, 157), -1
    shares, thresholds = [], []
    for _ in range(200):
        unit(Pair(current, z))
        shares.append(unit.noisy.item())
        thresholds.append(unit.neuron.threshold[0].item())
    assert shares[0] == pytest.approx(0.157) and shares[-1] < 0.11
    assert all(now <= later for now, later in zip(thresholds[:-1], thresholds[1:], strict=True))


def test_without_adaptation_thresholds_stay():
    method, net = snn2ann(adapt=False)
    before = [unit.neuron.threshold.clone() for unit in units(lowered(net))]
    for _ in range(3):
        method.step(net.train(), batch(method), CountingUpdate(net))
    assert all(torch.equal(unit.neuron.threshold, threshold) for unit, threshold in zip(units(net), before, strict=True))
    assert max(unit.noisy.item() for unit in units(net)) > 0


# 8
def test_what_is_saved_for_the_backward_pass_does_not_depend_on_t():
    found = set()
    for steps in (4, 8, 16):
        method, net = snn2ann(steps)
        with SavedTensors(net.train()) as saved:
            method.step(net, batch(method), CountingUpdate(net))
        found.add(saved.peak)
    assert len(found) == 1


# Networks


def cifar(**options) -> Snn2Ann:
    return Snn2Ann(Registries().tasks.load("static/cifar10")(), options, steps=2)


@pytest.mark.parametrize(("net", "layers", "size"), [("vgg13", 13, (4, 4)), ("resnet17", 17, (8, 8))])
def test_published_networks_have_their_layers(net, layers, size):
    with torch.device("meta"):
        backbone = cifar(net=net).backbone()
    convs = [module for module in backbone.modules() if isinstance(module, PairedConv2d)]
    assert sum(conv.kernel_size == (3, 3) for conv in convs) == layers
    assert (backbone.levels[-1].channels, backbone.levels[-1].size) == (512, size)


@pytest.mark.parametrize("options", [{"net": "vgg13"}, {"net": "vgg13", "pool": "average"}, {"net": "resnet17"}])
def test_published_networks_train_and_answer(options):
    method = Snn2Ann(Digits(), options, steps=2)
    net = method.build()
    images = next(method.task.batches("train", 2, 2))
    assert method.step(net.train(), images, CountingUpdate(net)).isfinite()
    assert all(p.grad is not None for p in net.parameters())
    assert method.predict(net.eval(), images.inputs).outputs.shape == (2, 2, 10)


def test_average_pooling_of_vgg13_has_neurons_of_its_own_behind_it():
    with torch.device("meta"):
        counts = [len(units(cifar(net="vgg13", pool=pool).backbone())) for pool in ("max", "average")]
    assert counts == [13, 16]


@pytest.mark.parametrize("skip", ["spikes", "current"])
def test_an_unchanged_shortcut_brings_spikes_or_the_current_to_the_spiking_branch_and_counts_to_the_ann(skip):
    method, _ = snn2ann(3)
    torch.manual_seed(0)
    block = MappedBlock(2, 2, 1, method, 0.0, skip)
    settle(block, torch.zeros(1, 1, 2, 4, 4))
    block.double().eval()
    current, z = torch.rand(3, 1, 2, 4, 4, dtype=DOUBLE), torch.randn(1, 1, 2, 4, 4, dtype=DOUBLE)
    with torch.no_grad():
        h = block.neuron(Pair(current, z))
        branch = block.branch(h)
        found, alone = block(Pair(current, z)), block(current)
    torch.testing.assert_close(found.spikes, branch.spikes + (h.spikes if skip == "spikes" else current))
    torch.testing.assert_close(found.counts, branch.counts + h.counts)
    torch.testing.assert_close(alone, found.spikes)


# The method


@pytest.mark.parametrize("task", ["events/digits-saccade", "static/digits"])
def test_the_ann_sees_the_image_once_or_the_mean_frame(task):
    method, net = snn2ann(task=Registries().tasks.load(task)())
    shape = method.task.input_shape
    inputs = torch.rand(2, *([method.steps] if method.task.temporal else []), *shape, dtype=DOUBLE)
    with Watch([net.backbone.stages[0][0].synapse]) as seen:
        method.step(net.train(), Batch(inputs, torch.tensor([0, 1]), torch.arange(2)), CountingUpdate(net))
    torch.testing.assert_close(seen.inputs[0].counts[0], inputs.mean(1) if method.task.temporal else inputs)


def test_the_recipe_is_that_of_the_official_code(monkeypatch):
    task = Registries().tasks.load("static/cifar10")("paper")
    method = Snn2Ann(task, track="recipe")
    t = method.training
    assert (t.optimizer, t.lr, t.weight_decay, t.epochs, t.batch_size) == ("adam", 1e-3, 5e-4, 200, 512)
    assert [t.lr_share(epoch) for epoch in (99, 100, 150, 175)] == pytest.approx([1, 0.1, 0.01, 0.001])
    assert (method.options.net, method.steps) == ("vgg13", 4)
    assert Snn2Ann(task, {"net": "resnet17"}, track="recipe").steps == 5


def test_a_network_for_classes_is_refused_elsewhere():
    with pytest.raises(UnfitError, match="net = 'task'"):
        Snn2Ann(Registries().tasks.load("detection/digit-scenes")(), {"net": "vgg13"})
    assert "order of a sequence" in Snn2Ann.supports(Registries().tasks.load("sequences/adding")())


def test_the_report_says_how_noisy_layers_are_and_what_either_branch_answers():
    method, net = snn2ann()
    net = net.float()
    method.step(net.train(), next(method.task.batches("train", 8, 8)), CountingUpdate(net))
    found = method.report(net.eval())
    assert len(found["noisy_fraction"]) == len(found["threshold_mean"]) == 4
    assert 0 <= found["branch_validation"] <= 1 and 0 <= found["spiking_validation"] <= 1
