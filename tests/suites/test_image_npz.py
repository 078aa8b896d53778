import numpy as np
import pytest
import torch

from harness.plugin import DataError
from suites.image_npz import ImageNpz, channels_first
from suites.splits import hashed

SPLITS = ("train", "validation", "test")
RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.integers(0, 256, (60, 8, 10), dtype=np.uint8)
LABELS = np.arange(60) % 3


@pytest.fixture(autouse=True)
def data(tmp_path, monkeypatch):
    monkeypatch.setenv("SPIKEBENCH_DATA", str(tmp_path))
    return tmp_path


def task(**options):
    return ImageNpz(options={"path": "cells.npz", **options})


def sorted_images(*parts):
    return sorted(image.tobytes() for part in parts for image in part)


def test_without_parts_a_hash_of_the_position_decides(data):
    np.savez(data / "cells.npz", images=IMAGES, labels=LABELS)
    where = np.array([hashed(str(n), {"train": 8, "validation": 1, "test": 1}) for n in range(60)])
    for split in SPLITS:
        found = task().load(split)
        assert sorted_images(found.inputs[:, 0].numpy()) == sorted_images(IMAGES[where == split])
        assert sorted(found.targets.tolist()) == sorted(LABELS[where == split].tolist())


def test_images_keep_their_labels(data):
    images = np.zeros((60, 8, 8), np.uint8)
    images[:, 0, 0] = LABELS * 50
    np.savez(data / "cells.npz", images=images, labels=LABELS)
    for split in SPLITS:
        found = task().load(split)
        assert torch.equal(found.inputs[:, 0, 0, 0] // 50, found.targets)


def test_parts_in_the_layout_of_medmnist_are_kept(data):
    cut = {"train": slice(0, 30), "val": slice(30, 40), "test": slice(40, 60)}
    arrays = {f"{part}_images": IMAGES[where] for part, where in cut.items()}
    np.savez(data / "cells.npz", **arrays, **{f"{part}_labels": LABELS[where, None] for part, where in cut.items()})
    for split, where in zip(SPLITS, cut.values(), strict=True):
        assert sorted_images(task().load(split).inputs[:, 0].numpy()) == sorted_images(IMAGES[where])


def test_validation_is_carved_from_training_where_there_are_two_parts(data):
    np.savez(data / "cells.npz", train_images=IMAGES[:40], train_labels=LABELS[:40], test_images=IMAGES[40:], test_labels=LABELS[40:])
    parts = [task().load(split).inputs[:, 0].numpy() for split in SPLITS]
    assert sorted_images(*parts[:2]) == sorted_images(IMAGES[:40])
    assert sorted_images(parts[2]) == sorted_images(IMAGES[40:])


def test_arrays_may_have_other_names_and_labels_be_texts(data):
    names = np.array(["b", "a", "c"])
    np.savez(data / "cells.npz", x=IMAGES, y=names[LABELS])
    found = task(images="x", labels="y")
    assert found.classes.tolist() == ["a", "b", "c"]
    assert found.input_shape == (1, 8, 10)
    assert found.head.classes == 3


@pytest.mark.parametrize("shape", [(9, 10, 12), (9, 10, 12, 1), (9, 10, 12, 3), (9, 1, 10, 12), (9, 3, 10, 12)])
def test_images_are_brought_to_one_layout(shape):
    images = RANDOM.integers(0, 256, shape, dtype=np.uint8)
    found = channels_first(images, "here")
    assert found.shape[2:] == (10, 12)
    colour_last = images if shape[-1] in (1, 3) else images[..., None] if len(shape) == 3 else images.transpose(0, 2, 3, 1)
    np.testing.assert_array_equal(found, colour_last.transpose(0, 3, 1, 2))


@pytest.mark.parametrize(
    ("images", "text"),
    [
        (np.zeros((9, 10), np.uint8), r"is \[9, 10\]"),
        (np.zeros((9, 10, 12, 5), np.uint8), r"is \[9, 10, 12, 5\]"),
        (np.zeros((9, 4, 4), np.uint8), "sides from 8"),
        (np.zeros((9, 10, 10), np.int32), "holds int32"),
        (np.full((9, 10, 10), 255.0), r"floats outside \[0, 1\]"),
        (np.full((9, 10, 10), np.nan), r"floats outside \[0, 1\]"),
    ],
)
@pytest.mark.filterwarnings("ignore:All-NaN")
def test_images_of_other_kinds_are_errors_that_say_what_is_allowed(images, text):
    with pytest.raises(DataError, match=f"here .*{text}"):
        channels_first(images, "here")


def test_floats_are_kept(data):
    np.savez(data / "cells.npz", images=IMAGES / 255, labels=LABELS)
    found = task().load("train").inputs
    assert found.dtype == torch.float32
    assert 0.9 < found.max() <= 1


@pytest.mark.parametrize(
    ("arrays", "text"),
    [
        ({"image": IMAGES, "labels": LABELS}, "has no array 'images'; did you mean 'image'"),
        ({"images": IMAGES, "labels": LABELS[:50]}, "60 images but 50 labels"),
        ({"images": IMAGES, "labels": LABELS / 2}, "labels are float64"),
        ({"images": IMAGES, "labels": np.zeros(60, int)}, "has 1 classes"),
        ({"images": IMAGES[:3], "labels": LABELS[:3]}, "has no image for"),
        (
            {"train_images": IMAGES, "train_labels": LABELS, "test_images": IMAGES, "test_labels": LABELS + 1},
            "class 3 occurs in test and never in training",
        ),
        (
            {"train_images": IMAGES, "train_labels": LABELS, "test_images": IMAGES[:, :, :9], "test_labels": LABELS},
            r"images for test are \[1, 8, 9\], for training \[1, 8, 10\]",
        ),
    ],
)
def test_a_file_that_will_not_do_is_an_error_that_says_why(data, arrays, text):
    np.savez(data / "cells.npz", **arrays)
    with pytest.raises(DataError, match=text):
        task().load("train")


def test_a_truncated_file_is_named(data):
    np.savez(data / "cells.npz", images=IMAGES, labels=LABELS)
    (data / "cells.npz").write_bytes((data / "cells.npz").read_bytes()[:-60])
    with pytest.raises(DataError, match=r"'cells\.npz' cannot be read as an npz file"):
        task().load("train")


def test_a_single_array_is_no_npz(data):
    np.save(data / "cells.npy", IMAGES)
    with pytest.raises(DataError, match="is a single array"):
        task(path="cells.npy").load("train")


def test_a_missing_file_is_named():
    assert "there is no file 'bees.npz'" in task(path="bees.npz").unavailable()
    assert "say which file" in task(path="").unavailable()
    with pytest.raises(DataError, match="there is no file"):
        task(path="bees.npz").load("train")
