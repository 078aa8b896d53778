import pytest
import torch
from torchvision.datasets import VOCDetection
from voc_tree import HEIGHT, WIDTH, devkit

from harness.loader import Loader
from harness.plugin import UsageError
from suites.voc_detection import Voc2007, Voc2012

NAMES = [f"{n:06}" for n in range(23)]


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("SPIKEBENCH_DATA", str(tmp_path))
    monkeypatch.setenv("SPIKEBENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path


@pytest.fixture
def voc2007(root):
    devkit(root / Voc2007.folder, "2007", {"trainval": NAMES[:20], "test": NAMES[20:]})
    return Voc2007(options={"size": 64})


def test_splits_share_no_image_and_leave_none_out(voc2007):
    seen = {split: [path.stem for path in voc2007.load(split).paths] for split in ("train", "validation", "test")}
    assert seen["test"] == NAMES[20:]
    assert seen["validation"] == [NAMES[9], NAMES[19]]
    assert sorted(seen["train"] + seen["validation"]) == NAMES[:20]


def test_images_are_those_of_torchvision(voc2007):
    found = VOCDetection(voc2007.source.require().path(voc2007.folder), year="2007", image_set="test")
    image, target = found[1]
    ours, boxes = voc2007.load("test")[1]
    assert image.size == (WIDTH, HEIGHT) and ours.shape == (3, 64, 64)
    small = torch.tensor(image.resize((64, 43), resample=2).getdata()).view(43, 64, 3).permute(2, 0, 1)
    assert (ours[:, :43].int() - small.int()).abs().max() <= 1  # Pillow and torch round differently
    assert (ours[:, 43:] == 0).all()
    corner = target["annotation"]["object"][0]["bndbox"]
    assert boxes[0, 3].item() == pytest.approx(int(corner["xmax"]) * 64 / WIDTH)


def test_files_are_read_by_workers_while_training(voc2007):
    batch = next(iter(Loader(voc2007, 4, seed=0, augment=True)))
    assert batch.inputs.shape == (4, 3, 64, 64) and batch.inputs.dtype == torch.float32
    assert batch.targets.shape == (4, 1, 5)


def test_boxes_of_a_batch_are_filled_up(voc2007):
    image = torch.zeros(3, 64, 64, dtype=torch.uint8)
    one, two = torch.tensor([[3, 0, 0, 5, 5], [-1] * 5]).float(), torch.ones(2, 5)
    _, targets = voc2007.collate([(image, one), (image, two)])
    assert targets.tolist() == [[[3, 0, 0, 5, 5], [-1] * 5], [[1] * 5] * 2]


def test_missing_files_are_said_with_the_command_that_fetches_them(root):
    assert "`spikebench data detection/voc2012` downloads them (2.0 GB)" in Voc2012().unavailable()
    assert Voc2012().download_size() == "2.0 GB"


def test_fetching_asks_torchvision_for_all_sets_of_the_year(root, monkeypatch):
    asked = []

    def download(self, folder, year="2012", image_set="train", download=False, **_):
        asked.append((str(folder), year, image_set, download))
        devkit(root / Voc2007.folder, "2007", {image_set: NAMES[:2]})

    monkeypatch.setattr(VOCDetection, "__init__", download)
    Voc2007().fetch()
    assert asked == [(str(root / "detection/VOC2007"), "2007", part, True) for part in ("trainval", "test")]
    assert Voc2007().unavailable() is None


def test_a_failed_download_is_said_in_one_line(root, monkeypatch):
    def download(self, *args, **settings):
        raise RuntimeError("no network\nat all")

    monkeypatch.setattr(VOCDetection, "__init__", download)
    with pytest.raises(UsageError, match=r"detection/voc2007: the download failed: RuntimeError: no network$"):
        Voc2007().fetch()


def test_voc2012_tests_on_its_validation_images(root):
    devkit(root / Voc2012.folder, "2012", {"train": NAMES[:20], "val": NAMES[20:]})
    assert [path.stem for path in Voc2012(options={"size": 64}).load("test").paths] == NAMES[20:]
