"""Synthetic images: concentrations, soft labels, and the descent on pixels (card of PrivateSNN, tests 1 and 2)."""

import pytest
import torch

from methods.nn.impressions import LEAST, concentrations, impressions, label_loss, soft_labels

DOUBLE = torch.float64


def weights(classes=6, features=20):
    return torch.randn(classes, features, dtype=DOUBLE, generator=torch.Generator().manual_seed(3))


# Card, test 1
def test_concentrations_have_diagonal_one_and_a_least_of_zero_in_each_row():
    a = concentrations(weights())
    assert torch.equal(a.diagonal(), torch.ones(6, dtype=DOUBLE))
    assert torch.equal(a.amin(1), torch.zeros(6, dtype=DOUBLE))
    assert a.max() == 1


def test_concentrations_are_the_shifted_and_scaled_cosines():
    w = weights()
    s = torch.nn.functional.cosine_similarity(w[:, None], w[None], dim=2)
    shifted = s - s.min(1, keepdim=True).values
    torch.testing.assert_close(concentrations(w), shifted / shifted.max(1, keepdim=True).values)
    torch.testing.assert_close(concentrations(w), concentrations(7 * w))


def test_classes_whose_rows_are_alike_have_their_own_class_only():
    assert torch.equal(concentrations(torch.ones(3, 4)), torch.eye(3))
    assert torch.equal(concentrations(torch.ones(1, 4)), torch.eye(1))


def test_soft_labels_sum_to_one_and_their_mean_is_that_of_the_law():
    torch.manual_seed(0)
    w = weights()
    found = soft_labels(w, torch.full((20_000,), 2))
    torch.testing.assert_close(found.sum(1), torch.ones(20_000, dtype=DOUBLE))
    a = concentrations(w)[2].clamp_min(LEAST)
    torch.testing.assert_close(found.mean(0), a / a.sum(), atol=0.01, rtol=0)


# Card, test 2
def test_the_gradient_of_the_logits_is_that_of_the_softmax_at_its_temperature():
    torch.manual_seed(0)
    logits = (10 * torch.randn(5, 6, dtype=DOUBLE)).requires_grad_()
    labels = torch.rand(5, 6, dtype=DOUBLE)
    labels /= labels.sum(1, keepdim=True)
    (found,) = torch.autograd.grad(label_loss(logits, labels, 20.0), logits)
    torch.testing.assert_close(found, ((logits / 20).softmax(1) - labels) / 20)


def test_impressions_of_a_linear_map_become_black_and_white_by_the_sign_of_its_weights():
    torch.manual_seed(0)
    weight = torch.randn(2, 16)
    found = impressions(lambda x: x.flatten(1) @ weight.T, torch.eye(2), (1, 4, 4), 200, 0.05)
    assert found.dtype == torch.uint8
    assert torch.equal(found[0].flatten(), 255 * (weight[0] > weight[1]).to(torch.uint8))
    assert torch.equal(found[1], 255 - found[0])


@pytest.mark.parametrize("batch", [1, 3, 8])
def test_an_image_does_not_depend_on_its_neighbours(batch, monkeypatch):
    start = torch.rand(7, 1, 2, 2, generator=torch.Generator().manual_seed(1))
    left = iter(start.split(batch))
    monkeypatch.setattr("torch.rand", lambda *size, device, requires_grad: next(left).clone().requires_grad_())
    weight, labels = torch.linspace(-1, 1, 12).view(3, 4), torch.eye(3)[[0, 1, 2, 0, 1, 2, 1]]
    found = impressions(lambda x: (x.flatten(1) @ weight.T).square(), labels, (1, 2, 2), 10, 0.02, batch=batch)
    left = iter(start.split(7))
    assert torch.equal(found, impressions(lambda x: (x.flatten(1) @ weight.T).square(), labels, (1, 2, 2), 10, 0.02, batch=7))
