"""The gated neuron: its backends, its gates made hard, and what it refuses. Faithfulness to the paper: ``tests/methods/test_glif.py``."""

from __future__ import annotations

import copy

import pytest
import torch

from methods.nn import compiled, piece
from methods.nn.compiled import why_not
from methods.nn.glif import GLIF, Start
from methods.nn.stepping import stepping


@pytest.fixture
def uncompiled(monkeypatch):
    """Let pieces be traced, and run what was traced as it is: quick, and enough for all but the numbers."""
    monkeypatch.setattr(piece, "compile_graph", lambda graph, inputs: graph)
    monkeypatch.setattr(compiled, "why_not", lambda device: None)
    monkeypatch.setattr("methods.nn.glif.why_not", lambda device: None)


def run(neuron, current, g):
    leaf = current.detach().requires_grad_()
    spikes = neuron(leaf)
    return [spikes.detach(), *torch.autograd.grad(spikes, [leaf, *neuron.parameters()], g)]


def pair(**options):
    torch.manual_seed(0)
    one = GLIF(backend="reference", **options)
    other = copy.deepcopy(one)
    other.backend = "compiled"
    return one, other


def agree(options, shape, dtype=torch.float64):
    current, g = (torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2))
    one, other = (run(neuron.to(dtype), current, g) for neuron in pair(**options))
    assert 0.05 < one[0].mean() < 0.95
    assert torch.equal(one[0], other[0])
    for a, b in zip(one[1:], other[1:], strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.skipif(why_not("cpu") is not None, reason="no C++ compiler")
def test_compiled_it_has_the_spikes_of_the_loop_bit_for_bit_and_its_gradients():
    agree({"steps": 4, "channels": 3, "start": Start(gates=None)}, (4, 2, 3, 4, 4))


@pytest.mark.parametrize(
    ("shape", "options"),
    [((1, 1, 3), {"channels": 3}), ((3, 2, 3), {}), ((9, 1, 3, 2, 2), {"channels": 3}), ((3, 2, 3, 7), {"channels": 3, "hard": True})],
)
def test_traced_it_has_the_numbers_of_the_loop(uncompiled, shape, options):
    torch.manual_seed(3)
    agree({"steps": shape[0], "start": Start(gates=None, vth=0.1), **options}, shape)


def test_auto_compiles_full_batches_in_training_and_loops_otherwise(uncompiled):
    neuron = GLIF(3, 2)
    full, part = torch.randn(3, 6, 2), torch.randn(3, 5, 2)

    def used(current):
        neuron(current)
        return neuron.used

    assert [used(part), used(full), used(part), used(full)] == ["compiled", "compiled", "reference", "compiled"]
    with torch.no_grad():
        assert used(full) == "reference"
    assert neuron.eval() is neuron and used(full) == "reference"
    with stepping(neuron.train()):
        assert used(full[:1]) == "reference"
    assert neuron.trained_with == "compiled"


def test_auto_takes_the_loop_where_nothing_can_compile(monkeypatch):
    monkeypatch.setattr("methods.nn.glif.why_not", lambda device: "no compiler")
    neuron = GLIF(2, 2)
    neuron(torch.randn(2, 2, 2))
    assert neuron.used == "reference"


@pytest.mark.parametrize("backend", ["reference", "compiled"])
def test_gradients_flow_from_call_to_call_through_the_state(uncompiled, backend):
    torch.manual_seed(4)
    neuron = GLIF(4, 4, Start(gates=None), backend=backend).double()
    current, g = torch.randn(2, 4, 3, 4, dtype=torch.float64).unbind(0)
    expected = run(neuron, current, g)
    leaf = current.detach().requires_grad_()
    with stepping(neuron):
        spikes = torch.cat([neuron(part) for part in leaf.split([2, 1, 1])])
    found = [spikes.detach(), *torch.autograd.grad(spikes, [leaf, *neuron.parameters()], g)]
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


def test_hard_gates_are_0_or_1_and_learn_as_soft_ones():
    torch.manual_seed(5)
    hard = GLIF(4, 50, Start(gates=None), hard=True)
    gates = torch.stack(hard.values()[:3])
    assert torch.equal(gates, (hard.gates > 0).float())
    assert 0 < gates.mean() < 1
    (grad,) = torch.autograd.grad(gates.sum(), hard.gates)
    soft = hard.gates.sigmoid()
    torch.testing.assert_close(grad, soft * (1 - soft))


def test_half_precision_keeps_the_potential_in_single_precision_and_the_currents_type():
    neuron = GLIF(4, 3, backend="reference")
    current = torch.randn(4, 2, 3, generator=torch.Generator().manual_seed(6)).bfloat16()
    spikes = neuron(current)
    assert spikes.dtype == torch.bfloat16
    assert neuron.potentials(current).dtype == torch.float32
    assert torch.equal(spikes.float(), neuron(current.float()))


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: GLIF(2, backend="native"), "backend 'native' is unknown; allowed: auto, reference, compiled"),
        (lambda: GLIF(0), "1 time step or more"),
        (lambda: Start(tau=1.0), "tau starts between 0 and 1"),
        (lambda: Start(gates=(0.5, 2.0, 0.5)), "between 0 and 1"),
        (lambda: GLIF(2, 3)(torch.zeros(2, 4, 5)), r"a current \[T, B, 3, ...\] is needed"),
        (lambda: GLIF(2, 3)(torch.zeros(3, 4, 3)), "made for 2 time steps.*got 3"),
    ],
)
def test_what_it_cannot_do_is_refused(make, told):
    with pytest.raises(ValueError, match=told):
        make()
