"""The Hoyer plugin: T = 1, its loss, networks, recipe and figures. The numbered tests of the card are in ``nn/test_hoyer_threshold.py``."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from harness.evaluate import evaluate
from harness.loop import make_optimizer, train
from harness.plugin import UsageError
from harness.task import Backbone, Budget, Data, Head, TaskCard, Training
from methods.hoyer import Hoyer, thresholds
from methods.nn.hoyer import HoyerThreshold, penalties
from methods.nn.input_noise import noisy
from methods.nn.norm import BatchNorm
from methods.nn.pool_first_vgg import PLAN, PoolFirstVgg
from methods.nn.spike_first_resnet import DEPTHS, SpikeFirstBlock, SpikeFirstResNet
from methods.nn.stepping import stepping
from methods.nn.synapse import Conv2d, Linear
from suites.classification import ClassificationTask
from suites.detection import DigitScenes


class Bars(ClassificationTask):
    """Noisy images with one bright row; its place is the class."""

    card = TaskCard("test/bars", "", "", "", "", "")
    head = Head("classify", classes=4)
    input_shape = (1, 8, 8)
    steps = 4
    budgets = {"smoke": Budget(Training(epochs=15, batch_size=16, lr=0.01), Backbone("conv", (4, 6)))}

    def load(self, split):
        drawn = torch.Generator().manual_seed({"train": 0, "validation": 1, "test": 2}[split])
        classes = torch.arange(64) % 4
        images = 0.3 * torch.randn(64, *self.input_shape, generator=drawn)
        images[torch.arange(64), 0, 2 * classes] += 2.0
        return Data(images, classes)


class Lines(Bars):
    """The same, a row of pixels at every step."""

    card = TaskCard("test/lines", "", "", "", "", "")
    input_shape = (8,)
    steps = 8
    temporal = True
    budgets = {"smoke": Budget(Training(epochs=1, batch_size=16), Backbone("sequence", (8, 8)))}

    def load(self, split):
        data = Bars().load(split)
        return Data(data.inputs[:, 0], data.targets)


class Colours(Bars):
    """Colour images of the size of CIFAR-10's."""

    card = TaskCard("test/colours", "", "", "", "", "")
    input_shape = (3, 32, 32)


class Photographs(Bars):
    """Images of the size of ImageNet's."""

    card = TaskCard("test/photographs", "", "", "", "", "")
    input_shape = (3, 224, 224)


class Parts:
    """Parts of a network with neurons that have seen a batch."""

    def conv(self, features_in, features_out, kernel, stride=1, first=False):
        return Conv2d(features_in, features_out, kernel, stride=stride, padding=kernel // 2, bias=False)

    def norm(self, features, scale=1.0):
        return BatchNorm(features)

    def neuron(self, features):
        return HoyerThreshold(features, start="first")


class Collector:
    """An update that keeps the gradients instead of using them."""

    def __init__(self, net):
        self.net = net

    def minimise(self, loss):
        self.net.zero_grad()
        loss.backward()
        self.gradients = {name: p.grad.clone() for name, p in self.net.named_parameters() if p.grad is not None}


def make(task=Bars, **options):
    bound = Hoyer(task(), options)
    torch.manual_seed(0)
    return bound, bound.build()


def inputs_of_synapses(net, x):
    """Return what entered each convolution and linear layer, in the order of the calls."""
    found = []
    synapses = [module for module in net.modules() if isinstance(module, (Conv2d, Linear))]
    handles = [module.register_forward_pre_hook(lambda module, args: found.append(args[0])) for module in synapses]
    net(x)
    for handle in handles:
        handle.remove()
    return found


def binary(x):
    return set(x.unique().tolist()) <= {0.0, 1.0}


def test_images_are_seen_for_one_step_unless_more_are_asked_for_and_films_for_their_own():
    assert Hoyer(Bars()).steps == 1
    assert Hoyer(Bars(), track="recipe").steps == 1
    assert Hoyer(Bars(), steps=3).steps == 3
    assert Hoyer(Lines()).steps == 8


def test_the_loss_of_a_step_is_that_of_the_task_plus_lambda_times_the_penalties_of_all_layers():
    lam = 1e-3
    bound, net = make(lam=lam)
    batch = next(bound.task.batches("train", 16))
    with penalties(net.train()) as found:
        task_loss = bound.loss(bound.task.final(net(bound.encode(batch.inputs))), batch.targets)
    assert len(found) == 4 and all(h > 1 for h in found)
    loss = bound.step(net, batch, Collector(net))
    torch.testing.assert_close(loss, task_loss + lam * torch.stack(found).sum())
    assert loss > 1.05 * task_loss


def test_the_penalty_trains_weights_and_the_normalised_one_clip_values_too():
    found = {}
    for name, options in {"plain": {"lam": 0.0}, "clipped": {"lam": 1e-3}, "normalised": {"lam": 1e-3, "penalty": "normalised"}}.items():
        bound, net = make(**options)
        update = Collector(net.train())
        bound.step(net, next(bound.task.batches("train", 16)), update)
        found[name] = update.gradients
    last = "backbone.stages.1.1.neuron.v"
    weight = "backbone.stages.1.1.synapse.weight"
    assert not torch.allclose(found["clipped"][weight], found["plain"][weight])
    torch.testing.assert_close(found["clipped"][last], found["plain"][last])
    assert not torch.allclose(found["normalised"][last], found["plain"][last])
    torch.testing.assert_close(found["normalised"][weight], found["clipped"][weight])


def test_baselines_are_layers_with_a_fixed_or_a_plainly_learnt_threshold():
    fixed, net = make(extremum="none", learn=False, v=0.5)
    assert all(torch.equal(neuron.threshold(), torch.full_like(neuron.running, 0.5)) for neuron in thresholds(net))
    assert not any(p.requires_grad for name, p in net.named_parameters() if name.endswith("neuron.v"))
    learnt, net = make(extremum="none")
    optimizer = torch.optim.SGD([p for group in learnt.groups(net) for p in group["params"]], 0.1)
    update = Collector(net.train())
    learnt.step(net, next(learnt.task.batches("train", 16)), update)
    optimizer.step()
    assert all(neuron.threshold()[0] != 1 for neuron in thresholds(net))


def test_more_neurons_fire_than_with_a_fixed_threshold_of_one():
    rates = []
    for options in ({"start": "first"}, {"extremum": "none", "learn": False}):
        bound, net = make(**options)
        for _ in range(10):  # until the running statistics have settled
            for batch in bound.task.batches("train", 16):
                net.train()(bound.encode(batch.inputs))
        rates.append(bound.report(net)["rate"])
    assert all(hoyer > 1.2 * fixed for hoyer, fixed in zip(*rates, strict=True))


def test_it_learns_and_reports_its_mechanism():
    bound, net = make(start="corrected")
    train(bound, net, seed=0)
    found = evaluate(bound, net, "test").metrics["accuracy"]
    assert found > 0.9
    report = bound.report(net)
    assert report["metric_at_noise"]["0"] == pytest.approx(found)
    assert set(report["metric_at_noise"]) == {"0", "0.1", "0.2", "0.4"}
    assert len(report["threshold_by_epoch"]) == 15
    assert all(len(row) == 4 for row in (*report["threshold_by_epoch"], report["rate"], report["near_threshold"], report["clip_value"]))
    assert all(0 < t <= v for t, v in zip(report["threshold"], report["clip_value"], strict=True))
    assert report["threshold_by_epoch"][0] == [1.0] * 4 and report["threshold_by_epoch"][-1] != report["threshold_by_epoch"][1]
    assert report == bound.report(net)


def test_reported_shares_are_those_of_the_potentials():
    bound, net = make(start="first")
    x = bound.encode(next(bound.task.batches("test", 64)).inputs)
    net.train()(x)
    report, first = bound.report(net), net.backbone.stages[0][0]
    z = first.norm(first.synapse(x))[0]
    threshold = first.neuron.threshold().view(-1, 1, 1)
    assert report["rate"][0] == pytest.approx((z >= threshold).double().mean().item())
    assert report["near_threshold"][0] == pytest.approx(((z - threshold).abs() < 0.1).double().mean().item())


def test_large_noise_on_potentials_changes_answers_and_leaves_no_trace():
    _, net = make(start="first")
    x = torch.randn(1, 8, 1, 8, 8)
    net.train()(x)
    plain = net.eval()(x)
    with noisy(thresholds(net), 0.5):
        one = net(x)
    with noisy(thresholds(net), 0.5):
        again = net(x)
    assert torch.equal(one, again) and not torch.equal(one, plain)
    assert torch.equal(net(x), plain)


@pytest.mark.parametrize("reset", ["soft", "none"])
def test_sequences_are_run_by_the_multi_step_variant_step_by_step_or_at_once(reset):
    bound, net = make(Lines, reset=reset, start="first")
    x = bound.encode(next(bound.task.batches("train", 16)).inputs)
    net.train()(x)
    with torch.no_grad():
        whole = net.eval()(x)
        with stepping(net):
            parts = torch.cat([net(now) for now in x.split(1)])
    assert whole.shape == (8, 16, 4)
    torch.testing.assert_close(parts, whole)
    assert all(math.isfinite(share) for share in bound.report(net)["near_threshold"])


@pytest.mark.parametrize("size", [1, 5])
def test_any_batch_and_three_steps_of_an_image_can_be_trained(size):
    bound = Hoyer(Bars(), {"lam": 1e-4}, steps=3)
    torch.manual_seed(0)
    net = bound.build().train()
    update = Collector(net)
    assert bound.step(net, next(bound.task.batches("train", size)), update).isfinite()
    assert all(g.isfinite().all() for g in update.gradients.values())


# Networks ---------------------------------------------------------------------------------------------------------------


def test_vgg_16_for_cifar_has_the_layers_of_the_card():
    net = Hoyer(Colours(), {"net": "vgg16"}).build()
    convs = [m.out_channels for m in net.modules() if isinstance(m, Conv2d)]
    assert convs == [64, 64, 128, 128, 256, 256, 256] + [512] * 6
    assert [(m.in_features, m.out_features) for m in net.modules() if isinstance(m, Linear)] == [(2048, 4096), (4096, 4096), (4096, 4)]
    assert [level.size for level in net.backbone.levels] == [(16, 16), (8, 8), (4, 4), (2, 2), (2, 2), ()]


def test_a_vgg_pools_currents_so_that_all_synapses_but_the_first_see_zeros_and_ones():
    net = PoolFirstVgg((3, 8, 8), (4, "P", 6, 6, "P"), Parts(), hidden=(10,), dropout=0.5)
    x = torch.randn(1, 4, 3, 8, 8)
    net(x)
    seen = inputs_of_synapses(net.eval(), x)
    assert len(seen) == 4 and all(binary(entered) for entered in seen[1:])
    levels = net(x)
    assert [tuple(level.shape) for level in levels] == [(1, 4, 4, 4, 4), (1, 4, 6, 2, 2), (1, 4, 10)]
    assert [level.features for level in net.levels] == [64, 24, 10]
    dropped = net.train()(x)[0]
    assert set(dropped.unique().tolist()) == {0.0, 2.0}


def test_a_layer_with_pooling_fires_on_the_largest_current_of_each_window():
    net = PoolFirstVgg((1, 4, 4), (3, "P"), Parts())
    x = torch.randn(1, 5, 1, 4, 4)
    layer = net.stages[0][0]
    wanted = layer.neuron(layer.norm(nn.functional.max_pool2d(layer.synapse[0](x)[0], 2)[None]))
    torch.testing.assert_close(net(x)[0], wanted)


@pytest.mark.parametrize(("name", "blocks"), [("resnet18", 16), ("resnet34", 32), ("resnet50", 16)])
def test_resnets_have_the_blocks_of_the_card(name, blocks):
    depths, bottleneck = DEPTHS[name]
    net = SpikeFirstResNet((3, 32, 32), depths, Parts(), bottleneck, width=4)
    found = [module for module in net.modules() if isinstance(module, SpikeFirstBlock)]
    assert len(found) == blocks
    convs = sum(isinstance(m, Conv2d) for block in found for m in block.branch.modules())
    assert convs == blocks * (3 if bottleneck else 1)
    assert sum(isinstance(m, Conv2d) for m in net.stem.modules()) == 3
    changed = [block for block in found if not isinstance(block.shortcut, nn.Identity)]
    assert len(changed) == (4 if bottleneck else 3)


@pytest.mark.parametrize("bottleneck", [False, True])
@pytest.mark.parametrize("pyramid", [False, True])
def test_a_resnet_sends_currents_along_the_shortcut_and_spikes_into_every_synapse(bottleneck, pyramid):
    net = SpikeFirstResNet((3, 20, 12), (2, 1, 1), Parts(), bottleneck, pyramid, width=8)
    x = torch.randn(1, 4, 3, 20, 12)
    levels = net(x)
    assert all(binary(entered) for entered in inputs_of_synapses(net.eval(), x)[1:])
    assert all(binary(level) for level in levels)
    assert [tuple(level.shape[2:]) for level in levels] == [(level.channels, *level.size) for level in net.levels]
    assert not binary(net.stem(x))
    assert [level.stride for level in net.levels] == ([2, 4, 8] if pyramid else [24])
    block = net.stages[0][1]
    current = torch.randn(1, 4, net.stages[0][0](net.stem(x)).shape[2], 10, 6)
    torch.testing.assert_close(block(current) - block.branch(current), current)


def test_small_images_have_the_shorter_resnet_34_and_large_ones_a_stem_of_stride_two_and_a_fifth_pooling():
    def blocks(task):
        net = Hoyer(task(), {"net": "resnet34"}).backbone()
        return [len(stage) for stage in net.stages], net.stem[0].stride[0]

    assert blocks(Colours) == ([6, 8, 10, 6], 1)
    with torch.device("meta"):
        assert blocks(Photographs) == ([6, 8, 12, 6], 2)
        net = Hoyer(Photographs(), {"net": "vgg16"}).backbone()
    assert net.levels[-2].size == (7, 7) and PLAN.count("P") == 4


@pytest.mark.parametrize("name", ["vgg16", "resnet18"])
def test_a_detector_reads_the_spikes_of_a_published_net(name):
    bound = Hoyer(DigitScenes(), {"net": name})
    net = bound.build()
    batch = next(bound.task.batches("train", 1))
    net.train()(bound.encode(batch.inputs))
    assert bound.predict(net.eval(), batch.inputs).outputs.shape == (1, 1, 64, 15)


def test_published_nets_are_for_images():
    with pytest.raises(UsageError, match="net = 'vgg16' is for images; test/lines has inputs of shape"):
        Hoyer(Lines(), {"net": "vgg16"})


def test_a_plan_or_an_image_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="cannot be halved 4 times"):
        PoolFirstVgg((1, 8, 8), PLAN, Parts())
    with pytest.raises(ValueError, match="position 2 of the plan follows no layer"):
        PoolFirstVgg((1, 8, 8), (4, "P", "P"), Parts())
    with pytest.raises(ValueError, match="for images"):
        SpikeFirstResNet((8,), (1,), Parts())


# Recipe -----------------------------------------------------------------------------------------------------------------


def paper(task):
    bound = task()
    bound.budget_name = "paper"
    return Hoyer(bound, track="recipe")


def test_recipe_is_that_of_the_vgg_16():
    bound = paper(Colours)
    o, t = bound.options, bound.training
    assert (o.net, o.lam, o.amsgrad, o.decay, o.dropout, o.extremum) == ("vgg16", 1e-8, True, "all", 0.1, "channel")
    assert (t.optimizer, t.lr, t.epochs, t.batch_size, t.weight_decay, t.augment) == ("adam", 1e-4, 400, 128, 1e-4, True)
    large = paper(Photographs).training
    assert (large.epochs, large.batch_size, large.weight_decay) == (150, 512, 5e-4)
    assert paper(Bars).options.net == paper(Lines).options.net == "task"


def test_the_resnet_18_has_a_recipe_of_its_own():
    bound = Colours()
    bound.budget_name = "paper"
    found = Hoyer(bound, {"net": "resnet18"}, track="recipe")
    o, t = found.options, found.training
    assert (o.net, o.lam, o.decay, t.optimizer, t.lr, t.epochs) == ("resnet18", 0.0, "weights", "sgd", 0.1, 600)


def test_learning_rate_is_divided_by_five_after_sixty_eighty_and_ninety_percent():
    bound = paper(Colours)
    shares = [bound.training.lr_share(epoch) for epoch in range(400)]
    assert [shares.count(share) for share in sorted(set(shares), reverse=True)] == [240, 80, 40, 40]
    assert sorted(set(shares), reverse=True) == pytest.approx([1, 0.2, 0.04, 0.008])


def test_optimiser_is_amsgrad_and_decay_of_weights_spares_clip_values_and_normalisation():
    bound, net = make(amsgrad=True, decay="weights")
    bound.training = replace(bound.training, weight_decay=0.1)
    (phase,) = bound.phases(net)
    optimizer = make_optimizer(list(phase.parameters), bound.training)
    update = Collector(net.train())
    bound.step(net, next(bound.task.batches("train", 16)), update)
    optimizer.step()
    assert all("max_exp_avg_sq" in state for state in optimizer.state.values())
    decay = {p: group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert {p.dim() > 1 for p in decay} == {True, False}
    assert all(rate == (0.1 if p.dim() > 1 else 0.0) for p, rate in decay.items())
    assert len(decay) == len(list(net.parameters()))
