import math

import numpy as np
import pytest
import torch
from sklearn.metrics import mean_absolute_error, mean_squared_error, r2_score
from torchmetrics.regression import RelativeSquaredError

from harness.plugin import UsageError
from methods.bloctrain import BlocTrain
from methods.stbp import Stbp
from suites.adding import Adding
from suites.numeric import Errors


@pytest.fixture
def answers():
    random = np.random.RandomState(0)
    targets = random.randn(50, 6) * [1, 2, 3, 4, 5, 6] + 3
    return torch.tensor(targets + random.randn(50, 6)), torch.tensor(targets)


@pytest.mark.parametrize("size", [1, 7, 50])
def test_errors_are_those_of_scikit_learn(answers, size):
    outputs, targets = answers
    scorer = Errors("rrse", 0.5)
    for part in range(0, 50, size):
        scorer.update(outputs[part : part + size], targets[part : part + size].view(-1, 2, 3))
    found = scorer.compute()
    assert next(iter(found)) == "rrse"
    assert found["mse"] == pytest.approx(mean_squared_error(targets, outputs))
    assert found["mae"] == pytest.approx(mean_absolute_error(targets, outputs))
    assert found["r2"] == pytest.approx(r2_score(targets, outputs))
    spread = ((targets - targets.mean(0)) ** 2).sum()
    assert found["rrse"] == pytest.approx(math.sqrt(((targets - outputs) ** 2).sum() / spread))


def test_the_relative_error_of_one_number_is_that_of_torchmetrics(answers):
    outputs, targets = (part[:, :1] for part in answers)
    scorer = Errors("mse", 0.5)
    scorer.update(outputs, targets)
    assert scorer.compute()["rrse"] == pytest.approx(RelativeSquaredError(squared=False)(outputs[:, 0], targets[:, 0]).item())


def test_answering_the_mean_has_a_relative_error_of_1_and_explains_nothing(answers):
    _, targets = answers
    scorer = Errors("mse", 0.5)
    scorer.update(targets.mean(0).expand_as(targets), targets)
    assert scorer.compute()["rrse"] == pytest.approx(1)
    assert scorer.compute()["r2"] == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("answer", [5.0, 5.5])
def test_a_number_that_never_changes_is_scored_as_by_scikit_learn(answer):
    targets, outputs = torch.full((4, 1), 5.0), torch.full((4, 1), answer)
    scorer = Errors("mse", 0.5)
    scorer.update(outputs, targets)
    assert scorer.compute()["r2"] == r2_score(targets, outputs)
    assert scorer.compute()["rrse"] == (0 if answer == 5 else math.inf)


def test_a_sample_is_right_within_the_tolerance():
    scorer = Errors("mse", 0.04)
    scorer.update(torch.tensor([[1.0], [1.0], [1.0]]), torch.tensor([[1.03], [0.95], [1.0]]))
    assert scorer.correct() == [True, False, True]


@pytest.mark.parametrize("answer", [math.nan, math.inf, -math.inf])
def test_an_answer_that_is_no_number_is_infinitely_wrong(answer):
    scorer = Errors("mse", 0.04)
    scorer.update(torch.tensor([[answer], [1.0]]), torch.tensor([[1.0], [1.0]]))
    assert scorer.compute()["mse"] == math.inf
    assert scorer.correct() == [False, True]


def test_label_smoothing_is_refused_as_there_are_no_labels():
    with pytest.raises(UsageError, match="label_smoothing"):
        Adding().loss(torch.zeros(2, 1), torch.zeros(2, 1), 0.1)


def test_a_method_that_cannot_answer_with_numbers_says_why():
    assert "no stages to cut" in BlocTrain.supports(Adding())


def test_the_head_answers_with_as_many_numbers_as_it_is_told():
    method = Stbp(Adding())
    with torch.no_grad():
        assert method.predict(method.build().eval(), torch.rand(3, 100, 2)).outputs.shape == (100, 3, 1)
