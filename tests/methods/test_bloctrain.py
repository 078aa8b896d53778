"""BlocTrain: the numbered faithfulness tests of its card, and the plugin on a task."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from harness.loader import Loader
from harness.loop import train
from harness.plugin import UsageError
from harness.registry import Registries
from harness.task import Backbone, Budget, Data, Training
from methods.base import SpikingMethod
from methods.bloctrain import BlocTrain
from methods.nn import block_costs
from methods.nn.block_resnet import WIDTHS
from methods.nn.conditional import BlockNet, cut, features, hard_classes
from methods.nn.layer import Layer
from methods.nn.spike_driven import SpikeDriven
from suites.static_vision import Digits


class SmallDigits(Digits):
    """Digits with the network that the numbers below are written out for: 16-16-AP-32-32-AP."""

    budgets = {"smoke": Budget(Training(epochs=12, batch_size=32, lr=4e-3, augment=True), Backbone("conv", (16, 32)))}


TASK = SmallDigits()


class PlainUpdate:
    """The smallest update: one optimiser, no precision, no clock."""

    def __init__(self, parameters):
        self.optimizer = torch.optim.Adam(parameters, 1e-2)

    def minimise(self, loss):
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()


def walk(method, net, batches=2):
    """Drive the phases over a few batches each, as the harness does, and yield each phase with the targets it saw."""
    for phase in method.phases(net):
        update = PlainUpdate(phase.parameters)
        net.eval()
        for module in phase.modules:
            module.train()
        seen = []
        for number, batch in enumerate(Loader(method.task, 128, 0, keep=phase.keep)):
            if number < batches:
                phase.step(net, batch, update)
            seen.append(batch.targets)
        yield phase, torch.cat(seen)


def halving(method):
    """Make the class-wise accuracy a fixed vector, so that K is 10, 5, 2 classes."""
    method.class_accuracy = lambda net, depth: {label: label / 10 for label in net.classes[depth]}
    return method


def untrained(seed=4):
    """Return a method and a network of three blocks with heads for 10, 3 and 2 classes and random weights, in float64.

    With this seed samples leave at all three blocks.
    """
    torch.manual_seed(seed)
    method = BlocTrain(TASK)
    net = method.build().double()
    net.add_detector()
    net.add_classifier((2, 4, 7))
    net.add_detector()
    net.add_classifier((2, 7))
    for head in [*net.classifiers, *net.detectors]:
        nn.init.normal_(head.weight, std=0.3)
    net.train()(digits(64))  # running statistics
    return method, net.eval()


def digits(count):
    return TASK.encode(next(TASK.batches("validation", count)).inputs.double(), 4)


# 1
def test_earlier_blocks_stay_bitwise_unchanged_and_only_the_trained_block_and_its_heads_have_gradients():
    torch.manual_seed(0)
    method = halving(BlocTrain(TASK))
    net = method.build()
    state = {}
    phases = walk(method, net)
    names = []
    for phase, _ in phases:
        trained = {id(p) for p in phase.parameters}
        assert {id(p) for p in net.parameters() if p.grad is not None} == trained
        depth = int(phase.name.split()[1]) - 1
        for name, before in state.items():
            assert torch.equal(net.state_dict()[name], before), name
        done = ("blocks", "classifiers") if phase.name.startswith("block") else ("detectors",)
        state |= {
            name: value.clone()
            for name, value in net.state_dict().items()
            if name != "_extra_state" and name.startswith(tuple(f"{part}.{depth}." for part in done))
        }
        names.append(phase.name)
    assert names == ["block 1", "detector 1", "block 2", "detector 2", "block 3"]
    assert any("running_mean" in name for name in state)


# 2
def saved_bytes(net, run):
    """Return the bytes that autograd keeps for the backward pass of ``run()``, weights left out, each storage once."""
    weights = {p.untyped_storage().data_ptr() for p in net.parameters()}
    kept = {}

    def pack(x):
        kept[x.untyped_storage().data_ptr()] = x
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        result = run()
    assert result.requires_grad
    return sum(x.untyped_storage().nbytes() for pointer, x in kept.items() if pointer not in weights)


class ForwardOnly:
    """An update that changes nothing."""

    def minimise(self, loss):
        self.loss = loss


@pytest.mark.parametrize("steps", [2, 8])
def test_training_a_block_keeps_what_training_it_alone_on_precomputed_spikes_keeps_and_less_than_end_to_end(steps):
    torch.manual_seed(0)
    method = halving(BlocTrain(TASK, steps=steps))
    net = method.build()
    for _ in walk(method, net, batches=0):
        pass
    batch = next(TASK.batches("train", 16))
    end_to_end = SpikingMethod.build(method).train()
    whole = saved_bytes(end_to_end, lambda: method.loss(end_to_end(method.encode(batch.inputs)).mean(0), batch.targets))
    for depth in range(3):
        own = batch._replace(targets=torch.full_like(batch.targets, net.classes[depth][0]))
        net.eval()
        net.blocks[depth].train()
        with torch.no_grad():
            spikes = net.spikes(method.encode(batch.inputs), depth)
        alone = saved_bytes(
            net,
            lambda depth=depth, spikes=spikes: method.loss(
                net.classifiers[depth](features(net.blocks[depth](spikes))), torch.zeros(16, dtype=torch.long)
            ),
        )
        update = ForwardOnly()
        found = saved_bytes(net, lambda depth=depth, own=own, update=update: method.block_step(depth)(net, own, update))
        assert found == alone < whole


def test_the_saved_bytes_of_a_block_over_those_of_all_blocks_do_not_change_with_the_number_of_steps():
    torch.manual_seed(0)
    net = BlocTrain(TASK).build().train()
    shapes = [(1, 8, 8), (16, 8, 8), (16, 4, 4)]

    def kept(module, steps, shape):
        x = torch.rand(steps, 4, *shape)  # not one image repeated, which would be saved once
        return saved_bytes(net, lambda: module(x))

    parts = [(net.blocks[b], shapes[b]) for b in range(3)]
    whole = (nn.Sequential(*net.blocks), shapes[0])
    per_step = []
    for module, shape in [*parts, whole]:
        few, some, many = (kept(module, steps, shape) for steps in (2, 8, 32))
        assert (some - few) * 24 == (many - some) * 6  # exactly linear in T
        per_step.append((some - few) / 6)
    for steps in (2, 8, 32):
        ratios = [kept(*whole[:1], steps, whole[1]) / kept(module, steps, shape) for module, shape in parts]
        assert ratios == pytest.approx([per_step[-1] / own for own in per_step[:-1]], rel=0.01)  # statistics of the norm: constant in T
        assert min(ratios) > 1


# 3
def test_a_block_sees_its_own_classes_only_and_its_classifier_answers_them():
    torch.manual_seed(0)
    method = halving(BlocTrain(TASK))
    net = method.build()
    seen = {phase.name: set(targets.tolist()) for phase, targets in walk(method, net, batches=1)}
    assert net.classes == [tuple(range(10)), (0, 1, 2, 3, 4), (0, 1)]
    for depth, classes in enumerate(net.classes):
        assert seen[f"block {depth + 1}"] == set(classes)
        assert net.classifiers[depth].out_features == len(classes)
    assert seen["detector 2"] == set(net.classes[1])
    assert set(net.classes[0]) > set(net.classes[1]) > set(net.classes[2])


# 4
def test_the_split_is_a_function_of_accuracies_and_threshold():
    accuracy = {1: 0.9, 3: 0.5, 4: 0.7, 6: 0.95, 9: 0.6}  # mean 0.73
    assert hard_classes(accuracy, "dynamic") == (3, 4, 9)
    assert hard_classes(accuracy, 0.65) == (3, 9)
    assert hard_classes(accuracy, 0.55) == (3, 9)  # at least two
    assert hard_classes(accuracy, 0.0) == (3, 9)
    assert hard_classes(accuracy, 1.0) == (1, 3, 4, 6, 9)
    assert hard_classes({5: 0.9, 8: 0.2}, "dynamic") == (5, 8)
    assert hard_classes(dict.fromkeys((7, 2, 5), 1.0), "dynamic") == (2, 5)
    assert hard_classes(dict.fromkeys(range(10), 0.1), "dynamic") == (0, 1)  # their sum is rounded


# 5
def test_probabilities_sum_to_one_when_no_sample_exits():
    _, net = untrained()
    probability, left = net.answer(digits(64), 0.8, 0.5, exits=False)
    assert (left == 2).all()
    torch.testing.assert_close(probability.sum(-1), torch.ones(4, 64, dtype=torch.float64), rtol=0, atol=1e-12)


def by_hand(net, x, t_cls, t_hcd, exits):
    """Return P of one sample ``x [T, 1, ...]`` and its exit, by the card's formula."""
    answer, weight = [0.0] * 10, 1.0
    for depth in range(3):
        x = net.blocks[depth](x)
        f = x.mean(0).flatten()
        logits = (net.classifiers[depth].weight @ f + net.classifiers[depth].bias).tolist()
        total = sum(math.exp(z) for z in logits)
        p = {label: math.exp(z) / total for label, z in zip(net.classes[depth], logits, strict=True)}
        if depth == 2:
            for label in p:
                answer[label] += weight * p[label]
            return answer, depth
        h = 1 / (1 + math.exp(-(net.detectors[depth].weight @ f + net.detectors[depth].bias).item()))
        easy = set(net.classes[depth]) - set(net.classes[depth + 1])
        for label in easy:
            answer[label] += weight * (1 - h) * p[label] / sum(p[other] for other in easy)
        best = max(p, key=p.get)
        if exits and best in easy and p[best] >= t_cls and h < t_hcd:
            return answer, depth
        weight *= h
    raise AssertionError


# 6
@pytest.mark.parametrize("exits", [True, False])
def test_samples_of_a_batch_do_not_mix_and_follow_the_chain_rule(exits):
    _, net = untrained()
    x = digits(40)
    with torch.no_grad():
        probability, left = net.answer(x, 0.5, 0.5, exits)
        assert len(left.unique()) == (3 if exits else 1)
        for sample in range(40):
            alone, depth = net.answer(x[:, sample : sample + 1], 0.5, 0.5, exits)
            torch.testing.assert_close(alone[:, 0], probability[:, sample], rtol=0, atol=1e-12)
            expected, at = by_hand(net, x[:, sample : sample + 1], 0.5, 0.5, exits)
            assert depth.item() == left[sample] == at
            assert probability[-1, sample].tolist() == pytest.approx(expected, abs=1e-12)


def test_with_a_confidence_above_one_nobody_exits():
    _, net = untrained()
    never, left = net.answer(digits(40), 1.01, 1.0)
    without, _ = net.answer(digits(40), 0.0, 1.0, exits=False)
    assert (left == 2).all()
    assert torch.equal(never, without)


def test_the_answer_at_a_step_is_that_of_a_run_that_stops_there():
    _, net = untrained()
    x = digits(16)
    with torch.no_grad():
        probability, _ = net.answer(x, 0.0, 0.0, exits=False)
        for steps in (1, 3):
            stopped, _ = net.answer(x[:steps], 0.0, 0.0, exits=False)
            torch.testing.assert_close(stopped[-1], probability[steps - 1], rtol=0, atol=1e-12)


def test_deeper_blocks_compute_only_the_samples_that_go_on():
    _, net = untrained()
    sizes = []
    for block in net.blocks:
        block.register_forward_hook(lambda module, args, out: sizes.append(out.shape[1]))
    _, left = net.answer(digits(40), 0.5, 0.5)
    assert sizes == [40, int((left >= 1).sum()), int((left >= 2).sum())]


# 7
def test_compute_efficiency_and_memory_are_those_of_the_formulas_written_out():
    method, net = untrained()
    net.float()
    report = method.report(net)
    exits = torch.cat([method.predict(net, batch.inputs).extra["exit_block"] for batch in TASK.batches("test")])
    r = [(exits >= b).double().mean().item() for b in (1, 2, 3)]
    assert r[0] == 1
    assert r[0] >= r[1] >= r[2] > 0
    assert report["reached"] == pytest.approx(r)
    convolutions = [64 * 16 * 9, 64 * 16 * 16 * 9, 16 * 32 * 16 * 9 + 16 * 32 * 32 * 9]  # per step: pixels x out x in x 9
    heads = [1024 * 10 + 1024, 256 * 3 + 256, 128 * 2]
    blocks = [4 * c + h for c, h in zip(convolutions, heads, strict=True)]
    expected = (4 * sum(convolutions) + 128 * 10) / sum(fraction * c for fraction, c in zip(r, blocks, strict=True))
    assert report["compute_efficiency_dense"] == pytest.approx(expected, rel=1e-12)

    own = [144 + 32, 16 * 144 + 32, 32 * 144 + 64 + 32 * 288 + 64]
    trained = [own[0] + 10250 + 1025, own[1] + 257 * 3 + 257, own[2] + 129 * 2]
    saved, inputs = [3 * 1024, 3 * 1024 + 256, 6 * 512 + 128], [64, 1024, 256]
    n, t, m = 32, 4, 2
    whole = 4 * ((2 + m) * (sum(own) + 1290) + n * t * sum(saved))
    memory = [4 * ((2 + m) * trained[b] + sum(own[:b]) + n * t * (saved[b] + inputs[b])) for b in range(3)]
    assert report["memory_end_to_end"] == whole
    assert report["memory_block"] == memory
    assert report["memory_efficiency"] == pytest.approx(whole / max(memory))
    assert report["memory_overhead"] == pytest.approx(sum(trained) / (sum(own) + 1290))


def test_the_fractions_that_reach_a_block_come_from_the_exits():
    assert block_costs.reached(torch.tensor([0, 0, 1, 2]), 3) == [1.0, 0.5, 0.25]


def test_layers_are_cut_into_groups_of_which_the_deeper_are_longer_and_pooling_stays_with_its_layer():
    def sizes(blocks):
        groups = cut(BlocTrain(TASK).backbone().stages, blocks)
        return [[type(part).__name__ for part in group] for group in groups]

    layer, pool = Layer.__name__, "AvgPool2d"
    assert sizes(1) == [[layer, layer, pool, layer, layer, pool]]
    assert sizes(2) == [[layer, layer, pool], [layer, layer, pool]]
    assert sizes(3) == [[layer], [layer, pool], [layer, layer, pool]]
    with pytest.raises(UsageError, match="4 layers cannot be cut into 5 blocks"):
        BlocTrain(TASK, {"blocks": 5}).build()


def test_a_trained_network_is_restored_into_a_fresh_one_with_the_classes_of_its_heads():
    method, net = untrained()
    fresh = method.build().double()
    fresh.load_state_dict(net.state_dict())
    assert isinstance(fresh, BlockNet)
    assert fresh.classes == net.classes
    x = digits(8)
    assert torch.equal(fresh.eval()(x), net(x))


def test_a_block_without_easy_classes_passes_all_samples_on():
    method = BlocTrain(TASK)
    method.class_accuracy = lambda net, depth: dict.fromkeys(net.classes[depth], 0.0)
    method.options = method.options.model_copy(update={"theta": 0.5})
    net = method.build()
    assert [phase.name for phase, _ in walk(method, net, batches=1)] == ["block 1", "block 2", "block 3"]
    prediction = method.predict(net.eval(), next(TASK.batches("validation", 8)).inputs)
    assert (prediction.extra["exit_block"] == 3).all()
    assert torch.allclose(prediction.final().exp().sum(1), torch.ones(8))


def test_a_detector_is_the_weighted_logistic_regression_of_its_card():
    method, net = untrained()
    net.float()
    hard, ratio = (2, 4, 7), method.easy_per_hard(tuple(range(10)), (2, 4, 7))
    targets = TASK.split("train").targets
    positive = sum(int((targets == label).sum()) for label in hard)
    assert ratio == pytest.approx((len(targets) - positive) / positive)
    batch = next(TASK.batches("train", 32))
    f = features(net.blocks[0](method.encode(batch.inputs)))
    h = torch.sigmoid(net.detectors[0](f)[:, 0])
    is_hard = torch.tensor([label in hard for label in batch.targets.tolist()])
    expected = -torch.where(is_hard, ratio * h.log(), (1 - h).log()).mean()
    torch.testing.assert_close(method.detector_step(0, hard, ratio)(net, batch, ForwardOnly()), expected)


@pytest.mark.parametrize(("task", "reason"), [("detection/x", "one class per sample"), ("sequences/x", "no stages")])
def test_what_it_cannot_do_has_a_reason(task, reason):
    other = type("Other", (Digits,), {"card": type("C", (), {"name": task})()})()
    assert reason in BlocTrain.supports(other)


def test_sensors_without_pixels_have_a_reason():
    assert "no stages" in BlocTrain.supports(Registries().task("events/shd"))


def test_what_samples_meet_in_all_blocks_gives_the_answers_and_exits_of_inference_for_any_thresholds():
    _, net = untrained()
    x = digits(40)
    with torch.no_grad():
        course = net.course(x)
        for t_cls, t_hcd in ((0.5, 0.5), (0.0, 1.0), (0.8, 0.3), (1.01, 1.0)):
            exits = course.exits(t_cls, t_hcd)
            for combine in (True, False):
                probability, left = net.answer(x, t_cls, t_hcd, combine=combine)
                assert torch.equal(exits, left)
                assert torch.equal(course.answers_at(exits, combine), probability[-1].argmax(1))


def test_without_combining_a_sample_is_answered_by_the_block_where_it_leaves_alone():
    _, net = untrained()
    x = digits(40)
    with torch.no_grad():
        probability, left = net.answer(x, 0.5, 0.5, combine=False)
        assert len(left.unique()) == 3
        for sample, depth in enumerate(left.tolist()):
            f = features(net.spikes(x[:, sample : sample + 1], depth + 1))
            expected = torch.zeros(10, dtype=torch.float64)
            expected[list(net.classes[depth])] = net.classifiers[depth](f)[0].softmax(0)
            torch.testing.assert_close(probability[-1, sample], expected, rtol=0, atol=1e-12)


def additions_by_hand(net, x):
    """Return conv operations ``[blocks, B]`` and spikes out of each block ``[blocks, B]``: the first layer dense."""
    operations, spikes = torch.zeros(3, x.shape[1], dtype=torch.float64), []
    first = True
    for depth, block in enumerate(net.blocks):
        for part in block:
            if isinstance(part, Layer):
                ones = torch.ones_like(part.synapse.weight, dtype=torch.float64)
                now = torch.stack([nn.functional.conv2d((step != 0).double(), ones, padding=1).sum((1, 2, 3)) for step in x]).sum(0)
                out = part(x)
                operations[depth] += out[:, 0].numel() * ones[0].numel() if first else now
                first = False
                x = out
            else:
                x = part(x)
        spikes.append((x != 0).double().sum((0, 2, 3, 4)))
    return operations, torch.stack(spikes)


def test_spike_driven_operations_are_additions_per_spike_and_the_multiplications_of_the_first_layer():
    _, net = untrained()
    x = digits(12)
    with torch.no_grad():
        with SpikeDriven(net.blocks) as counter:
            for part in x.split(5, dim=1):
                net.course(part)
        operations, spikes = additions_by_hand(net, x)
    torch.testing.assert_close(counter.end_to_end(10), operations.sum(0) + 10 * spikes[-1])
    exits = torch.arange(12) % 3
    assert net.outputs() == [11, 4, 2]
    cost = operations + torch.tensor([[11.0], [4.0], [2.0]]) * spikes
    expected = torch.stack([cost[: left + 1, sample].sum() for sample, left in enumerate(exits.tolist())])
    torch.testing.assert_close(counter.block_wise(net.outputs(), exits), expected)


def test_spike_driven_efficiency_follows_from_the_exits():
    method, net = untrained()
    net.float()
    report = method.report(net)
    whole = wise = 0.0
    for batch in TASK.batches("test"):
        x = method.encode(batch.inputs)
        with torch.no_grad():
            operations, spikes = additions_by_hand(net, x)
            exits = method.predict(net, batch.inputs).extra["exit_block"]
        whole += (operations.sum(0) + 10 * spikes[-1]).sum().item()
        cost = operations + torch.tensor([[11.0], [4.0], [2.0]]) * spikes
        wise += sum((cost[depth] * (exits > depth)).sum().item() for depth in range(3))
    assert report["compute_efficiency_spikes"] == pytest.approx(whole / wise, rel=1e-6)


def test_the_report_says_what_each_block_really_saves_and_changes_nothing():
    method, net = untrained()
    net.float()
    before = {name: value.clone() for name, value in net.state_dict().items() if name != "_extra_state"}
    found = method.measured(net)
    assert all(torch.equal(net.state_dict()[name], value) for name, value in before.items())
    labels = TASK.split("train").targets
    for depth in range(3):
        index = method.labelled(net.classes[depth])(labels).nonzero().flatten()[: method.training.batch_size]
        net.eval()
        net.blocks[depth].train()
        batch = TASK.gather("train", index)
        bytes_ = saved_bytes(net, lambda depth=depth, batch=batch: method.block_step(depth)(net, batch, ForwardOnly()))
        assert found["saved_block"][depth] == pytest.approx(bytes_, rel=0.02)  # the loss's own
    assert found["saved_efficiency"] == found["saved_end_to_end"] / max(found["saved_block"]) > 1
    assert found["frozen_seconds"][0] == 0 < found["frozen_seconds"][1] < found["step_seconds"][1]


def test_one_block_is_end_to_end_training_of_the_whole_network():
    torch.manual_seed(0)
    method = BlocTrain(TASK, {"blocks": 1}, training={"epochs": 1, "batch_size": 256})
    net = method.build()
    assert [phase.name for phase, _ in walk(method, net, batches=1)] == ["block 1"]
    assert all(p.grad is not None for p in net.parameters())
    report = method.report(net)
    assert report["saved_efficiency"] == pytest.approx(1)
    assert report["exits"] == [360]
    assert report["memory_overhead"] == report["compute_efficiency_dense"] == 1


def without_test_data(method):
    """Make the test split raise."""
    task = SmallDigits()
    batches = task.batches

    def guarded(split, *args, **kwargs):
        assert split != "test"
        return batches(split, *args, **kwargs)

    task.batches = guarded
    method.task = task
    return method


def test_thresholds_are_chosen_on_held_out_samples_and_used_for_inference():
    torch.manual_seed(0)
    method = without_test_data(halving(BlocTrain(TASK, {"thresholds": "validation", "tolerance": 0.02})))
    net = method.build()
    for _ in walk(method, net):
        pass
    point = method.best_thresholds(net, method.course(net, "validation"))
    assert net.thresholds == (point.t_cls, point.t_hcd)
    assert point.held_out_accuracy >= point.held_out_accuracy_no_exit - 0.02
    assert point.held_out_efficiency >= 1 or point.t_cls > 1
    inputs = next(TASK.batches("validation")).inputs
    left = net.eval().answer(method.encode(inputs), point.t_cls, point.t_hcd)[1]
    assert torch.equal(method.predict(net, inputs).extra["exit_block"], left + 1)
    fresh = method.build()
    fresh.load_state_dict(net.state_dict())
    assert fresh.thresholds == net.thresholds
    method.task = TASK
    report = method.report(net)
    assert report["operating_point"]["accuracy_exit"] == report["accuracy_exit"]
    assert report["operating_point"]["reached"] == report["reached"]


def test_the_report_has_accuracy_by_class_exits_and_how_well_detectors_tell():
    method, net = untrained()
    net.float()
    report = method.report(net)
    answers, exits, targets, hard = [], [], [], []
    for batch in TASK.batches("test"):
        prediction = method.predict(net, batch.inputs)
        answers.append(prediction.final().argmax(1))
        exits.append(prediction.extra["exit_block"])
        targets.append(batch.targets)
        with torch.no_grad():
            hard.append(net.detectors[0](features(net.blocks[0](method.encode(batch.inputs))))[:, 0] >= 0)
    answers, exits, targets, hard = (torch.cat(each) for each in (answers, exits, targets, hard))
    for label in range(10):
        own = targets == label
        assert report["accuracy_class"][str(label)] == pytest.approx((answers[own] == label).double().mean().item())
    assert report["exits"] == [int((exits == block).sum()) for block in (1, 2, 3)]
    assert report["accuracy_exit"] == pytest.approx((answers == targets).double().mean().item())
    is_hard = torch.isin(targets, torch.tensor([2, 4, 7]))
    shares = [(~hard[~is_hard]).double().mean().item(), hard[is_hard].double().mean().item()]
    assert report["detector_accuracy"][0] == pytest.approx(shares)
    assert len(report["detector_accuracy"]) == 2


class LargerDigits(SmallDigits):
    """Digits of 16x16 pixels."""

    input_shape = (1, 16, 16)
    budgets = {"smoke": replace(SmallDigits.budgets["smoke"], train_samples=128, validation_samples=64, test_samples=16)}

    def load(self, split):
        data = super().load(split)
        return Data(data.inputs.repeat_interleave(2, 2).repeat_interleave(2, 3), data.targets)


def test_the_residual_network_of_the_paper_is_trained_block_by_block(monkeypatch):
    monkeypatch.setitem(WIDTHS, "resnet9", (4, 6, 8))
    torch.manual_seed(0)
    method = halving(BlocTrain(LargerDigits(), {"net": "resnet9"}, steps=2))
    net = method.build()
    names = [phase.name for phase, _ in walk(method, net, batches=1)]
    assert names == ["block 1", "detector 1", "block 2", "detector 2", "block 3"]
    assert net.sizes == [4 * 16, 6 * 4, 8]
    report = method.report(net)
    assert min(report["saved_efficiency_block"]) > 1
    assert report["saved_model_block"] == pytest.approx(report["saved_block"], rel=0.5)


@pytest.mark.parametrize(("task", "net", "blocks"), [("static/cifar10", "resnet9", 3), ("static/cifar100", "resnet11", 4)])
def test_the_recipe_has_the_networks_of_the_paper(task, net, blocks):
    method = BlocTrain(Registries().task(task), track="recipe")
    assert (method.options.net, method.options.blocks, method.training.optimizer) == (net, blocks, "adam")


def test_images_too_small_for_a_network_are_refused():
    with pytest.raises(UsageError, match="8x8 cannot be halved 4 times"):
        BlocTrain(TASK, {"net": "resnet9"}).build()
    assert BlocTrain(TASK, track="recipe").options.net == "budget"


@pytest.mark.parametrize("prior", ["balanced", "training"])
def test_the_plugin_trains_a_short_while_and_answers_at_every_step(prior):
    torch.manual_seed(0)
    method = BlocTrain(TASK, {"theta": "0.9", "hcd_prior": prior, "hcd_epochs": 1}, training={"epochs": 2, "batch_size": 64})
    assert method.options.theta == 0.9
    net = method.build()
    train(method, net, seed=0)
    prediction = method.predict(net, next(TASK.batches("test", 50)).inputs)
    assert prediction.outputs.shape == (4, 50, 10)
    assert prediction.outputs.isfinite().all()
    assert (prediction.steps_used == 4).all()
    assert set(prediction.extra["exit_block"].tolist()) <= {1, 2, 3}
    report = method.report(net)
    assert report["accuracy_exit"] > 0.3
    assert report["reached"][0] == 1
