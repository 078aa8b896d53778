"""Accuracy of the final answers, of the answers as of each step, and what early exit used."""

import pytest
import torch
from torch import nn

from harness.evaluate import curve_steps, evaluate
from harness.method import Prediction
from harness.task import Data


@pytest.fixture
def scripted(toy_task, toy_method):
    """Return a method whose answers at each step, and steps used, are given for the 6 test samples."""

    def make(right, used=None, extra=None):
        """``right [T][N]``: whether the answer as of a step is right."""

        class Scripted(toy_method):
            def predict(self, net, inputs):
                data = self.task.split("test")
                start = next(i for i in range(len(data)) if torch.equal(data.inputs[i], inputs[0]))
                part = slice(start, start + len(inputs))
                answers = torch.stack([torch.where(torch.tensor(step), data.targets, 1 - data.targets)[part] for step in right])
                outputs = nn.functional.one_hot(answers, 2).float()
                chosen = {name: torch.tensor(values)[part] for name, values in (extra or {}).items()}
                if used is None:
                    return Prediction(outputs, Prediction.at_every_step(outputs).steps_used, chosen)
                return Prediction(outputs, torch.tensor(used)[part], chosen)

        return Scripted(toy_task())

    return make


YES, NO = True, False
RIGHT = [[NO, NO, NO, NO, NO, YES], [YES, YES, NO, NO, NO, NO], [YES, YES, YES, YES, NO, NO]]


@pytest.mark.parametrize("batch_size", [1, 4, 256])
def test_the_curve_has_the_accuracy_as_of_each_step(scripted, batch_size):
    found = evaluate(scripted(RIGHT), nn.Identity(), "test", batch_size=batch_size)
    assert found.curve == pytest.approx([1 / 6, 2 / 6, 4 / 6])
    assert found.metrics == {"accuracy": pytest.approx(4 / 6)}
    assert found.correct == RIGHT[2]
    assert (found.steps_used, found.samples) == (3.0, 6)


@pytest.mark.parametrize("batch_size", [1, 4, 256])
def test_with_early_exit_the_answer_is_that_of_the_step_a_sample_left_at(scripted, batch_size):
    used = [1, 2, 3, 3, 3, 1]
    found = evaluate(scripted(RIGHT, used), nn.Identity(), "test", batch_size=batch_size)
    assert found.correct == [RIGHT[step - 1][sample] for sample, step in enumerate(used)] == [NO, YES, YES, YES, NO, YES]
    assert found.steps_used == pytest.approx(13 / 6)
    assert found.curve == pytest.approx([1 / 6, 2 / 6, 4 / 6])


def test_final_takes_each_samples_own_step():
    outputs = torch.arange(24.0).view(3, 4, 2)
    final = Prediction(outputs, torch.tensor([1, 3, 2, 3])).final()
    assert final.tolist() == [[0, 1], [18, 19], [12, 13], [22, 23]]
    assert torch.equal(Prediction.at_every_step(outputs).final(), outputs[-1])


def test_figures_per_sample_are_averaged_and_whole_ones_counted(scripted):
    extra = {"block": [0, 2, 2, 1, 0, 2], "energy": [0.5, 1.5, 0.5, 1.5, 0.5, 1.5]}
    found = evaluate(scripted(RIGHT, extra=extra), nn.Identity(), "test", batch_size=4)
    assert found.extra == pytest.approx({"block": 7 / 6, "energy": 1.0})
    assert found.counts == {"block": {"0": 2, "1": 1, "2": 3}}


def test_the_curve_can_be_left_out(scripted):
    assert evaluate(scripted(RIGHT), nn.Identity(), "test", every_step=False).curve == []


def test_another_way_to_answer_may_be_given(scripted):
    method = scripted(RIGHT)

    def first(net, inputs):
        return Prediction.at_every_step(method.predict(net, inputs).outputs[:1])

    found = evaluate(method, nn.Identity(), "test", first)
    assert found.metrics["accuracy"] == pytest.approx(1 / 6)
    assert found.steps_used == 1.0


@pytest.mark.parametrize("fails", [False, True])
def test_modules_are_left_in_the_mode_they_had(toy_task, toy_method, fails):
    class Fragile(toy_method):
        def predict(self, net, inputs):
            assert not any(module.training for module in net.modules())
            assert not torch.is_grad_enabled()
            if fails:
                raise RuntimeError("no")
            return super().predict(net, inputs)

    method = Fragile(toy_task())
    net = method.build()
    net.train()
    net[1].eval()
    before = [module.training for module in net.modules()]
    statistics = net[1].running_mean.clone()
    if fails:
        with pytest.raises(RuntimeError):
            evaluate(method, net, "test")
    else:
        evaluate(method, net, "test")
    assert [module.training for module in net.modules()] == before == [True, True, False, True, True]
    assert torch.equal(net[1].running_mean, statistics)


def test_the_splits_are_those_of_the_task(toy_task, toy_method):
    method = toy_method(toy_task())
    net = method.build()
    assert [evaluate(method, net, split).samples for split in ("train", "validation", "test")] == [11, 4, 6]


class TestAnswersPerStep:
    """A task whose steps each have a target: outputs [T, B, K], targets [B, T]."""

    @pytest.fixture
    def task(self, toy_task):
        class Each(toy_task):
            readout = "each"

            def load(self, split):
                inputs = super().load(split).inputs
                return Data(inputs, torch.arange(self.steps).expand(len(inputs), -1) % 2)

            def scorer(self):
                return Flat()

        class Flat:
            def __init__(self):
                self.right = []

            def update(self, outputs, targets):
                self.right += (outputs.argmax(-1) == targets).flatten().tolist()

            def compute(self):
                return {"accuracy": sum(self.right) / len(self.right)}

            def correct(self):
                return self.right

        return Each()

    def test_all_answers_are_scored_and_each_step_has_its_own_figure(self, task, toy_method):
        method = toy_method(task)
        ones = torch.tensor([0.0, 1.0])  # class 1 at every step, which is right at every other
        found = evaluate(method, nn.Linear(1, 1), "test", lambda net, x: Prediction.at_every_step(ones.expand(3, len(x), 2)))
        assert found.metrics["accuracy"] == pytest.approx(1 / 3)
        assert found.curve == [0.0, 1.0, 0.0] and len(found.correct) == 18


def test_a_curve_of_many_steps_is_thinned_out_and_ends_with_the_last():
    assert curve_steps(5) == [0, 1, 2, 3, 4]
    some = curve_steps(10_000)
    assert len(some) == len(set(some)) == 256 and some[-1] == 9_999 and some == sorted(some)
