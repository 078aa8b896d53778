import math

import torch
import torch.nn.functional as F

from suites import fcos
from suites.mean_average_precision import MeanAveragePrecision

GRID = fcos.Grid.of(16, 16, (4,))  # 16 locations at 2, 6, 10, 14


def silent(batch):
    answers = torch.full((batch, 16, 7), -9.0)
    answers[..., 2:6] = 1.0
    return answers


def say(answers, sample, box, kind, probability, centre=9.0):
    """Let the location nearest to the centre of ``box`` answer it."""
    x1, y1, x2, y2 = box
    place = (GRID.points - torch.tensor([(x1 + x2) / 2, (y1 + y2) / 2])).square().sum(1).argmin()
    x, y = GRID.points[place]
    reach = torch.stack([x - x1, y - y1, x2 - x, y2 - y]) / 4
    answers[sample, place, 2:6] = reach + torch.log(-torch.expm1(-reach))  # inverse of softplus
    answers[sample, place, kind] = torch.tensor(probability).logit()
    answers[sample, place, 6] = centre


def scored(answers, targets):
    scorer = MeanAveragePrecision(GRID)
    for a, t in zip(answers.split(1), targets.split(1), strict=True):  # batch by batch
        scorer.update(a, t)
    return scorer


def test_perfect_detections_score_one():
    targets = torch.tensor([[[0, 0, 0, 7, 6.0], [1, 9, 9, 15, 16]], [[1, 4, 4, 12, 12], [-1] * 5]])
    answers = silent(2)
    for b, rows in enumerate(targets.tolist()):
        for kind, *box in rows:
            if kind >= 0:
                say(answers, b, box, int(kind), 0.9)
    scorer = scored(answers, targets)
    assert scorer.compute() == {"map_50": 1.0, "map": 1.0}
    assert scorer.correct() == [True, True, True]


def test_a_box_of_iou_0_6_counts_at_3_of_10_thresholds():
    targets = torch.tensor([[[0, 0, 0, 10, 10.0]]])
    answers = silent(1)
    say(answers, 0, (0, 0, 6.1, 10), 0, 0.9)  # IoU 0.61: right at 0.5, 0.55 and 0.6
    found = scored(answers, targets).compute()
    assert found["map_50"] == 1.0
    assert math.isclose(found["map"], 0.3, abs_tol=1e-6)


def test_a_better_scored_false_alarm_halves_the_precision():
    targets = torch.tensor([[[0, 0, 0, 6, 6.0]]])
    answers = silent(1)
    say(answers, 0, (0, 0, 6, 6), 0, 0.5)
    say(answers, 0, (10, 10, 16, 16), 0, 0.9)
    assert math.isclose(scored(answers, targets).compute()["map_50"], 0.5, abs_tol=1e-6)


def test_an_object_whose_best_detection_has_another_class_is_not_found():
    targets = torch.tensor([[[0, 0, 0, 6, 6.0]]])
    answers = silent(1)
    say(answers, 0, (0, 0, 6, 6), 0, 0.5)
    assert scored(answers, targets).correct() == [True]
    say(answers, 0, (0, 0, 6, 6), 1, 0.6)  # the same location answers both classes
    assert scored(answers, targets).correct() == [False]


def test_a_timid_detection_finds_nothing():
    targets = torch.tensor([[[0, 0, 0, 6, 6.0]]])
    answers = silent(1)
    say(answers, 0, (0, 0, 6, 6), 0, 0.08)  # score sqrt(0.08) = 0.283
    assert scored(answers, targets).correct() == [False]


def test_a_misplaced_detection_finds_nothing():
    targets = torch.tensor([[[0, 0, 0, 6, 6.0]]])
    answers = silent(1)
    say(answers, 0, (0, 0, 2.9, 6), 0, 0.9)  # IoU 0.483
    assert scored(answers, targets).correct() == [False]


def test_silence_scores_zero_and_images_without_objects_are_no_items():
    targets = torch.tensor([[[0, 0, 0, 6, 6.0]], [[-1] * 5]])
    scorer = scored(silent(2), targets)
    assert scorer.compute() == {"map_50": 0.0, "map": 0.0}
    assert scorer.correct() == [False]


def test_without_any_object_the_precision_is_not_a_number():
    scorer = scored(silent(1), torch.full((1, 1, 5), -1.0))
    assert math.isnan(scorer.compute()["map_50"])
    assert scorer.correct() == []


def test_false_alarms_in_empty_images_count():
    targets = torch.tensor([[[0, 0, 0, 6, 6.0]], [[-1] * 5]])
    answers = silent(2)
    say(answers, 0, (0, 0, 6, 6), 0, 0.5)
    say(answers, 1, (0, 0, 6, 6), 0, 0.9)
    assert math.isclose(scored(answers, targets).compute()["map_50"], 0.5, abs_tol=1e-6)


def test_the_inverse_of_softplus_used_here_is_one():
    reach = torch.tensor([0.3, 1.0, 4.0])
    torch.testing.assert_close(F.softplus(reach + torch.log(-torch.expm1(-reach))), reach)
