import numpy as np
import torch
from sklearn.datasets import load_digits

from harness.task import SPLITS
from suites import digits


def test_splits_are_disjoint_and_complete():
    parts = [digits.indices(split) for split in SPLITS]
    assert sorted(np.concatenate(parts)) == list(range(1797))


def test_the_last_360_images_are_the_test_split():
    assert digits.indices("test").tolist() == list(range(1437, 1797))


def test_held_out_parts_follow_the_training_part_in_the_files_order():
    assert digits.indices("train").tolist() == list(range(1257))
    assert digits.indices("validation").tolist() == list(range(1257, 1437))


def test_images_are_those_of_scikit_learn_scaled_to_one():
    bunch = load_digits()
    images, labels = digits.images("test")
    np.testing.assert_allclose(images.numpy(), bunch.images[1437:] / 16)
    assert labels.tolist() == bunch.target[1437:].tolist()
    assert images.dtype == torch.float32


def test_the_checksum_changes_with_one_pixel(monkeypatch):
    before = digits.checksum()
    pixels, labels = digits._arrays()
    changed = pixels.copy()
    changed[5, 3, 3] += 1
    monkeypatch.setattr(digits, "_arrays", lambda: (changed, labels))
    assert digits.checksum() != before


def test_the_checksum_is_the_hash_of_the_published_files_numbers():
    import hashlib

    bunch = load_digits()
    content = bunch.data.astype("<f8").tobytes() + bunch.target.astype("<i8").tobytes()
    assert digits.checksum() == hashlib.sha256(content).hexdigest()[:16]
