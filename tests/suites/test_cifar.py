import hashlib
import pickle

import numpy as np
import pytest
import torch
from torchvision import datasets

from harness.plugin import DataError
from suites.cifar import Cifar10, Cifar100


def rows(count, seed):
    return np.random.default_rng(seed).integers(0, 256, (count, 3072), dtype=np.uint8)


def md5(path):
    return hashlib.md5(path.read_bytes()).hexdigest()


@pytest.fixture(params=[Cifar10, Cifar100])
def task(request, tmp_path, monkeypatch):
    """A task with files of the published kind, with 6,000 training and 20 test images; torchvision expects their MD5 sums."""
    kind = request.param
    monkeypatch.setenv("SPIKEBENCH_DATA", str(tmp_path))
    loader = getattr(datasets, kind.loader)
    folder = tmp_path / "vision" / loader.base_folder
    folder.mkdir(parents=True)
    key = "labels" if kind is Cifar10 else "fine_labels"
    sums = {}
    parts = [(name, 6_000 // len(loader.train_list)) for name, _ in loader.train_list] + [(loader.test_list[0][0], 20)]
    for seed, (name, count) in enumerate(parts):
        (folder / name).write_bytes(pickle.dumps({"data": rows(count, seed), key: [n % kind.head.classes for n in range(count)]}))
        sums[name] = md5(folder / name)
    meta = folder / loader.meta["filename"]
    meta.write_bytes(pickle.dumps({loader.meta["key"]: [str(n) for n in range(kind.head.classes)]}))
    monkeypatch.setattr(loader, "train_list", [[name, sums[name]] for name, _ in loader.train_list])
    monkeypatch.setattr(loader, "test_list", [[name, sums[name]] for name, _ in loader.test_list])
    monkeypatch.setattr(loader, "meta", {**loader.meta, "md5": md5(meta)})
    return kind()


def test_splits_are_those_of_torchvision(task, tmp_path):
    loader = getattr(datasets, task.loader)
    train, test = loader(tmp_path / "vision", train=True), loader(tmp_path / "vision", train=False)
    parts = {split: task.load(split) for split in ("train", "validation", "test")}
    assert [len(part) for part in parts.values()] == [1_000, 5_000, 20]
    images = torch.cat([parts["train"].inputs, parts["validation"].inputs]).permute(0, 2, 3, 1).numpy()
    np.testing.assert_array_equal(images, train.data)
    assert torch.cat([parts["train"].targets, parts["validation"].targets]).tolist() == train.targets
    np.testing.assert_array_equal(parts["test"].inputs.permute(0, 2, 3, 1).numpy(), test.data)
    assert parts["test"].targets.tolist() == test.targets


def test_a_damaged_file_is_an_error_that_says_where(task, tmp_path):
    path = tmp_path / next(iter(task.source.variants[0]))
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(DataError, match=r"the files beside vision/cifar.* are damaged .*get them again"):
        task.load("train")


def test_missing_files_can_be_downloaded(task, tmp_path):
    (tmp_path / next(iter(task.source.variants[0]))).unlink()
    assert f"`spikebench data {task.name}` downloads them" in task.unavailable()
    with pytest.raises(DataError, match="no data"):
        task.load("train")
