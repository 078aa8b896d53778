"""Scans in plain PyTorch against the recurrence written out step by step and differentiated by autograd."""

from __future__ import annotations

import pytest
import torch

from methods.nn.recurrence import recurrence
from methods.nn.scan import SCANS, chunked

DOUBLE = torch.float64
ALL = {**SCANS, "chunks of 1": chunked(1), "chunks of 3": chunked(3), "chunks of 16": chunked(16)}
LENGTHS = [*range(1, 20), 33, 64, 100]


def tensors(steps, with_state):
    drawn = torch.Generator().manual_seed(steps)
    a = (torch.rand(steps, 2, 3, generator=drawn, dtype=DOUBLE) * 1.5 - 0.5).requires_grad_()
    b, g = (torch.randn(steps, 2, 3, generator=drawn, dtype=DOUBLE) for _ in range(2))
    state = torch.randn(2, 3, generator=drawn, dtype=DOUBLE, requires_grad=True) if with_state else None
    return a, b.requires_grad_(), state, g


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("with_state", [False, True])
def test_values_and_gradients_are_those_of_the_loop_at_any_length(name, with_state):
    for steps in LENGTHS:
        a, b, state, g = tensors(steps, with_state)
        h, _ = recurrence(a, b, state, "reference")
        leaves = (b, a, state) if with_state else (b, a)
        expected = torch.autograd.grad(h, leaves, g)
        before = [t.detach().clone() for t in (a, b, g)]
        with torch.no_grad():
            found = ALL[name].forward(a, b, state)
            gradients = ALL[name].backward(a, h, state, g, True)
            assert ALL[name].backward(a, h, state, g, False)[1] is None
        torch.testing.assert_close(found, h, rtol=0, atol=1e-12)
        assert (gradients[2] is None) == (not with_state)
        for one, other in zip(gradients, expected, strict=False):
            torch.testing.assert_close(one, other, rtol=0, atol=1e-12)
        assert all(torch.equal(now, then) for now, then in zip((a, b, g), before, strict=True))


@pytest.mark.parametrize("name", ALL)
def test_factors_of_zero_and_products_that_vanish_do_no_harm(name):
    a = torch.full((2000, 1, 3), 1e-3)
    a[::7] = 0
    b = torch.ones(2000, 1, 3)
    expected = recurrence(a.double(), b.double(), backend="reference")[0]
    h = ALL[name].forward(a, b, None)
    torch.testing.assert_close(h.double(), expected, rtol=1e-6, atol=0)
    assert all(part is None or part.isfinite().all() for part in ALL[name].backward(a, h, None, b, True))


def test_a_chunk_has_steps():
    with pytest.raises(ValueError, match="at least one step, not 0"):
        chunked(0)
