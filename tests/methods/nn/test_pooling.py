"""Average pooling against PyTorch's, and what it keeps."""

import pytest
import torch
from torch import nn

from harness.meters.memory import SavedTensors
from methods.nn.layout import channels_last
from methods.nn.synapse import AvgPool2d


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(
    "settings", [{"kernel_size": 2}, {"kernel_size": 3, "stride": 2, "padding": 1}, {"kernel_size": (2, 3), "ceil_mode": True}]
)
def test_values_and_gradients_are_those_of_pytorch(settings, layout):
    x = torch.randn(3, 2, 4, 9, 7, dtype=torch.float64)
    mine = x.flatten(0, 1).contiguous(memory_format=layout).unflatten(0, (3, 2)).requires_grad_()
    theirs = x.clone().requires_grad_()
    found, wanted = AvgPool2d(**settings)(mine), nn.AvgPool2d(**settings)(theirs.flatten(0, 1)).unflatten(0, (3, 2))
    g = torch.randn_like(wanted)
    found.backward(g)
    wanted.backward(g)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)
    torch.testing.assert_close(mine.grad, theirs.grad, rtol=0, atol=1e-12)


def test_nothing_is_kept_for_the_backward_pass():
    pool, x = AvgPool2d(2), torch.randn(2, 3, 4, 8, 8, requires_grad=True)
    with SavedTensors(pool) as meter:
        pool(x).sum().backward()
    assert meter.peak == 0


def test_channels_last_puts_channels_side_by_side_and_keeps_an_image_that_is_repeated_one():
    images = torch.randn(2, 3, 4, 5, 6)
    found = channels_last(images)
    assert torch.equal(found, images) and found.stride()[2] == 1
    repeated = channels_last(images[:1].expand(7, -1, -1, -1, -1))
    assert repeated.stride(0) == 0 and repeated.stride(2) == 1 and torch.equal(repeated[3], images[0])
