"""Attention between spikes: masks (SDSA) and products of matrices (SSA), against independent formulas."""

from __future__ import annotations

import pytest
import torch

from methods.nn.neuron import LIF
from methods.nn.spike_attention import SpikeDrivenAttention, SpikingSelfAttention
from methods.nn.surrogate import Sigmoid

T, B, D, H, W = 4, 2, 8, 3, 2


def gate():
    return LIF(0.5, 0.5, surrogate=Sigmoid(4.0), scale_input=True)


def qkv(seed=0, rate=0.3):
    generator = torch.Generator().manual_seed(seed)
    return tuple((torch.rand(T, B, D, H, W, generator=generator) < rate).double() for _ in range(3))


def fire(current, threshold=0.5):
    v, spikes = torch.zeros_like(current[0]), []
    for now in current:
        h = v + (now - v) / 2
        spikes.append((h >= threshold).to(now.dtype))
        v = h * (1 - spikes[-1])
    return torch.stack(spikes)


def heads_of(x, heads):
    """[T, B, heads, N, d], as transformers have it."""
    return x.flatten(3).transpose(-1, -2).reshape(T, B, H * W, heads, D // heads).transpose(2, 3)


def images_of(x):
    return x.transpose(2, 3).reshape(T, B, H * W, D).transpose(-1, -2).reshape(T, B, D, H, W)


# 2
def test_sdsa_is_the_query_masked_by_the_fired_column_sum_of_key_times_value():
    q, k, v = qkv()
    mask = fire(torch.einsum("tbcij,tbcij->tbc", k, v))[..., None, None]
    assert 0 < mask.mean() < 1
    assert torch.equal(SpikeDrivenAttention(gate())(q, k, v), q * mask)


def test_mask_and_masked_query_are_binary():
    attention, seen = SpikeDrivenAttention(gate()), []
    attention.mask.register_forward_hook(lambda module, args, out: seen.append(out))
    out = attention(*qkv(rate=0.6))
    assert seen[0].shape == (T, B, D, 1, 1)
    assert all(set(x.unique().tolist()) == {0.0, 1.0} for x in (seen[0], out))


# 3
@pytest.mark.parametrize("heads", [1, 4])
def test_sdsa_does_not_depend_on_the_number_of_heads(heads):
    q, k, v = qkv()
    queries, keys, values = (heads_of(x, heads) for x in (q, k, v))
    mask = fire((keys * values).sum(-2, keepdim=True))  # [T, B, heads, 1, d]
    assert torch.equal(SpikeDrivenAttention(gate())(q, k, v), images_of(queries * mask))


# 4
def test_sdsa_is_equivariant_to_permutations_of_tokens():
    order = torch.randperm(H * W, generator=torch.Generator().manual_seed(1))
    assert not torch.equal(order, torch.arange(H * W))

    def permuted(x):
        return x.flatten(3)[..., order].unflatten(3, (H, W))

    attention, inputs = SpikeDrivenAttention(gate()), qkv()
    assert torch.equal(attention(*(permuted(x) for x in inputs)), permuted(attention(*inputs)))


# 6
def test_a_channel_whose_mask_is_zero_at_a_step_gives_nothing_there_and_others_their_query():
    attention, seen = SpikeDrivenAttention(gate()), []
    attention.mask.register_forward_hook(lambda module, args, out: seen.append(out[..., 0, 0]))
    q, k, v = qkv()
    q[:], k[:, :, 3] = 1.0, 0.0
    out, mask = attention(q, k, v), seen[0] == 1
    assert not mask[:, :, 3].any()
    assert out[~mask].count_nonzero() == 0
    assert torch.equal(out[mask], q[mask])


def test_erode_pools_key_value_their_product_and_the_masked_query_over_space():
    q, k, v = qkv(rate=0.15)

    def pooled(x):
        padded = torch.nn.functional.pad(x, (1, 1, 1, 1))
        return torch.stack([padded[..., i : i + H, j : j + W] for i in range(3) for j in range(3)]).amax(0)

    mask = fire(pooled(pooled(k) * pooled(v)).sum((3, 4), keepdim=True))
    expected = pooled(q * mask)
    assert torch.equal(SpikeDrivenAttention(gate(), erode=True)(q, k, v), expected)
    assert not torch.equal(SpikeDrivenAttention(gate())(q, k, v), expected)


@pytest.mark.parametrize("heads", [1, 2, 4])
def test_ssa_is_the_fired_product_of_query_key_and_value_in_the_order_of_the_paper(heads):
    inputs = qkv(rate=0.6)
    queries, keys, values = (heads_of(x, heads) for x in inputs)
    expected = fire(images_of(0.125 * (queries @ keys.transpose(-1, -2)) @ values))
    assert 0 < expected.mean() < 1
    assert torch.equal(SpikingSelfAttention(gate(), D, heads)(*inputs), expected)


def test_ssa_refuses_channels_that_its_heads_do_not_divide():
    with pytest.raises(ValueError, match="6 channels cannot be split into 4 heads"):
        SpikingSelfAttention(gate(), 6, 4)


def test_additions_of_sdsa_are_the_coincidences_of_key_and_value():
    q, k, v = qkv()
    assert SpikeDrivenAttention(gate()).synops_other((q, k, v), None) == (k.bool() & v.bool()).sum()


def test_operations_of_ssa_are_those_of_loops_that_skip_zeros():
    q, k, v = (x[:2, :1] for x in qkv())
    attention = SpikingSelfAttention(gate(), D, heads=2)
    counted = 0
    for t in range(2):
        for head in (slice(0, 4), slice(4, 8)):
            a, b, c = (x[t, 0, head].flatten(1).tolist() for x in (q, k, v))
            table = [[0.0] * 4 for _ in range(4)]
            for n in range(H * W):
                for i in range(4):
                    for j in range(4):
                        if b[i][n] and c[j][n]:
                            table[i][j] += 1
                            counted += 1
            counted += sum(1 for n in range(H * W) for i in range(4) for j in range(4) if a[i][n] and table[i][j])
    assert counted > 0
    assert attention.synops_other((q, k, v), None) == counted


def test_attention_is_linear_in_tokens_and_channels_and_ssa_in_channels_is_not():
    def dense(attention, channels, side):
        ones = torch.ones(1, 1, channels, side, side)
        return float(attention.synops_other((ones, ones, ones), None))

    sdsa = SpikeDrivenAttention(gate())
    assert dense(sdsa, 16, 2) == 2 * dense(sdsa, 8, 2)
    assert dense(sdsa, 8, 4) == 4 * dense(sdsa, 8, 2)
    assert dense(SpikingSelfAttention(gate(), 16, 1), 16, 2) == 4 * dense(SpikingSelfAttention(gate(), 8, 1), 8, 2)
