import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from suites.augmentation import flipped, resized_crops, shifted


@pytest.mark.parametrize("background", [-1.0, torch.tensor([1.0, 2.0, 3.0])])
def test_shifting_equals_a_plain_loop(background):
    images = torch.rand(7, 3, 6, 5)
    found = shifted(images, 2, torch.Generator().manual_seed(3), background=background)
    offset = torch.randint(0, 5, (2, 7, 1), generator=torch.Generator().manual_seed(3)).squeeze(2) - 2
    outside = torch.as_tensor(background).expand(3)
    for n in range(7):
        for y in range(6):
            for x in range(5):
                row, column = y + int(offset[0, n]), x + int(offset[1, n])
                inside = 0 <= row < 6 and 0 <= column < 5
                wanted = images[n, :, row, column] if inside else outside
                assert torch.equal(found[n, :, y, x], wanted)


@given(most=st.integers(1, 4), seed=st.integers(0, 1000))
def test_shifting_is_padding_and_cropping(most, seed):
    images = torch.rand(4, 2, 8, 8)
    found = shifted(images, most, torch.Generator().manual_seed(seed))
    padded = torch.nn.functional.pad(images, (most,) * 4)
    for n in range(4):
        crops = [padded[n, :, y : y + 8, x : x + 8] for y in range(2 * most + 1) for x in range(2 * most + 1)]
        assert any(torch.equal(found[n], crop) for crop in crops)


def test_all_shifts_occur():
    images = torch.zeros(600, 1, 5, 5)
    images[:, :, 2, 2] = 1
    places = shifted(images, 1, torch.Generator().manual_seed(0)).flatten(1).argmax(1).unique()
    assert places.tolist() == [6, 7, 8, 11, 12, 13, 16, 17, 18]


def test_about_half_of_the_images_are_mirrored_and_the_others_stay():
    images = torch.rand(400, 1, 3, 4)
    found = flipped(images, torch.Generator().manual_seed(0))
    mirrored = (found == images.flip(-1)).flatten(1).all(1)
    same = (found == images).flatten(1).all(1)
    assert (mirrored ^ same).all()
    assert 150 < mirrored.sum() < 250


def test_the_whole_image_as_a_crop_is_the_image():
    images = torch.rand(3, 3, 9, 7)
    found = resized_crops(images, torch.Generator().manual_seed(0), scale=(1.0, 1.0), ratio=(1.0, 1.0))
    torch.testing.assert_close(found, images, rtol=0, atol=1e-5)


@settings(deadline=None)
@given(seed=st.integers(0, 1000))
def test_crops_of_a_ramp_are_ramps_inside_it(seed):
    ramp = torch.linspace(0, 1, 16).expand(5, 1, 16, 16)
    found = resized_crops(ramp, torch.Generator().manual_seed(seed))
    assert found.min() >= -1e-6
    assert found.max() <= 1 + 1e-6
    assert (found.diff(dim=-1) >= -1e-5).all()


def test_the_area_of_crops_is_uniform_in_its_range():
    ramp = torch.stack(torch.meshgrid(torch.linspace(0, 1, 64), torch.linspace(0, 1, 64), indexing="ij")).expand(2000, 2, 64, 64)
    found = resized_crops(ramp, torch.Generator().manual_seed(0), scale=(0.2, 0.6))
    area = (found[:, 0, -1, 0] - found[:, 0, 0, 0]) * (found[:, 1, 0, -1] - found[:, 1, 0, 0]) * (64 / 63) ** 2
    assert abs(area.mean().item() - 0.4) < 0.02
    assert abs(area.std().item() - 0.4 / 12**0.5) < 0.02
