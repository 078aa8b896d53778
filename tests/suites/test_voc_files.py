import pytest
import torch
from voc_tree import HEIGHT, WIDTH, annotation, devkit, picture, thing, write

from harness.plugin import DataError
from suites import voc_files
from suites.letterbox import Letterbox

BOX = Letterbox(HEIGHT // 2, WIDTH // 2)


def test_a_list_names_images_and_annotations_in_its_order(tmp_path):
    base = devkit(tmp_path, "2012", {"train": ["b", "a"]})
    assert voc_files.listed(tmp_path, "2012", "train") == [
        (base / "JPEGImages" / f"{name}.jpg", base / "Annotations" / f"{name}.xml") for name in "ba"
    ]


def test_a_missing_list_is_named(tmp_path):
    with pytest.raises(DataError, match="no VOC2012 set 'train'"):
        voc_files.listed(tmp_path, "2012", "train")
    devkit(tmp_path, "2012", {"train": ["a"]})
    with pytest.raises(DataError, match="no VOC2012 set 'val'"):
        voc_files.listed(tmp_path, "2012", "val")


def test_every_tenth_by_name_is_validation(tmp_path):
    pairs = [(tmp_path / f"{n:02}.jpg", tmp_path / f"{n:02}.xml") for n in range(25)]
    train, validation = (voc_files.every_tenth(list(reversed(pairs)), part) for part in (False, True))
    assert validation == [pairs[9], pairs[19]]
    assert sorted(train + validation) == pairs and len(train) == 23


def test_boxes_are_scaled_with_their_images(tmp_path):
    base = devkit(tmp_path, "2012", {"train": ["a"]})
    write(base / "Annotations" / "a.xml", annotation(thing("dog", (11, 6, 30, 25)), thing("cat", (1, 1, 60, 40), 1)))
    warnings = []
    data = voc_files.dataset(voc_files.listed(tmp_path, "2012", "train"), ("cat", "dog"), BOX, warnings)
    image, boxes = data[0]
    assert image.shape == (3, 20, 30) and image.dtype == torch.uint8
    torch.testing.assert_close(boxes, torch.tensor([[1, 5, 2.5, 15, 12.5], [-2, 0, 0, 30, 20]]))
    assert warnings == []


def test_boxes_that_are_left_out_are_counted_in_the_warnings(tmp_path):
    base = devkit(tmp_path, "2012", {"train": ["a", "b", "c"]})
    for name, count in (("b", 1), ("c", 2)):
        write(base / "Annotations" / f"{name}.xml", annotation(thing(), *[thing(box=(5, 5, 5, 9))] * count))
    warnings = []
    data = voc_files.dataset(voc_files.listed(tmp_path, "2012", "train"), ("dog",), BOX, warnings)
    assert warnings == ["3 boxes without area left out, the first in b.xml"]
    assert (data.targets[..., 0] == 0).sum() == 3


def test_images_without_objects_are_kept(tmp_path):
    base = devkit(tmp_path, "2012", {"train": ["a"]})
    write(base / "Annotations" / "a.xml", annotation())
    data = voc_files.dataset(voc_files.listed(tmp_path, "2012", "train"), ("dog",), BOX, [])
    assert data[0][1].tolist() == [[-1] * 5]


def test_a_missing_image_is_named_before_training(tmp_path):
    base = devkit(tmp_path, "2012", {"train": ["a", "b"]})
    (base / "JPEGImages" / "b.jpg").unlink()
    with pytest.raises(DataError, match=r"b\.jpg cannot be read as an image"):
        voc_files.dataset(voc_files.listed(tmp_path, "2012", "train"), ("dog",), BOX, [])


def test_an_annotation_of_another_image_is_noticed(tmp_path):
    base = devkit(tmp_path, "2012", {"train": ["a"]})
    picture(base / "JPEGImages" / "a.jpg", size=(WIDTH * 2, HEIGHT))
    with pytest.raises(DataError, match=r"a\.xml is of an image 60 wide and 40 high, which is 120 wide and 40 high"):
        voc_files.dataset(voc_files.listed(tmp_path, "2012", "train"), ("dog",), BOX, [])
