import math

import pytest
import torch
import torch.nn.functional as F
from torchvision.ops import generalized_box_iou

from suites import fcos

GRID = fcos.Grid.of(32, 24, (4, 8))
CLASSES = 3


def scene(seed=0, batch=4, most=3):
    """Random whole-pixel boxes inside 32x24; the last image is empty."""
    random = torch.Generator().manual_seed(seed)
    size = torch.randint(6, 20, (batch, most, 2), generator=random).float()
    corner = (torch.rand(batch, most, 2, generator=random) * (torch.tensor([24.0, 32.0]) - size)).floor()
    kind = torch.randint(-1, CLASSES, (batch, most, 1), generator=random).float()
    kind[-1] = -1
    return torch.cat([kind, corner, corner + size], -1)


def plain_assignment(targets):
    """Location by location, object by object."""
    classes = torch.full((len(targets), len(GRID.points)), -1)
    owners = torch.full_like(classes, -1)
    for b, objects in enumerate(targets):
        for place, ((x, y), stride) in enumerate(zip(GRID.points.tolist(), GRID.stride.tolist(), strict=True)):
            smallest = math.inf
            for m, (kind, x1, y1, x2, y2) in enumerate(objects.tolist()):
                if kind < 0 or not (x1 < x < x2 and y1 < y < y2):
                    continue
                if abs(x - (x1 + x2) / 2) >= 1.5 * stride or abs(y - (y1 + y2) / 2) >= 1.5 * stride:
                    continue
                if (max(x2 - x1, y2 - y1) <= 16) != (stride == 4):
                    continue
                if (x2 - x1) * (y2 - y1) < smallest:
                    smallest, classes[b, place], owners[b, place] = (x2 - x1) * (y2 - y1), int(kind), m
    return classes, owners


def perfect(targets, confidence=8.0):
    """Answers that say exactly what is true at the locations that are responsible."""
    classes, distances = fcos.assign(targets, GRID)
    positive = classes >= 0
    logits = torch.full((*classes.shape, CLASSES), -confidence)
    logits[positive] += 2 * confidence * F.one_hot(classes[positive], CLASSES)
    ratio = (distances / GRID.stride[:, None]).clamp_min(1e-3)
    central = torch.where(positive, fcos.centreness(distances.clamp_min(1e-3)).clamp(1e-4, 1 - 1e-4), 0.5)
    return torch.cat([logits, ratio + torch.log(-torch.expm1(-ratio)), central.logit()[..., None]], -1)


def test_locations_are_the_centres_of_cells_row_by_row():
    assert GRID.points[:7].tolist() == [[2, 2], [6, 2], [10, 2], [14, 2], [18, 2], [22, 2], [2, 6]]
    assert GRID.points[48:52].tolist() == [[4, 4], [12, 4], [20, 4], [4, 12]]
    assert GRID.stride.tolist() == [4.0] * 48 + [8.0] * 12


def test_locations_are_in_the_order_of_the_detector_head():
    level = torch.zeros(1, 1, 1, 8, 6)
    level[..., 5, 2] = 1  # the cell in row 5, column 2
    place = level.flatten(3).squeeze().argmax().item()
    assert GRID.points[place].tolist() == [2.5 * 4, 5.5 * 4]


def test_an_image_smaller_than_a_stride_is_refused():
    with pytest.raises(ValueError, match="no location at stride 8"):
        fcos.Grid.of(7, 32, (4, 8))


@pytest.mark.parametrize("seed", range(5))
def test_assignment_equals_a_plain_loop(seed):
    targets = scene(seed)
    classes, distances = fcos.assign(targets, GRID)
    wanted, owners = plain_assignment(targets)
    assert torch.equal(classes, wanted)
    for b, place in (wanted >= 0).nonzero().tolist():
        x, y = GRID.points[place]
        x1, y1, x2, y2 = targets[b, owners[b, place], 1:]
        assert distances[b, place].tolist() == [x - x1, y - y1, x2 - x, y2 - y]


def test_a_mirrored_image_has_mirrored_assignments():
    targets = scene(1)
    mirrored = targets.clone()
    mirrored[..., 1], mirrored[..., 3] = 24 - targets[..., 3], 24 - targets[..., 1]
    columns = torch.cat([torch.arange(48).view(8, 6).flip(1).flatten(), 48 + torch.arange(12).view(4, 3).flip(1).flatten()])
    classes, distances = fcos.assign(targets, GRID)
    flipped, turned = fcos.assign(mirrored, GRID)
    assert torch.equal(flipped[:, columns], classes)
    positive = classes >= 0
    assert torch.equal(turned[:, columns][positive], distances[positive][:, [2, 1, 0, 3]])


def test_every_object_whose_shorter_side_is_over_half_the_longer_has_a_location():
    for height in range(9, 21):
        for width in range(height // 2 + 1, 2 * height):
            if max(width, height) > 20 or 2 * min(width, height) <= max(width, height):
                continue
            for x in range(24 - width + 1):
                targets = torch.tensor([[[0.0, x, 3, x + width, 3 + height]]])
                assert (fcos.assign(targets, GRID)[0] >= 0).any(), (height, width, x)


def test_centreness_is_one_at_the_centre_and_falls_to_the_sides():
    values = fcos.centreness(torch.tensor([[4.0, 3, 4, 3], [1, 3, 4, 3], [1, 2, 4, 8], [0, 3, 4, 3]]))
    torch.testing.assert_close(values, torch.tensor([1.0, 0.5, 0.25, 0.0]))


def test_the_loss_equals_its_formula():
    targets = scene(2).double()
    random = torch.Generator().manual_seed(0)
    answers = torch.randn(4, len(GRID.points), CLASSES + 5, generator=random)
    classes, owners = plain_assignment(targets)
    focal = bce = miss = weights = 0.0
    count = int((classes >= 0).sum())
    for b in range(4):
        for place in range(len(GRID.points)):
            answer = answers[b, place].double()
            for k in range(CLASSES):
                p = torch.sigmoid(answer[k])
                focal += -0.5 * (1 - p) * p.log() if classes[b, place] == k else -0.5 * p * (1 - p).log()
            if classes[b, place] < 0:
                continue
            (x, y), stride = GRID.points[place].double(), GRID.stride[place].double()
            true = targets[b, owners[b, place], 1:]
            left, top, right, bottom = x - true[0], y - true[1], true[2] - x, true[3] - y
            weight = (min(left, right) / max(left, right) * min(top, bottom) / max(top, bottom)).sqrt()
            reach = stride * torch.log1p(answer[3:7].exp())
            box = torch.stack([x - reach[0], y - reach[1], x + reach[2], y + reach[3]])
            miss += weight * (1 - generalized_box_iou(box[None], true[None])[0, 0])
            weights += weight
            p = torch.sigmoid(answer[7])
            bce += -weight * p.log() - (1 - weight) * (1 - p).log()
    wanted = 3 * focal / count + miss / weights + bce / count
    torch.testing.assert_close(fcos.loss(answers, targets.float(), GRID).double(), wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("most", [0, 2])
def test_images_without_objects_have_a_finite_loss_and_gradient(most):
    answers = torch.randn(2, len(GRID.points), CLASSES + 5, requires_grad=True)
    found = fcos.loss(answers, torch.full((2, most, 5), -1.0), GRID)
    found.backward()
    assert found.isfinite()
    assert answers.grad.isfinite().all()
    assert (answers.grad[..., :CLASSES] > 0).all()  # every class score is to fall
    assert (answers.grad[..., CLASSES:] == 0).all()


def test_padding_changes_nothing():
    targets = scene(3)
    padded = torch.cat([torch.full((4, 2, 5), -1.0), targets], 1)
    answers = torch.randn(4, len(GRID.points), CLASSES + 5)
    assert torch.equal(fcos.loss(answers, targets, GRID), fcos.loss(answers, padded, GRID))


def test_label_smoothing_leaves_the_background_at_zero():
    answers = torch.randn(2, len(GRID.points), CLASSES + 5)
    empty = torch.full((2, 1, 5), -1.0)
    assert torch.equal(fcos.loss(answers, empty, GRID, 0.1), fcos.loss(answers, empty, GRID))
    assert not torch.equal(fcos.loss(answers, scene()[:2], GRID, 0.1), fcos.loss(answers, scene()[:2], GRID))


def test_perfect_answers_are_decoded_to_the_true_boxes():
    targets = torch.tensor([[[2, 1, 2, 11, 14.0], [0, 12, 20, 22, 30]], [[1, 3, 5, 23, 23], [-1] * 5], [[-1] * 5] * 2])
    found = fcos.detections(perfect(targets), GRID)
    for detected, rows in zip(found, targets, strict=True):
        rows = rows[rows[:, 0] >= 0]
        order = detected.boxes[:, 0].argsort()
        torch.testing.assert_close(detected.boxes[order], rows[:, 1:], rtol=0, atol=1e-3)
        assert detected.classes[order].tolist() == rows[:, 0].tolist()


def test_perfect_answers_have_almost_no_loss_of_class_and_box():
    targets = scene(4)
    answers = perfect(targets)
    classes, distances = fcos.assign(targets, GRID)
    positive = classes >= 0
    weight = fcos.centreness(distances[positive])
    entropy = F.binary_cross_entropy(weight, weight)  # what is left: centre-ness is a soft target
    torch.testing.assert_close(fcos.loss(answers, targets, GRID), entropy, rtol=0, atol=1e-2)


def test_detections_come_best_first_and_answers_that_are_not_numbers_are_left_out():
    answers = torch.randn(3, len(GRID.points), CLASSES + 5) + 1
    answers[1] = math.nan
    found = fcos.detections(answers, GRID)
    assert len(found[1].boxes) == 0
    for detected in (found[0], found[2]):
        assert (detected.scores.diff() <= 0).all() and len(detected.scores) > 0


def test_an_object_that_is_not_asked_for_claims_no_location():
    targets = scene(0)
    classes, _ = fcos.assign(targets, GRID)
    hidden = targets.clone()
    hidden[..., 0] = -2 - targets[..., 0].clamp_min(0)
    assert (classes >= 0).any()
    assert (fcos.assign(hidden, GRID)[0] == -1).all()


def test_no_more_than_the_best_are_answered():
    answers = torch.full((1, len(GRID.points), CLASSES + 5), 2.0)
    answers[..., -5:-1] = -9  # boxes of a hundredth of a pixel: none overlaps another
    everything = fcos.detections(answers, GRID, candidates=1000, most=1000)[0]
    assert len(everything.scores) == len(GRID.points) * CLASSES
    assert len(fcos.detections(answers, GRID, candidates=1000, most=7)[0].scores) == 7
    assert len(fcos.detections(answers, GRID, candidates=5)[0].scores) == 5
