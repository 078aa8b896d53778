"""The residual network in stages, and looking into a forward pass."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from methods.nn.staged_resnet import Stage, StagedResNet, cifar_stages
from methods.nn.synapse import AvgPool2d, Conv2d
from methods.nn.watch import Watch


def block(features_in, features_out, stride):
    return Conv2d(features_in, features_out, 3, stride=stride, padding=1)


def stem(channels, width, stride=1):
    return Conv2d(channels, width, 3, stride=stride, padding=1)


@pytest.mark.parametrize("size", [(16, 24), (9, 13)])
@pytest.mark.parametrize("settings", [{"pool": AvgPool2d}, {"average": True}, {"stride": 2, "average": True}])
def test_levels_describe_the_features(size, settings):
    stages = (Stage(4, 1), Stage(6, 2), Stage(8, 1)) if "pool" in settings else cifar_stages(2, 4)
    net = StagedResNet((3, *size), stem(3, 4, settings.get("stride", 1)), 4, stages, block, **settings)
    found = net(torch.rand(2, 1, 3, *size))
    assert [tuple(x.shape[2:]) for x in found] == [(level.channels, *level.size) for level in net.levels]


def test_pooled_levels_have_the_strides_of_the_reference_network():
    net = StagedResNet((3, 16, 16), stem(3, 4), 4, (Stage(4, 1), Stage(8, 1)), block, pool=AvgPool2d)
    assert [level.stride for level in net.levels] == [2, 4]


def test_stages_for_cifar_double_the_width_and_halve_the_image_twice():
    assert cifar_stages(3, 16) == (Stage(16, 3, 1), Stage(32, 3, 2), Stage(64, 3, 2))


def test_what_ends_a_level_is_not_handed_on_to_the_next_stage():
    asked = []

    def end(level, last):
        asked.append((level.channels, last))
        return nn.ReLU() if last else nn.Softplus()

    net = StagedResNet((1, 8, 8), stem(1, 4), 4, (Stage(4, 1), Stage(6, 1)), block, end=end)
    x = torch.rand(1, 1, 1, 8, 8)
    first = net.stages[0](net.stem(x))
    torch.testing.assert_close(net(x)[0], nn.functional.softplus(first))
    torch.testing.assert_close(net(x)[1], net.stages[1](first).relu())
    assert asked == [(4, False), (6, True)]


def test_levels_are_pooled_after_their_end_and_the_stream_is_pooled_without_it():
    net = StagedResNet((1, 8, 8), stem(1, 4), 4, (Stage(4, 1), Stage(6, 1)), block, pool=AvgPool2d, end=lambda level, last: nn.ReLU())
    x = torch.rand(2, 1, 1, 8, 8)
    first = net.stages[0](net.stem(x))
    torch.testing.assert_close(net(x)[0], net.pool(first.relu()))
    torch.testing.assert_close(net(x)[1], net.pool(net.stages[1](net.pool(first)).relu()))


def test_an_image_too_small_to_be_pooled_so_often_is_refused():
    with pytest.raises(ValueError, match="an image of 4x8 cannot be halved 3 times"):
        StagedResNet((1, 4, 8), stem(1, 2), 2, (Stage(2, 1),) * 3, block, pool=AvgPool2d)


def test_watch_keeps_what_modules_got_and_gave_in_the_order_of_calls_and_only_inside():
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    x = torch.rand(5, 3)
    with Watch([net[2], net[0]]) as seen:
        y = net(x)
    net(x)
    assert seen.modules == [net[0], net[2]]
    assert seen.inputs[0] is x
    assert seen.outputs[-1] is y
