import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.ops import box_iou

from suites import boxes, digits
from suites.scenes import Scenery, enlarged, iou


@pytest.fixture(scope="module")
def composed():
    pixels, labels = digits.images("validation")
    return Scenery().compose(pixels, labels, 60, seed=1)


def rows_of(target):
    return target[target[:, 0] >= 0]


def test_scenes_hold_one_to_three_digits(composed):
    counts = (composed[1][..., 0] >= 0).sum(1)
    assert set(counts.tolist()) == {1, 2, 3}


def test_boxes_are_inside_the_canvas_and_within_the_sizes_asked_for(composed):
    targets = boxes.checked(composed[1], 10, 32, 32)
    for target in targets:
        height = rows_of(target)[:, 4] - rows_of(target)[:, 2]
        assert ((height >= 10) & (height <= 18)).all()


def test_boxes_overlap_no_more_than_allowed(composed):
    for target in composed[1]:
        corners = rows_of(target)[:, 1:]
        assert (box_iou(corners, corners).triu(1) <= 0.1 + 1e-6).all()


def test_nothing_is_drawn_outside_the_boxes_and_every_box_holds_ink(composed):
    for scene, target in zip(*composed, strict=True):
        outside = scene[0].clone()
        for _, x1, y1, x2, y2 in rows_of(target).int().tolist():
            assert scene[0, y1:y2, x1:x2].amax() >= 0.6
            outside[y1:y2, x1:x2] = 0
        assert (outside == 0).all()


def test_composition_is_deterministic_and_depends_on_the_seed():
    pixels, labels = digits.images("validation")
    first, again, other = (Scenery().compose(pixels, labels, 5, seed=s)[0] for s in (7, 7, 8))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_digits_are_dealt_evenly():
    pixels = torch.ones(10, 8, 8)
    _, targets = Scenery(canvas=64, overlap=1.0).compose(pixels, torch.arange(10), 50, seed=0)
    counts = targets[..., 0][targets[..., 0] >= 0].long().bincount(minlength=10)
    assert counts.max() - counts.min() <= 1


@given(st.lists(st.integers(0, 30), min_size=8, max_size=8))
def test_overlap_is_that_of_torchvision(numbers):
    a, b = np.array(numbers).reshape(2, 4)
    a[2:] += a[:2] + 1
    b[2:] += b[:2] + 1
    wanted = box_iou(torch.tensor(a[None]).double(), torch.tensor(b[None]).double()).item()
    assert iou(a, b) == pytest.approx(wanted)


@pytest.mark.parametrize("height", [10, 13, 18])
def test_every_digit_is_cut_to_its_ink_and_over_half_as_wide_as_high(height):
    for image in digits.images("validation")[0]:
        glyph = enlarged(image, height)
        assert glyph.shape[0] == height and 2 * glyph.shape[1] > height
        assert glyph.max() == 1 and glyph.min() >= 0
        assert glyph[0].max() > 0 and glyph[-1].max() > 0
