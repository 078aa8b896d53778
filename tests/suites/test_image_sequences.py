import hashlib
import os
import pickle

import numpy as np
import pytest
import torch
from torchvision.datasets import CIFAR10

from harness.plugin import DataError
from harness.task import Batch
from suites.image_sequences import SequentialCifar10, SequentialCifar10Jpeg, SequentialCifar10JpegPixels, SequentialCifar10Pixels

COLUMNS, PIXELS = [SequentialCifar10, SequentialCifar10Jpeg], [SequentialCifar10Pixels, SequentialCifar10JpegPixels]
IMAGES = torch.randint(0, 256, (3, 3, 32, 32), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


@pytest.mark.parametrize("kind", COLUMNS)
def test_columns_come_one_per_step_colour_after_colour(kind):
    task = kind()
    found = task.prepare(IMAGES)
    assert found.shape == (3, task.steps, *task.input_shape)
    expected = (IMAGES[2, 1, 9, 17] / 255 - task.mean[1]) / task.deviation[1]
    torch.testing.assert_close(found[2, 17, 32 + 9], expected)


@pytest.mark.parametrize("kind", PIXELS)
def test_pixels_come_one_per_step_row_by_row(kind):
    task = kind()
    found = task.prepare(IMAGES)
    assert found.shape == (3, task.steps, *task.input_shape)
    expected = (IMAGES[2, 1, 9, 17] / 255 - task.mean[1]) / task.deviation[1]
    torch.testing.assert_close(found[2, 32 * 9 + 17, 1], expected)


@pytest.mark.parametrize("kind", COLUMNS + PIXELS)
def test_augmented_sequences_are_those_of_the_image_or_its_mirror_image(kind):
    task = kind()
    images = IMAGES.repeat(10, 1, 1, 1)
    plain, mirrored = task.prepare(images), task.prepare(images.flip(3))
    batch = Batch(plain, torch.zeros(30), torch.arange(30))
    found = task.augment(batch, torch.Generator().manual_seed(0)).inputs
    same = (found == plain).flatten(1).all(1)
    assert torch.equal(found[~same], mirrored[~same])
    assert 5 < same.sum() < 25


@pytest.fixture
def original(tmp_path, monkeypatch):
    """CIFAR-10's files with 20 images each, and loaders that know their MD5."""
    folder = tmp_path / "vision" / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)
    known = {}
    for name in (*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"):
        labels = generator.permutation(np.arange(20) % 10).tolist()
        content = pickle.dumps({"data": generator.integers(0, 256, (20, 3072), dtype=np.uint8), "labels": labels})
        (folder / name).write_bytes(content)
        known[name] = hashlib.md5(content).hexdigest()
    content = pickle.dumps({"label_names": [f"class {n}" for n in range(10)]})
    (folder / "batches.meta").write_bytes(content)
    monkeypatch.setattr(CIFAR10, "train_list", [[f"data_batch_{n}", known[f"data_batch_{n}"]] for n in range(1, 6)])
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", known["test_batch"]]])
    monkeypatch.setattr(CIFAR10, "meta", {**CIFAR10.meta, "md5": hashlib.md5(content).hexdigest()})
    monkeypatch.setenv("SPIKEBENCH_DATA", str(tmp_path))
    return tmp_path / "vision"


@pytest.mark.parametrize("kind", [SequentialCifar10, SequentialCifar10Pixels])
def test_originals_are_torchvisions_and_the_last_are_for_validation(original, kind, monkeypatch):
    monkeypatch.setattr("suites.cifar.VALIDATION", 10)  # of 100; of the real 50,000 it is 5,000
    task = kind()
    train, validation, test = (task.load(split) for split in ("train", "validation", "test"))
    assert (len(train), len(validation), len(test)) == (90, 10, 20)
    expected = CIFAR10(original, train=True)
    np.testing.assert_array_equal(torch.cat([train.inputs, validation.inputs]), expected.data.transpose(0, 3, 1, 2))
    assert torch.cat([train.targets, validation.targets]).tolist() == expected.targets


def test_originals_that_are_damaged_are_named(original):
    path = original / "cifar-10-batches-py" / "data_batch_3"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match="cifar-10-batches-py/.* are damaged"):
        SequentialCifar10().load("train")


def test_missing_originals_can_be_downloaded(tmp_path, monkeypatch):
    monkeypatch.setenv("SPIKEBENCH_DATA", str(tmp_path))
    assert SequentialCifar10().download_size() == "170 MB"
    assert "`spikebench data sequences/scifar10` downloads them (170 MB)" in SequentialCifar10().unavailable()


def test_the_real_copies_give_500_of_each_class_to_validation():
    task = SequentialCifar10Jpeg()
    if not os.environ.get("SPIKEBENCH_DATA"):
        pytest.skip("SPIKEBENCH_DATA is not set")
    if reason := task.unavailable():
        pytest.skip(reason)
    train, validation, test = (task.load(split) for split in ("train", "validation", "test"))
    assert [part.targets.bincount().tolist() for part in (train, validation, test)] == [[4500] * 10, [500] * 10, [1000] * 10]
    assert train.targets[:20].tolist() == [*range(10), *range(10)]
    values = train.inputs[:5000].float().div(255)
    torch.testing.assert_close(values.mean((0, 2, 3)), torch.tensor(task.mean), atol=0.01, rtol=0)
    torch.testing.assert_close(values.std((0, 2, 3)), torch.tensor(task.deviation), atol=0.01, rtol=0)
