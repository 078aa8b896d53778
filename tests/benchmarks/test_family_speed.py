"""Time of the other neurons' fast backends beside their reference, forward + backward, in one run; spikes and gradients must agree first.

``pytest tests/benchmarks --benchmark-enable --benchmark-group-by=group``. ``SPIKEBENCH_NEURONS=131072`` asks for the size of the tables.
Backends that torch.compile makes take seconds to compile: they are measured where benchmarks are enabled, and tested with their neurons.
"""

from __future__ import annotations

import os

import pytest
import torch

from methods.nn import compiled, native
from methods.nn.attentive_lif import AttentiveLIF
from methods.nn.burst import BurstNeuron
from methods.nn.dynamic_decay import DynamicDecay
from methods.nn.glif import GLIF
from methods.nn.hoyer import HoyerThreshold
from methods.nn.neuron import LIF
from methods.nn.psn import SlidingPSN

NEURONS = int(os.environ.get("SPIKEBENCH_NEURONS", "2048"))
SHAPE = (2, 16, NEURONS // 128, 4)  # B, C, H, W
MAKERS = {
    "LIF that learns, per channel": lambda steps, backend: LIF(learn=("leak", "threshold"), channels=16, backend=backend),
    "refractory LIF": lambda steps, backend: LIF(refractory=2, backend=backend),
    "attentive LIF": lambda steps, backend: AttentiveLIF(16, backend=backend),
    "dynamic decay": lambda steps, backend: DynamicDecay(16, backend=backend),
    "sliding PSN": lambda steps, backend: SlidingPSN(4, backend),
    "GLIF": lambda steps, backend: GLIF(steps, 16, backend=backend),
    "Hoyer": lambda steps, backend: HoyerThreshold(16, backend=backend),
    "burst": lambda steps, backend: BurstNeuron(backend=backend),
}
NATIVE = pytest.mark.skipif(not native.available(torch.float32), reason=f"no native kernels: {native.describe()}")
COMPILED = [
    pytest.mark.skipif(compiled.why_not("cpu") is not None, reason=f"{compiled.why_not('cpu')}"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]
REFERENCES = {"sliding PSN": "gemm"}  # where no backend is called the reference
CASES = [
    *[pytest.param(name, REFERENCES.get(name, "reference"), id=f"{name}-{REFERENCES.get(name, 'reference')}") for name in MAKERS],
    *[pytest.param(name, "native", id=f"{name}-native", marks=NATIVE) for name in list(MAKERS)[:4]],
    pytest.param("dynamic decay", "log_depth", id="dynamic decay-log_depth"),
    pytest.param("dynamic decay", "chunked", id="dynamic decay-chunked"),
    pytest.param("sliding PSN", "conv", id="sliding PSN-conv"),
    *[pytest.param(name, "compiled", id=f"{name}-compiled", marks=COMPILED) for name in list(MAKERS)[5:]],
]


def both_ways(neuron, current):
    spikes = neuron(current)
    learnt = [parameter for parameter in neuron.parameters() if parameter.requires_grad]
    leaves = [current, *learnt] if spikes.requires_grad else []
    return spikes.detach(), torch.autograd.grad(spikes, leaves, torch.ones_like(spikes)) if leaves else ()


@pytest.mark.parametrize("steps", [4, 16])
@pytest.mark.parametrize(("name", "backend"), CASES)
def test_agrees_and_takes(benchmark, name, backend, steps, request):
    if backend == "compiled" and not request.config.getoption("benchmark_enable"):
        pytest.skip("compiling takes seconds; with --benchmark-enable")
    benchmark.group = f"{name}, T = {steps}, {NEURONS} neurons"
    torch.manual_seed(0)
    reference = MAKERS[name](steps, REFERENCES.get(name, "reference"))
    neuron = MAKERS[name](steps, backend)
    neuron.load_state_dict(reference.state_dict())
    current = torch.randn(steps, *SHAPE).requires_grad_()
    expected, slopes = both_ways(reference, current)
    spikes, found = both_ways(neuron, current)
    assert spikes.equal(expected) and spikes.any()
    for one, other in zip(found, slopes, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4 * max(1.0, other.abs().max().item()))
    benchmark(both_ways, neuron, current)
