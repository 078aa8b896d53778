import numpy as np
import pytest
import torch
from PIL import Image
from voc_tree import HEIGHT, WIDTH, picture

from harness.plugin import DataError
from suites.annotated_images import AnnotatedImages, decode, padded, size_of
from suites.letterbox import Letterbox

BOX = Letterbox(HEIGHT, WIDTH)


def mask_file(path, values, mode="L"):
    Image.fromarray(np.asarray(values, np.uint8), mode="L").convert(mode).save(path)
    return path


def test_an_image_is_decoded_as_pillow_does(tmp_path):
    path = picture(tmp_path / "a.png")
    assert torch.equal(decode(path), torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1))
    assert size_of(path) == (HEIGHT, WIDTH)


def test_grey_and_transparent_images_get_three_channels(tmp_path):
    for mode in ("L", "LA", "RGBA", "CMYK"):
        ending = "jpg" if mode == "CMYK" else "png"
        Image.new(mode, (5, 4)).save(tmp_path / f"{mode}.{ending}")
        assert decode(tmp_path / f"{mode}.{ending}").shape == (3, 4, 5)


@pytest.mark.parametrize("ending", ["jpg", "png"])
def test_a_truncated_image_is_named(tmp_path, ending):
    path = picture(tmp_path / f"cut.{ending}")
    path.write_bytes(path.read_bytes()[:-800])
    with pytest.raises(DataError, match=rf"cut\.{ending} cannot be read as an image"):
        decode(path)


def test_what_is_no_image_is_named(tmp_path):
    path = tmp_path / "text.jpg"
    path.write_text("hello")
    for read in (decode, size_of):
        with pytest.raises(DataError, match=r"^text\.jpg cannot be read as an image"):
            read(path)


def test_a_missing_image_is_named(tmp_path):
    with pytest.raises(DataError, match=r"gone\.jpg cannot be read as an image \(No such file"):
        decode(tmp_path / "gone.jpg")


def test_targets_are_filled_up_to_the_longest():
    rows = padded([torch.ones(2, 5), torch.empty(0, 5)])
    assert rows.tolist() == [[[1] * 5, [1] * 5], [[-1] * 5, [-1] * 5]]
    assert padded([torch.empty(0, 5)]).shape == (1, 1, 5)


def test_images_come_with_their_boxes(tmp_path):
    paths = [picture(tmp_path / f"{n}.png", n) for n in range(2)]
    boxes = torch.arange(20.0).view(2, 2, 5)
    data = AnnotatedImages(paths, boxes, BOX)
    image, target = data[1]
    assert torch.equal(image, decode(paths[1])) and torch.equal(target, boxes[1])
    assert torch.equal(data.targets, boxes) and len(data) == 2


def test_images_come_with_their_masks(tmp_path):
    values = np.zeros((HEIGHT, WIDTH), np.uint8)
    values[5:9, 6:20] = 2
    data = AnnotatedImages([picture(tmp_path / "a.png")], [mask_file(tmp_path / "m.png", values)], BOX, classes=3)
    assert torch.equal(data[0][1], torch.from_numpy(values))
    assert torch.equal(data.targets[0], torch.from_numpy(values))


def test_a_binary_mask_has_one_object_class_whatever_its_values(tmp_path):
    values = np.zeros((HEIGHT, WIDTH), np.uint8)
    values[0, :3] = (1, 200, 255)
    data = AnnotatedImages([picture(tmp_path / "a.png")], [mask_file(tmp_path / "m.png", values)], BOX, binary=True)
    assert data[0][1].unique().tolist() == [0, 1] and data[0][1].sum() == 3


def test_a_mask_of_another_size_is_refused(tmp_path):
    mask = mask_file(tmp_path / "m.png", np.zeros((HEIGHT, WIDTH + 1)))
    with pytest.raises(DataError, match=r"mask m\.png is 40 high and 61 wide, its image 40 high and 60 wide"):
        AnnotatedImages([picture(tmp_path / "a.png")], [mask], BOX, classes=3)[0]


def test_a_mask_with_an_unknown_class_is_refused(tmp_path):
    mask = mask_file(tmp_path / "m.png", np.full((HEIGHT, WIDTH), 3))
    with pytest.raises(DataError, match=r"mask m\.png holds class 3; allowed: 0 to 2, and 255"):
        AnnotatedImages([picture(tmp_path / "a.png")], [mask], BOX, classes=3)[0]


def test_a_mask_of_colours_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"a\.png holds colours \(RGB\)"):
        AnnotatedImages([picture(tmp_path / "b.png")], [picture(tmp_path / "a.png")], BOX, classes=3)[0]


def test_every_image_needs_a_target(tmp_path):
    with pytest.raises(ValueError, match="1 images but 0 targets"):
        AnnotatedImages([tmp_path / "a.png"], [], BOX)
