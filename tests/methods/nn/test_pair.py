"""Pairs of a spiking and an ANN branch: what passes between modules, folded synapses, counts in place of activations."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from methods.nn.layout import channels_last
from methods.nn.norm import BatchNorm
from methods.nn.pair import Both, BranchDropout, Pair, over_time
from methods.nn.paired_neuron import counted
from methods.nn.paired_synapse import PairedConv2d, PairedLinear, PairedReadout2d
from methods.nn.residual import MaxPool2d
from methods.nn.synapse import AvgPool2d

DOUBLE = torch.float64
T, B = 5, 3


def spikes(*shape: int) -> torch.Tensor:
    return (torch.rand(*shape, generator=torch.Generator().manual_seed(0), dtype=DOUBLE) < 0.4).double()


def conv(fresh: bool = False, steps: int = T) -> PairedConv2d:
    """A convolution whose running statistics are no defaults."""
    torch.manual_seed(1)
    norm = BatchNorm(4, eps=1e-4, momentum=0.9)
    for part in (norm.weight, norm.bias, norm.running_mean):
        nn.init.normal_(part)
    nn.init.uniform_(norm.running_var, 0.5, 2)
    return PairedConv2d(2, 4, 3, 1, steps, norm, fresh).to(DOUBLE)


@pytest.mark.parametrize("layout", [channels_last, torch.clone])
def test_the_sum_over_time_is_laid_out_as_a_step(layout):
    x = layout(spikes(T, B, 2, 4, 6))
    assert torch.equal(over_time(x), x.sum(0, keepdim=True))
    assert over_time(x)[0].stride() == x[0].stride()
    assert torch.equal(over_time(x[..., 0, 0]), x[..., 0, 0].sum(0, keepdim=True))


def test_what_acts_on_a_pair_acts_on_both_branches_and_spikes_stay_without_a_graph():
    s, c = spikes(T, B, 2, 4, 4), torch.rand(1, B, 2, 4, 4, dtype=DOUBLE, requires_grad=True)
    pair = Pair(s, c)
    changed = [pair.flatten(2), pair.mean((-2, -1), keepdim=True), pair[..., 0], pair + pair, Both(AvgPool2d(2))(pair)]
    expected = [x.flatten(2) for x in (s, c)], [x.mean((-2, -1), keepdim=True) for x in (s, c)], [x[..., 0] for x in (s, c)]
    expected += [2 * x for x in (s, c)], [nn.functional.avg_pool2d(x.flatten(0, 1), 2).unflatten(0, x.shape[:2]) for x in (s, c)]
    for found, (first, second) in zip(changed, expected, strict=True):
        assert torch.equal(found.spikes, first) and torch.equal(found.counts, second)
        assert found.counts.requires_grad and not found.spikes.requires_grad
    assert pair.shape == c.shape
    assert not Pair(c, c).spikes.requires_grad


def test_dropout_is_for_the_ann_branch_of_training():
    torch.manual_seed(0)
    pair, drop = Pair(torch.ones(T, B, 100), torch.ones(1, B, 100)), BranchDropout(0.5)
    dropped = drop(pair)
    assert set(dropped.counts.unique().tolist()) == {0.0, 2.0} and (dropped.spikes == 1).all()
    assert (drop.eval()(pair).counts == 1).all() and (drop.train()(pair.spikes) == 1).all()


def test_folded_currents_sum_up_to_batch_normalisation_with_running_statistics():
    layer, s = conv().eval(), spikes(T, B, 2, 6, 6)
    z = nn.functional.conv2d(s.sum(0), layer.weight, layer.bias, padding=1)
    n = layer.norm
    expected = nn.functional.batch_norm(z, n.running_mean, n.running_var, n.weight, n.bias, eps=1e-4)
    torch.testing.assert_close(layer(s).sum(0), expected, atol=1e-10, rtol=0)
    torch.testing.assert_close(layer(Pair(s, over_time(s))).counts[0], expected, atol=1e-10, rtol=0)
    assert torch.equal(layer.effective_weight, layer.folded()[0])


def test_an_image_that_is_repeated_gets_the_bias_once():
    layer, x = conv().eval(), torch.rand(1, B, 2, 6, 6, dtype=DOUBLE)
    a, c = layer.norm.affine()
    plain = nn.functional.conv2d(x[0], layer.weight, padding=1)
    expected = T * a.view(-1, 1, 1) * plain + (a * layer.bias + c).view(-1, 1, 1)
    torch.testing.assert_close(layer(x.expand(T, -1, -1, -1, -1)).sum(0), expected, atol=1e-10, rtol=0)


def test_pooling_currents_by_their_maximum_breaks_the_identity_upwards():
    layer, s, pool = conv().eval(), spikes(T, B, 2, 6, 6), Both(MaxPool2d(2))
    pair = pool(layer(Pair(s, over_time(s))))
    excess = pair.spikes.sum(0) - pair.counts[0]
    assert excess.min() > -1e-10 and excess.max() > 0.01


@pytest.mark.parametrize("fresh", [True, False])
def test_the_spiking_branch_folds_statistics_from_before_or_after_the_batch(fresh):
    layer, s = conv(fresh).train(), spikes(T, B, 2, 6, 6)
    before = layer(s).detach()
    found = layer(Pair(s, over_time(s)))
    after = layer(s).detach()
    assert not torch.allclose(before, after)
    assert torch.equal(found.spikes, after if fresh else before)


@pytest.mark.parametrize("rectified", [True, False])
def test_counts_take_the_place_of_relu_and_its_gradient_stays(rectified):
    torch.manual_seed(0)
    z = torch.randn(1, B, 50, dtype=DOUBLE).index_fill(2, torch.tensor([0]), 0.0).requires_grad_()
    n, g = torch.randint(0, 5, z.shape).double(), torch.randn(z.shape, dtype=DOUBLE)
    x = counted(z, n, rectified)
    assert torch.equal(x, n * (z > 0) if rectified else n)
    assert torch.equal(torch.autograd.grad(x, z, g)[0], torch.autograd.grad(z.relu(), z, g)[0])


@pytest.mark.parametrize("gain", [1.0, 1 / T])
def test_read_outs_answer_counts_as_the_mean_of_their_answers_to_spikes(gain):
    torch.manual_seed(0)
    s = spikes(T, B, 7)
    flat = PairedLinear(7, 4, gain, T).to(DOUBLE)
    expected = gain * s.sum(0) @ flat.weight.T + flat.bias
    torch.testing.assert_close(flat(Pair(s, over_time(s)))[0], expected)
    torch.testing.assert_close(flat(s).mean(0), expected)
    images = spikes(T, B, 3, 4, 4)
    places = PairedReadout2d(3, 2, gain, T).to(DOUBLE)
    expected = nn.functional.conv2d(gain * images.sum(0), places.weight, places.bias)
    torch.testing.assert_close(places(Pair(images, over_time(images)))[0], expected)
    torch.testing.assert_close(places(images).mean(0), expected)
