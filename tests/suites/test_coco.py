import json

import pytest
import torch
from pycocotools.coco import COCO  # noqa: F401  imported before warnings of its own become errors
from voc_tree import HEIGHT, WIDTH, picture

from harness.plugin import DataError
from suites import coco
from suites.coco import Coco

IDENTITIES = [n for n in range(1, 91) if n not in (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)]  # COCO leaves ten out


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("SPIKEBENCH_DATA", str(tmp_path))
    monkeypatch.setenv("SPIKEBENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path


def put(root, annotations=(), train=3, cats=None):
    """COCO of ``train`` training images and one validation image, all annotations in the latter."""
    for part, count in (("train2017", train), ("val2017", 1)):
        images = [{"id": 100 - n, "file_name": f"{part}{n}.jpg", "width": WIDTH, "height": HEIGHT} for n in range(count)]
        for n, image in enumerate(images):
            picture(root / coco.ROOT / part / image["file_name"], n)
        found = [{"id": 7 + n, "image_id": 100, "iscrowd": 0, **each} for n, each in enumerate(annotations)] if part == "val2017" else []
        plain = {"images": images, "annotations": found, "categories": [{"id": n, "name": str(n)} for n in cats or IDENTITIES]}
        path = root / coco.ROOT / "annotations" / f"instances_{part}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(plain))


def task():
    return Coco(options={"size": 64})


def test_boxes_are_corner_and_size_and_classes_are_counted_without_gaps(root):
    put(root, [{"category_id": 1, "bbox": [30, 20, 15, 10]}, {"category_id": 90, "bbox": [0, 0, WIDTH, HEIGHT]}])
    image, boxes = task().load("test")[0]
    scale = 64 / WIDTH
    assert image.shape == (3, 64, 64)
    wanted = torch.tensor([[0, 30 * scale, 20 * 43 / 40, 45 * scale, 30 * 43 / 40], [79, 0, 0, 64, 43]])
    torch.testing.assert_close(boxes, wanted)


def test_crowds_are_not_asked_for(root):
    put(root, [{"category_id": 13, "bbox": [1, 1, 5, 5], "iscrowd": 1}])
    assert task().load("test").targets[0, 0, 0] == -2 - 11


def test_every_fiftieth_training_image_by_id_is_validation(root):
    put(root, train=100)
    parts = {split: [path.name for path in task().load(split).paths] for split in ("train", "validation")}
    assert parts["validation"] == ["train201750.jpg", "train20170.jpg"]  # ids fall from 100
    assert len(parts["train"]) == 98 and not set(parts["train"]) & set(parts["validation"])


def test_boxes_without_area_and_a_rounded_edge_are_counted_or_cut(root):
    put(root, [{"category_id": 1, "bbox": [5, 5, 0, 9]}, {"category_id": 1, "bbox": [50, 30, 10.4, 10.2]}])
    found = task()
    boxes = found.load("test").targets
    assert found.warnings == ["1 boxes without area left out in val2017"]
    assert boxes[0, 0, 3:].tolist() == pytest.approx([64, 43])


@pytest.mark.parametrize(
    ("annotation", "message"),
    [
        ({"category_id": 12, "bbox": [1, 1, 5, 5]}, "object 7 of val20170.jpg has the unknown class 12"),
        ({"category_id": 1, "bbox": [50, 1, 20, 5]}, "object 7 of val20170.jpg: box .* leaves its image"),
        ({"category_id": 1, "bbox": [50, 1, -20, 5]}, "reversed or leaves"),
    ],
)
def test_bad_objects_are_named(root, annotation, message):
    put(root, [annotation])
    with pytest.raises(DataError, match=message):
        task().load("test")


def test_other_classes_than_cocos_are_refused(root):
    put(root, cats=[1, 2])
    with pytest.raises(DataError, match=r"instances_val2017\.json has 2 classes instead of 80"):
        task().load("test")


def test_a_damaged_annotation_file_is_named(root):
    put(root)
    path = root / coco.ROOT / "annotations" / "instances_val2017.json"
    path.write_text(path.read_text()[:50])
    with pytest.raises(DataError, match=r"instances_val2017\.json is no COCO annotation"):
        task().load("test")


def test_missing_files_are_said_with_where_they_come_from(root):
    assert "cocodataset.org" in task().unavailable()
    assert task().download_size() is None
