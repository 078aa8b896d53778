import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.ops import masks_to_boxes

from harness.plugin import DataError, UsageError
from harness.task import SPLITS
from suites import nuclei
from suites.nuclei import Nuclei, NucleiSegmentation, boxes_of
from suites.sources import Source


def label_map(seed, side=256):
    """Up to six rectangles, later ones over earlier ones."""
    random = np.random.default_rng(seed)
    label = np.zeros((side, side), np.uint16)
    for k in range(1, random.integers(2, 8)):
        y, x = random.integers(0, side - 60, 2)
        h, w = random.integers(8, 60, 2)
        label[y : y + h, x : x + w] = k
    return label


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Eleven training and three test images that are made here."""
    monkeypatch.setenv("SPIKEBENCH_DATA", str(tmp_path))
    monkeypatch.setenv("SPIKEBENCH_CACHE", str(tmp_path / "cache"))
    (tmp_path / nuclei.TRAIN).parent.mkdir(parents=True)
    for name, count in ((nuclei.TRAIN, 11), (nuclei.TEST, 3)):
        labels = np.stack([label_map(100 * count + n) for n in range(count)])
        images = np.where(labels > 0, 40, 5).astype(np.uint8)
        images[:, 0, 0] = np.arange(count)
        np.savez(tmp_path / name, image=images, label=labels, image_id=np.arange(count))
    source = Source(({nuclei.TRAIN: "", nuclei.TEST: ""},))
    monkeypatch.setattr(nuclei.Nuclei256, "source", source)
    return tmp_path


@settings(max_examples=25)
@given(st.integers(0, 10_000))
def test_boxes_are_those_that_torchvision_finds(seed):
    label = label_map(seed)
    masks = torch.from_numpy(np.stack([label == k for k in np.unique(label) if k]))
    wanted = masks_to_boxes(masks) + torch.tensor([0, 0, 1, 1])  # torchvision's include the last pixel
    assert torch.equal(boxes_of(label), wanted)


def test_an_empty_map_has_no_boxes():
    assert boxes_of(np.zeros((5, 5), np.uint16)).shape == (0, 4)


def test_splits_share_no_image_and_leave_none_out(files):
    task = Nuclei(options={"size": 256})
    seen = {split: task.arrays(split)[0][:, 0, 0].tolist() for split in SPLITS}
    assert seen == {"train": [0, 1, 2, 3, 5, 6, 7, 8, 10], "validation": [4, 9], "test": [0, 1, 2]}


def test_boxes_shrink_with_their_images(files):
    whole, half = (Nuclei(options={"size": size}).load("train") for size in (256, 128))
    real = whole.targets[..., 0] >= 0
    assert whole.inputs.shape == (9, 1, 256, 256) and half.inputs.shape == (9, 1, 128, 128)
    assert torch.equal(half.targets[real][:, 1:], whole.targets[real][:, 1:] / 2)
    assert whole.inputs.dtype == torch.uint8


def test_masks_say_nucleus_or_background(files):
    task = NucleiSegmentation(options={"size": 256})
    data = task.load("test")
    assert torch.equal(data.targets, torch.from_numpy((task.arrays("test")[1] > 0).astype(np.uint8)))
    assert (NucleiSegmentation().load("test").targets == data.targets[:, 1::2, 1::2]).float().mean() > 0.98


def test_every_image_is_normalised_by_itself(files):
    task = Nuclei()
    prepared = task.prepare(task.load("train").inputs)
    torch.testing.assert_close(prepared.mean((1, 2, 3)), torch.zeros(9), atol=1e-5, rtol=0)
    torch.testing.assert_close(prepared.std((1, 2, 3)), torch.ones(9), atol=1e-4, rtol=0)
    assert (task.prepare(torch.full((1, 1, 8, 8), 9, dtype=torch.uint8)) == 0).all()


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"image": np.zeros((2, 8, 8), np.uint8)}, "label"),
        ({"image": np.zeros((2, 8, 8), np.float32), "label": np.zeros((2, 8, 8), np.uint16)}, "holds image float32"),
        ({"image": np.zeros((2, 8, 8), np.uint8), "label": np.zeros((2, 8, 9), np.uint16)}, r"label uint16 \(2, 8, 9\)"),
        ({"image": np.zeros((0, 8, 8), np.uint8), "label": np.zeros((0, 8, 8), np.uint16)}, r"image uint8 \(0, 8, 8\)"),
    ],
)
def test_arrays_that_are_not_what_they_should_be_are_refused(files, arrays, message):
    np.savez(files / nuclei.TRAIN, **arrays)
    with pytest.raises(DataError, match=f"nuclei256_train.npz .*{message}"):
        Nuclei().load("train")


def test_a_truncated_file_is_named(files):
    path = files / nuclei.TRAIN
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(DataError, match=r"nuclei256_train\.npz cannot be read"):
        Nuclei().load("train")


def test_a_size_that_is_no_multiple_of_32_is_refused():
    with pytest.raises(UsageError, match="option size = 100"):
        Nuclei(options={"size": 100})
