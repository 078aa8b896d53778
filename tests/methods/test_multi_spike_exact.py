"""The BATS plugin: its losses, networks and published settings. The neurons themselves are tested in ``nn/test_multi_spike.py``."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from harness.meters.spikes import SpikeMeter
from harness.plugin import UsageError
from harness.task import Backbone, Budget, Data, Head, TaskCard, Training
from methods.multi_spike_exact import MultiSpikeExact
from methods.nn.event_layer import EventConv2d
from methods.nn.multi_spike import Lif, MultiSpike, spike_times
from methods.nn.spike_times import SILENT, counts
from suites.classification import ClassificationTask


class Pictures(ClassificationTask):
    """Random pictures of four classes, normalised as a task may; each class has its own bright row."""

    card = TaskCard("test/pictures", "", "", "", "", "")
    head = Head("classify", classes=4)
    steps = 5

    def __init__(self, shape=(1, 8, 8), temporal=False):
        self.input_shape, self.temporal = shape, temporal
        self.budgets = {"smoke": Budget(Training(epochs=1, lr=4e-3), Backbone("conv", (3, 4)))}
        super().__init__()

    def load(self, split):
        drawn = torch.Generator().manual_seed(5)
        targets = torch.arange(16) % 4
        inputs = torch.rand(16, *self.input_shape, generator=drawn) * (torch.rand(16, *self.input_shape, generator=drawn) < 0.3)
        for sample, label in enumerate(targets.tolist()):
            inputs[sample, ..., 2 * label, :] = 1.0
        if self.temporal:
            inputs = (inputs.unsqueeze(1) > torch.rand(16, self.steps, *self.input_shape, generator=drawn)).float() * 2
        return Data(inputs, targets)

    def prepare(self, inputs):
        return inputs if self.temporal else (inputs - 0.3) / 0.4


class Descent:
    def __init__(self, net, lr=4e-3):
        self.optimizer = torch.optim.Adam(net.parameters(), lr)

    def minimise(self, loss):
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()


def made(task=None, **options):
    torch.manual_seed(0)
    bound = MultiSpikeExact(task or Pictures(), options)
    return bound, bound.build(), next(bound.task.batches("train"))


# Losses -------------------------------------------------------------------------------------------------------------


def test_every_spike_gets_the_error_target_minus_count():
    bound, _, _ = made(target_false=1.0, target_true=3.0)
    times = torch.tensor([[[0.1, 0.12], [0.1, SILENT], [SILENT, SILENT], [0.05, 0.06]]], requires_grad=True)
    loss = bound.spike_loss(times, torch.tensor([1]))
    loss.backward()
    assert loss.item() == 0.5 * ((1 - 2) ** 2 + (3 - 1) ** 2 + 1 + (1 - 2) ** 2)
    assert times.grad.tolist() == [[[-1.0, -1.0], [2.0, 0.0], [0.0, 0.0], [-1.0, -1.0]]]


def test_losses_are_means_over_the_batch():
    for loss in ("count", "ttfs"):
        bound, net, batch = made(loss=loss)
        times = net(bound.encode(batch.inputs)).detach()
        single = [bound.spike_loss(times[i : i + 1], batch.targets[i : i + 1]) for i in range(len(times))]
        torch.testing.assert_close(bound.spike_loss(times, batch.targets), torch.stack(single).mean())


def test_time_to_first_spike_is_cross_entropy_where_all_neurons_fire():
    bound, _, _ = made(loss="ttfs", tau_loss=0.03)
    times = torch.rand(3, 4, 2, dtype=torch.float64).sort(-1).values * 0.2
    targets = torch.tensor([0, 3, 1])
    ours, theirs = times.clone().requires_grad_(), times.clone().requires_grad_()
    found, expected = bound.spike_loss(ours, targets), F.cross_entropy(-theirs[..., 0] / 0.03, targets)
    found.backward(), expected.backward()
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(ours.grad, theirs.grad)


def test_silent_neurons_have_no_probability_and_no_error():
    bound, _, _ = made(loss="ttfs", tau_loss=0.1)
    times = torch.tensor([[0.1, 0.2, SILENT, SILENT], [SILENT] * 4, [0.1, 0.2, 0.15, 0.12]]).unsqueeze(-1).requires_grad_()
    targets = torch.tensor([2, 1, 0])
    loss = bound.spike_loss(times, targets)
    loss.backward()
    p = torch.tensor([-1.0, -2.0]).softmax(0)
    torch.testing.assert_close(times.grad[0, :, 0] * 3, torch.tensor([-p[0] / 0.1, -p[1] / 0.1, 0.0, 0.0]))
    assert times.grad[1].tolist() == [[0.0]] * 4
    assert loss.isfinite()
    assert bound.spike_loss(times[1:2], targets[1:2]).item() == pytest.approx(math.log(4))


def test_the_count_errors_move_counts_of_active_neurons_toward_the_target():
    lif = Lif(0.05, 0.05, 0.13, 30, 0.2)
    times = torch.rand(1, 20, 2, generator=torch.Generator().manual_seed(3), dtype=torch.float64).sort(-1).values * 0.1
    weight = torch.rand(3, 20, generator=torch.Generator().manual_seed(4), dtype=torch.float64) * 2 - 1
    weight += torch.tensor([[0.5], [0.3], [0.1]])
    bound, _, _ = made(target_false=15.0, target_true=15.0)
    before = counts(spike_times(times, weight, lif))[0]
    assert before.min() > 0
    assert (before - 15).abs().max() > 4
    weight.requires_grad_()
    update = torch.optim.SGD([weight], 2e-3)
    for _ in range(60):
        update.zero_grad()
        bound.count_loss(spike_times(times, weight, lif), torch.zeros(1, dtype=torch.int64)).backward()
        update.step()
    after = counts(spike_times(times, weight, lif))[0]
    assert ((after - 15).abs() <= (before - 15).abs()).all()
    assert (after - 15).abs().max() <= 2


# Answers ------------------------------------------------------------------------------------------------------------


def test_answers_follow_the_counts_and_first_spikes_so_far():
    times = torch.tensor([[[0.05, 0.15], [0.1, SILENT], [SILENT, SILENT], [0.12, 0.13]]])
    instants = torch.tensor([0.04, 0.11, 0.2])
    bound, _, _ = made()
    assert bound.answer(times, instants)[:, 0].tolist() == [[0, 0, 0, 0], [1, 1, 0, 0], [2, 1, 0, 2]]
    bound, _, _ = made(loss="ttfs")
    found = bound.answer(times, instants)[:, 0]
    torch.testing.assert_close(found[-1], torch.tensor([0.15, 0.1, -1.0, 0.08]))
    assert found[0].tolist() == [-1.0] * 4
    assert found[1:].argmax(1).tolist() == [0, 0]


def test_the_final_answer_does_not_depend_on_the_number_of_instants():
    bound, net, batch = made()
    net.eval()
    answers = bound.predict(net, batch.inputs)
    assert answers.outputs.shape == (5, 16, 4)
    bound.steps = 1
    assert torch.equal(bound.predict(net, batch.inputs).final(), answers.final())


# Inputs and networks ------------------------------------------------------------------------------------------------


def test_black_pixels_are_silent_and_white_ones_first_whatever_the_normalisation():
    bound, _, batch = made()
    stored, times = bound.task.split("train").inputs, bound.encode(batch.inputs)[..., 0]
    assert torch.equal(times.isfinite(), stored > 1e-5)
    torch.testing.assert_close(times[stored > 1e-5], 0.1 * (1 - stored[stored > 1e-5]), rtol=0, atol=1e-6)
    assert times.min() == 0


@pytest.mark.parametrize("options", [{}, {"loss": "ttfs"}, {"network": "conv", "filters": (3, 4), "kernel": 3, "hidden": ()}])
def test_a_few_steps_lower_the_loss(options):
    bound, net, batch = made(**options)
    update = Descent(net.train(), lr=4e-3 / 0.2 * bound.scale)
    losses = [bound.step(net, batch, update).item() for _ in range(12)]
    assert min(losses[-3:]) < 0.9 * losses[0]


def test_event_frames_are_learnt_from_their_times():
    bound, net, batch = made(Pictures((2, 8, 8), temporal=True))
    update = Descent(net.train())
    losses = [bound.step(net, batch, update).item() for _ in range(12)]
    assert min(losses[-3:]) < 0.9 * losses[0]
    assert bound.predict(net.eval(), batch.inputs).outputs.shape == (5, 16, 4)


def test_convolutions_are_as_large_as_the_picture_allows():
    _, net, _ = made(network="conv", hidden=(7,))
    filters = [tuple(layer.synapse.weight.shape) for layer in net if isinstance(layer, MultiSpike)]
    assert filters == [(15, 1, 5, 5), (40, 15, 2, 2), (7, 40), (4, 7)]
    assert isinstance(net[0].synapse, EventConv2d)


def test_thresholds_are_measured_where_none_are_set():
    bound, net, batch = made(weight_scale=0.5)
    inputs = float(torch.isfinite(bound.encode(batch.inputs)).flatten(1).sum(1).float().mean())
    assert net[0].lif.theta == pytest.approx(0.5 * 0.01 * inputs**0.5)
    _, net, _ = made(threshold=(0.3, 0.4), spikes=(2, 3), reset=0.5)
    assert [(layer.lif.theta, layer.lif.delta, layer.lif.buffer) for layer in net] == [(0.3, 0.15, 2), (0.4, 0.2, 3)]


def test_weights_start_as_the_options_say():
    low, high = made(init="uniform", weight_scale=2.0)[1][0].synapse.weight.aminmax()
    assert low < -1.5
    assert 1.5 < high < 2
    assert made(loss="ttfs")[1][0].synapse.weight.min() >= 0
    weight = made(init="normal", init_mean=1.2, init_deviation=0.2, weight_scale=1.0)[1][0].synapse.weight
    assert weight.mean().item() == pytest.approx(1.2, abs=0.02)
    assert weight.std().item() == pytest.approx(0.2, abs=0.02)


def test_the_report_says_how_many_neurons_are_silent():
    bound, net, batch = made()
    figures = bound.report(net)
    times = net(bound.encode(batch.inputs))
    assert figures["silent"]["1"] == pytest.approx(float((counts(times) == 0).float().mean()))
    with SpikeMeter(net.eval()) as meter, torch.no_grad():
        bound.predict(net, batch.inputs)
    total = figures["spikes_per_neuron"]["0"] * 200 + figures["spikes_per_neuron"]["1"] * 4
    assert meter.result(16).spikes_per_sample == pytest.approx(total)
    decided = bound.answer(times, bound.instants(100)).argmax(-1)
    changes = [max([i for i in range(100) if decided[i, b] != decided[-1, b]], default=-1) + 1 for b in range(16)]
    assert figures["decision_time"] == pytest.approx(sum((place + 1) * 0.002 for place in changes) / 16)


# Settings -----------------------------------------------------------------------------------------------------------


def recipe(name, shape=(1, 28, 28), **options):
    task = Pictures(shape)
    task.card = TaskCard(name, "", "", "", "", "")
    task.budget_name = "paper"
    return MultiSpikeExact(task, options, track="recipe")


def test_recipes_are_the_published_ones():
    count = recipe("static/mnist")
    assert (count.options.hidden, count.options.threshold, count.options.spikes, count.scale) == ((800,), (0.2, 1.3), (30, 30), 1.0)
    assert (count.training.lr, count.training.batch_size, count.training.epochs, count.training.schedule) == (0.003, 50, 100, "constant")
    fashion = recipe("static/fashion-mnist")
    assert (fashion.options.hidden, fashion.options.threshold, fashion.options.spikes) == ((400, 400), (0.13, 0.45, 0.7), (5, 5, 20))
    assert [round(fashion.training.lr * fashion.training.lr_share(epoch), 6) for epoch in (0, 9, 10, 20, 29)] == [
        0.0005,
        0.0005,
        0.00025,
        0.000125,
        0.000125,
    ]
    conv = recipe("static/mnist", network="conv")
    assert (conv.options.threshold, conv.options.spikes, conv.options.target_true) == ((0.04, 0.8, 0.6, 0.3), (1, 3, 10, 30), 30)
    ttfs = recipe("static/mnist", loss="ttfs")
    assert (ttfs.options.threshold, ttfs.options.simulated, ttfs.options.tau_loss) == ((0.7, 2.0), 1.0, 0.005)
    assert recipe("static/digits", shape=(1, 8, 8)).options.threshold is None


def test_what_does_not_fit_is_refused():
    with pytest.raises(UsageError, match="threshold has 1 values; allowed: 2"):
        MultiSpikeExact(Pictures(), {"threshold": (0.2,)})
    with pytest.raises(UsageError, match="values above 0"):
        MultiSpikeExact(Pictures(), {"spikes": (0, 3)})
    with pytest.raises(UsageError, match="for images"):
        MultiSpikeExact(Pictures((12,)), {"network": "conv"})
    assert "no spikes" in MultiSpikeExact.cannot["sequences"]
