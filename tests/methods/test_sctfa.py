"""SCTFA: the plugin on tasks, in both tracks, and its baselines."""

from __future__ import annotations

import math

import pytest
import torch

from harness.loop import train
from harness.plugin import UsageError
from harness.task import SPLITS, Data
from methods.nn.attentive_lif import AttentiveLIF
from methods.nn.neuron import LIF
from methods.nn.norm import BatchNorm
from methods.nn.step_norm import StepBatchNorm
from methods.nn.stepping import stepping
from methods.nn.surrogate import Arctan
from methods.sctfa import STRENGTHS, Sctfa
from methods.stbp import Stbp
from suites.detection import DigitScenes
from suites.events import DigitsSaccade
from suites.sequences import DigitsPixels
from suites.static_vision import Digits


def built(method, seed=0):
    torch.manual_seed(seed)
    return method.build()


def neurons(net, kind=AttentiveLIF):
    return [module for module in net.modules() if isinstance(module, kind)]


def few(task, samples):
    """Cut a task to its first samples."""
    for split in SPLITS:
        data = task.split(split)
        task._splits[split] = Data(data.inputs[:samples], data.targets[:samples])
    return task


class FewEvents(DigitsSaccade):
    """Events at random pixels, more of them in one half of the picture for each class: quick to make."""

    def load(self, split):
        labels = torch.arange(20) % 2
        rates = torch.full((20, 9, 2, 20, 20), 0.05)
        rates[labels == 1, ..., 10:] = 0.4
        rates[labels == 0, ..., :10] = 0.4
        return Data(torch.poisson(rates, generator=torch.Generator().manual_seed(SPLITS.index(split))), labels)


def test_the_baseline_is_stbp():
    x = torch.rand(4, 2, 1, 8, 8)
    nets = [built(method).eval() for method in (Sctfa(Digits(), {"attention": "none"}), Stbp(Digits()))]
    assert torch.equal(nets[0](x), nets[1](x))


@pytest.mark.parametrize("attention", ["fused", "spatial", "channel"])
def test_only_the_attention_differs_from_stbp_and_shared_weights_start_equal(attention):
    net, stbp = built(Sctfa(Digits(), {"attention": attention})), built(Stbp(Digits()))
    found, shared = net.state_dict(), stbp.state_dict()
    assert all(torch.equal(found[name], shared[name]) for name in shared)
    extra = found.keys() - shared.keys()
    names = {"spatial": {"weight", "bias"}, "channel": {"squeeze", "excite"}}
    assert {name.rpartition(".")[2] for name in extra} == (names.get(attention) or names["spatial"] | names["channel"])
    assert len(neurons(net)) == len(neurons(stbp, LIF)) == 4
    x = torch.rand(1, 2, 1, 8, 8).expand(4, -1, -1, -1, -1)
    assert torch.equal(net(x[:1]), stbp(x[:1]))  # at the first step there is nothing to gate
    assert not torch.equal(net(x), stbp(x))


def test_answers_step_by_step_equal_those_of_the_whole_sequence():
    net = built(Sctfa(DigitsSaccade())).eval()
    x = torch.poisson(torch.full((4, 2, 2, 20, 20), 0.3))
    with torch.no_grad(), stepping(net):
        single = torch.cat([net(x[t : t + 1]) for t in range(4)])
    torch.testing.assert_close(single, net(x).detach())


def test_the_controls_change_the_leak_of_the_baseline():
    fixed = neurons(built(Sctfa(Digits(), {"attention": "none", "leak": 0.125})), LIF)
    learnt = neurons(built(Sctfa(Digits(), {"attention": "none", "learn_leak": True})), LIF)
    assert {neuron.leak for neuron in fixed} == {0.125}
    assert all(neuron.leak.requires_grad and neuron.leak.item() == 0.5 for neuron in learnt)


def test_the_reduction_divides_the_channels():
    first = neurons(built(Sctfa(Digits(), {"reduction": 8})))[0]
    assert first.squeeze.shape == (3, 24)


@pytest.mark.parametrize(
    ("task", "options", "message"),
    [
        (Digits, {"learn_leak": True}, "attention = 'none'"),
        (Digits, {"network": "published"}, "15 pixels"),
        (Digits, {"attention": "temporal"}, "attention = 'temporal'"),
    ],
)
def test_options_that_do_not_fit_are_refused(task, options, message):
    with pytest.raises(UsageError, match=message):
        Sctfa(task(), options)


def test_a_population_is_refused_where_there_are_no_classes():
    with pytest.raises(UsageError, match="classification"):
        Sctfa(DigitScenes(), {"readout": "population"})


def test_sequences_have_a_reason():
    assert "fully connected" in Sctfa.supports(DigitsPixels())


def test_the_recipe_is_the_papers_example():
    method = Sctfa(DigitsSaccade(), track="recipe")
    net = built(method)
    attentive, plain = neurons(net), neurons(net, LIF)
    assert [neuron.features for neuron in attentive] == [32, 64, 128]
    assert len(plain) == 2  # the fully connected layer and the read-out have no attention
    assert {neuron.rule.threshold for neuron in attentive} == {neuron.threshold for neuron in plain} == {0.8}
    assert all(neuron.rule.surrogate == Arctan(2.0) and not neuron.rule.detach_reset and neuron.rule.strict for neuron in attentive)
    assert all(type(norm) is StepBatchNorm for norm in neurons(net, BatchNorm))
    assert all(conv.bias is not None for conv in neurons(net, torch.nn.Conv2d))
    answers = net(method.encode(torch.poisson(torch.full((2, 9, 2, 20, 20), 0.3))))
    assert answers.shape == (9, 2, 10)
    assert torch.equal(answers * 5, (answers * 5).round())
    assert (method.training.optimizer, method.training.lr, method.training.augment) == ("adam", 1e-3, False)


def test_the_recipe_keeps_the_tasks_network_where_the_papers_does_not_fit():
    method = Sctfa(Digits(), track="recipe")
    assert (method.options.network, method.options.readout, method.steps) == ("task", "population", 20)


def test_the_loss_of_a_population_is_the_squared_error_to_one_hot_answers():
    method = Sctfa(Digits(), {"readout": "population"})
    output, targets = torch.rand(4, 10), torch.tensor([3, 1, 4, 1])
    expected = sum((output[i, k] - float(k == targets[i])) ** 2 for i in range(4) for k in range(10)) / 40
    torch.testing.assert_close(method.loss(output, targets), expected)


def test_the_learning_rate_of_the_recipe_falls_by_a_twentieth_every_epoch():
    training = Sctfa(Digits(), track="recipe").training
    assert [training.lr_share(epoch) for epoch in range(3)] == pytest.approx([1, 0.95, 0.9025])


def test_training_by_the_recipe_makes_the_loss_fall():
    method = Sctfa(FewEvents(), track="recipe", training={"epochs": 10, "batch_size": 10})
    losses = [trace.loss for trace in train(method, built(method), seed=0).traces]
    assert losses[-1] < losses[0]


def test_the_report_of_event_data_has_gates_and_robustness_curves():
    method = Sctfa(FewEvents(), {"corrupted": 8})
    net = built(method)
    report = method.report(net)
    assert report["attention_parameters"] == sum(2 * n.features * (n.features // 4) + n.features + 1 for n in neurons(net))
    assert 0 < report["attention_share"] < 1
    assert [len(steps) for steps in report["gates"]] == [9] * 4
    assert all(0 < gate < 1 for steps in report["gates"] for gate in steps)
    assert {(len(rows), len(rows[0])) for rows in report["gate_maps"]} == {(8, 8)}
    assert {kind: len(curve) for kind, curve in report["robustness"].items()} == {kind: len(s) for kind, s in STRENGTHS.items()}
    clean = {curve[0] for curve in report["robustness"].values()}
    assert len(clean) == 1
    assert all(0 <= area <= 1 for area in report["robustness_area"].values())
    assert method.report(net)["robustness"] == report["robustness"]


def test_the_curves_are_of_damaged_data():
    method = Sctfa(FewEvents(), {"corrupted": 8})
    seen = []
    method._score(lambda x: seen.append(x) or torch.zeros(9, 8, 10), "blank", 0.4)
    clean = method.encode(next(method.task.batches("test", limit=8)).inputs)
    gone = (seen[0].flatten(2).sum(2) == 0) & (clean.flatten(2).sum(2) != 0)
    assert gone.any() and torch.equal(torch.where(seen[0] != 0, seen[0], clean), clean)


def test_the_report_of_static_data_and_of_the_baseline_leave_out_what_they_lack():
    static = Sctfa(Digits())
    assert "robustness" not in static.report(built(static))
    baseline = Sctfa(FewEvents(), {"attention": "none", "corrupted": 0})
    report = baseline.report(built(baseline))
    assert report["attention_parameters"] == 0 and "gates" not in report and "robustness" not in report


@pytest.mark.parametrize("attention", ["fused", "spatial", "channel", "none"])
def test_every_attention_trains_on_digits(attention):
    method = Sctfa(few(Digits(), 64), {"attention": attention}, training={"epochs": 3, "batch_size": 32})
    losses = [trace.loss for trace in train(method, built(method), seed=0).traces]
    assert losses[-1] < losses[0] and math.isfinite(losses[-1])
