"""The compiled backend: the numbers of the same steps uncompiled, pieces, parameters, and machines without a compiler."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from harness.meters.memory import SavedTensors
from methods.nn import compiled as module
from methods.nn import piece
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
    """Let pieces be traced, and run what was traced as it is: quick, and enough for all but the numbers."""
    graphs = []

    def compile_graph(graph, inputs):
        graphs.append(graph)
        return graph

    monkeypatch.setattr(piece, "compile_graph", compile_graph)
    monkeypatch.setattr(module, "why_not", lambda device: None)
    return graphs


def gated(state, now, decay, keep, linear, drop, threshold, gain):
    """The step of GLIF (Yao et al. 2022), in the constants that its gates give: reset and decay mix two kinds, the gain is of the step."""
    u, s = state
    u = decay * u * (1 - keep * s) - linear + now * gain - drop * s
    s = spike(u - threshold, Arctan())
    return s, (u, s)


def gated_inputs(steps: int, *shape: int) -> tuple[Tensor, tuple[Tensor, ...], tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Return current, state, parameters of each channel, and the gain of each step and channel."""
    channels = shape[1], 1, 1
    current, state = torch.randn(steps, *shape) * 2, (torch.randn(shape) * 0.1, torch.zeros(shape))
    parameters = tuple(torch.rand(channels) * 0.5 + 0.2 for _ in range(5))
    return current, state, parameters, (torch.rand(steps, *channels) + 0.5,)


def loop(step, current: Tensor, state, parameters=(), varying=()):
    """What the backend stands for."""
    spikes = []
    for t, now in enumerate(current.unbind(0)):
        s, state = step(state, now, *parameters, *(v[t] for v in varying))
        spikes.append(s)
    return torch.stack(spikes), state


def outcome(function, inputs, weights) -> list[Tensor]:
    """Return spikes and state, and the gradients of all inputs for a loss that has both."""
    current, *groups = inputs
    current = current.detach().requires_grad_()
    groups = [tuple(t.detach().requires_grad_() for t in group) for group in groups]
    spikes, after = function(current, *groups)
    loss = sum((w * part).sum() for w, part in zip(weights, (spikes, *after), strict=True))
    leaves = [current, *(t for group in groups for t in group)]
    return [spikes.detach(), *(part.detach() for part in after), *torch.autograd.grad(loss, leaves)]


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


@requires_compiler
def test_a_gated_neuron_has_the_numbers_of_the_loop():
    torch.manual_seed(4)
    inputs = gated_inputs(19, 3, 5, 4, 7)
    weights = [torch.randn_like(inputs[0]), *(torch.randn_like(part) for part in inputs[1])]
    neuron = Compiled(gated)
    found, expected = outcome(neuron, inputs, weights), outcome(lambda *given: loop(gated, *given), inputs, weights)
    assert neuron.reason is None
    assert 0.1 < expected[0].mean() < 0.9
    for one, other in zip(found[:3], expected[:3], strict=True):
        assert torch.equal(one, other)
    for one, other in zip(found[3:], expected[3:], strict=True):
        assert_close(one, other)


@pytest.mark.parametrize("steps", [1, 5, 8, 13, 16])
def test_any_number_of_steps_has_the_numbers_of_the_loop(uncompiled, steps):
    torch.manual_seed(5)
    inputs = gated_inputs(steps, 2, 3, 2, 2)
    weights = [torch.randn_like(inputs[0]), *(torch.randn_like(part) for part in inputs[1])]
    for one, other in zip(
        outcome(Compiled(gated), inputs, weights), outcome(lambda *given: loop(gated, *given), inputs, weights), strict=True
    ):
        assert_close(one, other)


def lying_otherwise(name: str) -> Tensor:
    if name == "transposed":
        return torch.randn(4, 6, 10).permute(2, 0, 1)
    if name == "part":
        return torch.randn(10, 4, 12)[..., ::2]
    return torch.randn(1, 4, 6).expand(10, 4, 6)


@pytest.mark.parametrize("g", ["transposed", "part", "repeated"])
@pytest.mark.parametrize("current", ["transposed", "part", "repeated"])
def test_currents_and_gradients_may_lie_in_memory_in_any_way(uncompiled, current, g):
    torch.manual_seed(6)
    current, g = lying_otherwise(current), lying_otherwise(g)
    for one, other in zip(*(run(LIF(leak=0.66, backend=name), current, g) for name in ("compiled", "reference")), strict=True):
        assert_close(one, other)


def test_gradients_flow_from_call_to_call_through_the_state(uncompiled):
    torch.manual_seed(7)
    current, g = torch.randn(9, 2, 6) * 2, torch.randn(9, 2, 6)

    def in_parts(neuron: LIF) -> list[Tensor]:
        leaf = current.detach().requires_grad_()
        with stepping(neuron):
            spikes = torch.cat([neuron(part) for part in leaf.split([4, 3, 2])])
        return [spikes.detach(), *torch.autograd.grad(spikes, [leaf, *neuron.parameters()], g)]

    options = {"leak": 0.67, "reset": "soft", "detach_reset": False, "learnable_leak": True}
    for one, other in zip(*(in_parts(LIF(backend=name, **options)) for name in ("compiled", "reference")), strict=True):
        assert_close(one, other)


def test_only_the_gradients_that_are_asked_for_are_computed(uncompiled):
    torch.manual_seed(8)
    current, state, parameters, varying = gated_inputs(4, 2, 3, 2, 2)
    decay = parameters[0].requires_grad_()
    spikes, _ = Compiled(gated)(current, state, parameters, varying)
    expected, _ = loop(gated, current, state, parameters, varying)
    assert_close(*(torch.autograd.grad(s.sum(), decay)[0] for s in (spikes, expected)))
    writes = [sum(node.target is torch.ops.aten.copy_.default for node in graph.graph.nodes) for graph in uncompiled]
    assert writes == [4, 0]  # the spikes; no gradient of a current


@pytest.mark.parametrize("steps", [8, 24])
def test_saved_are_the_currents_and_the_state_before_each_piece(uncompiled, steps):
    current = torch.randn(steps, 4, 33, requires_grad=True)
    neuron = LIF(leak=0.68, backend="compiled")
    with SavedTensors(neuron) as saved:
        spikes = neuron(current * 1)  # traces and compiles within the meter
        spikes.sum().backward()
    assert saved.peak == 4 * current.numel() * (1 + 1 / 8)


def test_a_step_that_draws_random_numbers_runs_as_it_is_and_the_reason_is_given(uncompiled):
    def step(state, now, decay):
        u = decay * state[0] + now * torch.bernoulli(torch.full_like(now, 0.5))
        return spike(u - 1, Arctan()), (u,)

    neuron, results = Compiled(step), []
    for function in (neuron, lambda *given: loop(step, *given)):
        torch.manual_seed(9)
        inputs = torch.randn(4, 2, 3), (torch.zeros(2, 3),), (torch.tensor(0.5),)
        results.append(outcome(function, inputs, [1, 1]))
    assert neuron.reason.startswith("a step draws random numbers (aten.bernoulli")
    for one, other in zip(*results, strict=True):
        assert torch.equal(one, other)


def test_a_step_that_closes_over_what_it_learns_runs_as_it_is_and_the_reason_is_given(uncompiled):
    decay = torch.tensor(0.5, requires_grad=True)

    def step(state, now):
        u = decay * state[0] + now
        return spike(u - 1, Arctan()), (u,)

    neuron, current = Compiled(step), torch.randn(4, 2, 3, requires_grad=True)
    spikes, _ = neuron(current, (torch.zeros(2, 3),))
    assert torch.autograd.grad(spikes.sum(), decay)[0] != 0
    assert "closes over a tensor that takes a gradient" in neuron.reason


@pytest.mark.parametrize(("steps", "piece"), [(1, 1), (3, 3), (8, 8), (10, 5), (12, 6), (13, 8), (16, 8), (21, 7), (256, 8)])
def test_a_piece_has_at_most_eight_steps_and_divides_the_sequence_if_four_or_more_do(steps, piece):
    assert piece_of(steps) == piece


def test_at_most_two_pieces_are_compiled_each_way_per_shape_and_layers_of_equal_settings_share_them(uncompiled):
    torch.manual_seed(2)
    first, second = (LIF(leak=0.61, backend="compiled") for _ in range(2))
    assert first.compiled() is second.compiled()
    for steps in (19, 8, 16):  # 19 is 8 + 8 + 3
        current, g = torch.randn(steps, 2, 5), torch.randn(steps, 2, 5)
        for neuron in (first, second):
            for one, other in zip(run(neuron, current, g), run(LIF(leak=0.61, backend="reference"), current, g), strict=True):
                assert torch.equal(one, other)
    assert len(uncompiled) == 4


def test_evaluation_compiles_no_backward_pass_and_any_number_of_shapes(uncompiled):
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
        neuron = LIF(leak=0.64, backend="compiled")
        current = torch.randn(4, 2, 6)
        with torch._inductor.config.patch({"cpp.cxx": ("no-such-compiler",)}):
            assert torch.equal(neuron(current), LIF(leak=0.64, backend="reference")(current))
        assert neuron.compiled().reason.startswith("no C++ compiler was found; tried ")
    finally:
        module.why_not.cache_clear()


def test_the_name_of_a_backend_that_does_not_exist_is_answered_with_those_that_do():
    with pytest.raises(ValueError, match="allowed: auto, reference, native, compiled, triton"):
        LIF(backend="compile")
