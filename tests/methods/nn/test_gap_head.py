"""The read-out by global average pooling. Test 6 of the card."""

from __future__ import annotations

import torch
from torch import nn

from methods.nn.gap_head import GapHead
from methods.nn.norm import BatchNorm
from methods.nn.synapse import Conv2d

DOUBLE = torch.float64


def test_with_a_one_by_one_convolution_it_is_the_linear_map_of_the_pooled_features():
    torch.manual_seed(0)
    conv, x = Conv2d(6, 4, 1).to(DOUBLE), torch.rand(3, 2, 6, 5, 7, dtype=DOUBLE)
    expected = x.mean((-2, -1)) @ conv.weight.flatten(1).T + conv.bias
    torch.testing.assert_close(GapHead(conv, nn.Identity())([x[..., :1, :1], x]), expected, rtol=1e-12, atol=1e-14)


def test_a_normalisation_in_eval_mode_is_a_scale_and_a_shift_of_that_map():
    torch.manual_seed(0)
    conv, norm = Conv2d(6, 4, 3, padding=1, bias=False).to(DOUBLE), BatchNorm(4).to(DOUBLE)
    norm.running_mean += torch.arange(4.0)
    norm.running_var *= 3
    x = torch.rand(3, 2, 6, 5, 7, dtype=DOUBLE)
    scale, shift = norm.eval().affine()
    torch.testing.assert_close(GapHead(conv, norm)([x]), conv(x).mean((-2, -1)) * scale + shift)
