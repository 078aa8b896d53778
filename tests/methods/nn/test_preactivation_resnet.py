"""Pre-activation residual networks: order of parts, shortcuts, and what heads see."""

from __future__ import annotations

import pytest
import torch

from methods.nn.neuron import LIF
from methods.nn.preactivation_resnet import PreActivationBlock, PreActivationResNet
from methods.nn.step_norm import StepBatchNorm
from methods.nn.synapse import Conv2d


class Parts:
    def neuron(self, features):
        return LIF(0.1, reset="soft")

    def norm(self, features, scale=1.0):
        return StepBatchNorm(features)

    def conv(self, features_in, features_out, kernel, stride=1, first=False):
        return Conv2d(features_in, features_out, kernel, stride=stride, padding=kernel // 2, bias=not first)


def binary(x):
    return bool(((x == 0) | (x == 1)).all())


def test_block_is_its_formula():
    torch.manual_seed(0)
    block = PreActivationBlock(3, 4, 2, Parts()).double()
    x = torch.randn(3, 2, 3, 6, 6, dtype=torch.float64)
    found = block(x)
    h = block.first[1](block.first[0](x))
    inner = block.second[1](block.second[0](block.conv1(h)))
    assert torch.equal(found, block.conv2(inner) + block.shortcut(h))
    assert binary(h)
    assert 0 < h.mean() < 1
    assert binary(inner)
    assert found.shape == (3, 2, 4, 3, 3)


def test_shortcut_of_a_block_that_keeps_the_shape_is_the_identity():
    block = PreActivationBlock(3, 3, 1, Parts()).double()
    torch.nn.init.zeros_(block.conv2.weight)
    torch.nn.init.zeros_(block.conv2.bias)
    x = torch.randn(2, 2, 3, 4, 4, dtype=torch.float64)
    assert torch.equal(block(x), x)


def test_dropout_silences_second_neurons_only():
    torch.manual_seed(0)
    block = PreActivationBlock(3, 3, 1, Parts(), dropout=0.9)
    seen = {}
    block.conv1.register_forward_pre_hook(lambda module, given: seen.update(first=given[0]))
    block.conv2.register_forward_pre_hook(lambda module, given: seen.update(second=given[0]))
    block(torch.randn(4, 8, 3, 6, 6))
    assert binary(seen["first"])
    assert seen["second"].unique().tolist() == pytest.approx([0.0, 10.0])
    silent = (seen["second"] == 0).all(0).double().mean()
    assert silent > 0.85  # the same neurons at all steps


def test_levels_where_heads_look_are_spikes():
    net = PreActivationResNet((2, 16, 16), Parts(), (1, 1, 1), 4, strides=(2,))
    features = net(torch.randn(2, 3, 2, 16, 16))
    assert [tuple(found.shape[2:]) for found in features] == [(level.channels, *level.size) for level in net.levels]
    assert [level.stride for level in net.levels] == [1, 2, 4, 16]
    assert [binary(found) for found in features] == [False, True, True, False]
    assert torch.allclose(features[3], features[2].mean((3, 4), keepdim=True))
    with pytest.raises(ValueError, match="is for images"):
        PreActivationResNet((5,), Parts())
