import pytest
import torch
from voc_tree import annotation, devkit, picture, thing, write

from harness.plugin import DataError, UsageError
from suites import bccd
from suites.bccd import Bccd

SETS = {"train": ["a", "b"], "val": ["c"], "test": ["d"]}


@pytest.fixture
def base(tmp_path, monkeypatch):
    monkeypatch.setenv("SPIKEBENCH_DATA", str(tmp_path))
    monkeypatch.setenv("SPIKEBENCH_CACHE", str(tmp_path / "cache"))
    base = devkit(tmp_path / bccd.ROOT, "2007", SETS)
    for seed, name in enumerate("abcd"):
        picture(base / "JPEGImages" / f"{name}.jpg", seed, size=(640, 480))
        write(
            base / "Annotations" / f"{name}.xml", annotation(thing("RBC", (1, 1, 640, 480)), thing("WBC", (9, 9, 9, 20)), size=(640, 480))
        )
    return base


def test_splits_are_the_repositorys(base):
    assert [len(Bccd().load(split)) for split in ("train", "validation", "test")] == [2, 1, 1]


def test_images_are_shrunk_with_their_boxes(base):
    data = Bccd(options={"width": 320}).load("test")
    assert data.inputs.shape == (1, 3, 240, 320) and data.inputs.dtype == torch.uint8
    assert data.targets.tolist() == [[[0, 0, 0, 320, 240]]]


def test_boxes_without_area_are_left_out_with_a_warning(base):
    task = Bccd()
    task.load("train")
    assert task.warnings == ["2 boxes without area left out, the first in a.xml"]


def test_images_come_from_the_cache_until_the_files_change(base, tmp_path):
    before = Bccd().load("test").inputs
    assert len(list((tmp_path / "cache" / "bccd").iterdir())) == 1
    assert torch.equal(Bccd().load("test").inputs, before)
    picture(base / "JPEGImages" / "d.jpg", 9, size=(640, 480))
    assert not torch.equal(Bccd().load("test").inputs, before)


def test_a_damaged_image_is_named(base):
    path = base / "JPEGImages" / "d.jpg"
    path.write_bytes(path.read_bytes()[:30_000])
    with pytest.raises(DataError, match=r"d\.jpg cannot be read as an image"):
        Bccd().load("test")


def test_an_unknown_class_is_named(base):
    write(base / "Annotations" / "a.xml", annotation(thing("rbc", (1, 1, 9, 9)), size=(640, 480)))
    with pytest.raises(DataError, match=r"a\.xml, object 0: class 'rbc' is unknown; allowed: Platelets, RBC, WBC"):
        Bccd().load("train")


def test_a_width_that_is_no_multiple_of_32_is_refused():
    with pytest.raises(UsageError, match="option width = 100"):
        Bccd(options={"width": 100})


def test_every_cell_size_of_the_default_has_a_level():
    task = Bccd()
    assert task.input_shape == (3, 120, 160)
    assert sorted(set(task.grid.stride.tolist())) == [4, 8, 16]
