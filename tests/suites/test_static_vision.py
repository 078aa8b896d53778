import torch

from harness.task import Batch
from suites.augmentation import shifted
from suites.static_vision import Digits


def test_shifting_equals_a_plain_loop():
    images = torch.rand(7, 3, 6, 5)
    found = shifted(images, 2, torch.Generator().manual_seed(3), background=-1.0)
    offset = torch.randint(0, 5, (2, 7, 1), generator=torch.Generator().manual_seed(3)).squeeze(2) - 2
    for n in range(7):
        for y in range(6):
            for x in range(5):
                row, column = y + int(offset[0, n]), x + int(offset[1, n])
                inside = 0 <= row < 6 and 0 <= column < 5
                wanted = images[n, :, row, column] if inside else torch.full((3,), -1.0)
                assert torch.equal(found[n, :, y, x], wanted)


def test_training_images_have_mean_0_and_variance_1():
    inputs = Digits().split("train").inputs
    assert abs(inputs.mean().item()) < 1e-3
    assert abs(inputs.var().item() - 1) < 1e-3


def test_what_augmentation_brings_in_is_background():
    task = Digits()
    blank = torch.full((4, 1, 8, 8), -task.mean / task.deviation)
    batch = Batch(blank, torch.zeros(4), torch.arange(4))
    torch.testing.assert_close(task.augment(batch, torch.Generator().manual_seed(0)).inputs, blank)
