"""Binarised synapses: scale, error, straight-through gradient, storage. Numbers are those of the card's list of tests."""

from __future__ import annotations

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from harness.meters.synops import SynopsMeter
from methods.nn.local_binary import (
    LocalBinaryConv2d,
    LocalBinaryDelayLine,
    LocalBinaryLinear,
    binary_weight,
    local_binary_layers,
    scales,
    weight_error,
    weights_in_use,
)
from methods.nn.synapse import Conv2d

DOUBLE = torch.float64


def weight(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=DOUBLE, generator=torch.Generator().manual_seed(0))


def with_weight(values: torch.Tensor) -> LocalBinaryLinear:
    layer = LocalBinaryLinear(values.shape[1], len(values), bias=False).to(values.dtype)
    with torch.no_grad():
        layer.weight.copy_(values)
    return layer


# 1
def test_the_mean_absolute_weight_is_the_least_squares_scale_of_its_channel():
    w = weight(3, 2, 3, 3)
    for channel, alpha in zip(w, scales(w).flatten(), strict=True):
        b = torch.where(channel >= 0, 1.0, -1.0).double().flatten()
        solved = torch.linalg.lstsq(b[:, None], channel.flatten()[:, None]).solution.item()
        assert alpha.item() == pytest.approx(solved, rel=1e-12)
    assert scales(w).shape == (3, 1, 1, 1)


def test_a_layer_of_plus_and_minus_a_constant_per_channel_has_no_error():
    w = weight(4, 9).sign() * torch.tensor([0.1, 0.7, 2.0, 1.0], dtype=DOUBLE)[:, None]
    assert weight_error(w).abs() < 1e-14
    torch.testing.assert_close(binary_weight(w), w)


def test_the_sign_of_zero_is_plus():
    assert binary_weight(torch.tensor([[0.0, -2.0, 1.0]])).tolist() == [[1.0, -1.0, 1.0]]


# 2
def test_the_closed_form_of_the_weight_error_is_the_direct_computation():
    w = weight(5, 4, 3, 3) * torch.arange(1, 6, dtype=DOUBLE).view(-1, 1, 1, 1)
    direct = (w - binary_weight(w)).square().sum() / w.square().sum()
    torch.testing.assert_close(weight_error(w), direct, rtol=1e-12, atol=0)
    assert 0.2 < direct < 0.6


def test_gaussian_weights_have_an_error_of_one_minus_two_over_pi():
    assert weight_error(weight(20, 20_000)).item() == pytest.approx(1 - 2 / math.pi, abs=0.005)


def test_a_weight_of_zeros_has_no_error():
    assert weight_error(torch.zeros(2, 3)) == 0


# 4
def test_the_gradient_passes_straight_through_where_the_weight_is_at_most_one():
    layer = with_weight(torch.tensor([[-2.0, 0.5, 1.0, 1.5]]))
    layer.binary = True
    upstream = torch.tensor([3.0, -5.0, 7.0, 11.0])
    layer(upstream[None]).sum().backward()
    assert layer.weight.grad.tolist() == [[0.0, -5.0, 7.0, 0.0]]


def test_gradients_at_the_weight_in_use_are_not_masked():
    layer = with_weight(torch.tensor([[-2.0, 0.5, 1.0, 1.5]]))
    for layer.binary in (False, True):
        x = torch.tensor([[3.0, -5.0, 7.0, 11.0]])
        with weights_in_use([layer]) as used:
            loss = layer(x).sum()
        assert torch.equal(torch.autograd.grad(loss, used[layer])[0], x)
    assert layer._kept is None


# 9
def test_a_layer_that_is_not_binarised_is_the_plain_layer_to_the_bit():
    torch.manual_seed(0)
    local, plain = LocalBinaryConv2d(3, 4, 3, padding=1, bias=False), Conv2d(3, 4, 3, padding=1, bias=False)
    plain.load_state_dict(local.state_dict())
    x = torch.randn(2, 2, 3, 5, 5)
    found = []
    for layer in (local, plain):
        image = x.clone().requires_grad_()
        y = layer(image)
        y.square().sum().backward()
        found.append((y, image.grad, layer.weight.grad))
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def synapses() -> dict[str, tuple[nn.Module, torch.Tensor]]:
    torch.manual_seed(1)
    return {
        "conv": (LocalBinaryConv2d(3, 5, 3, padding=1, bias=False), torch.rand(2, 2, 3, 4, 4)),
        "linear": (LocalBinaryLinear(7, 3), torch.rand(2, 2, 7)),
        "delays": (LocalBinaryDelayLine(3, 4, 4, 2, bias=False), torch.rand(9, 2, 3)),
    }


@pytest.mark.parametrize("kind", ["conv", "linear", "delays"])
def test_a_stored_layer_answers_as_before_and_holds_a_bit_per_weight(kind):
    net, x = synapses()[kind]
    (layer,) = local_binary_layers(nn.Sequential(net)).values()
    before = net(x).detach()
    latent, layer.binary = layer.weight.detach().clone(), True
    expected = net(x).detach()
    assert not torch.allclose(before, expected)
    layer.store()
    assert torch.equal(layer.effective_weight, binary_weight(latent))
    torch.testing.assert_close(net(x), expected, rtol=1e-6, atol=1e-6)
    held = layer.state_dict()
    assert "weight" not in held and layer.signs.dtype == torch.uint8
    assert layer.signs.numel() == math.ceil(latent.numel() / 8) and layer.alpha.numel() == len(latent)
    assert layer.stored_bits() == 8 * layer.signs.numel() + 32 * len(latent)
    assert layer.bits(True) == latent.numel() + 32 * len(latent) <= layer.stored_bits() < layer.bits(True) + 8


def test_what_is_not_binarised_keeps_its_weight_when_stored():
    layer = LocalBinaryLinear(4, 2)
    layer.store()
    assert not layer.stored and isinstance(layer.weight, nn.Parameter)
    assert layer.stored_bits() == layer.bits(False) == 8 * 32


def test_a_stored_layer_can_be_stored_again_copied_and_moved():
    layer, x = LocalBinaryLinear(6, 2, bias=False), torch.rand(3, 6)
    layer.binary = True
    layer.store()
    layer.store()
    torch.testing.assert_close(copy.deepcopy(layer).double()(x.double()).float(), layer(x))


@pytest.mark.parametrize("stored", [False, True])
def test_meters_count_the_operations_of_the_binary_weight(stored):
    layer = LocalBinaryConv2d(2, 3, 3, padding=1, bias=False)
    with torch.no_grad():
        layer.weight[0, 0] = 0  # of the latent weight; in use they are plus alpha
    plain = Conv2d(2, 3, 3, padding=1, bias=False)
    x = (torch.rand(2, 4, 2, 5, 5) > 0.5).float()
    layer.binary = True
    with torch.no_grad():
        plain.weight.copy_(layer.effective_weight)
    if stored:
        layer.store()
    counts = []
    for synapse in (layer, plain):
        with SynopsMeter(nn.Sequential(synapse)) as meter, torch.no_grad():
            counts.append(synapse(x))
        counts.append(meter.result(4))
    assert counts[1] == counts[3] and counts[1].connection_sparsity == 0
    torch.testing.assert_close(counts[0], counts[2])


def test_taps_of_a_delay_line_share_the_scale_of_their_output():
    line = synapses()["delays"][0]
    line.conv.binary = True
    x, w = torch.rand(6, 2, 3), binary_weight(line.conv.weight)
    expected = F.conv1d(F.pad(x.permute(1, 2, 0), (line.past, 0)), w, dilation=2).permute(2, 0, 1)
    torch.testing.assert_close(line(x), expected)
    assert all(len(row.abs().unique()) == 1 for row in w)
