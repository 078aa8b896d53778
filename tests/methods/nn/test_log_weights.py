"""Logarithmic weights: card, test 6, and what the quantiser promises."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

from methods.nn.log_weights import LogWeights
from methods.nn.time_code import TimeCode

DOUBLE = torch.float64


def weights(count: int = 4000) -> torch.Tensor:
    return torch.randn(count, dtype=DOUBLE, generator=torch.Generator().manual_seed(0))


# Card, test 6
@pytest.mark.parametrize(("levels", "tau"), [(24, 4), (12, 2), (6, 1), (18, 3)])
def test_addition_table_and_shift_are_the_product_of_weight_and_kernel(levels, tau):
    quantiser = LogWeights(5)
    codes = quantiser.codes(weights())
    w, kernel = quantiser.decode(codes), TimeCode(levels, tau).kernel(torch.empty(0, dtype=DOUBLE))
    for t in range(levels):
        torch.testing.assert_close(quantiser.product(codes, t, tau), w * kernel[t], atol=1e-14, rtol=0)


@pytest.mark.parametrize("bits", [2, 3, 5, 8])
def test_a_layer_has_no_more_values_than_its_bits_can_name(bits):
    quantiser = LogWeights(bits)
    found = quantiser(weights())
    assert len(found.unique()) <= 2**bits
    assert quantiser.codes(weights()).q.max() <= 2 ** (bits - 1) - 1


def test_kept_weights_change_by_a_quarter_octave_at_most_and_small_ones_fall_silent():
    w = weights()
    codes = LogWeights(5).codes(w)
    found = LogWeights(5)(w)
    kept = found != 0
    octaves = (found[kept] / w[kept]).log2()
    assert octaves.abs().max() <= 0.25 + 1e-12
    assert (w[~kept].abs() < 2 ** (codes.peak - 7.25 + 1e-9)).all() and (~kept).any()
    assert (w[kept].abs() > 2 ** (codes.peak - 7.25 - 1e-9)).all()


@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
@pytest.mark.parametrize("scale", [1.0, 0.37, 2**0.5, 1e-3])
def test_quantised_weights_stay_as_they_are(dtype, scale):
    once = LogWeights(5)((weights() * scale).to(dtype))
    torch.testing.assert_close(LogWeights(5)(once), once, rtol=1e-6 if dtype == torch.float32 else 1e-14, atol=0)


def test_a_layer_of_zeros_stays_silent():
    assert LogWeights(5)(torch.zeros(7)).tolist() == [0] * 7


def test_gradients_pass_straight_through():
    layer = nn.Linear(5, 3)
    parametrize.register_parametrization(layer, "weight", LogWeights(5))
    x = torch.rand(4, 5)
    layer(x).sum().backward()
    torch.testing.assert_close(layer.parametrizations.weight.original.grad, x.sum(0).expand(3, 5))


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="at least 2 bits, not 1"):
        LogWeights(1)
    with pytest.raises(ValueError, match="whole tau"):
        LogWeights(5).product(LogWeights(5).codes(weights()), 0, 1.5)
