import numpy as np
import pytest
from PIL import Image

from harness.plugin import DataError
from harness.task import Head
from suites.tiny_imagenet import FOLDER, TinyImageNet

CLASSES = ["n03", "n01", "n02"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The layout of the official zip with three classes of 60 images each, whose grey tells class and number."""
    monkeypatch.setenv("SPIKEBENCH_DATA", str(tmp_path))
    monkeypatch.setenv("SPIKEBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(TinyImageNet, "head", Head("classify", classes=3))
    folder = tmp_path / FOLDER
    (folder / "val" / "images").mkdir(parents=True)
    (folder / "wnids.txt").write_text("\n".join(CLASSES) + "\n")
    for label, name in enumerate(sorted(CLASSES)):
        images = folder / "train" / name / "images"
        images.mkdir(parents=True)
        for number in range(60):
            grey(images / f"{name}_{number}.JPEG", 64 * label + number)
    lines = []
    for number in range(9):
        label = number * 7 % 3
        grey(folder / "val" / "images" / f"val_{number}.JPEG", 64 * label + number)
        lines.append(f"val_{number}.JPEG\t{sorted(CLASSES)[label]}\t0\t0\t62\t62")
    (folder / "val" / "val_annotations.txt").write_text("\n".join(lines) + "\n")
    return folder


def grey(path, value):
    Image.fromarray(np.full((64, 64, 3), value, np.uint8)).save(path, quality=100)


def values(split):
    data = TinyImageNet().load(split)
    return [(int(image[0, 0, 0]), int(label)) for image, label in zip(data.inputs, data.targets, strict=True)]


def test_the_last_50_images_of_each_class_by_number_are_for_validation(folder):
    assert sorted(values("train")) == [(64 * label + number, label) for label in range(3) for number in range(10)]
    assert sorted(values("validation")) == [(64 * label + number, label) for label in range(3) for number in range(10, 60)]


def test_the_published_validation_part_is_for_testing(folder):
    assert sorted(values("test")) == sorted((64 * (n * 7 % 3) + n, n * 7 % 3) for n in range(9))


def test_classes_take_turns(folder):
    assert [label for _, label in values("train")][:6] == [0, 1, 2, 0, 1, 2]


def test_a_missing_class_is_named(folder):
    for path in (folder / "train" / "n02" / "images").iterdir():
        path.unlink()
    with pytest.raises(DataError, match="train/n02/images has 0 images"):
        TinyImageNet().load("train")


def test_an_unknown_class_of_an_annotation_is_named_with_its_line(folder):
    path = folder / "val" / "val_annotations.txt"
    path.write_text(path.read_text().replace("val_2.JPEG\tn03", "val_2.JPEG\tn09"))
    with pytest.raises(DataError, match=r"line 3: 'n09' is not one of the 200 classes"):
        TinyImageNet().load("test")


def test_a_missing_image_of_an_annotation_is_named(folder):
    (folder / "val" / "images" / "val_4.JPEG").unlink()
    with pytest.raises(DataError, match=r"val/images/val_4\.JPEG is missing"):
        TinyImageNet().load("test")


def test_another_list_of_classes_is_an_error(folder):
    (folder / "wnids.txt").write_text("n01\n")
    with pytest.raises(DataError, match="names 1 classes, not 3"):
        TinyImageNet().load("train")


def test_missing_files_come_with_advice(tmp_path, monkeypatch):
    monkeypatch.setenv("SPIKEBENCH_DATA", str(tmp_path))
    monkeypatch.setenv("SPIKEBENCH_CACHE", str(tmp_path / "cache"))
    assert "unpack tiny-imagenet-200.zip" in TinyImageNet().unavailable()
    assert TinyImageNet().download_size() is None
