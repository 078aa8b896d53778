import gzip
import hashlib
import os
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from harness.plugin import DataError, UsageError
from suites import idx
from suites.fashion_mnist import FashionMnist
from suites.mnist import Mnist

COUNTS = {"train": 40, "t10k": 12}
REAL = [folder for folder in idx.CONTENT if idx.source(folder, "").find() is not None]


def contents():
    random = np.random.default_rng(0)
    found = {}
    for part, count in COUNTS.items():
        images = random.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        labels = np.arange(count, dtype=np.uint8) % 10
        found[f"{part}-images-idx3-ubyte"] = struct.pack(">IIII", 2051, count, 28, 28) + images.tobytes()
        found[f"{part}-labels-idx1-ubyte"] = struct.pack(">II", 2049, count) + labels.tobytes()
    return found


@pytest.fixture
def files(tmp_path, monkeypatch):
    """A small data set in MNIST's format, packed; return its folder."""
    monkeypatch.setenv("SPIKEBENCH_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("SPIKEBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(idx.CONTENT, "MNIST", {name: hashlib.sha256(content).hexdigest() for name, content in contents().items()})
    folder = tmp_path / "data" / "vision" / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for name, content in contents().items():
        (folder / f"{name}.gz").write_bytes(gzip.compress(content))
    return folder


def unpack(folder):
    for path in folder.glob("*.gz"):
        path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
        path.unlink()


def check_images():
    images, labels = idx.images("MNIST", "train")
    assert images.dtype == torch.uint8
    assert labels.dtype == torch.int64
    assert images.numpy().tobytes() == contents()["train-images-idx3-ubyte"][16:]
    assert labels.tolist() == [n % 10 for n in range(40)]
    assert len(idx.images("MNIST", "test")[0]) == 12


def test_packed_files_are_read(files):
    check_images()


def test_unpacked_files_are_read(files):
    unpack(files)
    check_images()


def test_the_folder_of_the_user_is_only_read(files):
    before = {path: path.stat().st_mtime_ns for path in files.iterdir()}
    os.chmod(files, 0o555)  # noqa: PTH101
    check_images()
    assert {path: path.stat().st_mtime_ns for path in files.iterdir()} == before


def test_the_checksum_does_not_depend_on_packing(files):
    packed = idx.checksum("MNIST")
    unpack(files)
    assert idx.checksum("MNIST") == packed


def test_files_are_unpacked_once(files, monkeypatch):
    idx.images("MNIST", "train")
    monkeypatch.setattr(gzip, "decompress", lambda content: pytest.fail("unpacked again"))
    idx.images("MNIST", "test")


def test_a_damaged_copy_in_the_cache_is_made_again(files, tmp_path):
    idx.images("MNIST", "train")
    (copy,) = (tmp_path / "cache").rglob("train-images-idx3-ubyte")
    copy.write_bytes(copy.read_bytes()[:-100])
    check_images()


def test_a_truncated_file_is_named(files):
    path = files / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(DataError, match=r"vision/MNIST/raw/train-images-idx3-ubyte\.gz cannot be unpacked .*get it again"):
        idx.images("MNIST", "train")


def test_a_file_that_is_no_gzip_is_named(files):
    (files / "t10k-labels-idx1-ubyte.gz").write_bytes(b"<html>not found</html>")
    with pytest.raises(DataError, match=r"t10k-labels-idx1-ubyte\.gz cannot be unpacked"):
        idx.images("MNIST", "test")


def test_another_content_is_named(files):
    content = bytearray(contents()["train-labels-idx1-ubyte"])
    content[20] ^= 1
    (files / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(bytes(content)))
    with pytest.raises(DataError, match=r"train-labels-idx1-ubyte\.gz is damaged or another version"):
        idx.images("MNIST", "train")


def test_another_content_of_an_unpacked_file_is_named(files):
    unpack(files)
    path = files / "train-labels-idx1-ubyte"
    path.write_bytes(path.read_bytes() + b"0")
    with pytest.raises(DataError, match="train-labels-idx1-ubyte is damaged or another version"):
        idx.images("MNIST", "train")


def test_a_missing_file_is_named_with_what_to_do(files):
    (files / "train-labels-idx1-ubyte.gz").unlink()
    assert "`spikebench data static/mnist` downloads them (12 MB)" in Mnist().unavailable()
    assert Mnist().download_size() == "12 MB"
    with pytest.raises(DataError, match="no data"):
        Mnist().load("train")


def test_torchvision_downloads_into_the_folder(tmp_path, monkeypatch):
    from torchvision import datasets

    monkeypatch.setenv("SPIKEBENCH_DATA", str(tmp_path))
    monkeypatch.setenv("SPIKEBENCH_CACHE", str(tmp_path / "cache"))
    asked = []

    def offline(root, download):
        asked.append((root, download))
        raise RuntimeError("no network")

    monkeypatch.setattr(datasets, "FashionMNIST", offline)
    with pytest.raises(UsageError, match="the download failed: RuntimeError: no network"):
        FashionMnist().fetch()
    assert asked == [(tmp_path / "vision", True)]


@pytest.mark.parametrize("task", [Mnist, FashionMnist])
@pytest.mark.skipif(len(REAL) < 2, reason="SPIKEBENCH_DATA lacks MNIST or Fashion-MNIST")
def test_splits_of_the_real_files_are_those_of_torchvision(task, tmp_path):
    from torchvision import datasets

    raw = tmp_path / task.folder / "raw"
    raw.mkdir(parents=True)
    found = idx.source(task.folder, "").require()
    for name in found.files:
        content = found.path(name).read_bytes()
        (raw / Path(name).name.removesuffix(".gz")).write_bytes(gzip.decompress(content) if name.endswith(".gz") else content)
    loader = getattr(datasets, task.folder)
    train, test = loader(tmp_path, train=True), loader(tmp_path, train=False)
    parts = {split: task().load(split) for split in ("train", "validation", "test")}
    assert [len(part) for part in parts.values()] == [55_000, 5_000, 10_000]
    assert torch.equal(torch.cat([parts["train"].inputs, parts["validation"].inputs])[:, 0], train.data)
    assert torch.equal(torch.cat([parts["train"].targets, parts["validation"].targets]), train.targets)
    assert torch.equal(parts["test"].inputs[:, 0], test.data)
    assert torch.equal(parts["test"].targets, test.targets)
