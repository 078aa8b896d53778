"""Time of the kernels, forward + backward: ``pytest tests/benchmarks --benchmark-enable`` compares the backends within each group.

Without that option each runs once, as a test that it runs. ``SPIKEBENCH_NEURONS=131072`` asks for the size of the tables.
"""

from __future__ import annotations

import os

import pytest
import torch

from methods.nn import compiled, native
from methods.nn.compiled import Compiled
from methods.nn.neuron import LIF
from methods.nn.recurrence import recurrence
from methods.nn.surrogate import SURROGATES, Arctan, spike

NEURONS = int(os.environ.get("SPIKEBENCH_NEURONS", "2048"))
NATIVE = pytest.mark.skipif(not native.available(torch.float32), reason=f"no native kernels: {native.describe()}")
COMPILED = pytest.mark.skipif(compiled.why_not("cpu") is not None, reason=f"{compiled.why_not('cpu')}")
# What PyTorch's compiler warns about is not ours to mend.
QUIET = [pytest.mark.filterwarnings("ignore::DeprecationWarning"), pytest.mark.filterwarnings("ignore::UserWarning")]
LAYERS = [
    pytest.param({"backend": "reference"}, id="reference"),
    pytest.param({"backend": "native", "save": "potential"}, id="native-potential", marks=NATIVE),
    pytest.param({"backend": "native", "save": "recompute"}, id="native-recompute", marks=NATIVE),
]
COMPILED_LAYER = pytest.param({"backend": "compiled"}, id="compiled", marks=[COMPILED, *QUIET])


def both_ways(function, *leaves):
    outputs = function(*leaves)
    return torch.autograd.grad(outputs, leaves, torch.ones_like(outputs))


@pytest.mark.parametrize("steps", [1, 4, 16, 64])
@pytest.mark.parametrize("options", [*LAYERS, COMPILED_LAYER])
def test_lif(benchmark, options, steps):
    benchmark.group = f"LIF, T = {steps}, {NEURONS} neurons"
    current, neuron = torch.randn(steps, NEURONS, requires_grad=True), LIF(**options)
    both_ways(neuron, current)  # compiles
    benchmark(both_ways, neuron, current)


def gated(state, now, decay, keep, linear, drop, threshold, gain):
    u, s = state
    u = decay * u * (1 - keep * s) - linear + now * gain - drop * s
    s = spike(u - threshold, Arctan())
    return s, (u, s)


def plain_loop(current, state, parameters, varying):
    spikes = []
    for now, gain in zip(current.unbind(0), varying[0].unbind(0), strict=True):
        s, state = gated(state, now, *parameters, gain)
        spikes.append(s)
    return torch.stack(spikes), state


@pytest.mark.parametrize("steps", [4, 16, 64])
@pytest.mark.parametrize("backend", ["reference", pytest.param("compiled", marks=[COMPILED, *QUIET])])
def test_a_gated_neuron_that_learns_all_its_constants(benchmark, backend, steps):
    benchmark.group = f"GLIF-like, constants per channel, T = {steps}, {NEURONS} neurons"
    shape = (2, 16, NEURONS // 32)
    channels = (16, 1)
    current, zeros = torch.randn(steps, *shape), torch.zeros(shape)
    constants = [torch.rand(channels) * 0.5 + 0.2 for _ in range(5)]
    gain = torch.rand(steps, *channels) + 0.5
    function = Compiled(gated) if backend == "compiled" else plain_loop
    leaves = [leaf.requires_grad_() for leaf in (current, gain, *constants)]
    both_ways(call := lambda current, gain, *constants: function(current, (zeros, zeros), constants, (gain,))[0], *leaves)
    benchmark(both_ways, call, *leaves)


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
