import numpy as np
import pytest
from PIL import Image
from voc_tree import HEIGHT, WIDTH, picture

from harness.plugin import DataError
from harness.task import SPLITS
from suites.mask_folder import MaskFolder

NAMES = [f"p{n}" for n in range(30)]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("SPIKEBENCH_DATA", str(tmp_path))
    monkeypatch.setenv("SPIKEBENCH_CACHE", str(tmp_path / "cache"))
    (tmp_path / "fields" / "masks").mkdir(parents=True)
    for seed, name in enumerate(NAMES):
        picture(tmp_path / "fields" / "images" / f"{name}.jpg", seed)
        put(tmp_path / "fields", name, np.random.default_rng(seed).choice([0, 1, 255], (HEIGHT, WIDTH)))
    return tmp_path / "fields"


def put(folder, name, values):
    Image.fromarray(np.asarray(values, np.uint8)).save(folder / "masks" / f"{name}.png")


def task(**options):
    return MaskFolder(options={"path": "fields", "size": 64} | options)


def load_all(**options):
    return [task(**options).load(split) for split in SPLITS]


def test_splits_share_no_image_and_leave_none_out(folder):
    parts = [[path.stem for path in data.paths] for data in load_all()]
    assert sorted(name for part in parts for name in part) == sorted(NAMES)


def test_images_and_masks_of_one_name_belong_together(folder):
    data = task().load("test")
    assert [path.stem for path in data.paths] == [path.stem for path in data.masks]
    image, mask = data[0]
    assert image.shape == (3, 64, 64) and set(mask.unique().tolist()) == {0, 1, 255}


def test_masks_of_0_and_255_alone_must_be_called_binary(folder):
    for name in NAMES:
        put(folder, name, np.full((HEIGHT, WIDTH), 255) * (np.arange(WIDTH) < 20))
    with pytest.raises(DataError, match="hold 0 and 255 only.*values=binary"):
        task().load("train")
    mask = task(values="binary").load("train")[0][1]
    assert set(mask[:43].unique().tolist()) == {0, 1} and (mask[43:] == 255).all()


def test_a_class_beyond_those_asked_for_is_named_before_training(folder):
    put(folder, "p3", np.full((HEIGHT, WIDTH), 2))
    with pytest.raises(DataError, match=r"mask p3\.png holds class 2; allowed: 0 to 1, and 255"):
        load_all()
    assert load_all(classes=3)


def test_an_image_without_mask_is_named(folder):
    (folder / "masks" / "p4.png").unlink()
    assert "image p4 has no mask of the same name" in task().unavailable()
    with pytest.raises(DataError, match="image p4 has no mask"):
        task().load("train")


def test_binary_masks_have_two_classes(folder):
    assert "values=binary means 2 classes, not 3" in task(values="binary", classes=3).unavailable()


def test_no_folder_is_said(folder):
    assert "no folder is named" in MaskFolder().unavailable()
    assert task().unavailable() is None


def test_the_checksum_follows_the_masks(folder):
    before = task().checksum()
    put(folder, "p0", np.zeros((HEIGHT, WIDTH)))
    assert task().checksum() != before
