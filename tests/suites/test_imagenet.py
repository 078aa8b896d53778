import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import datasets
from torchvision.transforms import v2

from harness.loader import Loader
from harness.plugin import DataError
from suites.imagenet import FOLDER, VALIDATION, ImageNet

CLASSES = ["n01", "n02"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Two classes as torchvision unpacks them, with 14 training and 3 held-out images each."""
    monkeypatch.setenv("SPIKEBENCH_DATA", str(tmp_path))
    monkeypatch.setenv("SPIKEBENCH_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / FOLDER
    random = np.random.default_rng(0)
    for part, count in (("train", 14), ("val", 3)):
        for name in CLASSES:
            (folder / part / name).mkdir(parents=True)
            for n in range(count):
                Image.fromarray(random.integers(0, 256, (40, 60, 3), dtype=np.uint8)).save(folder / part / name / f"{n:02}.JPEG")
    torch.save(({name: (name,) for name in CLASSES}, ["n01"]), folder / "meta.bin")
    return folder


def test_the_last_images_of_each_class_are_for_validation(folder):
    names = {split: {path.relative_to(folder).as_posix() for path in ImageNet().load(split).paths} for split in ("train", "validation")}
    every = {path.relative_to(folder).as_posix() for path in (folder / "train").rglob("*.JPEG")}
    assert names["train"] | names["validation"] == every
    assert names["train"] == {name for name in every if int(name[-7:-5]) < 14 - VALIDATION}


def test_held_out_images_are_cut_as_torchvision_does(folder):
    usual = datasets.ImageNet(folder, "val", transform=v2.Compose([v2.Resize(256), v2.CenterCrop(224), v2.PILToTensor()]))
    found = ImageNet().load("test")
    assert len(found) == len(usual)
    wanted = {(image.numpy().tobytes(), label) for image, label in usual}
    assert {(image.numpy().tobytes(), int(label)) for image, label in found} == wanted


def test_training_images_show_their_whole_central_square(folder):
    task = ImageNet()
    found = task.load("train")
    usual = v2.Compose([v2.Resize(224), v2.CenterCrop(224), v2.PILToTensor()])
    assert torch.equal(found[3][0], usual(Image.open(found.paths[3])))


def test_workers_read_what_training_sees(folder):
    task = ImageNet()
    batch = next(iter(Loader(task, 4, seed=0, augment=True)))
    assert batch.inputs.shape == (4, 3, 224, 224)
    assert batch.inputs.dtype == torch.float32


def test_an_undecodable_image_is_named(folder):
    (folder / "val" / "n01" / "01.JPEG").write_bytes(b"-")
    with pytest.raises(DataError, match=r"val/n01/01\.JPEG cannot be decoded"):
        list(ImageNet().batches("test"))


def test_an_undecodable_image_is_named_when_a_worker_reads_it(folder):
    (folder / "train" / "n01" / "01.JPEG").write_bytes(b"-")
    with pytest.raises(DataError, match=r"train/n01/01\.JPEG cannot be decoded"):
        list(Loader(ImageNet(), 8, seed=0))


def test_a_damaged_list_of_classes_is_an_error(folder):
    (folder / "meta.bin").write_bytes(b"-")
    with pytest.raises(DataError, match="vision/imagenet is not as torchvision.datasets.ImageNet unpacks it"):
        ImageNet().load("train")


def test_the_checksum_changes_with_the_names_of_the_files(folder):
    before = ImageNet().checksum()
    (folder / "val" / "n01" / "00.JPEG").rename(folder / "val" / "n01" / "99.JPEG")
    assert ImageNet().checksum() != before


def test_missing_files_come_with_advice(tmp_path, monkeypatch):
    monkeypatch.setenv("SPIKEBENCH_DATA", str(tmp_path))
    monkeypatch.setenv("SPIKEBENCH_CACHE", str(tmp_path / "cache"))
    assert "image-net.org" in ImageNet().unavailable()
