"""Residual networks by a plan, and the residual network with poolings in its last stages only."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from methods.glif import Glif
from methods.nn.residual import ResidualBlock, ResNet
from methods.nn.staged_resnet import PreactivatedBlock, StagedResNet
from suites.static_vision import Digits

PLAN = ((1, 4, 1), (2, 6, 2), (1, 8, 2))


@pytest.fixture
def parts():
    return Glif(Digits(), {"neuron": "lif"})


@pytest.mark.parametrize("size", [(16, 24), (9, 7)])
@pytest.mark.parametrize(("preactivated", "stem", "strides"), [(False, (4, 3, 1), [1, 2, 4]), (True, (4, 7, 2), [8])])
def test_levels_describe_the_features(parts, size, preactivated, stem, strides):
    block = partial(PreactivatedBlock, parts=parts) if preactivated else partial(ResidualBlock, parts=parts, connect="vanilla")
    net = StagedResNet((3, *size), PLAN, parts, block, stem, preactivated)
    found = net(torch.rand(2, 2, 3, *size))
    assert [level.stride for level in net.levels] == [*strides, max(size)]
    assert [tuple(x.shape[2:]) for x in found] == [(level.channels, *level.size) for level in net.levels]
    torch.testing.assert_close(found[-1], found[-2].mean((3, 4), keepdim=True))
    assert all(set(x.unique().tolist()) <= {0.0, 1.0} for x in found[:-1])


@pytest.mark.parametrize(("pools", "strides", "size"), [(None, [2, 4, 8], (2, 3)), (1, [1, 1, 2], (8, 12)), (0, [1, 1, 1], (16, 24))])
def test_only_the_last_stages_pool(parts, pools, strides, size):
    net = ResNet((3, 16, 24), (4, 4, 8), parts, lambda i, o, s: ResidualBlock(i, o, s, parts), pools=pools)
    found = net(torch.rand(2, 2, 3, 16, 24))
    assert [level.stride for level in net.levels] == strides
    assert net.levels[-1].size == size
    assert [tuple(x.shape[2:]) for x in found] == [(level.channels, *level.size) for level in net.levels]


def test_more_poolings_than_an_image_has_halves_are_refused(parts):
    with pytest.raises(ValueError, match="3x8 cannot be halved 2 times"):
        ResNet((3, 3, 8), (4, 4, 4), parts, lambda i, o, s: ResidualBlock(i, o, s, parts), pools=2)
