import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets.folder import pil_loader
from torchvision.transforms import v2

from harness.plugin import DataError
from harness.task import Data
from suites import image_files
from suites.image_files import ImageFiles, decoded


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SPIKEBENCH_CACHE", str(tmp_path / "cache"))


def picture(path, height=20, width=30, mode="RGB", seed=0):
    random = np.random.default_rng(seed)
    kinds = {"RGB": (3, np.uint8), "L": (1, np.uint8), "RGBA": (4, np.uint8), "I;16": (1, np.uint16), "F": (1, np.float32)}
    channels, kind = kinds[mode]
    pixels = random.integers(0, 60_000 if kind == np.uint16 else 256, (height, width, channels)).astype(kind).squeeze()
    Image.fromarray(pixels).save(path)
    return path


@pytest.mark.parametrize("size", [(20, 30), (30, 20), (64, 64), (16, 16)])
def test_images_are_resized_and_cut_as_torchvision_does(tmp_path, size):
    path = picture(tmp_path / "a.png", *size)
    usual = v2.Compose([v2.Resize(18), v2.CenterCrop(16), v2.PILToTensor()])
    assert torch.equal(decoded(path, 16, 3, 18), usual(pil_loader(str(path))))


def test_grey_images_are_made_colour_and_colour_ones_grey(tmp_path):
    grey, colour = picture(tmp_path / "g.png", mode="L"), picture(tmp_path / "c.png")
    found = decoded(grey, 16, 3, 16)
    assert found.shape == (3, 16, 16)
    assert (found[0] == found[1]).all()
    assert decoded(colour, 16, 1, 16).shape == (1, 16, 16)


def test_transparency_is_dropped(tmp_path):
    path = picture(tmp_path / "a.png", 16, 16, mode="RGBA")
    wanted = np.asarray(Image.open(path))[:, :, :3].transpose(2, 0, 1)
    np.testing.assert_array_equal(decoded(path, 16, 3, 16).numpy(), wanted)


def test_grey_of_16_bits_keeps_the_upper_8(tmp_path):
    path = picture(tmp_path / "a.png", 16, 16, mode="I;16")
    np.testing.assert_array_equal(decoded(path, 16, 1, 16).numpy()[0], np.asarray(Image.open(path)) // 256)


def test_floats_are_refused(tmp_path):
    path = picture(tmp_path / "a.tiff", mode="F")
    with pytest.raises(DataError, match=r"a\.tiff has pixels of 32 bits"):
        decoded(path, 16, 3, 16)


@pytest.mark.parametrize("damage", [lambda content: content[: len(content) // 2], lambda content: b"", lambda content: b"no image"])
def test_a_file_that_cannot_be_decoded_is_named_without_its_place_on_the_machine(tmp_path, damage):
    path = tmp_path / "train" / "cat" / "a.png"
    path.parent.mkdir(parents=True)
    picture(path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match=r"^train/cat/a\.png cannot be decoded .*replace it or take it out") as raised:
        decoded(path, 16, 3, 16)
    assert str(tmp_path) not in str(raised.value)


@pytest.fixture
def files(tmp_path):
    paths = [picture(tmp_path / f"{n}.png", seed=n) for n in range(6)]
    return ImageFiles(paths, [0, 0, 0, 0, 1, 1], size=16)


def test_classes_take_turns(files):
    assert files.targets.tolist() == [0, 1, 0, 1, 0, 0]
    assert [path.stem for path in files.paths] == ["0", "4", "1", "5", "2", "3"]


def test_in_memory_they_are_the_same(files):
    data = files.in_memory()
    assert isinstance(data, Data)
    for place in range(6):
        image, label = files[place]
        assert torch.equal(data.inputs[place], image)
        assert data.targets[place] == label


def test_they_are_decoded_once(files, monkeypatch):
    first = files.in_memory().inputs
    monkeypatch.setattr(image_files, "decoded", lambda *_: pytest.fail("decoded again"))
    assert torch.equal(files.in_memory().inputs, first)


def test_a_changed_file_is_decoded_again(files):
    before = files.in_memory().inputs
    picture(files.paths[2], seed=99)
    after = files.in_memory().inputs
    changed = (before != after).flatten(1).any(1)
    assert changed.tolist() == [False, False, True, False, False, False]


def test_what_does_not_fit_into_memory_is_read_from_files(files, monkeypatch):
    monkeypatch.setattr(image_files, "LARGEST", files.size_in_memory - 1)
    assert files.in_memory() is files


def test_other_numbers_of_channels_are_an_error(tmp_path):
    with pytest.raises(ValueError, match="not 4"):
        ImageFiles([], [], size=8, channels=4)
