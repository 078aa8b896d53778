"""The transformer of spikes: what its synapses read, its shortcuts, its shapes and its number of weights."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from methods.nn.norm import BatchNorm
from methods.nn.spike_transformer import PatchSplitting, SpikeTransformer, TransformerBlock
from methods.nn.stepping import stepping
from methods.spike_driven_transformer import SpikeDrivenTransformer
from suites.static_vision import Digits

PARTS = SpikeDrivenTransformer(Digits())
ERODING = SpikeDrivenTransformer(Digits(), {"erode": "on"})
SSA = SpikeDrivenTransformer(Digits(), {"attention": "ssa"})


def network(parts=PARTS, pooling="0011", pooled=True, width=32, shape=(2, 8, 8), **settings):
    torch.manual_seed(0)
    net = SpikeTransformer(shape, width, 2, pooling, parts, parts.attention, pooled=pooled, **settings)
    return lively(net)


def lively(module):
    """Let normalisations shift, so that neurons of all layers fire."""
    generator = torch.Generator().manual_seed(3)
    for part in module.modules():
        if isinstance(part, BatchNorm):
            nn.init.uniform_(part.weight, 1, 3, generator=generator)
            nn.init.uniform_(part.bias, -0.5, 1.5, generator=generator)
    return module


def settled(net, x):
    """Set running statistics to those of ``x``, as training would, so that evaluation is not silent."""
    norms = [part for part in net.modules() if isinstance(part, BatchNorm)]
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():
        net.train()(x)
    return net.eval()


def synapses(net):
    return [module for module in net.modules() if isinstance(module, nn.Conv2d | nn.Linear)]


# 1
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("steps", [4, 7])
@pytest.mark.parametrize("parts", [PARTS, ERODING, SSA], ids=["sdsa", "erode", "ssa"])
def test_every_synapse_but_the_first_reads_only_zeros_and_ones(parts, steps, training):
    x = torch.rand(steps, 2, 2, 12, 12, generator=torch.Generator().manual_seed(1))
    net = settled(network(parts, shape=(2, 12, 12)), x).train(training)
    ones, others = [], []
    for synapse in synapses(net)[1:]:
        synapse.register_forward_pre_hook(lambda module, args: ones.append(int((args[0] == 1).sum())))
        synapse.register_forward_pre_hook(lambda module, args: others.append(int(((args[0] != 0) & (args[0] != 1)).sum())))
    net(x)
    assert len(others) == 3 + 1 + 2 * 4 and sum(others) == 0
    assert ones.count(0) <= (2 if parts is SSA else 0)  # the projections of SSA may read nothing


# 5
def test_a_block_whose_projection_is_normalised_to_zero_passes_its_input_exactly_through_attention():
    block = lively(TransformerBlock(16, PARTS, PARTS.attention)).double()
    x = torch.randn(4, 2, 16, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    passed = []
    block.perceptron.register_forward_pre_hook(lambda module, args: passed.append(args[0]))
    block(x)
    norm = block.attention.projection[-1]
    nn.init.zeros_(norm.weight), nn.init.zeros_(norm.bias)
    block(x)
    assert not torch.equal(passed[0], x)
    assert torch.equal(passed[1], x)


def test_both_branches_are_added_to_membrane_inputs():
    block = lively(TransformerBlock(16, PARTS, PARTS.attention)).double().eval()
    x = torch.randn(4, 2, 16, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    inner = x + block.attention(x)
    torch.testing.assert_close(block(x), inner + block.perceptron(inner), rtol=0, atol=0)


# 7
@pytest.mark.parametrize(("name", "millions"), [("8-384", 16.82), ("6-512", 23.37), ("8-512", 29.69), ("10-512", 36.01), ("8-768", 66.34)])
def test_the_imagenet_nets_have_the_number_of_weights_of_the_code(name, millions):
    blocks, width = (int(part) for part in name.split("-"))
    with torch.device("meta"):
        net = SpikeTransformer((3, 224, 224), width, blocks, "1111", PARTS, PARTS.attention)
    unused = 64 * blocks  # the code's convolution between heads, which it never calls
    assert round((sum(p.numel() for p in net.parameters()) + width * 1000 + 1000 + unused) / 1e6, 2) == millions


def test_the_cifar_net_has_ten_million_weights_and_its_fused_maps_count_as_three():
    with torch.device("meta"):
        net = SpikeTransformer((3, 32, 32), 512, 2, "0011", PARTS, PARTS.attention)
    assert round((sum(p.numel() for p in net.parameters()) + 5130 + 128) / 1e6, 2) == 10.23
    assert net.blocks[0].attention.qkv.synapse.weight.numel() == 3 * 512 * 512


def test_the_fused_maps_give_the_numbers_of_three_maps():
    attention = lively(TransformerBlock(8, PARTS, PARTS.attention)).double().attention
    found = []
    attention.attention.register_forward_pre_hook(lambda module, args: found.append(args))
    x = 2 * torch.randn(3, 2, 8, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    settled(attention, x)
    found.clear()
    attention(x)
    spikes, norm = attention.neuron(x), attention.qkv.norm
    for part, name in zip(found[0], ("q", "k", "v"), strict=True):
        rows = slice(8 * "qkv".index(name), 8 * "qkv".index(name) + 8)
        current = torch.einsum("oc,tbcij->tboij", attention.qkv.synapse.weight[rows, :, 0, 0], spikes)
        mean, deviation = norm.running_mean[rows], (norm.running_var[rows] + norm.eps).sqrt()
        shape = (-1, 1, 1)
        current = (current - mean.view(shape)) / deviation.view(shape) * norm.weight[rows].view(shape) + norm.bias[rows].view(shape)
        assert torch.equal(part, PARTS.neuron(8)(current))
        assert 0 < part.mean() < 1


@pytest.mark.parametrize(
    ("pooling", "sides"), [("0011", (8, 8, 4, 2)), ("0111", (8, 4, 2, 1)), ("1111", (4, 2, 1, 1)), ("00111", (8, 8, 4, 2, 1))]
)
def test_patches_are_split_by_halving_where_pooling_says_so(pooling, sides):
    found = PatchSplitting(3, 32, pooling, PARTS)(torch.rand(2, 2, 3, 8, 8))
    channels = [32 >> (len(pooling) - 1 - number) for number in range(len(pooling))]
    assert [tuple(x.shape) for x in found] == [(2, 2, c, side, side) for c, side in zip(channels, sides, strict=True)]
    assert all(set(x.unique().tolist()) <= {0.0, 1.0} for x in found[:-1])


def test_the_position_branch_is_added_to_the_membrane_inputs_of_the_last_stage():
    splitting = lively(PatchSplitting(3, 32, "0011", PARTS)).double()
    last = []
    splitting.stages[-1].register_forward_hook(lambda module, args, out: last.append(out))
    *_, tokens = splitting(torch.rand(2, 2, 3, 8, 8, dtype=torch.float64))
    assert not set(last[0].unique().tolist()) <= {0.0, 1.0}
    torch.testing.assert_close(tokens - last[0], splitting.position(last[0]), rtol=0, atol=1e-12)


def test_a_width_that_cannot_be_halved_in_every_stage_is_refused():
    with pytest.raises(ValueError, match="multiple of 8, not 36"):
        PatchSplitting(3, 36, "0011", PARTS)


def test_levels_for_places_describe_the_spikes_of_pooled_stages_and_of_the_tokens():
    net = network(pooling="0111", pooled=False, shape=(3, 16, 24))
    found = net(torch.rand(2, 2, 3, 16, 24))
    assert [level.stride for level in net.levels] == [2, 4, 8]
    assert [tuple(x.shape[2:]) for x in found] == [(level.channels, *level.size) for level in net.levels]
    assert all(set(x.unique().tolist()) == {0.0, 1.0} for x in found)


def test_a_classifier_reads_the_fired_mean_over_tokens():
    x = torch.rand(4, 3, 2, 8, 8, dtype=torch.float64)
    net = settled(network().double(), x)
    (found,) = net(x)
    *_, tokens = net.splitting(x)
    mean = net.blocks(tokens).flatten(3).sum(-1) / 4
    assert torch.equal(found[..., 0, 0], PARTS.neuron(32)(mean))
    assert found.shape == (4, 3, 32, 1, 1) and net.levels[0].features == 32
    assert set(found.unique().tolist()) == {0.0, 1.0}


def test_weights_of_convolutions_start_with_a_deviation_of_a_fiftieth():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        weight = PARTS.backbone().blocks[0].perceptron[1].weight
    assert weight.std().item() == pytest.approx(0.02, rel=0.05)


@pytest.mark.parametrize("parts", [PARTS, ERODING, SSA], ids=["sdsa", "erode", "ssa"])
@pytest.mark.parametrize("pooled", [True, False])
def test_one_step_at_a_time_gives_the_same_spikes(parts, pooled):
    x = torch.rand(4, 2, 2, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    net = settled(network(parts, pooled=pooled).double(), x)
    with torch.no_grad():
        whole = net(x)
        with stepping(net):
            stepped = [net(now[None]) for now in x]
    for number, level in enumerate(whole):
        assert 0 < level.mean() < 1
        assert torch.equal(level, torch.cat([levels[number] for levels in stepped]))


def test_drop_path_leaves_out_branches_in_training_only():
    net = network(drop_path=0.5).double()
    calm = network().double()
    x = torch.rand(3, 16, 2, 8, 8, dtype=torch.float64)
    outcomes = []
    for training in (True, False):
        calm.load_state_dict(net.state_dict())
        net.train(training), calm.train(training)
        tokens = net.splitting(x)[-1].detach()
        outcomes.append(torch.equal(net.blocks(tokens), calm.blocks(tokens)))
    assert outcomes == [False, True]
