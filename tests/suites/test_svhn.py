import hashlib

import numpy as np
import pytest
import torch
from scipy.io import savemat
from torchvision.datasets import SVHN

from harness.plugin import DataError
from suites.svhn import FOLDER, Svhn

COUNTS = {"train": 5_040, "test": 30}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Files of the published kind, whose MD5 sums torchvision expects."""
    monkeypatch.setenv("SPIKEBENCH_DATA", str(tmp_path))
    folder = tmp_path / FOLDER
    folder.mkdir(parents=True)
    expected = {}
    for part, count in COUNTS.items():
        path = folder / f"{part}_32x32.mat"
        images = np.random.default_rng(count).integers(0, 256, (32, 32, 3, count), dtype=np.uint8)
        savemat(path, {"X": images, "y": (np.arange(count) % 10 + 1)[:, None]})
        expected[part] = ["-", path.name, hashlib.md5(path.read_bytes()).hexdigest()]
    monkeypatch.setattr(SVHN, "split_list", expected)
    return folder


def test_splits_are_those_of_torchvision(folder):
    train, test = SVHN(folder, split="train"), SVHN(folder, split="test")
    parts = {split: Svhn().load(split) for split in ("train", "validation", "test")}
    assert [len(part) for part in parts.values()] == [40, 5_000, 30]
    np.testing.assert_array_equal(torch.cat([parts["train"].inputs, parts["validation"].inputs]).numpy(), train.data)
    np.testing.assert_array_equal(torch.cat([parts["train"].targets, parts["validation"].targets]).numpy(), train.labels)
    np.testing.assert_array_equal(parts["test"].inputs.numpy(), test.data)


def test_the_digit_0_is_class_0(folder):
    assert Svhn().load("test").targets[:10].tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9, 0]


def test_a_damaged_file_is_an_error_that_says_where(folder):
    path = folder / "train_32x32.mat"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(DataError, match="the files in vision/svhn are damaged"):
        Svhn().load("validation")


def test_digits_are_never_mirrored():
    assert not Svhn.flip
