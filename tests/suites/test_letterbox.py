import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from suites.letterbox import IGNORED, Letterbox

SIDES = st.integers(1, 300)


@st.composite
def placed(draw):
    """A letterbox, the size of an image, and boxes in it."""
    box = Letterbox(draw(st.integers(8, 200)), draw(st.integers(8, 200)))
    height, width = draw(SIDES), draw(SIDES)
    rows = []
    for _ in range(draw(st.integers(0, 4))):
        x = sorted(draw(st.tuples(st.floats(0, 1, width=32), st.floats(0, 1, width=32))))
        y = sorted(draw(st.tuples(st.floats(0, 1, width=32), st.floats(0, 1, width=32))))
        rows.append([x[0] * width, y[0] * height, x[1] * width, y[1] * height])
    return box, height, width, torch.tensor(rows, dtype=torch.float32).view(-1, 4)


@settings(deadline=None)
@given(placed())
def test_boxes_stay_on_the_canvas(given_):
    box, height, width, boxes = given_
    found = box.boxes(boxes, height, width)
    new_height, new_width = box.fitted(height, width)
    assert found.shape == boxes.shape
    assert (found >= 0).all()
    assert (found[:, 2] <= new_width + 1e-3).all() and (found[:, 3] <= new_height + 1e-3).all()
    assert (found[:, 2:] >= found[:, :2]).all()


@settings(deadline=None)
@given(placed())
def test_undoing_gives_the_boxes_back(given_):
    box, height, width, boxes = given_
    torch.testing.assert_close(box.undo(box.boxes(boxes, height, width), height, width), boxes, rtol=1e-4, atol=1e-3)


@settings(deadline=None)
@given(SIDES, SIDES, st.integers(8, 200), st.integers(8, 200))
def test_an_image_fits_and_touches_one_side(height, width, canvas_height, canvas_width):
    found = Letterbox(canvas_height, canvas_width).fitted(height, width)
    assert 1 <= found[0] <= canvas_height and 1 <= found[1] <= canvas_width
    assert found[0] == canvas_height or found[1] == canvas_width


@settings(max_examples=25, deadline=None)
@given(st.integers(20, 90), st.integers(20, 90), st.integers(0, 1000))
def test_a_bright_rectangle_lies_where_its_box_does(height, width, seed):
    random = torch.Generator().manual_seed(seed)
    x1, y1 = (int(torch.randint(0, side - 9, (1,), generator=random)) for side in (width, height))
    x2, y2 = (int(torch.randint(low + 8, side + 1, (1,), generator=random)) for low, side in ((x1, width), (y1, height)))
    image = torch.zeros(3, height, width, dtype=torch.uint8)
    image[:, y1:y2, x1:x2] = 255
    letterbox = Letterbox(128, 128)
    found = letterbox.image(image)[0] > 127
    ys, xs = found.nonzero().unbind(1)
    seen = torch.stack([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]).float()
    wanted = letterbox.boxes(torch.tensor([[x1, y1, x2, y2]]).float(), height, width)[0]
    assert (seen - wanted).abs().max() <= 1.01


def test_what_is_left_over_is_at_the_right_or_at_the_bottom():
    image = torch.full((3, 20, 40), 200, dtype=torch.uint8)
    found = Letterbox(32, 32).image(image)
    assert found.dtype == torch.uint8 and found.shape == (3, 32, 32)
    assert (found[:, :16] == 200).all() and (found[:, 16:] == 0).all()
    found = Letterbox(32, 32).image(image.transpose(1, 2))
    assert (found[..., :16] == 200).all() and (found[..., 16:] == 0).all()


def test_a_mask_keeps_its_classes_and_is_ignored_beside_the_image():
    mask = torch.zeros(20, 40, dtype=torch.uint8)
    mask[:, 20:] = 7
    found = Letterbox(32, 32).mask(mask)
    assert set(found[:16].unique().tolist()) == {0, 7}
    assert (found[:16, :16] == 0).all() and (found[:16, 16:] == 7).all()
    assert (found[16:] == IGNORED).all()


def test_an_image_of_the_right_size_is_left_alone():
    image = torch.randint(0, 256, (3, 24, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(Letterbox(24, 32).image(image), image)


@pytest.mark.parametrize(("height", "width"), [(1, 300), (300, 1)])
def test_even_a_line_keeps_a_pixel(height, width):
    assert Letterbox(16, 16).image(torch.zeros(3, height, width, dtype=torch.uint8)).shape == (3, 16, 16)
