import hashlib
import os
import shutil
import struct

import numpy as np
import pytest
import torch

from suites import idx
from suites.pixel_sequences import MnistRows, PermutedMnist, SequentialMnist, permutation

KINDS = [SequentialMnist, PermutedMnist, MnistRows]
IMAGES = torch.randint(0, 256, (3, 28, 28), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def pixels(task, images):
    """Prepared sequences as they were in [0, 255]."""
    return (task.prepare(images) * task.deviation + task.mean) * 255


def test_pixels_come_one_per_step_row_by_row():
    found = pixels(SequentialMnist(), IMAGES)
    assert found.shape == (3, 784, 1)
    torch.testing.assert_close(found[1, 28 * 5 + 7, 0], IMAGES[1, 5, 7].float(), atol=1e-3, rtol=0)


def test_rows_come_one_per_step():
    found = pixels(MnistRows(), IMAGES)
    assert found.shape == (3, 28, 28)
    torch.testing.assert_close(found, IMAGES.float(), atol=1e-3, rtol=0)


def test_permuted_pixels_come_in_the_order_of_their_numbers_hash():
    order = [pixel for _, pixel in sorted((hashlib.sha256(f"{pixel}".encode()).hexdigest(), pixel) for pixel in range(784))]
    assert permutation(784).tolist() == order
    torch.testing.assert_close(pixels(PermutedMnist(), IMAGES)[..., 0], IMAGES.flatten(1)[:, order].float(), atol=1e-3, rtol=0)


def test_the_permutation_is_one_and_no_neighbours_stay_together():
    order = permutation(784)
    assert sorted(order.tolist()) == list(range(784))
    assert (order[1:] - order[:-1]).abs().float().mean() > 200  # 261 on average for a random one


def test_encoding_puts_time_first():
    task = SequentialMnist()
    inputs = task.prepare(IMAGES)
    torch.testing.assert_close(task.encode(inputs, task.steps)[100], inputs[:, 100])


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """MNIST's files with 60 and 10 images; the last 5,000 become the last 6."""
    raw = tmp_path / "vision" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    generator = np.random.default_rng(0)
    known = {}
    for part, count in (("train", 60), ("t10k", 10)):
        images, labels = generator.integers(0, 256, (count, 28, 28), dtype=np.uint8), np.arange(count, dtype=np.uint8) % 10
        for name, values in ((f"{part}-images-idx3-ubyte", images), (f"{part}-labels-idx1-ubyte", labels)):
            content = struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape) + values.tobytes()
            (raw / name).write_bytes(content)
            known[name] = hashlib.sha256(content).hexdigest()
    monkeypatch.setitem(idx.CONTENT, "MNIST", known)
    monkeypatch.setattr(SequentialMnist.__mro__[1], "source", idx.source("MNIST", "-"))
    monkeypatch.setattr("suites.mnist.VALIDATION", 6)
    monkeypatch.setenv("SPIKEBENCH_DATA", str(tmp_path))
    return raw


@pytest.mark.parametrize("kind", KINDS)
def test_the_last_training_images_are_validation_and_the_order_is_the_files(tiny, kind):
    task = kind()
    assert task.unavailable() is None
    assert [len(task.load(split)) for split in ("train", "validation", "test")] == [54, 6, 10]
    assert task.load("validation").targets.tolist() == [4, 5, 6, 7, 8, 9]
    assert task.load("train").targets.tolist()[:3] == [0, 1, 2]


def test_a_damaged_file_is_named(tiny):
    path = tiny / "train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:-1])
    assert "train-images-idx3-ubyte is damaged or another version" in SequentialMnist().unavailable()


def test_without_files_the_task_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("SPIKEBENCH_DATA", str(tmp_path))
    monkeypatch.setenv("SPIKEBENCH_CACHE", str(tmp_path / "cache"))
    assert "`spikebench data sequences/psmnist` downloads them" in PermutedMnist().unavailable()


@pytest.mark.parametrize("kind", KINDS)
def test_the_real_images_are_those_of_torchvision(kind, tmp_path):
    if not os.environ.get("SPIKEBENCH_DATA"):
        pytest.skip("SPIKEBENCH_DATA is not set")
    task = kind()
    if reason := task.unavailable():
        pytest.skip(reason)
    from torchvision.datasets import MNIST

    idx.images("MNIST", "test")  # unpacks what is packed
    found = task.source.require()
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name in found.files:
        shutil.copy(found.path(name), raw)
    if any(name.endswith(".gz") for name in found.files):
        import gzip

        for packed in list(raw.glob("*.gz")):
            packed.with_suffix("").write_bytes(gzip.decompress(packed.read_bytes()))
    expected = MNIST(tmp_path, train=False)
    data = task.load("test")
    assert torch.equal(data.inputs, expected.data)
    assert torch.equal(data.targets, expected.targets)
    assert len(task.load("train")) == 55_000
    values = task.prepare(task.load("train").inputs[:10_000])
    assert abs(values.mean().item()) < 0.02
    assert abs(values.std().item() - 1) < 0.02
