"""What meters, packing and loading cost: each group has the same work without it, or done plainly, in the same run.

``pytest tests/benchmarks --benchmark-enable --benchmark-group-by=group``.
"""

from __future__ import annotations

from contextlib import nullcontext

import numpy as np
import pytest
import torch

from harness.loader import Loader
from harness.meters.memory import SavedTensors, TransientPeak
from harness.meters.spikes import SpikeMeter
from harness.meters.synops import SynopsMeter
from harness.record import encode_bits
from harness.registry import Registries
from methods.nn import native
from methods.nn.neuron import LIF
from methods.nn.surrogate import Rectangle
from suites.regression.one_step import OneStep

ANSWER_METERS = {"without": lambda net: nullcontext(), "spikes": SpikeMeter, "synops": SynopsMeter}
STEP_METERS = {"without": lambda net: nullcontext(), "saved": SavedTensors, "transient": lambda net: TransientPeak()}


@pytest.mark.parametrize("meter", ANSWER_METERS)
def test_counting_in_an_answer(benchmark, meter):
    benchmark.group = "answer of stbp to a batch of static/digits"
    ready = OneStep("stbp", "static/digits")
    expected = ready.answer().outputs

    def answer():
        with ANSWER_METERS[meter](ready.net):
            return ready.answer().outputs

    assert benchmark(answer).equal(expected)


@pytest.mark.parametrize("meter", STEP_METERS)
def test_measuring_a_training_step(benchmark, meter):
    benchmark.group = "training step of stbp on static/digits"
    ready, twin = OneStep("stbp", "static/digits"), OneStep("stbp", "static/digits")

    def step(of=ready):
        with STEP_METERS[meter](of.net):
            return of.train()

    assert step(twin).equal(ready.train())
    benchmark(step)


@pytest.mark.parametrize("way", ["numpy", "ours"])
@pytest.mark.parametrize("items", [360, 10_000])
def test_packing_correctness_bits(benchmark, way, items):
    benchmark.group = f"bits of {items} items"
    bits = (torch.rand(items, generator=torch.Generator().manual_seed(0)) > 0.1).tolist()
    expected = np.packbits(np.array(bits)).tobytes().hex()
    assert benchmark(encode_bits if way == "ours" else lambda bits: np.packbits(np.array(bits)).tobytes().hex(), bits) == expected


@pytest.mark.skipif(not native.available(torch.float32), reason=f"no native kernels: {native.describe()}")
@pytest.mark.parametrize("save", ["potential", "recompute", "bits"])
def test_what_is_kept_for_the_backward_pass(benchmark, save):
    benchmark.group = "LIF with a rectangle, T = 16, 2048 neurons, kept"
    current = torch.randn(16, 2048, requires_grad=True)

    def slope(neuron):
        return torch.autograd.grad(neuron(current).sum(), current)[0]

    expected = slope(LIF(surrogate=Rectangle(), backend="reference"))
    assert benchmark(slope, LIF(surrogate=Rectangle(), backend="native", save=save)).equal(expected)


@pytest.mark.parametrize("way", ["by hand", "loader"])
def test_an_epoch_of_batches(benchmark, way):
    benchmark.group = "an epoch of batches of static/digits, not augmented"
    task = Registries().task("static/digits", "smoke")
    data = task.split("train")

    def by_hand():
        order = torch.randperm(len(data), generator=torch.Generator().manual_seed(0))
        return [(task.prepare(data.inputs[index]), data.targets[index]) for index in order.split(64) if len(index) > 1]

    def loader():
        return [(batch.inputs, batch.targets) for batch in Loader(task, 64, seed=0)]

    found = benchmark(loader if way == "loader" else by_hand)
    assert all(one.equal(other) for pair in zip(found, by_hand(), strict=True) for one, other in zip(*pair, strict=True))
