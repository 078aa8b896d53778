import hashlib
import io

import numpy as np
import pytest
import torch
from PIL import Image

from harness.plugin import DataError
from suites import cifar10_jpeg
from suites.cifar10_jpeg import CIFAR10_JPEG_SOURCE, Cifar10Jpeg, arrays, decoded
from suites.sources import Source

CLASSES = np.array(["one", "two", "three"])


def jpeg(seed, size=32):
    pixels = np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=75)
    return file.getvalue()


def parts(**changes):
    streams = [jpeg(seed) for seed in range(6)]
    found = {
        "jpeg": np.frombuffer(b"".join(streams), dtype=np.uint8),
        "offsets": np.cumsum([0, *map(len, streams)]),
        "labels": np.array([0, 0, 1, 1, 2, 2], dtype=np.uint8),
        "classes": CLASSES,
    }
    return {**found, **changes}


@pytest.fixture
def file(tmp_path):
    def write(**changes):
        path = tmp_path / "some.npz"
        np.savez(path, **parts(**changes))
        return path

    return write


def test_images_are_decoded_and_classes_take_turns(file):
    found = decoded(file())
    assert found["labels"].tolist() == [0, 1, 2, 0, 1, 2]
    for place, seed in enumerate([0, 2, 4, 1, 3, 5]):
        wanted = np.asarray(Image.open(io.BytesIO(jpeg(seed)))).transpose(2, 0, 1)
        np.testing.assert_array_equal(found["images"][place], wanted)


def test_a_truncated_file_is_named(file):
    path = file()
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(DataError, match=r"some\.npz cannot be read"):
        decoded(path)


def test_a_missing_array_is_named(tmp_path):
    np.savez(tmp_path / "some.npz", jpeg=np.zeros(3, np.uint8))
    with pytest.raises(DataError, match="offsets"):
        decoded(tmp_path / "some.npz")


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"offsets": np.array([0, 5, 3, 9, 10, 11, 12])}, "offsets do not cut"),
        ({"offsets": np.array([0, 5])}, "offsets do not cut"),
        ({"labels": np.array([0, 0, 1, 1, 2, 3], dtype=np.uint8)}, "class 3 is not one of the 3"),
    ],
)
def test_contradictions_are_named(file, change, text):
    with pytest.raises(DataError, match=text):
        decoded(file(**change))


def test_an_image_that_cannot_be_decoded_is_named(file):
    streams = parts()["jpeg"].copy()
    streams[: len(jpeg(0))] = 0
    with pytest.raises(DataError, match="image 0 cannot be decoded"):
        decoded(file(jpeg=streams))


def test_an_image_of_another_size_is_named(file):
    streams = [jpeg(0), jpeg(1, size=16)]
    joined = np.frombuffer(b"".join(streams), dtype=np.uint8)
    offsets = np.cumsum([0, *map(len, streams)])
    with pytest.raises(DataError, match=r"image 1 has shape \(16, 16, 3\)"):
        decoded(file(jpeg=joined, offsets=offsets, labels=np.array([0, 0], dtype=np.uint8)))


def test_images_are_decoded_once(tmp_path, monkeypatch):
    monkeypatch.setenv("SPIKEBENCH_DATA", str(tmp_path))
    monkeypatch.setenv("SPIKEBENCH_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / cifar10_jpeg.FOLDER
    folder.mkdir(parents=True)
    shas = {}
    for part in ("train", "test"):
        path = folder / f"cifar10_jpeg_{part}.npz"
        np.savez(path, **parts())
        shas[f"{cifar10_jpeg.FOLDER}/{path.name}"] = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setattr(cifar10_jpeg, "CIFAR10_JPEG_SOURCE", Source((shas,)))
    first, labels = arrays("train")
    monkeypatch.setattr(cifar10_jpeg, "decoded", lambda path: pytest.fail("decoded again"))
    again, _ = arrays("train")
    assert torch.equal(first, again)
    assert labels.tolist() == [0, 1, 2, 0, 1, 2]


@pytest.mark.slow
@pytest.mark.skipif(CIFAR10_JPEG_SOURCE.find() is None, reason="SPIKEBENCH_DATA lacks vision/cifar10_jpeg")
def test_splits_of_the_real_files_hold_all_images_once_and_all_classes_alike():
    splits = {split: Cifar10Jpeg().load(split) for split in ("train", "validation", "test")}
    assert {name: len(data) for name, data in splits.items()} == {"train": 45_000, "validation": 5_000, "test": 10_000}
    for data in splits.values():
        assert len(data.targets.bincount().unique()) == 1
        assert data.targets[:10].tolist() == list(range(10))
    images = torch.cat([data.inputs for data in splits.values()]).numpy()
    assert len({image.tobytes() for image in images}) == 60_000  # no two of the files are equal
    found = CIFAR10_JPEG_SOURCE.require().path(f"{cifar10_jpeg.FOLDER}/cifar10_jpeg_train.npz")
    with np.load(found) as file:
        streams, offsets = file["jpeg"], file["offsets"]
    last = np.asarray(Image.open(io.BytesIO(streams[offsets[-2] : offsets[-1]].tobytes())))
    np.testing.assert_array_equal(splits["validation"].inputs[-1].numpy(), last.transpose(2, 0, 1))
