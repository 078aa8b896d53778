"""The accuracy loss estimator against the true change of the loss."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from methods.nn.accuracy_loss import AccuracyLoss
from methods.nn.local_binary import LocalBinaryLinear, binary_weight, weights_in_use

DOUBLE = torch.float64


def toy() -> tuple[nn.Sequential, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    net = nn.Sequential(LocalBinaryLinear(8, 12), nn.Tanh(), LocalBinaryLinear(12, 4)).to(DOUBLE)
    return net, torch.randn(32, 8, dtype=DOUBLE), torch.randint(4, (32,))


def observed(net: nn.Sequential, loss, scale: float = 1.0) -> AccuracyLoss:
    layers = {"first": net[0], "last": net[2]}
    estimator = AccuracyLoss(layers)
    observe(estimator, loss, scale)
    return estimator


def observe(estimator: AccuracyLoss, loss, scale: float = 1.0) -> None:
    with weights_in_use(estimator.layers.values()) as used:
        found = loss() * scale
    for tensor in (found, *used.values()):
        tensor.retain_grad()
    found.backward()
    estimator.observe(used, scale)
    for layer in estimator.layers.values():
        layer.zero_grad()


# Card, test 3
@pytest.mark.parametrize("name", ["first", "last"])
def test_the_prediction_is_the_true_change_of_the_loss_for_a_small_step_to_the_binary_weight(name):
    net, x, classes = toy()
    estimator = observed(net, lambda: F.cross_entropy(net(x), classes))
    layer, step = estimator.layers[name], 1e-4
    with torch.no_grad():
        before = F.cross_entropy(net(x), classes)
        layer.weight += step * (binary_weight(layer.weight) - layer.weight)
        change = (F.cross_entropy(net(x), classes) - before).item()
    predicted = step * estimator.errors()[name]
    assert predicted == pytest.approx(abs(change), abs=1e-8, rel=1e-3)
    assert predicted > 1e-7


def test_a_binarised_layer_is_judged_by_the_gradient_at_its_binary_weight():
    net, x, classes = toy()
    net[2].binary = True
    with torch.no_grad():
        net[2].weight *= 8  # most of it outside the window of the straight-through gradient
    estimator = observed(net, lambda: F.cross_entropy(net(x), classes))
    b = binary_weight(net[2].weight).requires_grad_()
    F.cross_entropy(F.linear(torch.tanh(net[0](x)), b, net[2].bias), classes).backward()
    expected = (b.grad * (b - net[2].weight)).sum().abs().item()
    assert estimator.errors()["last"] == pytest.approx(expected, rel=1e-12)
    assert (net[2].weight.abs() > 1).any()


def test_absolute_values_are_smoothed_from_the_first_one_on():
    net, x, classes = toy()
    sign = iter([1.0, -1.0, 2.0])
    estimator = AccuracyLoss({"first": net[0], "last": net[2]})
    assert estimator.errors() is None
    for _ in range(3):
        factor = next(sign)
        observe(estimator, lambda factor=factor: factor * F.cross_entropy(net(x), classes))
    once = observed(net, lambda: F.cross_entropy(net(x), classes)).errors()
    for name, value in estimator.errors().items():
        assert value == pytest.approx((0.9 * (0.9 + 0.1) + 0.1 * 2) * once[name], rel=1e-12)


def test_the_scale_of_mixed_precision_does_not_count_and_overflows_are_passed_over():
    net, x, classes = toy()

    def loss() -> torch.Tensor:
        return F.cross_entropy(net(x), classes)

    plain, scaled = observed(net, loss), observed(net, loss, scale=1024.0)
    for name, value in scaled.errors().items():
        assert value == pytest.approx(plain.errors()[name], rel=1e-12)
    before = scaled.errors()
    observe(scaled, loss, scale=float("inf"))
    assert scaled.errors() == before
