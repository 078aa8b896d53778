"""Spike-driven Transformer: the plugin, its neurons, loss, recipes and report. Its network: ``nn/test_spike_transformer.py``."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from harness.meters.synops import SynopsMeter
from harness.plugin import UsageError
from harness.registry import Registries
from harness.task import Head
from methods.nn.norm import BatchNorm
from methods.nn.spike_attention import SpikeDrivenAttention, SpikingSelfAttention
from methods.spike_driven_transformer import SpikeDrivenTransformer
from suites.static_vision import Digits


class Captured:
    """An update that keeps the loss and changes nothing."""

    def minimise(self, loss):
        self.loss = loss


def small(options=None, **kwargs):
    torch.manual_seed(0)
    return SpikeDrivenTransformer(Digits(), {"blocks": 1, **(options or {})}, **kwargs)


def settle(net, x):
    """Set running statistics to those of ``x``, as training would, so that evaluation is not silent."""
    for part in net.modules():
        if isinstance(part, BatchNorm):
            part.momentum = 1.0
    with torch.no_grad():
        net.train()(x)


# 8
def test_the_fused_neuron_has_the_gradient_of_the_paper_s_and_keeps_one_tensor():
    neuron = small().neuron(1)
    generator = torch.Generator().manual_seed(0)
    x = (2 * torch.randn(7, 3, 5, dtype=torch.float64, generator=generator) + 0.5).requires_grad_()
    weights = torch.randn(7, 3, 5, dtype=torch.float64, generator=generator)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
        spikes = neuron(x)
    assert neuron.used == "native"
    assert kept == [x.numel()]

    v, expected = torch.zeros(3, 5, dtype=torch.float64), []
    for now in x:
        h = v + (now - v) / 2
        smooth = torch.sigmoid(4 * (h - 1))
        s = (h >= 1).double() + smooth - smooth.detach()
        v = h * (1 - s.detach())
        expected.append(s)
    expected = torch.stack(expected)
    assert torch.equal(spikes, expected.detach().round())
    assert 0 < spikes.mean() < 1
    ours, theirs = (torch.autograd.grad((out * weights).sum(), x)[0] for out in (spikes, expected))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


def test_the_mask_fires_at_half_the_threshold_of_the_other_neurons():
    net = small().build()
    thresholds = {name: module.threshold for name, module in net.named_modules() if hasattr(module, "threshold")}
    assert {name for name, threshold in thresholds.items() if threshold == 0.5} == {"backbone.blocks.0.attention.attention.mask"}
    assert set(thresholds.values()) == {0.5, 1.0}


def test_the_loss_is_that_of_the_mean_over_time_or_with_tet_the_mean_of_the_losses():
    method, tet = small(), small({"tet": True})
    net = method.build().double()
    batch = method.task.gather("train", torch.arange(4))
    batch = batch._replace(inputs=batch.inputs.double())
    outputs = net(method.encode(batch.inputs)).detach()
    assert outputs.shape == (4, 4, 10)
    plain, each = Captured(), Captured()
    method.step(net, batch, plain)
    tet.step(net, batch, each)
    torch.testing.assert_close(plain.loss, F.cross_entropy(outputs.mean(0), batch.targets))
    errors = torch.stack([F.cross_entropy(now, batch.targets) for now in outputs]).mean()
    torch.testing.assert_close(each.loss, 0.999 * errors + 0.001 * F.mse_loss(outputs, torch.ones_like(outputs)))


def test_the_matched_net_has_the_budget_s_width_and_poolings():
    method = small()
    assert method.size() == (1, 48, "0011")
    net = method.build()
    assert net.backbone.levels[-1].features == 48
    assert net.head.readout.in_features == 48


def test_the_matched_net_has_a_stage_for_every_pooling_and_room_in_the_first():
    task = Registries().task("static/imagenet")
    assert SpikeDrivenTransformer(task).size() == (2, 64, "11111")


@pytest.mark.parametrize("name", ["detection/digit-scenes", "static/digits", "events/digits-saccade"])
def test_only_the_first_convolution_multiplies_and_every_synapse_and_attention_works(name):
    task = Registries().task(name)
    if task.unavailable():
        pytest.skip(task.unavailable())
    torch.manual_seed(0)
    method = SpikeDrivenTransformer(task, {"blocks": 1})
    net = method.build()
    batch = next(task.batches("validation", 2))
    settle(net, method.encode(batch.inputs))
    with SynopsMeter(net.eval()) as meter, torch.no_grad():
        method.predict(net, batch.inputs)
    count = meter.result(2)
    assert {name for name, layer in count.layers.items() if layer.mac} <= {"backbone.splitting.stages.0.synapse"}
    assert all(layer.ac or layer.mac for layer in count.layers.values())
    assert count.other > 0


def test_data_with_a_time_axis_are_eroded_and_images_are_not():
    task = Registries().task("events/digits-saccade")
    assert SpikeDrivenTransformer(task).erode
    assert not SpikeDrivenTransformer(task, {"erode": "off"}).erode
    assert not SpikeDrivenTransformer(task, {"attention": "ssa"}).erode
    assert not small().erode
    assert small({"erode": "on"}).erode


def test_segmentation_has_an_answer_for_every_pixel():
    task = Digits()
    task.head = Head("segment", classes=3, strides=(2, 4))
    method = SpikeDrivenTransformer(task, {"blocks": 1})
    assert method.predict(method.build().eval(), torch.rand(2, 1, 8, 8)).outputs.shape == (4, 2, 3, 8, 8)


@pytest.mark.parametrize(("batch", "steps"), [(1, 1), (1, 4), (5, 2)])
def test_any_batch_and_any_number_of_steps_are_answered(batch, steps):
    method = small(steps=steps)
    net = method.build()
    for training in (True, False):
        assert net.train(training)(method.encode(torch.rand(batch, 1, 8, 8))).shape == (steps, batch, 10)


@pytest.mark.parametrize(
    ("options", "match"),
    [({"attention": "ssa", "erode": "on"}, "erode=on"), ({"pooling": "01x1"}, "pooling"), ({"net": "2-384"}, "net")],
)
def test_options_that_make_no_sense_are_refused(options, match):
    with pytest.raises(UsageError, match=match):
        small(options)


def test_tet_is_refused_where_there_is_no_class_per_sample():
    with pytest.raises(UsageError, match="tet asks for one class per sample"):
        SpikeDrivenTransformer(Registries().task("detection/digit-scenes"), {"tet": True})


def test_sequences_and_their_like_are_refused_with_a_reason():
    registries = Registries()
    for name in ("sequences/digits-pixels", "events/shd"):
        assert "no space" in SpikeDrivenTransformer.supports(registries.task(name))
    assert SpikeDrivenTransformer.supports(registries.task("static/digits")) is None


@pytest.mark.parametrize(
    ("task", "net", "pooling", "lr", "steps"),
    [
        ("static/imagenet", "8-512", "1111", 1.5e-3, 4),
        ("static/cifar100", "2-512", "0011", 3e-4, 4),
        ("events/cifar10-dvs", "2-256", "0011", 7.5e-3, 10),
        ("events/dvs-gesture", "2-256", "0111", 3e-4, 16),
        ("detection/digit-scenes", "budget", "auto", 3e-4, 4),
    ],
)
def test_the_recipe_is_that_of_the_published_table(task, net, pooling, lr, steps):
    task = Registries().task(task)
    method = SpikeDrivenTransformer(task, track="recipe")
    assert (method.options.net, method.options.pooling, method.training.lr) == (net, pooling, lr)
    assert method.recipe(task)["steps"] == steps
    assert method.options.tet == task.card.name.startswith("events/cifar10")
    if net != "budget":
        assert method.size() == (*(int(part) for part in net.split("-")), pooling)


@pytest.mark.parametrize(("attention", "kind"), [("sdsa", SpikeDrivenAttention), ("ssa", SpikingSelfAttention)])
def test_the_report_has_rates_and_energy_of_a_net_that_fires(attention, kind):
    method = small({"attention": attention})
    net = method.build()
    settle(net, method.encode(next(method.task.batches("train", 64)).inputs))
    blocks = [module for module in net.modules() if isinstance(module, kind)]
    seen = []
    blocks[0].register_forward_hook(lambda module, args, out: seen.append([*(x.double().mean().item() for x in args), out.mean().item()]))
    found = method.report(net)
    queries, *_ = (found[f"{part}_rate"] for part in ("query", "key", "value", "attention"))
    assert len(blocks) == len(queries) == 1
    assert all(0 < found[f"{part}_rate"][0] < 1 for part in ("query", "key", "value"))
    sizes = torch.tensor([256.0, 104.0])  # test samples of digits, in the batches of the task
    assert len(seen) == 2
    assert queries[0] == pytest.approx(float((torch.tensor([row[0] for row in seen]) * sizes).sum() / sizes.sum()))
    assert len(found["input_rates"]) == sum(isinstance(m, nn.Conv2d | nn.Linear) for m in net.modules())
    assert found["input_rates"][0] > 0.9 and all(0 <= rate <= 1 for rate in found["input_rates"])
    assert math.isfinite(found["rate_energy"]) and found["rate_energy"] > 0
    assert found["attention_additions"] > 0
    assert len(blocks[0]._forward_hooks) == 1  # the one of this test
