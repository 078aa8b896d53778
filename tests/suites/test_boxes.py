import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.ops import box_area

from suites import boxes

corner = st.tuples(st.integers(0, 60), st.integers(0, 60), st.integers(1, 40), st.integers(1, 40))
place = st.tuples(st.integers(-20, 120), st.integers(-20, 120))


def box_of(corner):
    x, y, width, height = corner
    return torch.tensor([x, y, x + width, y + height], dtype=torch.float64)


@given(corner, place)
def test_decoding_undoes_encoding(corner, place):
    box, point = box_of(corner), torch.tensor(place, dtype=torch.float64) / 2
    assert torch.equal(boxes.decode(point, boxes.encode(point, box)), box)


@given(corner, place)
def test_mirroring_swaps_left_and_right(corner, place):
    box, point = box_of(corner), torch.tensor(place, dtype=torch.float64) / 2
    left, top, right, bottom = boxes.encode(point, box)
    mirrored = boxes.encode(torch.tensor([100 - point[0], point[1]]), torch.stack([100 - box[2], box[1], 100 - box[0], box[3]]))
    assert torch.equal(mirrored, torch.stack([right, top, left, bottom]))


@given(corner, place)
def test_distances_are_positive_exactly_inside(corner, place):
    box, (x, y) = box_of(corner), (place[0] / 2, place[1] / 2)
    inside = bool(box[0] < x < box[2] and box[1] < y < box[3])
    assert bool((boxes.encode(torch.tensor([x, y], dtype=torch.float64), box) > 0).all()) == inside


@given(corner)
def test_areas_are_those_of_torchvision(corner):
    box = box_of(corner)
    assert boxes.area(box) == box_area(box[None])[0]


def test_good_targets_and_images_without_objects_pass():
    targets = torch.tensor([[[3, 0, 0, 32, 20], [-1, -1, -1, -1, -1]], [[-1.0] * 5] * 2])
    assert boxes.checked(targets, 10, 20, 32) is targets
    assert boxes.checked(torch.zeros(4, 0, 5), 10, 20, 32).shape == (4, 0, 5)


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        ([1, 5, 5, 5, 9], "no area"),
        ([1, 9, 5, 5, 9], "no area"),
        ([1, float("nan"), 5, 5, 9], "no area"),
        ([1, -1, 5, 5, 9], "leaves the image of 20x32"),
        ([1, 0, 5, 5, 21], "leaves the image of 20x32"),
        ([10, 0, 5, 5, 9], "class is not a whole number from 0 to 9"),
        ([1.5, 0, 5, 5, 9], "class is not a whole number"),
        ([-12, 0, 5, 5, 9], "class is not a whole number"),
    ],
)
def test_degenerate_boxes_are_refused_by_name(row, fault):
    targets = torch.tensor([[[0, 1, 1, 2, 2]] * 2, [[0, 1, 1, 2, 2], row]], dtype=torch.float32)
    with pytest.raises(ValueError, match=f"object 1 of sample 1.*{fault}"):
        boxes.checked(targets, 10, 20, 32)


def test_targets_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"\[N, M, 5\]"):
        boxes.checked(torch.zeros(3, 4), 10, 20, 32)


def test_an_object_that_is_not_asked_for_is_a_good_one():
    targets = torch.tensor([[[-2, 0, 0, 5, 9], [-11, 0, 0, 5, 9.0]]])
    assert boxes.checked(targets, 10, 20, 32) is targets


def test_an_object_that_is_not_asked_for_needs_a_good_box_too():
    with pytest.raises(ValueError, match="no area"):
        boxes.checked(torch.tensor([[[-2, 5, 0, 5, 9.0]]]), 10, 20, 32)
