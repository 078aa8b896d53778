"""Surrogates: the primitives and integrals that their docstrings give, by numerical integration."""

from __future__ import annotations

import math

import pytest
import torch

from methods.nn.surrogate import SURROGATES, Arctan, FastSigmoid, Gauss, Polynomial, Rectangle, Sigmoid, Triangle, piecewise_quadratic

DOUBLE = torch.float64
PRIMITIVES = [
    (Rectangle(0.7), lambda d: (d / 0.7).clamp(-0.5, 0.5)),
    (Triangle(1.5, 0.3), lambda d: torch.where(d.abs() < 1.5, 0.3 * (d / 1.5 - d * d.abs() / (2 * 1.5**2)), 0.15 * d.sign())),
    (Sigmoid(4.0), lambda d: torch.sigmoid(4 * d) - 0.5),
    (Gauss(0.5), lambda d: torch.erf(d / math.sqrt(2 * 0.5)) / 2),
    (Arctan(2.0), lambda d: torch.atan(math.pi / 2 * 2 * d) / math.pi),
    (FastSigmoid(3.0, 0.4), lambda d: 0.4 / 2 * 3 * d / (1 + 3 * d.abs())),
]


@pytest.mark.parametrize(("surrogate", "primitive"), PRIMITIVES, ids=[str(one) for one, _ in PRIMITIVES])
def test_the_formula_is_the_derivative_of_its_primitive(surrogate, primitive):
    d = torch.linspace(-3, 3, 60_001, dtype=DOUBLE)
    integral = torch.cumulative_trapezoid(surrogate(d), d)
    expected = primitive(d)[1:] - primitive(d[:1])
    torch.testing.assert_close(integral, expected, rtol=0, atol=1e-4 / 0.7)  # the jump of the rectangle falls between two points


@pytest.mark.parametrize(("surrogate", "primitive"), PRIMITIVES, ids=[str(one) for one, _ in PRIMITIVES])
def test_the_integral_is_the_scale_or_one(surrogate, primitive):
    far = torch.tensor(1e12, dtype=DOUBLE)
    assert (primitive(far) - primitive(-far)).item() == pytest.approx(getattr(surrogate, "scale", 1.0))


def test_the_fast_sigmoid_of_scale_two_over_k_is_that_of_snntorch():
    d = torch.linspace(-2, 2, 101, dtype=DOUBLE)
    torch.testing.assert_close(FastSigmoid(25.0, 2 / 25)(d), 1 / (25 * d.abs() + 1) ** 2)


@pytest.mark.parametrize("alpha", [0.5, 1.0, 3.0])
def test_piecewise_quadratic_polynomial_and_triangle_are_one_function(alpha):
    d = torch.linspace(-3, 3, 601, dtype=DOUBLE)
    expected = torch.clamp(alpha - alpha**2 * d.abs(), min=0)  # as SpikingJelly documents its PiecewiseQuadratic
    torch.testing.assert_close(piecewise_quadratic(alpha)(d), expected)
    torch.testing.assert_close(Polynomial(4 * alpha**2)(d), expected)


@pytest.mark.parametrize("name", SURROGATES)
def test_every_named_surrogate_is_symmetric_and_integrates_to_one(name):
    d = torch.linspace(-200, 200, 2_000_001, dtype=DOUBLE)
    h = SURROGATES[name](d)
    torch.testing.assert_close(h, h.flip(0))
    assert torch.trapezoid(h, d).item() == pytest.approx(1, abs=5e-3)  # the heavy tails beyond 200
