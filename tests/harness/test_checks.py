"""Each check of the contract holds for a good method and catches the fault it is about."""

import pytest

from harness import checks
from harness.checks import CHECKS, Subject

FAULTS = """
import itertools

import torch
from torch import nn

from harness.method import Phase, Prediction
from harness.plugin import Card, Claim
from methods.base import SpikingMethod
from methods.nn.neuron import LIF


class Good(SpikingMethod):
    card = Card(name="good", title="-", authors="-", venue="-", year=2026, family="testing", summary="-")


class WrongShape(Good):
    card = Card(name="wrong_shape", title="-", authors="-", venue="-", year=2026, family="testing", summary="-")

    def predict(self, net, inputs):
        return Prediction.at_every_step(super().predict(net, inputs).outputs.transpose(0, 1))


class NotNumbers(Good):
    card = Card(name="not_numbers", title="-", authors="-", venue="-", year=2026, family="testing", summary="-")

    def predict(self, net, inputs):
        return Prediction.at_every_step(super().predict(net, inputs).outputs / 0)


class TooManySteps(Good):
    card = Card(name="too_many_steps", title="-", authors="-", venue="-", year=2026, family="testing", summary="-")

    def predict(self, net, inputs):
        found = super().predict(net, inputs)
        return Prediction(found.outputs, found.steps_used + 1)


class Climbs(Good):
    card = Card(name="climbs", title="-", authors="-", venue="-", year=2026, family="testing", summary="-")

    def step(self, net, batch, update):
        loss = self.loss(self.task.final(net(self.encode(batch.inputs))), batch.targets)
        update.minimise(-loss)
        return loss


class Remembers(Good):
    card = Card(name="remembers", title="-", authors="-", venue="-", year=2026, family="testing", summary="-")

    def predict(self, net, inputs):
        found = super().predict(net, inputs)
        before = getattr(self, "last", 0.0)
        self.last = found.outputs.mean()
        return Prediction(found.outputs + before, found.steps_used)


class Varies(Good):
    card = Card(name="varies", title="-", authors="-", venue="-", year=2026, family="testing", summary="-")
    runs = itertools.count()

    def build(self):
        torch.manual_seed(next(self.runs))
        return super().build()


class CannotBeSaved(Good):
    card = Card(name="cannot_be_saved", title="-", authors="-", venue="-", year=2026, family="testing", summary="-")

    def build(self):
        net = super().build()
        net.secret = lambda: None
        return net


class Doubled(LIF):
    def forward(self, current):
        return 2 * super().forward(current)


class NotBinary(Good):
    card = Card(name="not_binary", title="-", authors="-", venue="-", year=2026, family="testing", summary="-")

    def neuron(self, features):
        return Doubled()


class Silent(nn.Module):
    def forward(self, current):
        return (current > 0).float() + current - current.detach()


class NoSpikes(Good):
    card = Card(name="no_spikes", title="-", authors="-", venue="-", year=2026, family="testing", summary="-")

    def neuron(self, features):
        return nn.ReLU()


class NoGradient(Good):
    card = Card(name="no_gradient", title="-", authors="-", venue="-", year=2026, family="testing", summary="-")

    def step(self, net, batch, update):
        loss = super().loss(self.task.final(net(self.encode(batch.inputs))), batch.targets)
        update.zero_grad()
        update.apply()
        return loss


class BadGradient(Good):
    card = Card(name="bad_gradient", title="-", authors="-", venue="-", year=2026, family="testing", summary="-")

    def step(self, net, batch, update):
        loss = super().loss(self.task.final(net(self.encode(batch.inputs))), batch.targets)
        update.minimise(loss * float("nan"))
        return loss


class NeverApplies(Good):
    card = Card(name="never_applies", title="-", authors="-", venue="-", year=2026, family="testing", summary="-")

    def step(self, net, batch, update):
        loss = super().loss(self.task.final(net(self.encode(batch.inputs))), batch.targets)
        update.backward(loss)
        return loss


class Hoards(Good):
    card = Card(name="hoards", title="-", authors="-", venue="-", year=2026, family="testing", summary="-")

    def step(self, net, batch, update):
        loss = super().step(net, batch, update)
        self.kept = [*getattr(self, "kept", []), loss]
        return loss


class ClaimsNonsense(Good):
    card = Card(
        name="claims_nonsense", title="-", authors="-", venue="-", year=2026, family="testing", summary="-",
        claims=(Claim("beauty", "value", 1.0, "static/cifar10", "T=4", "Table 1"),),
    )
"""


@pytest.fixture
def subject(plugin_file):
    path = plugin_file(FAULTS, "faults.py")

    def find(name):
        found = Subject(name, [path])
        found.__dict__["tasks"] = ["static/digits"]  # one task will do
        return found

    return find


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(checks, "SAMPLES", 64)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_a_good_method_passes(check, subject):
    check(subject("good"))


@pytest.mark.parametrize(
    ("name", "check", "message"),
    [
        ("wrong_shape", checks.builds_and_answers_on_every_task, r"outputs are \(3, 4, 10\), not \[T, B, ...\]"),
        ("not_numbers", checks.builds_and_answers_on_every_task, "something that is not a number"),
        ("too_many_steps", checks.builds_and_answers_on_every_task, r"steps_used is \[5, 5, 5\] of 4"),
        ("climbs", checks.loss_falls, "the loss went from"),
        ("remembers", checks.no_state_survives_a_batch, "answered differently after another batch"),
        ("varies", checks.same_seed_same_result, "two runs with seed 0 differ in"),
        ("not_binary", checks.spikes_are_what_it_declares, "other values than 0 and 1"),
        ("no_spikes", checks.spikes_are_what_it_declares, "declares 'binary' spikes, and 0 modules"),
        ("no_gradient", checks.gradients_are_finite, "no parameter has a gradient"),
        ("bad_gradient", checks.gradients_are_finite, "a gradient is not a number"),
        ("never_applies", checks.gradients_are_finite, "a step never applied an update"),
        ("hoards", checks.steps_leave_nothing_behind, r"\d+ tensors were alive after three steps, \d+ after six"),
    ],
)
def test_a_faulty_method_is_found_out(name, check, message, subject):
    with pytest.raises(AssertionError, match=message):
        check(subject(name))


def test_a_network_that_cannot_be_saved_is_found_out(subject):
    with pytest.raises(Exception, match="pickle|lambda"):
        checks.trained_network_can_be_saved(subject("cannot_be_saved"))


def test_a_claim_on_a_metric_that_does_not_exist_is_found_out(subject):
    with pytest.raises(ValueError, match="there is no metric 'beauty'"):
        checks.claims_can_be_measured(subject("claims_nonsense"))


def test_a_method_that_can_do_no_task_is_told(plugin_file, tiny):
    found = Subject("imageless", [plugin_file(tiny)])
    found.__dict__["tasks"] = []
    with pytest.raises(AssertionError, match="imageless can do none of the embedded tasks"):
        found.bind()


def test_the_tasks_of_a_subject_are_embedded_and_possible(plugin_file, tiny):
    path = plugin_file(tiny)
    assert "tiny/digits" in Subject("fine", [path]).tasks
    assert "tiny/digits" not in Subject("imageless", [path]).tasks


def test_options_in_brackets_reach_the_method():
    assert Subject("ottt[update=online]").bind().options.update == "online"


def test_a_variant_is_checked_on_the_tasks_that_its_options_fit():
    assert "detection/digit-scenes" in Subject("stl_snn").tasks
    voting = Subject("stl_snn[votes=2]").tasks
    assert "static/digits" in voting and "detection/digit-scenes" not in voting
