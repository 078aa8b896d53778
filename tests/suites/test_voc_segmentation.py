import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import VOCSegmentation
from voc_tree import HEIGHT, WIDTH, devkit

from harness.plugin import DataError
from suites import voc_segmentation
from suites.voc_segmentation import VocSegmentation

NAMES = [f"{n:06}" for n in range(13)]


@pytest.fixture
def base(tmp_path, monkeypatch):
    monkeypatch.setenv("SPIKEBENCH_DATA", str(tmp_path))
    monkeypatch.setenv("SPIKEBENCH_CACHE", str(tmp_path / "cache"))
    base = devkit(tmp_path / voc_segmentation.FOLDER, "2012", {"train": NAMES[:10], "val": NAMES[10:]}, "Segmentation")
    (base / "SegmentationClass").mkdir()
    for seed, name in enumerate(NAMES):
        put(base, name, np.random.default_rng(seed).choice([0, 5, 20, 255], (HEIGHT, WIDTH)))
    return base


def put(base, name, values):
    """A mask with a palette, as VOC's."""
    image = Image.fromarray(np.asarray(values, np.uint8), mode="P")
    image.putpalette([n * 7 % 256 for n in range(768)])
    image.save(base / "SegmentationClass" / f"{name}.png")


def task():
    return VocSegmentation(options={"size": 64})


def test_splits_share_no_image_and_leave_none_out(base):
    seen = {split: [path.stem for path in task().load(split).paths] for split in ("train", "validation", "test")}
    assert seen == {"train": NAMES[:9], "validation": NAMES[9:10], "test": NAMES[10:]}


def test_masks_are_those_of_torchvision(base):
    _, mask = VOCSegmentation(base.parents[1], year="2012", image_set="val")[0]
    found = task().load("test")[0][1]
    assert found.shape == (64, 64) and (found[43:] == 255).all()
    small = np.asarray(mask.resize((64, 43), resample=0))
    assert (found[:43].numpy() == small).all()


def test_an_unknown_class_is_named(base):
    put(base, NAMES[10], np.full((HEIGHT, WIDTH), 21))
    with pytest.raises(DataError, match=r"mask 000010\.png holds class 21"):
        task().load("test")[0]


def test_fetching_asks_torchvision(base, monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(VOCSegmentation, "__init__", lambda self, root, **settings: asked.append((root, settings)))
    voc_segmentation.download(tmp_path)
    assert asked == [(tmp_path / "detection/VOC2012", {"year": "2012", "image_set": "trainval", "download": True})]
