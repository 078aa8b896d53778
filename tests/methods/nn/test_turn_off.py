import pytest
import torch
from torch import nn

from methods.nn.potential_exit import PotentialExit
from methods.nn.scaled_std_conv import ScaledStdConv2d
from methods.nn.turn_off import TurnOff
from methods.nn.turn_off_block import TurnOffBlock, way_back


def lively(module, seed=0):
    generator = torch.Generator().manual_seed(seed)
    module = module.double()
    for p in module.parameters():
        p.data.add_(0.3 * torch.randn(p.shape, generator=generator, dtype=p.dtype))
    return module


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_a_turn_off_neuron_fires_from_one_half_on(dtype):
    half = torch.tensor(0.5, dtype=dtype)
    v = torch.stack([half, torch.nextafter(half, half - 1), -3 * half, 0 * half, 5 * half])
    assert TurnOff()(v).tolist() == [1, 0, 0, 0, 1]


def test_its_gradient_is_one_from_zero_to_one_and_else_zero():
    v = torch.tensor([-2e-4, 0.0, 0.3, 1.0, 1.0002], requires_grad=True)
    TurnOff()(v).backward(torch.full((5,), 2.0))
    assert v.grad.tolist() == [0, 2, 2, 2, 0]


def test_rounding_at_the_ends_of_the_window_does_not_change_the_gradient():
    v = torch.tensor([-1e-6, 1e-6, 1 - 1e-6, 1 + 1e-6], requires_grad=True)
    TurnOff()(v).sum().backward()
    assert v.grad.tolist() == [1, 1, 1, 1]


def test_a_potential_that_is_not_a_number_gives_a_spike_that_is_none():
    assert TurnOff()(torch.tensor([torch.nan, 1.0])).isnan().tolist() == [True, False]


def test_standardised_weights_have_mean_zero_and_biased_variance_one_over_fan_in():
    conv = lively(ScaledStdConv2d(6, 5, 3))
    rows = conv.effective_weight.flatten(1)
    assert rows.mean(1).abs().max() < 1e-12
    torch.testing.assert_close(rows.var(1, unbiased=False), conv.gain.detach() ** 2 / 54, rtol=1e-3, atol=0)
    spread = conv.weight.flatten(1)
    expected = (
        conv.gain[:, None]
        * 54**-0.5
        * (spread - spread.mean(1, keepdim=True))
        / (spread.var(1, unbiased=False, keepdim=True) + 1e-6).sqrt()
    )
    torch.testing.assert_close(rows, expected, rtol=1e-12, atol=1e-14)


def test_a_block_is_its_equation():
    block = lively(TurnOffBlock(5, 3, gamma=0.7))
    v = torch.randn(1, 2, 5, 6, 6, dtype=torch.float64)
    conv = nn.functional.conv2d
    spikes = (v[0] >= 0.5).double()
    hidden = conv(spikes, block.depthwise.weight, block.depthwise.bias, padding=1, groups=5)
    hidden = (conv(hidden, block.pointwise.effective_weight, block.pointwise.bias) >= 0.5).double()
    assert 0 < hidden.mean() < 1
    pointwise, depthwise = block.back
    branch = conv(conv(hidden, pointwise.effective_weight, pointwise.bias), depthwise.weight, depthwise.bias, padding=1, groups=5)
    torch.testing.assert_close(block(v)[0], v[0] + block.gamma[:, None, None] * branch, rtol=1e-12, atol=1e-12)


# 5
def test_gamma_folded_into_the_last_convolution_leaves_the_output_unchanged():
    block = lively(TurnOffBlock(5, 3, gamma=0.7))
    v = torch.randn(1, 2, 5, 6, 6, dtype=torch.float64)
    before = block(v)
    block.fold()
    assert block.gamma is None and block.pointwise.gain is None
    assert (block(v) - before).abs().max() < 1e-12


def test_a_block_with_gamma_zero_is_the_identity():
    block = TurnOffBlock(5, 3, gamma=0.0)
    v = torch.randn(1, 2, 5, 6, 6)
    assert torch.equal(block(v), v)


def test_a_shared_way_back_is_folded_once():
    back = lively(way_back(5, 3))
    blocks = [lively(TurnOffBlock(5, 3), seed) for seed in (1, 2)]
    for block in blocks:
        block.back = back
    v = torch.randn(1, 2, 5, 6, 6, dtype=torch.float64)
    before = [block(v) for block in blocks]
    for block in blocks:
        block.fold()
    assert all((block(v) - out).abs().max() < 1e-12 for block, out in zip(blocks, before, strict=True))


def test_the_two_layers_of_a_spiking_exit_fold_into_one():
    leave = lively(PotentialExit(6, 4, spiking=True))
    states = [torch.randn(1, 3, 6, 2, 2, dtype=torch.float64)]
    before = leave(states)
    assert before.shape == (1, 3, 4)
    leave.fold()
    assert isinstance(leave.second, nn.Identity)
    assert (leave(states) - before).abs().max() < 1e-12
