"""SLTT-K: what a draw of K steps changes and what it does not; numbers are those of the list of tests on SLTT's card."""

from __future__ import annotations

import itertools

import pytest
import torch
from counting_update import CountingUpdate

from harness.meters.memory import SavedTensors
from harness.plugin import UsageError
from harness.registry import Registries
from harness.task import Backbone, Budget, Data, Head, TaskCard, Training
from methods.sltt import Sltt
from methods.sltt_k import SlttK
from suites.classification import ClassificationTask

CLASSES = 4


class Films(ClassificationTask):
    """Random films: no two steps are alike."""

    card = TaskCard("test/films", "", "", "", "", "")
    head = Head("classify", classes=CLASSES)
    temporal = True
    input_shape = (2, 4, 4)

    def __init__(self, steps=6):
        self.steps = steps
        self.budgets = {"smoke": Budget(Training(epochs=1, lr=0.1), Backbone("conv", (3,)))}
        super().__init__()

    def load(self, split):
        drawn = torch.Generator().manual_seed(5)
        return Data(torch.randn(6, self.steps, *self.input_shape, generator=drawn, dtype=torch.float64), torch.arange(6) % CLASSES)


def make(method=SlttK, steps=6, **options):
    bound = method(Films(steps), options)
    torch.manual_seed(3)
    net = bound.build().double().train()
    return bound, net, next(bound.task.batches("train"))


def learn(bound, net, batch):
    update = CountingUpdate(net)
    bound.step(net, batch, update)
    return torch.cat([p.grad.flatten() for p in net.parameters()])


def of_subset(subset, **options):
    """Return the gradient when the steps of ``subset`` are drawn, the outputs, and the network."""
    bound, net, batch = make(k=len(subset), **options)
    bound.chosen = lambda steps: set(subset)
    outputs = []
    net.register_forward_hook(lambda module, given, result: outputs.append(result.detach()))
    return learn(bound, net, batch), torch.cat(outputs), net


def test_4_with_k_equal_to_t_it_is_sltt():
    assert torch.equal(learn(*make(k=6)), learn(*make(Sltt)))


@pytest.mark.parametrize("k", [1, 2, 4])
def test_4_mean_over_all_subsets_is_k_over_t_of_the_gradient_of_sltt(k):
    found = [of_subset(subset)[0] for subset in itertools.combinations(range(6), k)]
    whole = learn(*make(Sltt))
    assert (torch.stack(found).mean(0) - k / 6 * whole).abs().max() < 1e-14
    assert (found[0] - found[1]).abs().max() > 1e-4


@pytest.mark.parametrize("k", [1, 3])
def test_5_bytes_held_for_backward_are_those_of_one_step(k):
    peaks = set()
    for steps, method, options in ((4, SlttK, {"k": k}), (16, SlttK, {"k": k}), (4, Sltt, {})):
        bound, net, batch = make(method, steps, **options)
        with SavedTensors(net) as meter:
            bound.step(net, batch, CountingUpdate(net))
        peaks.add(meter.peak)
    assert len(peaks) == 1


@pytest.mark.parametrize("k", [1, 2, 6])
def test_6_a_batch_takes_k_backward_passes_and_one_update(k):
    bound, net, batch = make(k=k)
    update = CountingUpdate(net)
    bound.step(net, batch, update)
    assert (update.backwards, update.applied) == (k, 1)
    assert bound.report(net)["backward_calls"] == k


def test_6_outputs_state_and_running_statistics_do_not_depend_on_the_draw():
    _, wanted, reference = of_subset((0,))
    for subset in ((5,), (1, 4), (0, 2, 3, 5)):
        _, outputs, net = of_subset(subset)
        assert torch.equal(outputs, wanted)
        assert all(torch.equal(a, b) for a, b in zip(net.buffers(), reference.buffers(), strict=True))
    assert any((buffer != 0).any() and (buffer != 1).any() for buffer in reference.buffers())


def test_6_steps_that_are_not_drawn_build_no_graph():
    bound, net, batch = make(k=1)
    bound.chosen = lambda steps: {2}
    graphs = []
    net.register_forward_hook(lambda module, given, result: graphs.append(result.requires_grad))
    bound.step(net, batch, CountingUpdate(net))
    assert graphs == [False, False, True, False, False, False]


def test_the_loss_that_is_shown_is_that_of_all_steps():
    bound, net, batch = make(k=1)
    twin, other, _ = make(Sltt)
    assert torch.equal(bound.step(net, batch, CountingUpdate(net)), twin.step(other, batch, CountingUpdate(other)))


def test_every_batch_draws_anew_and_every_step_is_drawn_as_often():
    bound, _, _ = make(k=2)
    torch.manual_seed(0)
    draws = [bound.chosen(6) for _ in range(600)]
    assert {len(draw) for draw in draws} == {2}
    counts = [sum(step in draw for draw in draws) for step in range(6)]
    assert all(150 < count < 250 for count in counts)  # 200 expected, deviation 12


def test_learning_rate_makes_up_for_steps_left_out_if_asked():
    (plain,), (scaled,) = (list(make(k=2, scale_lr=wanted)[0].phases(torch.nn.Identity())) for wanted in (False, True))
    assert (plain.training.lr, scaled.training.lr) == (0.1, pytest.approx(0.3))


def test_what_does_not_fit_is_refused():
    with pytest.raises(UsageError, match="k = 7 of 6 time steps cannot be drawn; allowed: 1 to 6"):
        make(k=7)
    with pytest.raises(UsageError, match=r"use sltt\[rule=bptt\]"):
        make(rule="bptt")


def test_recipes_have_the_published_k():
    registries = Registries()

    def k_of(name, **options):
        return SlttK(registries.task(name, "paper"), options, track="recipe").options.k

    assert (k_of("events/dvs-gesture"), k_of("events/cifar10-dvs")) == (4, 2)
    assert (k_of("static/imagenet"), k_of("static/imagenet", network="nf_resnet101"), k_of("static/cifar10")) == (1, 2, 1)


def test_first_stage_with_one_step_draws_that_step():
    assert make(k=4)[0].chosen(1) == {0}
