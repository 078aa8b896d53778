"""A trained network on longer sequences than it was trained on."""

import pytest
import torch

from harness.registry import Registries
from harness.runner import extrapolate
from harness.task import Budget
from methods.ann import Ann
from methods.bntt import Bntt
from methods.stbp import Stbp
from suites.copy_memory import CopyMemory
from suites.longer import TIMES, longer
from suites.sequences import DigitsPixels


@pytest.fixture
def task():
    return CopyMemory(options={"length": 5})


def test_the_network_is_scored_on_every_length(task):
    torch.manual_seed(0)
    method = Stbp(task)
    found = extrapolate(method, method.build())
    assert list(found) == ["length x2", "length x4", "length x8", "length x15"]
    assert all(0 <= value <= 1 for value in found.values())


def test_a_network_that_needs_no_length_is_as_good_at_any(task):
    class Echo(torch.nn.Module):
        """Knows the delay: it looks back by as much as the sequence is long."""

        def forward(self, x):
            back = len(x) - 10
            shown = torch.zeros(*x.shape[:2], 9)
            shown[back:] = x[:10, :, :9]
            return shown

    found = extrapolate(Ann(task), Echo())
    assert set(found.values()) == {1.0}


def test_the_method_keeps_its_own_task_and_steps(task):
    method = Stbp(task)
    extrapolate(method, method.build())
    assert method.task is task and method.steps == 25


@pytest.mark.parametrize(
    ("early_exit", "reason"),
    [
        (False, "ValueError: BNTT was built for 64 time steps and has no statistics for more; 128 were given"),
        (True, "ValueError: it answered after 64 of 128 steps, those that it was made for"),
    ],
)
def test_a_network_made_for_one_length_says_so(early_exit, reason):
    class Pixels(DigitsPixels):
        def extrapolations(self):
            return {"twice": Twice()}

    class Twice(DigitsPixels):
        steps = 128

        def load(self, split):
            data = super().load(split)
            return type(data)(data.inputs.repeat(1, 2, 1)[:20], data.targets[:20])

    method = Bntt(Pixels(), {"early_exit": early_exit})
    assert extrapolate(method, method.build()) == {"twice": reason}


def test_longer_tasks_are_the_same_but_for_length_and_fewer_samples(task):
    found = longer(task, 5)
    assert [other.options.length for other in found.values()] == [5 * times for times in TIMES]
    assert [len(other.split("test")) for other in found.values()] == [128, 64, 32, 17]
    assert all(other.budget.backbone.kind == "sequence" for other in found.values())


def test_a_budget_with_few_test_samples_keeps_them_few(task):
    task.budget = Budget(task.budget.training, task.budget.backbone, test_samples=50)
    assert [len(other.split("test")) for other in longer(task, 5).values()] == [50, 50, 32, 17]


@pytest.mark.parametrize("name", ["sequences/adding", "sequences/copy-memory", "sequences/listops"])
def test_generated_tasks_can_be_made_longer(name):
    found = Registries().task(name).extrapolations()
    assert len(found) == 4
    assert {other.card.name for other in found.values()} == {name}
