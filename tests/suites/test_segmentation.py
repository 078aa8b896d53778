import pytest
import torch
import torch.nn.functional as F

from suites.nuclei import NucleiSegmentation


def case(seed=0):
    random = torch.Generator().manual_seed(seed)
    output = torch.randn(3, 2, 8, 8, generator=random, requires_grad=True)
    return output, torch.randint(0, 2, (3, 8, 8), generator=random).to(torch.uint8)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_is_the_mean_over_the_pixels_that_count(smoothing):
    output, targets = case()
    targets[0, :4] = 255
    known = targets != 255
    wanted = F.cross_entropy(output.movedim(1, -1)[known], targets[known].long(), label_smoothing=smoothing)
    torch.testing.assert_close(NucleiSegmentation().loss(output, targets, smoothing), wanted)


def test_pixels_that_do_not_count_have_no_gradient():
    output, targets = case()
    targets[1] = 255
    NucleiSegmentation().loss(output, targets).backward()
    assert (output.grad[1] == 0).all() and (output.grad[0] != 0).all()


def test_a_batch_without_a_counted_pixel_loses_nothing():
    output, targets = case()
    loss = NucleiSegmentation().loss(output, torch.full_like(targets, 255))
    loss.backward()
    assert loss.item() == 0 and (output.grad == 0).all()
