"""Binary weight optimisation: test 7 of the card, and what a round keeps and undoes."""

from __future__ import annotations

import pytest
import torch

from methods.nn.local_binary import LocalBinaryLinear, binary_weight, scales
from methods.nn.sign_flips import best_flips, optimise_signs

DOUBLE = torch.float64


def toy(features: int = 40, wrong: int = 6):
    """A least-squares problem, convex in the weight, whose answer is a binary layer with some signs flipped."""
    torch.manual_seed(0)
    layer = LocalBinaryLinear(features, 3, bias=False).to(DOUBLE)
    layer.binary = True
    best = binary_weight(layer.weight)
    best.view(-1)[torch.randperm(best.numel())[:wrong]] *= -1
    x = torch.randn(400, features, dtype=DOUBLE)
    wanted = x @ best.T

    def losses():
        for start, stop in ((0, 150), (150, 400)):  # batches of two sizes
            yield (layer(x[start:stop]) - wanted[start:stop]).square().sum(1).mean(), stop - start

    return layer, best, losses


def loss_of(losses) -> float:
    with torch.no_grad():
        parts = [(loss.item() * count, count) for loss, count in losses()]
    return sum(part for part, _ in parts) / sum(count for _, count in parts)


def gradient_of(layer, losses) -> torch.Tensor:
    b = binary_weight(layer.weight).requires_grad_()
    layer.binary, kept = False, layer.weight.detach().clone()
    with torch.no_grad():
        layer.weight.copy_(b)
    total = sum(loss * count for loss, count in losses()) / 400
    (found,) = torch.autograd.grad(total, layer.weight)
    with torch.no_grad():
        layer.weight.copy_(kept)
    layer.binary = True
    return found


# 7
def test_the_flip_with_the_largest_predicted_gain_lowers_the_loss():
    layer, _, losses = toy()
    before = loss_of(losses)
    gradient = gradient_of(layer, losses)
    mask = best_flips(layer, gradient, 1)
    b = torch.where(layer.weight >= 0, 1.0, -1.0).double()
    assert mask.sum() == 1 and (2 * b * scales(layer.weight) * gradient)[mask] > 0
    with torch.no_grad():
        layer.weight[mask] *= -1
    assert loss_of(losses) < before


def test_only_flips_with_a_positive_gain_are_proposed():
    layer, _, _ = toy()
    gradient = -torch.where(layer.weight >= 0, 1.0, -1.0).double()  # each sign is as the loss wants it
    assert not best_flips(layer, gradient, 10).any()
    gradient.view(-1)[7] *= -1
    assert best_flips(layer, gradient, 10).flatten().nonzero().tolist() == [[7]]


def test_a_weight_of_zero_has_no_other_sign():
    layer, _, _ = toy()
    with torch.no_grad():
        layer.weight[0, 0] = 0.0
    assert not best_flips(layer, torch.ones_like(layer.weight), 10_000)[0, 0]


def test_rounds_find_the_signs_that_were_wrong():
    layer, best, losses = toy()
    before, latent = loss_of(losses), layer.weight.detach().clone()
    flips = optimise_signs([layer], losses, share=1 / 120)
    assert flips.losses[0] == pytest.approx(before, rel=1e-12)
    assert flips.losses == sorted(flips.losses, reverse=True) and flips.losses[-1] < 1e-12
    assert flips.signs >= 6 and flips.accepted == len(flips.losses) - 1
    torch.testing.assert_close(binary_weight(layer.weight), best)
    assert torch.equal(layer.weight.abs(), latent.abs())


@pytest.mark.parametrize(("share", "patience", "tried"), [(0.1, 3, [0, 12, 6, 3]), (0.1, 9, [0, 12, 6, 3, 1]), (0.001, 5, [0, 1])])
def test_a_rejected_round_is_undone_and_the_next_tries_half_as_many_down_to_one(share, patience, tried):
    layer, _, _ = toy()
    latent, seen = layer.weight.detach().clone(), []

    def losses():
        """A loss that never falls, whose gradient wants every sign flipped."""
        seen.append(int((layer.weight.sign() != latent.sign()).sum()))
        product = (layer(torch.eye(40, dtype=DOUBLE)) * latent.sign().T).sum()
        yield 1 + product - product.detach(), 1

    flips = optimise_signs([layer], losses, share, patience)
    assert seen == tried
    assert (flips.accepted, flips.rejected, flips.signs, flips.losses) == (0, len(tried) - 1, 0, [1.0])
    assert torch.equal(layer.weight, latent)


def test_nothing_is_tried_where_no_flip_gains():
    layer, best, losses = toy()
    with torch.no_grad():
        layer.weight.copy_(best * layer.weight.abs() / best.abs())
    flips = optimise_signs([layer], losses, share=0.02)
    assert (flips.accepted, flips.rejected, flips.signs) == (0, 0, 0)


def test_the_number_of_rounds_is_limited():
    layer, _, losses = toy()
    assert optimise_signs([layer], losses, share=1 / 120, rounds=2).accepted == 2


def test_parameters_keep_no_gradient_and_nothing_is_done_without_layers():
    layer, _, losses = toy()
    optimise_signs([layer], losses, rounds=1)
    assert layer.weight.grad is None
    assert optimise_signs([], losses).losses == []
