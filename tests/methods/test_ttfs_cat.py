"""Conversion-aware training: what is lossless on whole tasks, the schedule, the ablations, and the figures."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from harness.evaluate import evaluate
from harness.loop import train
from harness.plugin import UnfitError, UsageError
from harness.registry import Registries
from harness.task import Backbone, Budget, Data, Head, TaskCard, Training
from methods.nn import ttfs_conversion
from methods.nn.conversion import fold
from methods.nn.earliest_pool import EarliestPool2d
from methods.nn.layer import Layer
from methods.nn.norm import BatchNorm
from methods.nn.stepping import stepping
from methods.nn.ttfs_neuron import TtfsNeuron, set_mode
from methods.nn.ttfs_readout import TtfsReadout
from methods.ttfs_cat import TtfsCat
from suites.segmentation import SegmentationTask
from suites.static_vision import Digits

DOUBLE = torch.float64
COARSE = {"levels": 6, "tau": 1.0}


def converted(method: TtfsCat, mode: str = "code") -> tuple[nn.Module, torch.Tensor]:
    """An untrained network in double precision, converted in ``mode``, with statistics of some images; and those."""
    torch.manual_seed(0)
    net = method.build().double()
    x = next(method.task.batches("train", 4, 4)).inputs.double()
    net[0].measure(x)
    with torch.no_grad():
        for _ in range(8):  # running statistics, so that layers are neither silent nor saturated
            net(method.task.encode(x, 1))
    net.eval()
    for c in net.modules():
        if isinstance(c, BatchNorm):
            nn.init.uniform_(c.bias, 0, 0.5)
    fold(net)
    data = method.task.encode(x, 1)
    ttfs_conversion.place(net, data)
    ttfs_conversion.gather_biases(net, data)
    set_mode(net, mode)
    return net, x


def small(name: str, backbone: Backbone | None = None):
    """A task cut to a small network."""
    task = Registries().tasks.load(name)()
    task.budget = replace(task.budget, backbone=backbone or replace(task.budget.backbone, widths=(6,) * len(task.budget.backbone.widths)))
    return task


# Card, test 1 on whole networks: every head, both poolings, residual sums


@pytest.mark.parametrize(
    ("name", "options", "backbone"),
    [
        ("static/digits", {}, None),
        ("static/digits", {"pool": "max", "dropout": 0.1}, None),
        ("static/digits", {}, Backbone("resnet", (4, 6))),
        ("static/digits", {"levels": 1}, Backbone("vgg", (4, 6))),
        ("detection/digit-scenes", {"levels": 6}, None),
        ("detection/digit-scenes", {"levels": 6, "pool": "max"}, None),
    ],
)
def test_the_clocked_network_answers_like_its_closed_form(name, options, backbone):
    method = TtfsCat(small(name, backbone), options)
    net, x = converted(method)
    with torch.no_grad():
        closed = method.predict(net, x).final()
        set_mode(net, "spikes")
        found = method.predict(net, x)
        set_mode(net, "clip")
        clipped = method.predict(net, x).final()
    assert len(found.outputs) == method.steps == method.windows * method.code.levels
    torch.testing.assert_close(found.final(), closed, atol=1e-12, rtol=0)
    assert (found.final() - clipped).abs().max() > 1e-3


class Halves(SegmentationTask):
    """Noise, of which one half is brighter; the class of a pixel is its half."""

    card = TaskCard("toy/halves", "Halves", "random", "-", "by seed", "this file")
    input_shape = (1, 8, 8)
    head = Head("segment", classes=2, strides=(2, 4))
    steps = 4
    mean, deviation = (0.5,), (0.3,)
    budgets = {"smoke": Budget(Training(epochs=2, batch_size=8), Backbone("conv", (4, 5)))}

    def load(self, split: str) -> Data:
        images = torch.randint(0, 120, (16, 1, 8, 8), generator=torch.Generator().manual_seed(len(split)), dtype=torch.uint8)
        images[..., 4:] += 100
        masks = torch.zeros(16, 8, 8, dtype=torch.uint8)
        masks[..., 4:] = 1
        return Data(images, masks)


def test_a_segmenter_whose_levels_end_in_different_windows_loses_nothing():
    method = TtfsCat(Halves(), COARSE)
    net, x = converted(method)
    assert sorted(part.window for part in net.modules() if isinstance(part, TtfsReadout)) == [4, 6]
    with torch.no_grad():
        closed = method.predict(net, x).final()
        set_mode(net, "spikes")
        torch.testing.assert_close(method.predict(net, x).final(), closed, atol=1e-12, rtol=0)


# Card, test 7
def test_folding_keeps_what_enters_the_neurons():
    torch.manual_seed(1)
    method = TtfsCat(Digits())
    net = method.build().double()
    x = method.task.encode(next(method.task.batches("train", 16, 16)).inputs.double(), 1)
    for _ in range(3):
        net(x)
    net.eval()
    seen = {}
    layers = [module for module in net.modules() if isinstance(module, Layer)]
    for layer in layers:
        layer.neuron.register_forward_pre_hook(lambda module, args: seen.setdefault(module, []).append(args[0]))
    with torch.no_grad():
        net(x)
        fold(net)
        net(x)
    assert not any(isinstance(module, BatchNorm) for module in net.modules())
    for before, after in seen.values():
        torch.testing.assert_close(after, before, atol=1e-10, rtol=0)


# Steps


def test_an_inference_takes_a_window_for_the_pixels_and_one_for_every_layer():
    method = TtfsCat(Digits())
    assert (method.code.levels, method.code.tau, method.windows, method.steps) == (24, 4.0, 5, 120)
    detector = TtfsCat(small("detection/digit-scenes"))
    assert detector.windows == 6  # four layers, that of the head, and the pixels


@pytest.mark.parametrize(("asked", "levels"), [(1, 1), (5, 1), (29, 5), (30, 6), (120, 24)])
def test_steps_are_shared_by_the_windows(asked, levels):
    method = TtfsCat(Digits(), steps=asked)
    assert (method.code.levels, method.steps) == (levels, 5 * levels)
    assert method.code.tau == pytest.approx(levels / 6)
    with torch.no_grad():
        net, x = converted(method, "spikes")
        assert method.predict(net, x).outputs.shape == (5 * levels, 4, 10)


def test_until_the_last_layer_fires_all_samples_get_the_same_answer():
    method = TtfsCat(Digits(), COARSE)
    net, x = converted(method, "spikes")
    with torch.no_grad():
        outputs = method.predict(net, x).outputs
    assert torch.equal(outputs[:24], net[1].head.readout.bias.expand(24, 4, 10))
    assert not torch.equal(outputs[-1, 0], outputs[-1, 1])


def test_single_steps_answer_like_windows():
    method = TtfsCat(Digits(), COARSE | {"pool": "max"})
    net, x = converted(method, "spikes")
    with torch.no_grad(), stepping(net):
        serial = torch.cat([net(now) for now in method.encode(x).split(1)])
    with torch.no_grad():
        torch.testing.assert_close(serial, method.predict(net, x).outputs, atol=1e-12, rtol=0)


# Training


def test_the_clip_gives_way_to_the_code_after_its_share_of_the_epochs():
    def modes(epochs, **options):
        method = TtfsCat(Digits(), options)
        return [method.mode(epoch, epochs) for epoch in range(epochs)]

    assert modes(10) == ["clip"] * 7 + ["code"] * 3
    assert modes(1) == ["code"]
    assert modes(2, clip_share=0.9) == ["clip", "code"]
    assert modes(3, clip_share=0.0) == ["code"] * 3
    assert modes(3, training="clip") == ["clip"] * 3
    assert modes(3, training="relu") == ["relu"] * 3


def trained(options: dict, epochs: int = 4) -> tuple[TtfsCat, nn.Module, list]:
    task = Digits()
    task.budget = replace(task.budget, backbone=Backbone("conv", (6, 12)), train_samples=512)
    method = TtfsCat(task, COARSE | options, training={"epochs": epochs, "lr": 1e-2})
    torch.manual_seed(0)
    net = method.build()
    return method, net, train(method, net, seed=0).traces


@pytest.fixture(scope="module")
def cat():
    return trained({})


def test_conversion_of_aware_training_loses_nothing(cat):
    method, net, _ = cat
    report = method.report(net)
    assert report["conversion_loss"] == 0 and report["ann_validation"] > 0.3
    assert report["simulation_error"] < 0.5
    found = evaluate(method, net, "validation")
    assert found.metrics["accuracy"] == pytest.approx(report["snn_validation"], abs=0.01)
    assert found.steps_used == report["latency_steps"] == 30
    assert max(report["spikes_per_neuron"]) <= 1 and len(report["spikes_per_neuron"]) == 5


def test_conversion_without_it_does(cat):
    for training in ("relu", "clip"):
        method, net, _ = trained({"training": training, "weight_bits": None})
        report = method.report(net)
        assert report["conversion_loss"] > 0.01
        assert report["weight_bits"] == 32 and report["weight_loss"] == 0


def test_epochs_are_shared_by_training_and_tuning(cat):
    assert [trace.phase for trace in cat[2]] == ["train"] * 3 + ["tune"]
    assert [trace.phase for trace in trained({"tune_share": 0.0}, epochs=1)[2]] == ["train"]


def test_weights_are_logarithmic_in_the_end_and_tuning_changes_their_codes(cat):
    method, net, _ = cat
    synapses = [module for module in net.modules() if isinstance(module, (nn.Conv2d, nn.Linear))]
    for synapse in synapses:
        assert type(synapse.weight) is nn.Parameter
        octaves = synapse.weight[synapse.weight != 0].abs().log2() * 2
        torch.testing.assert_close(octaves, octaves.round(), atol=1e-4, rtol=0)
        assert len(synapse.weight.unique()) <= 32
    assert method.report(net)["distinct_weights"] <= 31
    untuned = trained({"tune_share": 0.0}, epochs=4)[1]
    other = [module for module in untuned.modules() if isinstance(module, (nn.Conv2d, nn.Linear))]
    assert any(not torch.equal(one.weight, two.weight) for one, two in zip(synapses, other, strict=True))


def test_plain_relu_is_rescaled_by_the_percentiles_and_answers_as_before():
    torch.manual_seed(2)
    method = TtfsCat(Digits(), {"training": "relu", "percentile": 99.0})
    net = method.build().double().eval()
    task, gather = method.task, method.task.gather
    task.gather = lambda split, index: (batch := gather(split, index))._replace(inputs=batch.inputs.double())
    images = torch.cat([batch.inputs for batch in task.batches("train", limit=1024)])
    net[0].measure(images)
    x = task.encode(images[:32], 1)
    activations = []

    def keep(module: nn.Module, args: tuple, output: torch.Tensor) -> None:
        activations.append(output[output > 0])

    with torch.no_grad():
        before = net(x)
        plain = copy.deepcopy(net)
        for module in plain[1].modules():
            if isinstance(module, TtfsNeuron):
                module.register_forward_hook(keep)
        plain(task.encode(images, 1))
        method.convert(net)
        torch.testing.assert_close(net(x), before, atol=1e-10, rtol=0)
    for factor, activation in zip(method.figures["norm_factors"], activations, strict=True):
        assert factor == pytest.approx(np.percentile(activation.numpy(), 99.0), rel=1e-9)


# What does not fit


def test_options_that_do_not_fit_are_refused_with_what_to_use():
    with pytest.raises(UnfitError, match="net = 'task'"):
        TtfsCat(Digits(), {"net": "vgg16"})
    with pytest.raises(UnfitError, match="net = 'vgg16'"):
        TtfsCat(small("static/digits", Backbone("resnet", (4, 6))), {"training": "relu"})
    with pytest.raises(UsageError, match="leave one of the two out"):
        TtfsCat(Digits(), {"levels": 6}, steps=100)
    with pytest.raises(UsageError, match="octaves"):
        TtfsCat(Digits(), {"tau": 0.1})
    assert TtfsCat(Digits(), {"levels": 6}, steps=30).steps == 30


def test_pixels_that_are_coded_already_are_refused():
    assert "latency coding has done so" in TtfsCat.supports(Digits(options={"encoding": "latency"}))
    assert TtfsCat.supports(Digits()) is None


def test_the_recipe_is_vgg16_with_max_pooling():
    task = Registries().tasks.load("static/cifar10")()
    method = TtfsCat(task, track="recipe")
    with torch.device("meta"):
        net = method.build()
    assert sum(isinstance(module, TtfsNeuron) for module in net[1].modules()) == 14
    assert sum(isinstance(module, EarliestPool2d) for module in net.modules()) == 5
    assert (method.windows, method.steps) == (15, 360)
    t = method.training
    assert (t.optimizer, t.lr, t.momentum, t.weight_decay, t.schedule) == ("sgd", 0.1, 0.9, 5e-4, "cosine")
