import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics.classification import MulticlassJaccardIndex

from suites.mean_iou import MeanIou


def logits(answers, classes):
    return F.one_hot(torch.as_tensor(answers).long(), classes).movedim(-1, 1).float()


def scored(answers, targets, classes=3):
    scorer = MeanIou(classes)
    for answer, target in zip(answers.split(2), targets.split(2), strict=True):
        scorer.update(logits(answer, classes), target)
    return scorer


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 6))
def test_it_equals_the_jaccard_index_of_torchmetrics(seed, classes):
    random = torch.Generator().manual_seed(seed)
    targets = torch.randint(0, classes, (3, 6, 7), generator=random)
    answers = torch.where(
        torch.rand(targets.shape, generator=random) < 0.6, targets, torch.randint(0, classes, targets.shape, generator=random)
    )
    targets[torch.rand(targets.shape, generator=random) < 0.1] = 255
    wanted = MulticlassJaccardIndex(classes, ignore_index=255)(answers, targets)
    assert scored(answers, targets, classes).compute()["miou"] == pytest.approx(wanted.item(), abs=1e-6)


def test_an_example_by_hand():
    targets = torch.tensor([[[0, 0, 1, 1]]])
    answers = torch.tensor([[[0, 1, 1, 1]]])
    found = scored(answers, targets).compute()  # class 0: 1 of 2, class 1: 2 of 3, class 2 does not occur
    assert found == {"miou": pytest.approx((1 / 2 + 2 / 3) / 2), "pixel_accuracy": 0.75}


def test_a_class_that_is_answered_but_not_there_counts():
    found = scored(torch.tensor([[[0, 2]]]), torch.tensor([[[0, 0]]])).compute()
    assert found["miou"] == pytest.approx((1 / 2 + 0) / 2)


def test_ignored_pixels_count_nowhere():
    found = scored(torch.tensor([[[0, 2, 1]]]), torch.tensor([[[0, 255, 255]]])).compute()
    assert found == {"miou": 1.0, "pixel_accuracy": 1.0}


def test_an_image_is_right_from_a_mean_iou_of_three_quarters():
    targets = torch.tensor([[[0] * 4 + [1] * 4]] * 2)
    answers = targets.clone()
    answers[0, 0, 0] = 1  # IoU 3/4 and 4/5
    answers[1, 0, :2] = 1  # IoU 2/4 and 4/6
    assert scored(answers, targets).correct() == [True, False]


def test_without_a_counted_pixel_nothing_is_measured_and_nothing_right():
    scorer = scored(torch.zeros(1, 2, 2), torch.full((1, 2, 2), 255))
    assert all(math.isnan(value) for value in scorer.compute().values())
    assert scorer.correct() == [False]


def test_logits_that_are_not_numbers_are_an_answer_like_others():
    scorer = MeanIou(2)
    scorer.update(torch.full((1, 2, 1, 2), math.nan), torch.tensor([[[0, 1]]]))
    assert scorer.compute()["pixel_accuracy"] == 0.5
