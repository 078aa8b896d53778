"""Time of the kernels, forward + backward: ``pytest tests/benchmarks --benchmark-enable`` compares the backends within each group.

Without that option each runs once, as a test that it runs. ``SPIKEBENCH_NEURONS=131072`` asks for the size of the tables.
"""

from __future__ import annotations

import os

import pytest
import torch

from methods.nn import native
from methods.nn.neuron import LIF
from methods.nn.recurrence import recurrence
from methods.nn.surrogate import SURROGATES

NEURONS = int(os.environ.get("SPIKEBENCH_NEURONS", "2048"))
NATIVE = pytest.mark.skipif(not native.available(torch.float32), reason=f"no native kernels: {native.describe()}")
LAYERS = [
    pytest.param({"backend": "reference"}, id="reference"),
    pytest.param({"backend": "native", "save": "potential"}, id="native-potential", marks=NATIVE),
    pytest.param({"backend": "native", "save": "recompute"}, id="native-recompute", marks=NATIVE),
]


def both_ways(function, *leaves):
    outputs = function(*leaves)
    return torch.autograd.grad(outputs, leaves, torch.ones_like(outputs))


@pytest.mark.parametrize("steps", [1, 4, 16, 64])
@pytest.mark.parametrize("options", LAYERS)
def test_lif(benchmark, options, steps):
    benchmark.group = f"LIF, T = {steps}, {NEURONS} neurons"
    current = torch.randn(steps, NEURONS, requires_grad=True)
    benchmark(both_ways, LIF(**options), current)


@pytest.mark.parametrize("surrogate", ["sigmoid", "arctan", "gauss"])
@pytest.mark.parametrize("options", LAYERS)
def test_lif_with_other_surrogates(benchmark, options, surrogate):
    benchmark.group = f"LIF, {surrogate}, T = 16, {NEURONS} neurons"
    current = torch.randn(16, NEURONS, requires_grad=True)
    benchmark(both_ways, LIF(surrogate=SURROGATES[surrogate], **options), current)


@pytest.mark.parametrize("options", LAYERS[:2])
def test_an_operation_as_small_as_it_gets(benchmark, options):
    benchmark.group = "LIF, T = 1, 1 neuron, no gradient"
    neuron, current = LIF(**options), torch.randn(1, 1)
    with torch.no_grad():
        benchmark(neuron, current)


@pytest.mark.parametrize("varying", [False, True], ids=["constant", "varying"])
@pytest.mark.parametrize("backend", ["reference", pytest.param("native", marks=NATIVE)])
def test_recurrence(benchmark, backend, varying):
    benchmark.group = f"recurrence, {'varying' if varying else 'constant'} decay, T = 1024, 64 channels"
    b = torch.randn(1024, 64, requires_grad=True)
    a = torch.rand_like(b) if varying else torch.rand(64)
    benchmark(both_ways, lambda a, b: recurrence(a, b, backend=backend)[0], a.requires_grad_(), b)
