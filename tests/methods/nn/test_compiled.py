"""The compiled backend: the numbers of the same steps uncompiled, pieces, parameters, and machines without a compiler."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from methods.nn import compiled as module
from methods.nn.compiled import Compiled, piece_of
from methods.nn.neuron import LIF
from methods.nn.stepping import stepping
from methods.nn.surrogate import Arctan, Sigmoid, spike

requires_compiler = pytest.mark.skipif(module.why_not("cpu") is not None, reason=f"{module.why_not('cpu')}")
# What PyTorch's compiler warns about is not ours to mend.
pytestmark = [pytest.mark.filterwarnings("ignore::DeprecationWarning"), pytest.mark.filterwarnings("ignore::UserWarning")]


def run(neuron: LIF, current: Tensor, g: Tensor) -> list[Tensor]:
    current = current.detach().requires_grad_()
    spikes = neuron(current)
    return [spikes.detach(), *torch.autograd.grad(spikes, [current, *neuron.parameters()], g)]


def assert_close(found: Tensor, expected: Tensor, relative: float = 1e-6) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=relative * expected.nan_to_num().abs().max().item(), equal_nan=True)


@pytest.fixture
def uncompiled(monkeypatch):
    """Let ``torch.compile`` trace, and run what it traced as it is: quick, and enough for all but the numbers."""
    plain, calls = torch.compile, []

    def compile(function, **options):
        calls.append(function)
        return plain(function, backend="eager", **{name: value for name, value in options.items() if name != "options"})

    monkeypatch.setattr(torch, "compile", compile)
    monkeypatch.setattr(module, "why_not", lambda device: None)
    return calls


@requires_compiler
@pytest.mark.parametrize(
    "options",
    [
        {"reset": "hard", "detach_reset": False, "surrogate": Sigmoid(), "scale_input": True, "leak": 0.7, "v_init": 0.3},
        {"reset": "soft", "learnable_leak": True, "surrogate": Arctan(), "strict": True},
        {"learn": ("leak", "threshold"), "channels": 50, "refractory": 2, "surrogate": Arctan()},
    ],
    ids=["hard", "soft, learnt", "learnt per channel, refractory"],
)
def test_spikes_are_those_of_the_reference_bit_for_bit_and_gradients_its(options):
    torch.manual_seed(0)
    current, g = torch.randn(8, 3, 50) * 2, torch.randn(8, 3, 50)
    if not LIF(**options)._parameters:
        current[3, 0, 7] = torch.nan
    expected, found = (run(LIF(backend=backend, **options), current, g) for backend in ("reference", "compiled"))
    assert 0 < expected[0].nanmean() < 1
    assert torch.equal(found[0].nan_to_num(7), expected[0].nan_to_num(7))
    assert_close(found[1], expected[1])
    for one, other in zip(found[2:], expected[2:], strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-6 * current.numel() ** 0.5)  # a sum of terms of either sign


@requires_compiler
def test_a_neuron_with_several_states_takes_as_long_to_compile_for_any_number_of_steps():
    def step(state, now, tau, feedback):
        """A neuron with two states, after GLIF: a synaptic current, and a threshold that rises with every spike."""
        v, synapse, rise = state
        synapse = 0.8 * synapse + now
        u = v + torch.sigmoid(tau) * (synapse - v)
        s = spike(u - 1 - rise, Arctan())
        return s, (u * (1 - s), synapse, 0.9 * rise + feedback * s)

    torch.manual_seed(1)
    state, neuron = tuple(torch.zeros(2, 30, dtype=torch.float64) for _ in range(3)), Compiled(step)
    tau, feedback = (torch.tensor(value, dtype=torch.float64, requires_grad=True) for value in (0.3, 0.1))
    current = torch.randn(24, 2, 30, dtype=torch.float64) * 2
    seconds = neuron.warm_up(current[:8], state, (tau, feedback))
    assert seconds == neuron.seconds > 0
    assert neuron.reason is None
    assert tau.grad is None
    before = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    leaf = current.requires_grad_()
    spikes, after = neuron(leaf, state, (tau, feedback))
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == before
    expected, last = [], state
    for now in leaf.unbind(0):
        s, last = step(last, now, tau, feedback)
        expected.append(s)
    expected = torch.stack(expected)
    assert torch.equal(spikes, expected)
    leaves, g = [leaf, tau, feedback], torch.randn_like(expected)
    found = torch.autograd.grad([spikes, *after], leaves, [g, *map(torch.ones_like, after)])
    for one, other in zip(found, torch.autograd.grad([expected, *last], leaves, [g, *map(torch.ones_like, last)]), strict=True):
        assert_close(one, other, 1e-12)


@pytest.mark.parametrize(("steps", "piece"), [(1, 1), (3, 3), (8, 8), (10, 5), (12, 6), (13, 8), (16, 8), (21, 7), (256, 8)])
def test_a_piece_has_at_most_eight_steps_and_divides_the_sequence_if_four_or_more_do(steps, piece):
    assert piece_of(steps) == piece


def test_at_most_two_pieces_are_compiled_per_shape_and_layers_of_equal_settings_share_them(uncompiled):
    torch.manual_seed(2)
    first, second = (LIF(leak=0.61, backend="compiled") for _ in range(2))
    assert first.compiled() is second.compiled()
    for steps in (19, 8, 16):  # 19 is 8 + 8 + 3
        current, g = torch.randn(steps, 2, 5), torch.randn(steps, 2, 5)
        for neuron in (first, second):
            for one, other in zip(run(neuron, current, g), run(LIF(leak=0.61, backend="reference"), current, g), strict=True):
                assert torch.equal(one, other)
    assert len(uncompiled) == 2


def test_more_shapes_than_torch_would_compile_of_one_function_are_compiled(uncompiled):
    neuron = LIF(leak=0.62, backend="compiled")
    for size in range(1, 14):
        current = torch.randn(4, 2, size)
        assert torch.equal(neuron(current), LIF(leak=0.62, backend="reference")(current))
    assert len(uncompiled) == 13


def test_single_steps_carry_their_state(uncompiled):
    torch.manual_seed(3)
    current = torch.randn(5, 2, 6)
    neuron = LIF(leak=0.63, reset="soft", backend="compiled")
    with stepping(neuron):
        steps = torch.cat([neuron(current[t : t + 1]) for t in range(5)])
    assert torch.equal(steps, neuron(current))


def test_inside_a_larger_compiled_function_the_steps_are_a_part_of_it():
    current = torch.randn(4, 2, 6, requires_grad=True)
    neuron = LIF(leak=0.65, backend="compiled")
    torch._dynamo.reset()
    whole = torch.compile(neuron, backend="aot_eager", fullgraph=True)
    found, expected = (torch.autograd.grad(f(current).sum(), current)[0] for f in (whole, LIF(leak=0.65, backend="reference")))
    assert_close(found, expected)


def test_without_a_compiler_the_steps_run_as_they_are_and_the_reason_is_given(monkeypatch):
    module.why_not.cache_clear()
    try:
        monkeypatch.setenv("CXX", "no-such-compiler")
        monkeypatch.setattr(torch._inductor.config.cpp, "cxx", ("no-such-compiler",))
        neuron = LIF(leak=0.64, backend="compiled")
        current = torch.randn(4, 2, 6)
        assert torch.equal(neuron(current), LIF(leak=0.64, backend="reference")(current))
        assert neuron.compiled().reason.startswith("no C++ compiler was found; tried ")
    finally:
        module.why_not.cache_clear()


def test_the_name_of_a_backend_that_does_not_exist_is_answered_with_those_that_do():
    with pytest.raises(ValueError, match="allowed: auto, reference, native, compiled, triton"):
        LIF(backend="compile")
