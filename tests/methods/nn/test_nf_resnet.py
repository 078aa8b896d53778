"""NF-ResNets for ImageNet: layers, expected variances, stochastic depth."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from methods.nn import normaliser_free
from methods.nn.drop_path import DropPath
from methods.nn.neuron import LIF
from methods.nn.nf_block import NormaliserFreeBlock
from methods.nn.nf_resnet import DeepNormaliserFreeResNet, Shrunk
from methods.nn.stepping import stepping
from methods.nn.weight_standardisation import StandardisedConv2d


class Parts:
    conv = staticmethod(normaliser_free.conv)

    def neuron(self, features):
        return LIF(0.5, reset="soft")


def blocks_of(net):
    return [module for module in net.modules() if isinstance(module, NormaliserFreeBlock)]


@pytest.mark.parametrize(("depth", "layers", "features"), [("34", 34, 512), ("50", 50, 2048), ("101", 101, 2048)])
def test_depth_counts_the_weights_on_the_longest_way(depth, layers, features):
    with torch.device("meta"):
        net = DeepNormaliserFreeResNet((3, 224, 224), depth, Parts())
    shortcuts = {block.shortcut for block in blocks_of(net)}
    convolutions = [module for module in net.modules() if isinstance(module, StandardisedConv2d) and module not in shortcuts]
    assert len(convolutions) + 1 == layers  # and the read-out
    assert [level.size for level in net.levels] == [(56, 56), (28, 28), (14, 14), (7, 7), (1, 1)]
    assert net.levels[-1].features == features


def test_expected_variance_grows_with_every_block_and_falls_where_the_shape_changes():
    with torch.device("meta"):
        net = DeepNormaliserFreeResNet((3, 64, 64), "34", Parts())
    variances = [block.beta**2 for block in blocks_of(net)]
    wanted = [1.0, 1.04, 1.08]  # three blocks of 64 channels, whose shape the first does not change
    for count in (4, 6, 3):
        before = wanted[-1] + 0.04
        wanted += [before, *(1.04 + 0.04 * i for i in range(count - 1))]
    assert variances == pytest.approx(wanted)
    (end,) = [module for module in net.modules() if isinstance(module, Shrunk)]
    assert end.beta == pytest.approx(math.sqrt(wanted[-1] + 0.04))


def test_stem_pools_currents_without_neurons():
    net = DeepNormaliserFreeResNet((3, 32, 32), (1, 1), Parts())
    x = torch.randn(1, 2, 3, 32, 32)
    conv, pool = net.stem
    assert (conv.kernel_size, conv.stride, conv.input_scale) == ((7, 7), (2, 2), 1.0)
    assert torch.allclose(net.stem(x)[0], nn.functional.avg_pool2d(conv(x)[0], 3, 2, 1))
    assert net.stem(x).shape == (1, 2, 64, 8, 8)


@pytest.mark.parametrize("bottleneck", [False, True])
def test_block_is_its_formula(bottleneck):
    torch.manual_seed(0)
    block = NormaliserFreeBlock(4, 8, 2, 1.08, Parts(), bottleneck).double()
    nn.init.constant_(block.gain, 0.7)
    x = 2 * torch.randn(3, 2, 4, 6, 6, dtype=torch.float64)
    h = block.neuron1(x / math.sqrt(1.08))
    y = block.conv2(block.neuron2(block.conv1(h)))
    if bottleneck:
        assert [conv.kernel_size[0] for conv in (block.conv1, block.conv2, block.last[1])] == [1, 3, 1]
        assert (block.conv1.out_channels, block.conv2.stride, block.conv1.stride) == (2, (2, 2), (1, 1))
        y = block.last[1](block.last[0](y))
    assert torch.allclose(block(x), 0.2 * 0.7 * y + block.shortcut(h))
    assert block(x).shape == (3, 2, 8, 3, 3)


def test_bottleneck_that_keeps_the_shape_starts_as_the_identity():
    block = NormaliserFreeBlock(8, 8, 1, 1.0, Parts(), bottleneck=True)
    x = torch.randn(2, 1, 8, 4, 4)
    assert torch.equal(block(x), x)
    with pytest.raises(ValueError, match="a quarter of its 6 channels"):
        NormaliserFreeBlock(6, 6, 1, 1.0, Parts(), bottleneck=True)


def test_stochastic_depth_rises_linearly_and_drops_a_sample_at_all_steps():
    net = DeepNormaliserFreeResNet((2, 16, 16), (2, 2), Parts(), stochastic_depth=0.8)
    assert [block.drop.p for block in blocks_of(net)] == pytest.approx([0.0, 0.2, 0.4, 0.6])
    torch.manual_seed(0)
    block = NormaliserFreeBlock(4, 4, 1, 1.0, Parts(), drop=0.5).train()
    nn.init.constant_(block.gain, 1.0)
    x = 3 * torch.randn(4, 32, 4, 3, 3)
    with stepping(block):
        branch = torch.cat([block(now) - now for now in x.split(1)])
    silent = (branch == 0).flatten(2).all(2)
    assert torch.equal(silent.all(0), silent.any(0))
    assert 4 < silent[0].sum() < 28
    block.eval()
    whole = block(x) - x
    kept = ~silent[0]
    assert torch.allclose(branch[:, kept], 2 * whole[:, kept], atol=1e-5)
    assert not any(module.p for module in DeepNormaliserFreeResNet((2, 16, 16), (1,), Parts()).modules() if isinstance(module, DropPath))


def test_unknown_depths_and_sequences_are_refused():
    with pytest.raises(ValueError, match="a residual network of 19 layers is unknown; allowed: 18, 34"):
        DeepNormaliserFreeResNet((3, 32, 32), "19", Parts())
    with pytest.raises(ValueError, match="is for images"):
        DeepNormaliserFreeResNet((3,), "34", Parts())
