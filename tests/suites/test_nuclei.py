import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.ops import masks_to_boxes

from harness.plugin import DataError, UsageError
from harness.task import SPLITS
from suites import nuclei
from suites.nuclei import Nuclei, NucleiSegmentation, objects, tiles
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


def whole(label):
    return objects(label, np.bincount(label.ravel()))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_boxes_are_those_that_torchvision_finds(seed):
    label = label_map(seed)
    masks = torch.from_numpy(np.stack([label == k for k in np.unique(label) if k]))
    wanted = masks_to_boxes(masks) + torch.tensor([0, 0, 1, 1])  # torchvision's include the last pixel
    assert torch.equal(whole(label)[:, 1:], wanted)
    assert (whole(label)[:, 0] == 0).all()


def test_an_empty_map_has_no_objects():
    assert whole(np.zeros((5, 5), np.uint16)).shape == (0, 5)


def test_a_nucleus_is_asked_for_where_half_of_it_or_more_is():
    label = np.zeros((4, 8), np.uint16)
    label[1, 1:7] = 1  # three pixels on either side of the middle
    label[2, 3:8] = 2  # one and four
    sizes = np.bincount(label.ravel())
    assert objects(label[:, :4], sizes).tolist() == [[0, 1, 1, 4, 2], [-2, 3, 2, 4, 3]]
    assert objects(label[:, 4:], sizes).tolist() == [[0, 0, 1, 3, 2], [0, 0, 2, 4, 3]]


def test_tiles_are_corners_of_all_images_one_after_the_other():
    images = np.arange(3 * 8 * 8).reshape(3, 8, 8)
    found = tiles(images, 4)
    assert found.shape == (12, 4, 4)
    for number, (y, x) in enumerate([(0, 0), (0, 4), (4, 0), (4, 4)]):
        assert (found[3 * number : 3 * number + 3] == images[:, y : y + 4, x : x + 4]).all()
    assert (tiles(images, 8) == images).all()


def test_splits_share_no_image_and_leave_none_out(files):
    task = Nuclei()
    seen = {split: task.arrays(split)[0][:, 0, 0].tolist() for split in SPLITS}
    assert seen == {"train": [0, 1, 2, 3, 5, 6, 7, 8, 10], "validation": [4, 9], "test": [0, 1, 2]}


def test_all_pixels_are_in_one_tile(files):
    whole, cut = (Nuclei(options={"tile": side}).load("train") for side in (256, 128))
    assert whole.inputs.shape == (9, 1, 256, 256) and cut.inputs.shape == (36, 1, 128, 128)
    assert cut.inputs.dtype == torch.uint8
    assert torch.equal(cut.inputs.flatten().bincount(), whole.inputs.flatten().bincount())


def test_masks_say_nucleus_or_background(files):
    task = NucleiSegmentation(options={"tile": 256})
    data = task.load("test")
    assert torch.equal(data.targets, torch.from_numpy((task.arrays("test")[1] > 0).astype(np.uint8)))


def test_boxes_and_masks_of_tiles_agree(files):
    found, masks = Nuclei().load("test"), NucleiSegmentation().load("test")
    assert torch.equal(found.inputs, masks.inputs)
    for rows, mask in zip(found.targets, masks.targets, strict=True):
        inside = torch.zeros_like(mask)
        for _, x1, y1, x2, y2 in rows[rows[:, 0] != -1].int().tolist():
            inside[y1:y2, x1:x2] = 1
            assert mask[y1:y2, x1:x2].any(0).all() and mask[y1:y2, x1:x2].any(1).all()
        assert (mask <= inside).all()


def test_every_tile_is_normalised_by_itself(files):
    task = Nuclei()
    prepared = task.prepare(task.load("train").inputs)
    torch.testing.assert_close(prepared.mean((1, 2, 3)), torch.zeros(36), atol=1e-5, rtol=0)
    spread = task.load("train").inputs.float().std((1, 2, 3))
    torch.testing.assert_close(prepared.std((1, 2, 3)), spread.clamp_max(1.0).where(spread < 1, torch.ones(36)), atol=1e-4, rtol=0)
    assert (task.prepare(torch.full((1, 1, 8, 8), 9, dtype=torch.uint8)) == 0).all()


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"image": np.zeros((2, 256, 256), np.uint8)}, "label"),
        ({"image": np.zeros((2, 256, 256), np.float32), "label": np.zeros((2, 256, 256), np.uint16)}, "holds image float32"),
        ({"image": np.zeros((2, 256, 256), np.uint8), "label": np.zeros((2, 256, 99), np.uint16)}, r"label uint16 \(2, 256, 99\)"),
        ({"image": np.zeros((0, 256, 256), np.uint8), "label": np.zeros((0, 256, 256), np.uint16)}, r"image uint8 \(0, 256, 256\)"),
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


def test_a_tile_that_does_not_divide_an_image_is_refused():
    with pytest.raises(UsageError, match="option tile = 100"):
        Nuclei(options={"tile": 100})
