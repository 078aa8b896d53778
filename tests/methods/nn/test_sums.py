"""Sums of a traced graph: fewer of them, with the same result."""

from __future__ import annotations

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

from methods.nn import sums

SUMS = {torch.ops.aten.sum.default, torch.ops.aten.sum.dim_IntList}


def merged(function, *inputs):
    graph = make_fx(function)(*inputs)
    before = [node for node in graph.graph.nodes if node.target in SUMS]
    sums.merge(graph)
    graph.graph.lint()
    after = [node for node in graph.graph.nodes if node.target in SUMS]
    torch.testing.assert_close(graph(*inputs), function(*inputs), rtol=1e-12, atol=1e-12)
    return before, after


def random(*shape):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def gradient_of_shared(p, x):
    with torch.enable_grad():
        p = p.detach().requires_grad_()
        u = torch.zeros_like(x[0])
        for now in x.unbind(0):
            u = p * u - p + now
        return torch.autograd.grad(u.square().sum(), p)[0]


@pytest.mark.parametrize("shape", [(), (1,), (7,)])
def test_the_gradient_of_a_number_that_all_steps_share_is_one_sum(shape):
    before, after = merged(gradient_of_shared, random(*shape), random(5, 3, 7))
    assert len(before) > 5
    # Of p * u and of -p: the sign of the latter is taken apart.
    assert len(after) <= 2


def test_the_gradient_of_a_channel_is_summed_over_its_pixels_before_the_batch():
    _, after = merged(gradient_of_shared, random(4, 1, 1), random(5, 3, 4, 2, 6))
    dimensions = [list(node.args[1]) for node in after if len(node.args) > 1]
    assert dimensions == [[2, 3], [0]] * (len(dimensions) // 2)
    assert len(dimensions) in (2, 4)


def test_sums_of_other_shapes_or_over_other_dimensions_stay_apart():
    x, y = random(3, 4), random(4, 4)
    before, after = merged(lambda x, y: x.sum(0, keepdim=True) + y.sum(0, keepdim=True), x, y)
    assert len(before) == len(after) == 2
    before, after = merged(lambda y: y.sum(0) + y.sum(1), y)
    assert len(before) == len(after) == 2


def test_a_sum_that_is_used_elsewhere_stays():
    def function(x, y):
        a, b = x.sum(0), y.sum(0)
        return a + b, a

    before, after = merged(function, random(3, 4), random(3, 4))
    assert len(before) == len(after) == 2


def test_additions_without_sums_are_left_alone():
    graph = make_fx(lambda x, y: (-x) + (-y))(random(3), random(3))
    code = graph.code
    sums.merge(graph)
    assert graph.code == code
