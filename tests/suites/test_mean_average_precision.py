import contextlib
import io
import math

import pytest
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


def test_a_detection_inside_an_object_that_is_not_asked_for_is_neither_right_nor_wrong():
    targets = torch.tensor([[[0, 0, 0, 6, 6.0], [-2, 8, 8, 16, 16]]])
    answers = silent(1)
    say(answers, 0, (0, 0, 6, 6), 0, 0.5)
    say(answers, 0, (9, 9, 16, 16), 0, 0.9)
    scorer = scored(answers, targets)
    assert scorer.compute() == {"map_50": 1.0, "map": 1.0}
    assert scorer.correct() == [True]


@pytest.mark.parametrize("seed", range(4))
def test_the_values_are_those_of_cocos_own_evaluation(seed):
    random = torch.Generator().manual_seed(seed)
    grid, images, kinds = fcos.Grid.of(64, 64, (8,)), 6, 3
    corner = torch.rand(images, 5, 2, generator=random) * 40
    size = 6 + torch.rand(images, 5, 2, generator=random) * 16
    kind = torch.randint(-4, kinds, (images, 5, 1), generator=random).float()
    targets = torch.cat([kind, corner, corner + size], -1)
    answers = torch.randn(images, len(grid.points), kinds + 5, generator=random)
    classes, distances = fcos.assign(targets, grid)
    positive = classes >= 0
    reach = (distances[positive] / 8 * (1 + 0.2 * torch.randn(int(positive.sum()), 4, generator=random))).clamp_min(0.05)
    answers[..., -5:-1][positive] = reach + torch.log(-torch.expm1(-reach))  # about right
    answers[positive, classes[positive]] += 3.0
    scorer = MeanAveragePrecision(grid, candidates=500)
    scorer.update(answers, targets)
    found = scorer.compute()
    assert 0.05 < found["map"] < found["map_50"] < 0.95
    wanted = coco_evaluation(fcos.detections(answers, grid, candidates=500), targets, kinds)
    assert (found["map"], found["map_50"]) == pytest.approx(wanted, abs=1e-6)


def coco_evaluation(found, targets, kinds):
    """mAP and mAP@.5 by pycocotools alone."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    truth, answers = COCO(), COCO()
    rows = [(image, row) for image, objects in enumerate(targets.tolist()) for row in objects if row[0] != -1]
    annotations = []
    for number, (image, (kind, x1, y1, x2, y2)) in enumerate(rows, 1):
        box, label = [x1, y1, x2 - x1, y2 - y1], int(kind if kind >= 0 else -2 - kind)
        annotations.append(
            {"id": number, "image_id": image, "category_id": label, "bbox": box, "area": box[2] * box[3], "iscrowd": int(kind < 0)}
        )
    pictures, categories = [{"id": n} for n in range(len(targets))], [{"id": n} for n in range(kinds)]
    truth.dataset = {"images": pictures, "categories": categories, "annotations": annotations}
    said = []
    for image, each in enumerate(found):
        for (x1, y1, x2, y2), score, label in zip(each.boxes.tolist(), each.scores.tolist(), each.classes.tolist(), strict=True):
            box = [x1, y1, x2 - x1, y2 - y1]
            said.append({"id": len(said) + 1, "image_id": image, "category_id": label, "bbox": box, "area": box[2] * box[3], "iscrowd": 0})
            said[-1]["score"] = score
    answers.dataset = {"images": pictures, "categories": categories, "annotations": said}
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        answers.createIndex()
        evaluation = COCOeval(truth, answers, "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats[0], evaluation.stats[1]
