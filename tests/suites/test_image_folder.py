import shutil

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.datasets import ImageFolder as Peer
from torchvision.transforms import v2

from harness.loader import Loader
from harness.plugin import DataError, UsageError
from suites import image_files
from suites.image_folder import ImageFolder
from suites.splits import hashed

SPLITS = ("train", "validation", "test")


@pytest.fixture(autouse=True)
def data(tmp_path, monkeypatch):
    monkeypatch.setenv("SPIKEBENCH_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("SPIKEBENCH_CACHE", str(tmp_path / "cache"))
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


def fill(folder, classes=("cat", "dog"), each=25, seed=0):
    random = np.random.default_rng(seed)
    for name in classes:
        (folder / name).mkdir(parents=True, exist_ok=True)
        for n in range(each):
            Image.fromarray(random.integers(0, 256, (12, 12, 3), dtype=np.uint8)).save(folder / name / f"{n}.png")


def task(**options):
    return ImageFolder(options={"path": "birds", "size": 12, **options})


def every(kind):
    """All images of a task, as sets of bytes per split."""
    return {split: [image.numpy().tobytes() for image in kind.load(split).inputs] for split in SPLITS}


def test_without_parts_a_hash_of_the_name_decides(data):
    fill(data / "birds")
    usual = Peer(data / "birds", transform=v2.PILToTensor())
    wanted = {split: set() for split in SPLITS}
    for (path, label), (image, _) in zip(usual.samples, usual, strict=True):
        name = path.removeprefix(str(data / "birds") + "/")
        wanted[hashed(name, {"train": 8, "validation": 1, "test": 1})].add((image.numpy().tobytes(), label))
    for split in SPLITS:
        found = task().load(split)
        assert {(i.numpy().tobytes(), int(y)) for i, y in zip(found.inputs, found.targets, strict=True)} == wanted[split]


@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(each=st.integers(15, 40), seed=st.integers(0, 100))
def test_splits_are_disjoint_and_complete(data, each, seed):
    shutil.rmtree(data / "birds", ignore_errors=True)
    fill(data / "birds", each=each, seed=seed)
    parts = every(task())
    assert sorted(sum(parts.values(), [])) == sorted(i.numpy().tobytes() for i, _ in Peer(data / "birds", transform=v2.PILToTensor()))
    assert len(set(sum(parts.values(), []))) == 2 * each


def test_more_images_do_not_move_others_between_splits(data):
    fill(data / "birds", each=20)
    before = every(task())
    fill(data / "birds" / "more", classes=("x",), each=1)
    shutil.move(data / "birds" / "more" / "x" / "0.png", data / "birds" / "cat" / "new.png")
    shutil.rmtree(data / "birds" / "more")
    after = every(task())
    assert all(set(before[split]) <= set(after[split]) for split in SPLITS)


@pytest.mark.parametrize("validation", ["val", "valid", "validation"])
def test_parts_that_the_data_bring_are_kept(data, validation):
    for n, part in enumerate(("train", validation, "test")):
        fill(data / "birds" / part, each=4 + n, seed=n)
    assert [len(task().load(split)) for split in SPLITS] == [8, 10, 12]


@pytest.mark.parametrize("held_out", ["val", "test"])
def test_validation_is_carved_from_training_where_there_is_one_other_part(data, held_out):
    fill(data / "birds" / "train", each=40)
    fill(data / "birds" / held_out, each=5, seed=1)
    parts = every(task())
    assert len(parts["test"]) == 10
    assert len(parts["train"]) + len(parts["validation"]) == 80
    assert not set(parts["train"]) & set(parts["validation"])
    assert set(parts["test"]) == {i.numpy().tobytes() for i, _ in Peer(data / "birds" / held_out, transform=v2.PILToTensor())}


def test_a_train_part_alone_is_split(data):
    fill(data / "birds" / "train")
    assert task().classes == ["cat", "dog"]
    assert sum(len(task().load(split)) for split in SPLITS) == 50


def test_classes_size_and_channels_make_head_and_input(data):
    fill(data / "birds", classes=("a", "b", "c"))
    found = task(size=16, channels=1)
    assert (found.head.classes, found.input_shape) == (3, (1, 16, 16))
    assert found.load("train").inputs.shape[1:] == (1, 16, 16)
    assert found.name == "static/folder[channels=1,path=birds,size=16]"


def test_any_path_will_do(tmp_path):
    fill(tmp_path / "elsewhere")
    assert task(path=str(tmp_path / "elsewhere")).unavailable() is None


def test_hidden_folders_are_no_classes(data):
    fill(data / "birds")
    (data / "birds" / ".cache").mkdir()
    assert task().classes == ["cat", "dog"]


def test_files_that_are_no_images_are_counted(data):
    fill(data / "birds")
    (data / "birds" / "cat" / "notes.txt").write_text("-")
    found = task()
    found.load("train")
    assert found.warnings == ["1 files below birds/ are no images by their ending, and were passed over"]


@pytest.mark.parametrize(
    ("options", "text"),
    [({"path": ""}, "say which folder"), ({"path": "bees"}, "there is no folder 'bees'"), ({"path": "flat"}, "has 0 folders of classes")],
)
def test_a_folder_that_will_not_do_is_an_error_that_says_why(data, options, text):
    (data / "flat").mkdir()
    found = task(**options)
    assert text in found.unavailable()
    with pytest.raises(DataError, match=text):
        found.load("train")
    with pytest.raises(DataError, match=text):
        found.checksum()


def test_a_class_without_images_is_named(data):
    fill(data / "birds")
    (data / "birds" / "eel").mkdir()
    with pytest.raises(DataError, match="eel"):
        task().load("train")


def test_a_class_that_training_does_not_know_is_named(data):
    fill(data / "birds" / "train")
    fill(data / "birds" / "test", classes=("cat", "eel"))
    with pytest.raises(DataError, match="test/eel is no class of the training part; its classes: cat, dog"):
        task().load("test")


def test_a_split_that_stays_empty_is_an_error(data):
    fill(data / "birds", each=1)
    with pytest.raises(DataError, match=r"has no image for (train|validation|test): add images"):
        every(task())


def test_an_undecodable_image_is_named(data):
    fill(data / "birds")
    (data / "birds" / "dog" / "3.png").write_bytes(b"-")
    with pytest.raises(DataError, match=r"birds/dog/3\.png cannot be decoded"):
        every(task())


def test_a_size_that_will_not_do_is_an_error():
    with pytest.raises(UsageError, match="size"):
        task(size=4)


def test_the_checksum_changes_with_the_files(data):
    fill(data / "birds")
    before = task().checksum()
    fill(data / "birds", classes=("eel",))
    assert task().checksum() != before


def test_what_does_not_fit_into_memory_is_read_by_workers(data, monkeypatch):
    fill(data / "birds")
    stored = {image.numpy().tobytes() for image in task().load("train").inputs}
    monkeypatch.setattr(image_files, "LARGEST", 1)
    found = task()
    batches = list(Loader(found, 16, seed=0))
    assert sum(len(batch.targets) for batch in batches) == len(stored)
    pixels = (torch.cat([batch.inputs for batch in batches]) * 0.25 + 0.5) * 255
    assert {image.numpy().tobytes() for image in pixels.round().byte()} == stored
