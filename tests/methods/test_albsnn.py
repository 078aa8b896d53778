"""ALBSNN as a whole: selection in training, baselines, storage, flips, heads. Numbers are those of the card's list of tests."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from harness.loop import Trained, train
from harness.meters.synops import SynopsMeter
from harness.plugin import UnfitError, UsageError
from harness.registry import Registries
from harness.task import Backbone, Budget, Data, Head, TaskCard, Training
from methods.albsnn import Albsnn
from methods.nn.gap_head import GapHead
from methods.nn.local_binary import binary_weight, local_binary_layers
from methods.nn.neuron import LIF
from methods.nn.stepping import stepping
from methods.nn.synapse import Conv2d
from suites.classification import ClassificationTask

INNER = ["backbone.stages.0.1.synapse", "backbone.stages.1.0.synapse", "backbone.stages.1.1.synapse"]
EPOCHS = 5


class Bars(ClassificationTask):
    """Noisy images with one bright row; its place is the class."""

    card = TaskCard("test/bars", "", "", "", "", "")
    head = Head("classify", classes=4)
    input_shape = (1, 8, 8)
    steps = 3
    budgets = {"smoke": Budget(Training(epochs=EPOCHS, batch_size=16, lr=0.01), Backbone("conv", (8, 16)))}

    def load(self, split):
        drawn = torch.Generator().manual_seed({"train": 0, "validation": 1, "test": 2}[split])
        classes = torch.arange(64) % 4
        images = 0.3 * torch.randn(64, 1, 8, 8, generator=drawn)
        images[torch.arange(64), 0, 2 * classes] += 2.0
        return Data(images, classes)


def make(options=None, kind: type[Bars] = Bars, training=None, **more) -> tuple[Albsnn, nn.Module]:
    method = Albsnn(kind(), options, training=training, **more)
    torch.manual_seed(0)
    return method, method.build()


def run(options=None, training=None, **more) -> tuple[Albsnn, nn.Module, Trained]:
    method, net = make(options, training=training, **more)
    return method, net, train(method, net, seed=0)


@pytest.fixture(scope="module")
def trained():
    """The method after a short training with a target of a half."""
    return run({"target": 0.5})


def images(method: Albsnn, count: int = 8) -> Tensor:
    return next(method.task.batches("test", count)).inputs


# 5
def test_the_first_synapse_and_the_read_out_are_protected_and_nothing_else():
    _, net = make()
    free = [name for name, layer in local_binary_layers(net).items() if not layer.protected]
    assert free == INNER


@pytest.mark.parametrize("target", [0.0, 0.2, 0.5, 0.9])
@pytest.mark.parametrize("select", ["adaptive", "largest", "random"])
def test_storage_falls_to_the_target_and_is_that_of_the_tensors_held(select, target):
    method, net, _ = run({"target": target, "select": select}, {"epochs": 2})
    report = method.report(net)
    layers = local_binary_layers(net)
    held = {name: sum(8 * t.numel() * t.element_size() for t in layer.state_dict().values()) for name, layer in layers.items()}
    assert report["layer_bits"] == held and report["storage_bits"] == sum(held.values())
    weights = sum(layer.effective_weight.numel() for layer in layers.values())
    assert report["storage_bits_full"] == 32 * weights
    assert report["storage_reduction"] == pytest.approx(1 - sum(held.values()) / (32 * weights))
    assert report["storage_reduction"] >= target or report["binarised"] == INNER
    assert bool(report["binarised"]) == (target > 0)


def test_largest_takes_the_largest_layer_first_and_random_any_order():
    assert run({"select": "largest"}, {"epochs": 1})[0].choice.chosen == {0: INNER[2:]}
    orders = set()
    for seed in range(6):
        method, net = make({"select": "random", "target": 1.0})
        torch.manual_seed(seed)
        next(method.phases(net)).on_epoch(0, 1)
        orders.add(tuple(method.choice.chosen[0]))
    assert len(orders) > 1 and all(sorted(order) == INNER for order in orders)


# 8
def test_at_one_step_the_leak_does_not_matter():
    outputs = []
    for leak, steps in ((0.1, 1), (0.9, 1), (0.1, 3), (0.9, 3)):
        method, net = make({"leak": leak, "target": 1.0}, steps=steps)
        outputs.append(net(method.encode(images(method))).detach())
    assert torch.equal(outputs[0], outputs[1])
    assert not torch.equal(outputs[2], outputs[3])


def test_static_data_are_answered_in_one_step_unless_more_are_asked_for():
    assert make()[0].steps == 1 and make(steps=4)[0].steps == 4


# 9
def test_until_layers_are_selected_training_is_that_in_full_precision_to_the_bit():
    found = []
    for select in ("adaptive", "none"):
        method, net = make({"select": select, "warmup": 0.5, "target": 0.5})
        phase = next(method.phases(net))
        method.phases = lambda net, phase=phase: iter([replace(phase, epochs=2, on_epoch=lambda epoch, _, on=phase.on_epoch: on(epoch, 8))])
        train(method, net, seed=0)
        found.append((method.choice.estimator, net.state_dict()))
    assert found[0][0].errors() is not None and found[1][0] is None
    assert all(torch.equal(found[0][1][name], found[1][1][name]) for name in found[0][1])


def test_without_layers_selected_the_network_is_one_of_plain_parts():
    method, net = make({"select": "none"})
    x = method.encode(images(method))
    loss = net(x).square().sum()
    gradients = torch.autograd.grad(loss, list(net.parameters()))
    plain_method, plain = make({"select": "none"})
    for module in list(plain.modules()):
        for name, layer in list(module.named_children()):
            if hasattr(layer, "effective_weight"):
                replacement = Conv2d(layer.in_channels, layer.out_channels, 3, padding=1, bias=False)
                replacement.weight = layer.weight
                setattr(module, name, replacement)
    assert not local_binary_layers(plain)
    other = plain(x).square().sum()
    assert torch.equal(loss, other)
    for one, two in zip(gradients, torch.autograd.grad(other, list(plain.parameters())), strict=True):
        assert torch.equal(one, two)


def test_layers_are_selected_from_warm_up_to_freeze_by_what_was_measured(trained):
    method, net, _ = trained
    assert list(method.choice.chosen) == [0, 1, 2] and list(method.choice.errors) == [1, 2]
    for epoch, errors in method.choice.errors.items():
        sizes = {name: layer.effective_weight.numel() for name, layer in local_binary_layers(net).items()}
        scores = {name: error / sizes[name] for name, error in errors.items()}
        chosen = method.choice.chosen[epoch]
        assert set(scores) == set(INNER) and min(errors.values()) > 0
        assert chosen == sorted(scores, key=scores.get)[: len(chosen)]
    assert method.report(net)["binarised"] == [name for name in INNER if name in method.choice.chosen[2]]


def test_what_is_tested_has_two_values_per_channel_in_the_layers_chosen_and_signs_only_in_store(trained):
    method, net, _ = trained
    stored = {name for name, layer in local_binary_layers(net).items() if layer.stored}
    assert stored and stored != set(INNER)
    for name, layer in local_binary_layers(net).items():
        values = max(len(row.unique()) for row in layer.effective_weight.flatten(1))
        assert (values <= 2) == (name in stored) == (f"{name}.weight" not in net.state_dict())
    with SynopsMeter(net) as meter, torch.no_grad():
        method.predict(net, images(method))
    assert meter.result(8).connection_sparsity == 0


def test_storing_changes_no_answer():
    method, net = make({"select": "all"})
    net.eval()
    before = method.predict(net, images(method)).outputs
    for layer in local_binary_layers(net).values():
        layer.store()
    torch.testing.assert_close(method.predict(net, images(method)).outputs, before, rtol=1e-5, atol=1e-5)


def test_all_binarises_every_layer_from_the_start_and_none_no_layer():
    for select, binary in (("all", True), ("none", False)):
        method, net = make({"select": select})
        assert all(layer.binary == binary for layer in local_binary_layers(net).values())
        train(method, net, seed=0)
        assert all(layer.stored == binary for layer in local_binary_layers(net).values())
        assert method.choice.chosen == {}


def test_full_precision_pays_for_no_estimator_and_the_rest_for_as_long_as_it_can_matter(trained):
    without = [{"select": "none"}, {"select": "largest", "tau_acc": 1.0}, {"score": "eps"}]
    for options, there in [*((options, False) for options in without), ({}, True)]:
        method, net = make(options)
        next(method.phases(net))
        assert (method.choice.estimator is not None) == there
    assert trained[0].choice.estimator is None


def test_no_layer_is_chosen_past_the_loss_error_that_is_allowed():
    for score in ("loss", "eps"):
        method, _, _ = run({"tau_acc": 0.0, "target": 1.0, "score": score}, {"epochs": 3})
        assert method.choice.chosen[1] == []


def test_latent_weights_that_are_binarised_do_not_decay():
    plain = {"optimizer": "sgd", "lr": 1e-3, "momentum": 0.0, "schedule": "constant"}
    method, net = make({"target": 0.5}, training={"weight_decay": 100.0, **plain})
    layers, norms, seen = local_binary_layers(net), [], []

    def step(net, batch, update):
        norms.append({name: layer.weight.norm().item() for name, layer in layers.items()})
        seen.append({name for name, layer in layers.items() if layer.binary})
        loss = sum(p.sum() for p in net.parameters()) * 0
        update.minimise(loss)
        return loss

    phases = method.phases
    method.phases = lambda net: iter([replace(next(phases(net)), step=step)])
    train(method, net, seed=0)
    for before, after, binary in zip(norms, norms[1:], seen, strict=False):
        for name in layers:
            assert after[name] == pytest.approx(before[name] * (1 if name in binary else 0.9), rel=1e-4)
    assert seen[-1] and seen[-1] != set(layers)


# BWO


def test_after_training_flips_lower_the_loss_of_the_training_set_and_stay_in_store():
    method, net, _ = run({"select": "all", "bwo": True, "bwo_share": 0.01, "bwo_rounds": 6}, {"epochs": 2})
    flips = method.report(net)["flips"][-1]
    assert flips["accepted"] > 0 and flips["losses"] == sorted(flips["losses"], reverse=True)
    with torch.no_grad():
        (loss,) = (method.loss(net(method.encode(b.inputs))[-1], b.targets) for b in method.task.batches("train", 64))
    assert loss.item() == pytest.approx(flips["losses"][-1], rel=1e-4)


def test_flips_are_tried_when_the_validation_loss_has_not_improved_for_three_epochs():
    method, net = make({"select": "all", "bwo": True, "freeze": 0.1})
    next(method.phases(net))
    found, flipped = iter([1.0, 0.8, 0.8, 0.9, 0.85, 0.9, 0.7, 0.7]), []
    method._losses = lambda net, split: iter([(torch.tensor(next(found)), 3)])
    method._flip = lambda net: flipped.append(epoch)
    groups = method.groups(net)
    for epoch in range(11):  # the choice stays from epoch 3 on; losses are those of epochs 2 to 9
        method._before(net, groups, epoch, 20)
    assert flipped == [7]
    assert next(found, None) is None


def test_flips_need_binary_layers():
    with pytest.raises(UsageError, match="select = 'none' has none"):
        make({"select": "none", "bwo": True})


# Heads, networks, tasks


def test_classes_of_images_are_read_out_by_pooling_and_others_by_the_head_of_their_task():
    assert isinstance(make()[1].head, GapHead)
    assert not isinstance(make({"head": "linear"})[1].head, GapHead)
    for name in ("detection/digit-scenes", "sequences/digits-pixels"):
        net = Albsnn(Registries().tasks.load(name)()).build()
        assert not isinstance(net.head, GapHead)
        free = [layer for layer in local_binary_layers(net).values() if not layer.protected]
        assert len(free) >= 2


@pytest.mark.parametrize("name", ["detection/digit-scenes", "sequences/digits-pixels"])
def test_a_head_that_a_task_has_no_use_for_is_refused(name):
    with pytest.raises(UnfitError, match="use head = 'auto'"):
        Albsnn(Registries().tasks.load(name)(), {"head": "gap"})


def test_batches_of_one_sample_are_warned_of_where_pooling_makes_nothing_of_them():
    for options, warned in (({}, True), ({"head": "linear"}, False)):
        method, net = make(options, training={"batch_size": 1})
        answers = net.train()(method.encode(images(method, 1))).mean(0)
        assert (answers.abs().max().item() < 1e-6) == warned == any("use head = 'linear'" in text for text in method.task.warnings)


def test_a_network_for_images_is_refused_for_sequences():
    with pytest.raises(UnfitError, match="use net = 'task'"):
        Albsnn(Registries().tasks.load("sequences/digits-pixels")(), {"net": "cifar"})


def test_a_freeze_before_the_warm_up_is_refused():
    with pytest.raises(UsageError, match="allowed: 0.5 to 1"):
        make({"warmup": 0.5, "freeze": 0.4})


@pytest.mark.parametrize(("net", "widths"), [("fashion", [64, 64, 128, 128, 256, 10]), ("cifar", [128, 128, 256, 256, 512, 512, 10])])
def test_the_networks_of_the_card_have_its_widths(net, widths):
    method = Albsnn(Registries().tasks.load("static/fashion-mnist")(), {"net": net})
    with torch.device("meta"):
        assert [len(layer.weight) for layer in local_binary_layers(method.build()).values()] == widths


def test_the_recipe_is_that_of_the_card():
    task = Registries().tasks.load("static/cifar10")("paper")
    method = Albsnn(task, track="recipe")
    t = method.training
    assert (t.optimizer, t.lr, t.schedule, t.epochs, t.batch_size, t.weight_decay) == ("adam", 1e-3, "cosine", 200, 128, 0.0)
    assert (method.steps, method.options.net, method.options.bwo) == (1, "cifar", False)
    assert Albsnn(Registries().tasks.load("static/fashion-mnist")("paper"), track="recipe").training.epochs == 100


def test_neurons_are_those_of_the_card():
    neuron = next(module for module in make()[1].modules() if isinstance(module, LIF))
    current = torch.tensor([0.5, 0.3, 0.3, 0.4], requires_grad=True)
    spikes = neuron(current.view(4, 1, 1))
    assert spikes.flatten().tolist() == [1.0, 0.0, 0.0, 1.0]  # potentials 0.5 (fires, reset), 0.3, 0.45, 0.625
    (gradient,) = torch.autograd.grad(spikes[0], current, retain_graph=True)
    assert gradient[0] == 1
    (far,) = torch.autograd.grad(neuron(torch.full((1, 1, 1), 1.1, requires_grad=True) * current[:1].view(1, 1, 1) / 0.5).sum(), current)
    assert far[0] == 0


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("batch", [1, 5])
def test_steps_one_by_one_answer_like_the_whole_sequence(trained, steps, batch):
    net = trained[1]
    x = torch.randn(steps, batch, 1, 8, 8)
    with torch.no_grad(), stepping(net):
        serial = torch.cat([net(now) for now in x.split(1)])
    torch.testing.assert_close(serial, net(x).detach())


def test_signs_are_those_of_the_weights_that_were_trained():
    method, net = make({"select": "all"}, training={"epochs": 1})
    latent = {}
    phases = method.phases(net)
    next(phases)
    for name, layer in local_binary_layers(net).items():
        latent[name] = layer.weight.detach().clone()
    assert next(phases, None) is None
    for name, layer in local_binary_layers(net).items():
        assert torch.equal(layer.effective_weight, binary_weight(latent[name]))
