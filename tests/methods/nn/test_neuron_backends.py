"""The native LIF against the reference, against the recursion written out here, and in every layout, with and without a compiler."""

from __future__ import annotations

import itertools
import math
import os
import shutil
import tempfile
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from harness.meters.memory import SavedTensors
from methods.nn import lif_native, lif_settings, native
from methods.nn.neuron import LIF, backends
from methods.nn.stepping import stepping
from methods.nn.surrogate import Arctan, FastSigmoid, Gauss, Polynomial, Rectangle, Sigmoid, Triangle, piecewise_quadratic

DOUBLE = torch.float64
SURROGATES = [
    Rectangle(), Rectangle(0.7), Triangle(), Triangle(1.5, 0.3), Polynomial(), Polynomial(2.0), Sigmoid(), Sigmoid(1.3), Gauss(),
    Gauss(1.7), Arctan(), Arctan(3.1), FastSigmoid(), FastSigmoid(25.0, 0.08), piecewise_quadratic(0.8),
]  # fmt: skip

requires_compiler = pytest.mark.skipif(not native.available(torch.float32), reason=f"no native kernels: {native.describe()}")
pytestmark = requires_compiler


def pair(dtype: torch.dtype = torch.float32, **options) -> tuple[LIF, LIF]:
    return LIF(backend="reference", **options).to(dtype), LIF(backend="native", **options).to(dtype)


def run(neuron: LIF, current: Tensor, g: Tensor) -> list[Tensor]:
    """Spikes, and the gradients of the current and of the leak if it is learnt."""
    current = current.detach().requires_grad_()
    spikes = neuron(current)
    return [spikes.detach(), *torch.autograd.grad(spikes, [current, *neuron.parameters()], g)]


def assert_close(found: Tensor, expected: Tensor, relative: float) -> None:
    """Within ``relative`` of the largest number expected; NaN where NaN is expected."""
    assert found.dtype == expected.dtype
    assert torch.equal(found.isnan(), expected.isnan())
    scale = expected.nan_to_num().abs().max().item() if expected.numel() else 0.0
    torch.testing.assert_close(found, expected, rtol=0, atol=relative * scale, equal_nan=True)


OPTIONS = st.fixed_dictionaries(
    {
        "leak": st.sampled_from([0.0, 0.25, 0.5, 0.9, 1.0]) | st.floats(0, 1),
        "threshold": st.sampled_from([0.5, 1.0]) | st.floats(0.1, 2),
        "reset": st.sampled_from(["hard", "soft", "none"]),
        "detach_reset": st.booleans(),
        "surrogate": st.sampled_from(SURROGATES),
        "strict": st.booleans(),
        "scale_input": st.booleans(),
        "v_init": st.sampled_from([0.0, 0.3, -0.5]),
        "save": st.sampled_from(["auto", "potential", "recompute"]),
    }
)


@settings(max_examples=150, deadline=None)
@given(
    options=OPTIONS,
    steps=st.integers(1, 20),
    shape=st.lists(st.integers(1, 7), min_size=1, max_size=4) | st.lists(st.sampled_from([63, 64, 65, 130]), min_size=1, max_size=2),
    dtype=st.sampled_from([torch.float32, DOUBLE]),
    seed=st.integers(0, 10_000),
)
def test_the_native_backend_gives_the_spikes_of_the_reference_bit_for_bit_and_its_gradients(options, steps, shape, dtype, seed):
    torch.manual_seed(seed)
    current, g = torch.randn(steps, *shape, dtype=dtype) * 1.5, torch.randn(steps, *shape, dtype=dtype)
    (spikes, grad), (native_spikes, native_grad) = (run(neuron, current, g) for neuron in pair(dtype, **options))
    assert torch.equal(native_spikes, spikes)
    assert_close(native_grad, grad, 1e-6 if dtype is torch.float32 else 1e-13)


@settings(max_examples=60, deadline=None)
@given(options=OPTIONS, steps=st.integers(1, 12), size=st.sampled_from([1, 5, 700]), seed=st.integers(0, 10_000))
def test_the_gradient_of_a_learnt_leak_is_that_of_the_reference(options, steps, size, seed):
    torch.manual_seed(seed)
    options = options | {"leak": min(max(options["leak"], 0.05), 0.95), "learnable_leak": True}
    current, g = torch.randn(steps, 2, size, dtype=DOUBLE) * 1.5, torch.randn(steps, 2, size, dtype=DOUBLE)
    (spikes, grad, slope), (native_spikes, native_grad, native_slope) = (run(neuron, current, g) for neuron in pair(DOUBLE, **options))
    assert torch.equal(native_spikes, spikes)
    assert_close(native_grad, grad, 1e-13)
    # A sum of signed terms: its rounding is relative to their magnitudes, not to what is left of them.
    torch.testing.assert_close(native_slope, slope, rtol=1e-10, atol=1e-13 * steps * size)


@pytest.mark.parametrize("scale_input", [False, True])
@pytest.mark.parametrize("save", ["potential", "recompute"])
def test_in_single_precision_the_gradient_of_the_leak_is_within_a_millionth_of_the_exact_one(scale_input, save):
    torch.manual_seed(1)
    current, g = torch.rand(16, 4, 500) * 2, torch.rand(16, 4, 500)
    options = {"leak": 0.9, "learnable_leak": True, "scale_input": scale_input, "reset": "none", "surrogate": Arctan(0.5), "v_init": 0.1}
    exact = run(LIF(backend="reference", **options).to(DOUBLE), current.double(), g.double())
    found = run(LIF(backend="native", save=save, **options), current, g)
    assert found[2].item() == pytest.approx(exact[2].item(), rel=1e-6)


def formula(surrogate, d: Tensor) -> Tensor:
    """The surrogates written out again, from the card."""
    if isinstance(surrogate, Rectangle):
        return (d.abs() < surrogate.width / 2).to(d.dtype) / surrogate.width
    if isinstance(surrogate, Triangle):
        return surrogate.scale * torch.clamp(surrogate.width - d.abs(), min=0) / surrogate.width**2
    if isinstance(surrogate, Polynomial):
        return torch.clamp(math.sqrt(surrogate.a) / 2 - surrogate.a * d.abs() / 4, min=0)
    if isinstance(surrogate, Sigmoid):
        e = torch.exp(-d.abs() * surrogate.alpha)
        return surrogate.alpha * e / (1 + e) ** 2
    if isinstance(surrogate, Gauss):
        return torch.exp(-(d**2) / (2 * surrogate.a)) / math.sqrt(2 * math.pi * surrogate.a)
    if isinstance(surrogate, FastSigmoid):
        return surrogate.scale * surrogate.alpha / 2 * (1 + surrogate.alpha * d.abs()) ** -2.0
    return surrogate.alpha / 2 / (1 + (math.pi * surrogate.alpha * d / 2) ** 2)


@pytest.mark.parametrize("surrogate", SURROGATES, ids=str)
@pytest.mark.parametrize(("reset", "detach"), [*itertools.product(["hard", "soft"], [True, False]), ("none", True)])
def test_the_backward_pass_is_the_recursion_of_the_card(surrogate, reset, detach):
    torch.manual_seed(2)
    leak, theta, v0 = 0.6, 0.8, 0.2
    current, g = torch.randn(7, 3, 11, dtype=DOUBLE) * 1.5, torch.randn(7, 3, 11, dtype=DOUBLE)
    us, ss, v = [], [], torch.full((3, 11), v0, dtype=DOUBLE)
    for now in current:
        u = leak * v + now
        s = (u > theta).to(DOUBLE)
        v = {"hard": u * (1 - s), "soft": u - theta * s, "none": u}[reset]
        us.append(u)
        ss.append(s)
    expected, g_v, slope = torch.zeros_like(current), torch.zeros(3, 11, dtype=DOUBLE), 0.0
    for t in reversed(range(7)):
        u, s = us[t], ss[t]
        h = formula(surrogate, u - theta)
        through = {"hard": 1 - s, "soft": 1.0, "none": 1.0}[reset]
        if not detach:
            through = through - {"hard": u * h, "soft": theta * h, "none": 0.0}[reset]
        expected[t] = g[t] * h + g_v * through
        before = {"hard": us[t - 1] * (1 - ss[t - 1]), "soft": us[t - 1] - theta * ss[t - 1], "none": us[t - 1]}[reset] if t else v0
        slope += (expected[t] * before).sum().item()
        g_v = leak * expected[t]
    for save in ("potential", "recompute"):
        neuron = LIF(leak, theta, reset, detach, surrogate, True, False, True, v0, "native", save).to(DOUBLE)
        with torch.no_grad():
            neuron.leak_logit.copy_(torch.tensor(math.log((1 - leak) / leak), dtype=DOUBLE))
        spikes, found, found_slope = run(neuron, current, g)
        assert torch.equal(spikes, torch.stack(ss))
        torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)
        # leak = 1 - sigmoid(w), so that dL/dw = -dL/dleak leak (1 - leak)
        assert found_slope.item() == pytest.approx(-slope * leak * (1 - leak), abs=1e-11)


@pytest.mark.parametrize("strict", [False, True])
def test_a_potential_exactly_at_threshold_is_decided_as_in_the_reference(strict):
    current = torch.randint(-4, 9, (12, 5, 200)).float() / 4  # with leak 0.5 and threshold 1, many potentials are exactly 1
    reference, fast = pair(strict=strict, reset="soft")
    assert torch.equal(reference(current), fast(current))
    other = LIF(strict=not strict, reset="soft", backend="native")
    assert not torch.equal(other(current), fast(current))


# State


@settings(max_examples=40, deadline=None)
@given(options=OPTIONS, cuts=st.lists(st.integers(1, 4), min_size=2, max_size=5), seed=st.integers(0, 10_000))
def test_pieces_of_a_sequence_have_the_spikes_and_the_gradients_of_the_whole(options, cuts, seed):
    torch.manual_seed(seed)
    current = torch.randn(sum(cuts), 2, 5, dtype=DOUBLE).requires_grad_()
    g = torch.randn(sum(cuts), 2, 5, dtype=DOUBLE)
    reference, fast = pair(DOUBLE, **options)
    whole = reference(current)
    with stepping(fast):
        pieces = torch.cat([fast(part) for part in current.split(cuts)])
    assert torch.equal(pieces, whole)
    found, expected = (torch.autograd.grad(spikes, current, g)[0] for spikes in (pieces, whole))
    assert_close(found, expected, 1e-12)


@pytest.mark.parametrize("save", ["potential", "recompute"])
@pytest.mark.parametrize("reset", ["hard", "soft", "none"])
def test_the_gradient_of_the_carried_state_alone_reaches_the_currents_before(reset, save):
    torch.manual_seed(3)
    current = torch.randn(5, 2, 9, dtype=DOUBLE)
    g = torch.randn(2, 9, dtype=DOUBLE)
    found = []
    for neuron in pair(DOUBLE, reset=reset, detach_reset=False, save=save):
        leaf = current.clone().requires_grad_()
        with stepping(neuron):
            neuron(leaf)
            (state,) = neuron.carried()
        found.append(torch.autograd.grad(state, leaf, g)[0])
    assert found[0].abs().max() > 0
    assert_close(found[1], found[0], 1e-13)


# Layout


def channels_last(x: Tensor) -> Tensor:
    return x.flatten(0, 1).contiguous(memory_format=torch.channels_last).unflatten(0, x.shape[:2])


LAYOUTS = {
    "contiguous": lambda x: x,
    "channels-last": channels_last,
    "permuted within a step": lambda x: x.permute(0, 3, 1, 4, 2).contiguous().permute(0, 2, 4, 1, 3),
    "every second step": lambda x: x.repeat_interleave(2, 0)[::2],
    "the same at every step": lambda x: channels_last(x)[:1].expand_as(x),
    "time innermost": lambda x: x.permute(1, 2, 3, 4, 0).contiguous().permute(4, 0, 1, 2, 3),
    "a part of the channels": lambda x: torch.cat([x, x], 2)[:, :, : x.shape[2]],
    "flipped": lambda x: x.flip(0),
}


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("upstream", ["contiguous", "channels-last", "the same at every step", "time innermost"])
@pytest.mark.parametrize("save", ["potential", "recompute"])
def test_a_current_in_any_layout_gives_the_same_numbers(name, upstream, save):
    torch.manual_seed(4)
    current, g = LAYOUTS[name](torch.randn(5, 2, 3, 4, 6)), LAYOUTS[upstream](torch.randn(5, 2, 3, 4, 6))
    reference, fast = pair(save=save, detach_reset=False)
    expected, found = run(reference, current.contiguous(), g.contiguous()), run(fast, current, g)
    assert torch.equal(found[0], expected[0])
    assert_close(found[1], expected[1], 1e-6)


@pytest.mark.parametrize("name", ["contiguous", "channels-last", "permuted within a step"])
def test_a_dense_layout_is_kept_by_spikes_and_gradients(name):
    current = LAYOUTS[name](torch.randn(5, 2, 3, 4, 6)).requires_grad_()
    spikes = LIF(backend="native")(current)
    (grad,) = torch.autograd.grad(spikes.sum(), current)
    assert spikes.stride() == grad.stride() == current.stride()


@pytest.mark.parametrize("save", ["potential", "recompute"])
@pytest.mark.parametrize("shape", [(3, 0, 5), (1, 0), (1, 1), (1, 4), (2,)])
def test_empty_batches_single_steps_and_single_neurons_work(shape, save):
    current, g = torch.randn(shape), torch.randn(shape)
    for found, expected in zip(*(run(neuron, current, g) for neuron in pair(save=save)), strict=True):
        assert torch.equal(found, expected)


@pytest.mark.parametrize("save", ["potential", "recompute"])
@pytest.mark.parametrize("surrogate", SURROGATES[::2], ids=str)
@pytest.mark.parametrize("reset", ["hard", "soft", "none"])
@pytest.mark.parametrize("detach", [True, False])
def test_nan_and_infinity_go_where_they_go_in_the_reference(surrogate, reset, detach, save):
    current, g = torch.randn(6, 1, 80), torch.randn(6, 1, 80)
    current[2, 0, 3], current[5, 0, 4], current[3, 0, 5], current[1, 0, 70] = math.nan, math.nan, math.inf, -math.inf
    options = {"surrogate": surrogate, "reset": reset, "detach_reset": detach, "save": save}
    expected, found = (run(neuron, current, g) for neuron in pair(**options))
    assert torch.equal(found[0].nan_to_num(7), expected[0].nan_to_num(7))
    assert found[0][2:, 0, 3].isnan().all()
    assert_close(found[1], expected[1], 1e-6)


@pytest.mark.parametrize("save", ["potential", "recompute"])
def test_long_sequences_and_many_blocks_equal_the_reference(save):
    torch.manual_seed(5)
    for shape in [(3000, 1, 70), (3, 2, 40_000)]:
        current, g = torch.randn(shape), torch.randn(shape)
        expected, found = (run(neuron, current, g) for neuron in pair(save=save))
        assert torch.equal(found[0], expected[0])
        assert_close(found[1], expected[1], 1e-6)


def test_the_number_of_threads_changes_no_bit():
    torch.manual_seed(6)
    current, g = torch.randn(8, 4, 9000), torch.randn(8, 4, 9000)
    neuron = LIF(learnable_leak=True, scale_input=True, backend="native")
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(run(neuron, current, g))
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


# What is learnt, per layer and per channel


def start_anywhere(neuron: LIF) -> None:
    with torch.no_grad():
        for parameter in neuron.parameters():
            parameter.copy_(torch.linspace(0.6, 1.3, max(parameter.numel(), 1), dtype=parameter.dtype).view(parameter.shape))


LEARN = st.sampled_from([("leak",), ("threshold",), ("leak", "threshold")])


@settings(max_examples=80, deadline=None)
@given(
    options=OPTIONS,
    learn=LEARN,
    channels=st.sampled_from([None, 1, 3, 7]),
    inner=st.sampled_from([(), (1,), (4, 5), (33, 9)]),
    last=st.booleans(),
    steps=st.integers(1, 9),
    seed=st.integers(0, 10_000),
)
def test_gradients_of_leak_and_threshold_are_those_of_the_reference(options, learn, channels, inner, last, steps, seed):
    torch.manual_seed(seed)
    options = options | {"learn": learn, "channels": channels, "leak": 0.5}
    shape = (steps, 4, channels or 3, *inner)
    current, g = torch.randn(shape, dtype=DOUBLE) * 1.5, torch.randn(shape, dtype=DOUBLE)
    if last:
        current = current.movedim(2, -1).contiguous().movedim(-1, 2)
    neurons = pair(DOUBLE, **options)
    for neuron in neurons:
        start_anywhere(neuron)
    expected, found = (run(neuron, current, g) for neuron in neurons)
    assert torch.equal(found[0], expected[0])
    assert found[1].stride() == current.stride()
    for one, other in zip(found[1:], expected[1:], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-13 * current.numel())


@pytest.mark.parametrize("channels", [None, 6])
@pytest.mark.parametrize("layout", ["contiguous", "channels-last", "permuted within a step", "a part of the channels", "time innermost"])
def test_spikes_with_learnt_leak_and_threshold_are_bitwise_those_of_the_reference_in_single_precision(channels, layout):
    torch.manual_seed(8)
    current, g = LAYOUTS[layout](torch.randn(6, 2, 6, 4, 9) * 1.5), torch.rand(6, 2, 6, 4, 9)
    options = {"learn": ("leak", "threshold"), "channels": channels, "scale_input": True, "reset": "soft"}
    neurons = pair(**options)
    for neuron in neurons:
        start_anywhere(neuron)
    expected, found = (run(neuron, current, g) for neuron in neurons)
    exact = LIF(backend="reference", **options).to(DOUBLE)
    exact.load_state_dict(neurons[0].state_dict())
    assert torch.equal(found[0], expected[0])
    assert_close(found[1], expected[1], 1e-6)
    in_double = run(exact, current.double(), g.double())
    assert torch.equal(in_double[0].float(), expected[0])
    for one, other in zip(found[2:], in_double[2:], strict=True):
        torch.testing.assert_close(one.double(), other, rtol=1e-6, atol=1e-6 * other.abs().max().item())


@pytest.mark.parametrize("learn", ["leak", "threshold"])
def test_gradcheck_accepts_what_is_learnt_where_the_surrogate_is_the_derivative_of_the_forward_pass(learn):
    # Without a reset and below threshold the spikes are constant and only the state depends on the leak: numbers can be compared.
    torch.manual_seed(9)
    neuron = LIF(0.6, 50.0, "none", backend="native", learn=(learn,), channels=3).to(DOUBLE)
    current = torch.randn(4, 2, 3, dtype=DOUBLE, requires_grad=True)
    name = {"leak": "leak_logit", "threshold": "threshold"}[learn]

    def state_after(current: Tensor, parameter: Tensor) -> Tensor:
        with stepping(neuron):
            torch.func.functional_call(neuron, {name: parameter}, (current,))
            return neuron.carried()[0]

    parameter = dict(neuron.named_parameters())[name].detach().clone().requires_grad_()
    assert torch.autograd.gradcheck(state_after, (current, parameter))


def test_currents_without_the_channels_are_refused():
    with pytest.raises(ValueError, match=r"a current \[T, B, 4, ...\] is needed for channels=4, not \[2, 3, 5\]"):
        LIF(learn=("leak",), channels=4)(torch.randn(2, 3, 5))


def test_a_threshold_to_learn_starts_above_zero_and_what_can_be_learnt_is_told():
    with pytest.raises(ValueError, match="must start above 0, not at -1"):
        LIF(threshold=-1.0, learn=("threshold",))
    with pytest.raises(ValueError, match="learn 'gain' is unknown; allowed: leak, threshold"):
        LIF(learn=("gain",))
    neuron = LIF(threshold=0.8, learn=("leak", "threshold"), channels=3)
    assert [p.shape for p in neuron.parameters()] == [(3,), (3,)]
    assert "threshold=0.8" in repr(neuron) and "channels=3" in repr(neuron)


def test_the_number_of_threads_changes_no_bit_of_a_gradient_per_channel():
    torch.manual_seed(6)
    current, g = torch.randn(8, 4, 3, 3000), torch.randn(8, 4, 3, 3000)
    neuron = LIF(learn=("leak", "threshold"), channels=3, backend="native")
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(run(neuron, current, g))
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


# Refractory neurons


@settings(max_examples=80, deadline=None)
@given(
    options=OPTIONS,
    learn=st.just(()) | LEARN,
    channels=st.sampled_from([None, 3]),
    refractory=st.integers(1, 4),
    cuts=st.lists(st.integers(1, 5), min_size=1, max_size=4),
    seed=st.integers(0, 10_000),
)
def test_a_refractory_neuron_is_that_of_the_reference_whole_and_in_pieces(options, learn, channels, refractory, cuts, seed):
    torch.manual_seed(seed)
    options = options | {"learn": learn, "channels": channels, "leak": 0.5, "refractory": refractory}
    shape = (sum(cuts), 2, 3, 50)
    current, g = torch.randn(shape, dtype=DOUBLE) * 2, torch.randn(shape, dtype=DOUBLE)
    reference, fast = pair(DOUBLE, **options)
    expected = run(reference, current, g)

    def pieces(neuron: LIF) -> list[Tensor]:
        leaf = current.clone().requires_grad_()
        with stepping(neuron):
            spikes = torch.cat([neuron(part) for part in leaf.split(cuts)])
        return [spikes.detach(), *torch.autograd.grad(spikes, [leaf, *neuron.parameters()], g)]

    for found in (run(fast, current, g), pieces(fast), pieces(reference)):
        assert torch.equal(found[0], expected[0])
        for one, other in zip(found[1:], expected[1:], strict=True):
            torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12 * current.numel())


@pytest.mark.parametrize("backend", ["reference", "native"])
@pytest.mark.parametrize(("reset", "held"), [("hard", 0.0), ("soft", 0.5), ("none", 1.5)])
def test_after_a_spike_a_neuron_is_silent_and_holds_its_potential_for_the_refractory_period(backend, reset, held):
    neuron = LIF(leak=1.0, reset=reset, refractory=2, backend=backend)
    current = torch.tensor([1.5, 9.0, 9.0, 0.4, 9.0]).view(5, 1, 1)
    seen, potentials = [], []
    with torch.no_grad(), stepping(neuron):
        for now in current:
            seen.append(neuron(now[None]).item())
            potentials.append(neuron.carried()[0].item())
    late = reset == "none"  # there the potential is still above the threshold
    assert seen == [1, 0, 0, float(late), float(not late)]
    assert potentials[:3] == [held] * 3


@pytest.mark.parametrize("backend", ["reference", "native"])
def test_the_current_of_a_refractory_step_has_no_gradient(backend):
    current = torch.tensor([1.2, 0.9, 0.9, 0.9]).view(4, 1, 1).requires_grad_()
    LIF(refractory=2, backend=backend)(current).sum().backward()
    assert (current.grad.flatten() != 0).tolist() == [True, False, False, True]


def test_nan_in_a_refractory_neuron_goes_where_it_goes_in_the_reference():
    torch.manual_seed(10)
    current, g = torch.randn(7, 1, 90) * 2, torch.randn(7, 1, 90)
    current[2, 0, 3], current[0, 0, 4], current[3, 0, 5], current[1, 0, 70] = math.nan, math.nan, math.inf, -math.inf
    expected, found = (run(neuron, current, g) for neuron in pair(refractory=2, reset="soft"))
    assert torch.equal(found[0].nan_to_num(7), expected[0].nan_to_num(7))
    assert_close(found[1], expected[1], 1e-6)


# Half precision


@pytest.mark.parametrize("save", ["auto", "potential", "recompute"])
@pytest.mark.parametrize("options", [{}, {"learn": ("leak", "threshold"), "channels": 3, "scale_input": True}, {"refractory": 1}], ids=str)
@pytest.mark.parametrize("layout", ["contiguous", "channels-last", "the same at every step"])
def test_in_bfloat16_state_and_arithmetic_are_in_single_precision(save, options, layout):
    torch.manual_seed(11)
    current = LAYOUTS[layout]((torch.randn(5, 2, 3, 4, 40) * 1.5).bfloat16())
    g = torch.randn(5, 2, 3, 4, 40).bfloat16()
    reference, fast = pair(detach_reset=False, surrogate=Sigmoid(), save=save, **options)
    expected, found = run(reference, current.float(), g.float()), run(fast, current, g)
    assert found[0].dtype == found[1].dtype == torch.bfloat16
    assert torch.equal(found[0].float(), expected[0])
    torch.testing.assert_close(found[1].float(), expected[1], rtol=2**-8, atol=1e-6)
    for one, other in zip(found[2:], expected[2:], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5 * other.abs().max().item())


def test_gradients_in_bfloat16_are_rounded_to_the_nearest_and_nan_stays_nan():
    torch.manual_seed(12)
    current, g = torch.zeros(1, 1, 4096, dtype=torch.bfloat16), torch.randn(1, 1, 4096).bfloat16()
    current[0, 0, 7] = math.nan
    exact = run(LIF(backend="reference", surrogate=Arctan(0.37)), current.float(), g.float())
    found = run(LIF(backend="native", surrogate=Arctan(0.37)), current, g)
    assert torch.equal(found[1].nan_to_num(3), exact[1].bfloat16().nan_to_num(3))
    assert found[0][0, 0, 7].isnan() and found[0].nansum() == 0


def test_a_sequence_in_bfloat16_carries_a_state_in_single_precision():
    current = torch.randn(6, 2, 40).bfloat16()
    neuron = LIF(backend="native", reset="soft")
    with torch.no_grad(), stepping(neuron):
        pieces = torch.cat([neuron(part) for part in current.split([1, 3, 2])])
        assert neuron.carried()[0].dtype == torch.float32
    assert torch.equal(pieces, neuron(current))


@pytest.mark.parametrize(("save", "bytes_each"), [("auto", 2), ("recompute", 2), ("potential", 4)])
def test_of_bfloat16_the_currents_are_kept_or_potentials_in_single_precision(save, bytes_each):
    current = torch.randn(6, 2, 40).bfloat16().requires_grad_()
    with SavedTensors() as saved:
        LIF(backend="native", save=save)(current)
    assert saved.peak == bytes_each * current.numel()


# Packed bits

EXACT = [("hard", True), ("soft", True), ("soft", False), ("none", True)]


@settings(max_examples=80, deadline=None)
@given(
    exact=st.sampled_from(EXACT),
    width=st.sampled_from([0.3, 1.0, 2.5]),
    strict=st.booleans(),
    channels=st.sampled_from([None, 3]),
    learn=st.booleans(),
    shape=st.sampled_from([(1,), (7,), (64,), (65,), (1100,), (8200,)]),
    steps=st.integers(1, 12),
    spoilt=st.booleans(),
    dtype=st.sampled_from([torch.float32, DOUBLE]),
    seed=st.integers(0, 10_000),
)
def test_packed_bits_give_the_gradients_of_the_potentials(exact, width, strict, channels, learn, shape, steps, spoilt, dtype, seed):
    torch.manual_seed(seed)
    options = {"reset": exact[0], "detach_reset": exact[1], "surrogate": Rectangle(width), "strict": strict, "channels": channels}
    options |= {"learn": ("threshold",) if learn else (), "scale_input": True}
    current = torch.randint(-8, 16, (steps, 1, 3, *shape)).to(dtype) / 4  # many potentials exactly at the threshold
    g = torch.randn_like(current)
    if spoilt:
        current[steps // 2, 0, 1, 0], current[0, 0, 2, 0], current[-1, 0, 0, 0] = math.nan, math.inf, math.nan
    found = [run(LIF(backend="native", save=save, **options).to(dtype), current, g) for save in ("potential", "bits")]
    for one, other in zip(*found, strict=True):
        assert torch.equal(one.nan_to_num(7), other.nan_to_num(7))
        assert torch.equal(one.isnan(), other.isnan())


@pytest.mark.parametrize(("reset", "detach", "bits"), [("hard", True, 2), ("soft", False, 1), ("none", True, 1)])
def test_packed_bits_take_two_or_one_per_neuron_step(reset, detach, bits):
    current = torch.randn(16, 4, 64, requires_grad=True)
    neuron = LIF(surrogate=Rectangle(), save="bits", reset=reset, detach_reset=detach)
    with SavedTensors(neuron) as saved:
        neuron(current * 1)
    of_one_row = 4 * 64 // 8
    assert saved.peak == bits * 16 * of_one_row + (bits == 2) * of_one_row  # with two planes one more bit per neuron


def test_packed_bits_of_a_carried_sequence_give_the_gradients_of_the_whole():
    torch.manual_seed(13)
    current, g = torch.randn(9, 2, 21, dtype=DOUBLE).requires_grad_(), torch.randn(9, 2, 21, dtype=DOUBLE)
    options = {"surrogate": Rectangle(), "reset": "hard"}
    neuron = LIF(backend="native", save="bits", **options)
    with stepping(neuron):
        pieces = torch.cat([neuron(part) for part in current.split([2, 1, 6])])
    found = torch.autograd.grad(pieces, current, g)[0]
    assert_close(found, torch.autograd.grad(LIF(backend="reference", **options)(current), current, g)[0], 1e-13)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({}, "must be a Rectangle, as any other needs potentials, not Triangle"),
        ({"surrogate": Rectangle(), "detach_reset": False}, "a hard reset must be detached"),
        ({"surrogate": Rectangle(), "learnable_leak": True}, "learnt leak needs potentials"),
        ({"surrogate": Rectangle(), "refractory": 1}, "refractory"),
    ],
)
def test_bits_are_refused_where_they_would_not_be_exact(options, reason):
    with pytest.raises(ValueError, match=f"save='bits' would not be exact: .*{reason}"):
        LIF(save="bits", **options)


# Memory


@pytest.mark.parametrize("save", ["auto", "potential", "recompute"])
@pytest.mark.parametrize("leak", [{}, {"learnable_leak": True, "scale_input": True}, {"refractory": 2}], ids=str)
def test_four_bytes_per_neuron_step_are_saved_for_the_backward_pass(save, leak):
    current = torch.randn(9, 4, 33, requires_grad=True)
    neuron = LIF(save=save, backend="native", **leak)
    with SavedTensors(neuron) as saved:
        spikes = neuron(current * 1)
        spikes.sum().backward()
    scalars = 16 if leak else 0  # the leak, as saved by the neuron and by the sigmoid
    assert 4 * current.numel() <= saved.peak <= 4 * current.numel() + scalars


def test_nothing_is_saved_without_gradients_and_one_step_for_an_input_that_repeats():
    neuron = LIF(backend="native")
    image = torch.randn(1, 4, 33, requires_grad=True)
    with SavedTensors(neuron) as saved, torch.no_grad():
        neuron(image.expand(9, 4, 33))
    assert saved.peak == 0
    with SavedTensors(neuron) as saved:
        spikes = neuron(image.expand(9, 4, 33))
    assert saved.peak == 4 * image.numel()
    (found,) = torch.autograd.grad(spikes.sum(), image)
    (expected,) = torch.autograd.grad(LIF(backend="reference")(image.expand(9, 4, 33)).sum(), image)
    assert_close(found, expected, 1e-6)


def test_of_a_current_that_varies_the_potentials_are_kept_unless_the_currents_are_asked_for():
    current = torch.randn(4, 2, 3, requires_grad=True) * 1
    kept = {save: LIF(backend="native", save=save)(current).grad_fn.saved_tensors[0] for save in ("auto", "potential", "recompute")}
    assert torch.equal(kept["auto"], kept["potential"])
    assert kept["recompute"].data_ptr() == current.data_ptr() != kept["auto"].data_ptr()


def test_a_current_that_is_changed_after_the_pass_is_noticed():
    leaf = torch.randn(4, 2, 3, requires_grad=True)
    current = leaf * 1
    spikes = LIF(backend="native", save="recompute")(current)
    current.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        spikes.sum().backward()


# Operators


def arguments(save: str, learn: bool, carry: bool, grad: bool, dtype: torch.dtype) -> tuple:
    numbers = [0.6, 1.0, 0.1, 1.0, 1.0, 1.0]
    flags = lif_settings.Flags(0, 1, 0, 1, int(learn), int(grad), int(save == "recompute"), int(carry), 0)
    current = torch.randn(4, 2, 5, dtype=dtype, requires_grad=grad)
    v0 = torch.randn(2, 5, dtype=dtype, requires_grad=grad) if carry else None
    leak = torch.tensor(0.6, dtype=dtype, requires_grad=grad) if learn else None
    return current, v0, None, leak, None, numbers, list(flags)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # opcheck looks at it
@pytest.mark.parametrize("save", ["potential", "recompute"])
@pytest.mark.parametrize(("learn", "carry", "grad"), [(False, False, True), (True, True, True), (False, True, False)])
def test_the_operator_is_registered_as_torch_wants_it(save, learn, carry, grad):
    torch.library.opcheck(lif_native.lif.operator, arguments(save, learn, carry, grad, torch.float32))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"save": "recompute"},
        {"learnable_leak": True, "scale_input": True},
        {"learn": ("leak", "threshold"), "channels": 3, "refractory": 2},
        {"save": "bits", "surrogate": Rectangle(), "learn": ("threshold",)},
    ],
    ids=str,
)
@pytest.mark.parametrize("name", ["contiguous", "channels-last", "time innermost"])
def test_a_compiled_network_keeps_the_operator_and_the_numbers(options, name):
    torch.manual_seed(7)
    current, g = LAYOUTS[name](torch.randn(5, 2, 3, 4, 6)), torch.randn(5, 2, 3, 4, 6)
    neuron = LIF(**options)
    torch._dynamo.reset()
    compiled = torch.compile(neuron, backend="aot_eager", fullgraph=True)
    for found, expected in zip(run(neuron, current, g), run_compiled(compiled, neuron, current, g), strict=True):
        assert_close(found, expected, 1e-6)
    explained = torch._dynamo.explain(neuron)(current)
    assert any("spikebench" in str(node.target) for graph in explained.graphs for node in graph.graph.nodes)


def run_compiled(compiled, neuron: LIF, current: Tensor, g: Tensor) -> list[Tensor]:
    current = current.detach().requires_grad_()
    spikes = compiled(current)
    return [spikes.detach(), *torch.autograd.grad(spikes, [current, *neuron.parameters()], g)]


def test_a_compiled_step_carries_its_state():
    current = torch.randn(4, 2, 3)
    neuron = LIF(backend="native")
    expected = neuron(current)
    torch._dynamo.reset()
    step = torch.compile(neuron, backend="aot_eager")
    with torch.no_grad(), stepping(neuron):
        found = torch.cat([step(now[None]) for now in current])
    assert torch.equal(found, expected)


# Choice of the backend


class Ours(Triangle):
    """Another formula under a known name."""

    def __call__(self, d: Tensor) -> Tensor:
        return torch.ones_like(d)


class Labelled(Tensor):
    """A tensor that carries something along."""


REFUSED = [
    ({}, torch.randn(2, 3).half(), "float16"),
    ({}, torch.randn(2, 3).as_subclass(Labelled), "Labelled"),
    ({"surrogate": Ours()}, torch.randn(2, 3), "Ours"),
    ({}, torch.randn(2, 3, device="meta"), "meta"),
    ({"threshold": torch.tensor(1.0)}, torch.randn(2, 3), "must be numbers"),
]


@pytest.mark.parametrize(("options", "current", "reason"), REFUSED, ids=[r[2] for r in REFUSED])
def test_what_the_native_backend_cannot_do_goes_to_the_reference_or_raises_if_it_was_asked_for(options, current, reason):
    auto = LIF(**options)
    assert reason in auto.why_not_native(current)
    assert auto(current).shape == current.shape
    with pytest.raises(RuntimeError, match=reason):
        LIF(backend="native", **options)(current)


def test_the_backend_that_was_used_is_told():
    net = torch.nn.Sequential(LIF(), LIF(backend="reference"), LIF())
    assert backends(net) == {}
    net(torch.randn(2, 3))
    assert backends(net) == {"native": 2, "reference": 1}


def test_auto_is_native_on_the_cpu():
    assert LIF().why_not_native(torch.randn(2, 3)) is None
    assert LIF()(torch.randn(2, 3, requires_grad=True)).grad_fn.name().startswith("LIFFunction")


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # opcheck looks at it
@pytest.mark.parametrize("save", [lif_settings.CURRENT, lif_settings.BITS])
def test_the_operator_takes_channels_silence_and_bits(save):
    refractory = int(save == lif_settings.CURRENT)
    flags = lif_settings.Flags(1, 1, 0, 0, 0, 1, save, refractory, refractory)
    v0, r0 = (torch.rand(2, 5, requires_grad=True), torch.ones(2, 5)) if refractory else (None, None)
    leak = torch.linspace(0.2, 0.8, 5, requires_grad=True) if refractory else None
    threshold = torch.linspace(0.5, 1, 5, requires_grad=True)
    given = torch.randn(4, 2, 5, requires_grad=True), v0, r0, leak, threshold, [0.6, 1.0, 0.1, 0.5, 1.0, 1.0], list(flags)
    torch.library.opcheck(lif_native.lif.operator, given)


@pytest.mark.parametrize("option", ["reset", "backend", "save"])
def test_an_unknown_option_is_refused_with_those_allowed(option):
    with pytest.raises(ValueError, match=f"{option} 'other' is unknown; allowed: "):
        LIF(**{option: "other"})


@pytest.fixture
def fresh(monkeypatch, tmp_path):
    """Forget compiled kernels, and keep new ones in a folder of the test; afterwards forget again."""
    made = native._compiled(shutil.which("cc") or shutil.which("gcc") or shutil.which("clang"), "float")
    monkeypatch.setattr(native, "_reasons", {})
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    native.load.cache_clear()
    yield made
    native.load.cache_clear()


def compiler(folder: Path, script: str) -> str:
    """Make a command ``cc`` and return the folder to search it in."""
    folder.mkdir()
    (folder / "cc").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "cc").chmod(0o755)
    return f"{folder}{os.pathsep}/usr/bin{os.pathsep}/bin"


def runs_on() -> str:
    """Return the node of the graph that an automatic choice makes, after a look at the spikes."""
    current = torch.linspace(-1, 3, 24).view(4, 6).requires_grad_()
    spikes = LIF()(current)
    assert torch.equal(spikes, LIF(backend="reference")(current))
    return spikes.grad_fn.name()


def test_without_a_compiler_the_reference_runs_and_the_reason_is_kept(fresh, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "LIFFunction" not in runs_on()
    assert native.describe() == "float: no C compiler (cc, gcc, clang) was found"
    with pytest.raises(RuntimeError, match="no C compiler"):
        LIF(backend="native")(torch.randn(2, 3))


def test_with_a_compiler_that_fails_the_reference_runs_and_its_message_is_kept(fresh, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", compiler(tmp_path / "bin", "echo no such flag >&2; exit 1"))
    assert "LIFFunction" not in runs_on()
    assert native.describe().endswith("no such flag")


def test_a_compiler_that_makes_something_else_is_no_harm(fresh, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", compiler(tmp_path / "bin", 'while [ $# -gt 1 ]; do [ "$1" = -o ] && echo hello > "$2"; shift; done'))
    assert "LIFFunction" not in runs_on()
    assert "failed" in native.describe()


def test_the_kernels_can_be_turned_off(fresh, monkeypatch):
    monkeypatch.setenv("SPIKEBENCH_NATIVE", "0")
    assert "LIFFunction" not in runs_on()
    assert native.describe() == "float: turned off by SPIKEBENCH_NATIVE=0"


@pytest.mark.parametrize("writable", [True, False])
def test_kernels_are_compiled_once_into_the_cache_or_else_for_the_process(fresh, monkeypatch, tmp_path, writable):
    # A compiler that takes the finished file, as compiling takes seconds.
    script = f'echo run >> {tmp_path}/log; while [ $# -gt 1 ]; do [ "$1" = -o ] && cp {fresh} "$2"; shift; done'
    monkeypatch.setenv("PATH", compiler(tmp_path / "bin", script))
    if not writable:
        (tmp_path / "cache").write_text("")  # a file where the folder should be: refused to root as well
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for _ in range(2):
        native.load.cache_clear()
        assert runs_on().startswith("LIFFunction")
    asked = len((tmp_path / "log").read_text().splitlines())
    assert asked == (3 if writable else 4)  # each time for its version, and once or each time to compile
    found = list(tmp_path.rglob("kernels-float-*.so"))
    assert len(found) == (1 if writable else 2)


def test_a_subclass_with_a_reset_of_its_own_is_not_handed_to_a_kernel():
    class Halved(LIF):
        def _after(self, u, s):
            return u * (1 - s / 2)

    current = torch.full((3, 1, 1), 1.2)
    neuron = Halved(leak=1.0)
    assert neuron(current).flatten().tolist() == [1.0, 1.0, 1.0]
    assert neuron.used == "reference" and "reset of Halved" in neuron.why_not_native(current)
    with stepping(neuron):
        neuron(current[:1])
        assert neuron.carried()[0].item() == pytest.approx(0.6)
