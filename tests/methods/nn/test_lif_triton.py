"""The LIF in Triton against the reference: on a GPU, or in Triton's interpreter (see ``test_triton_kernels``)."""

from __future__ import annotations

import itertools
import math
import os

import pytest
import torch
from torch import Tensor

from harness.meters.memory import SavedTensors
from methods.nn.neuron import LIF
from methods.nn.stepping import stepping
from methods.nn.surrogate import Arctan, FastSigmoid, Gauss, Polynomial, Rectangle, Sigmoid, Triangle

pytest.importorskip("triton")
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not INTERPRETED and not torch.cuda.is_available(), reason="neither a CUDA device nor TRITON_INTERPRET=1"),
]

SURROGATES = [Rectangle(0.7), Triangle(1.5, 0.3), Polynomial(2.0), Sigmoid(1.3), Gauss(1.7), Arctan(3.1), FastSigmoid(2.6, 0.7)]
# The error of rounding a result, as a fraction: half a place, but the interpreter cuts bfloat16 off instead of rounding it.
PLACES = {torch.float32: 1e-6, torch.float16: 2**-11, torch.bfloat16: 2**-7 if INTERPRETED else 2**-8}
SHAPE = (5, 2, 150)  # two blocks, the second not full


def pair(**options) -> tuple[LIF, LIF]:
    return LIF(backend="reference", **options).to(DEVICE), LIF(backend="triton", **options).to(DEVICE)


def numbers(*shape: int, seed: int = 0, scale: float = 1.0) -> Tensor:
    return (torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * scale).to(DEVICE)


def run(neuron: LIF, current: Tensor, g: Tensor) -> list[Tensor]:
    """Spikes, and the gradients of the current and of the leak if it is learnt."""
    current = current.detach().requires_grad_()
    spikes = neuron(current)
    return [spikes.detach(), *torch.autograd.grad(spikes, [current, *neuron.parameters()], g)]


def assert_close(found: Tensor, expected: Tensor, relative: float = 1e-6) -> None:
    """Within ``relative`` of the largest number expected; NaN where NaN is expected."""
    assert found.dtype == expected.dtype
    scale = expected.nan_to_num().abs().max().item() if expected.numel() else 0.0
    torch.testing.assert_close(found, expected, rtol=0, atol=relative * scale, equal_nan=True)


RESETS = [*itertools.product(["hard", "soft"], [True, False]), ("none", True)]


# The other switches alternate: five resets are an odd number, so each is met with either.
@pytest.mark.parametrize(
    ("case", "surrogate", "reset"), [(i, *case) for i, case in enumerate(itertools.product(SURROGATES, RESETS))], ids=str
)
def test_spikes_are_those_of_the_reference_bit_for_bit_and_gradients_its(case, surrogate, reset):
    save = ("potential", "recompute")[case % 2]
    options = {"surrogate": surrogate, "reset": reset[0], "detach_reset": reset[1], "save": save}
    options |= {"strict": case % 4 > 1, "scale_input": case // 5 % 2 == 0, "leak": 0.7, "v_init": 0.3}
    current, g = numbers(*SHAPE, scale=2.5), numbers(*SHAPE, seed=1)
    expected, found = (run(neuron, current, g) for neuron in pair(**options))
    assert 0 < expected[0].mean() < 1
    assert torch.equal(found[0], expected[0])
    assert_close(found[1], expected[1])


@pytest.mark.parametrize("strict", [False, True])
def test_a_potential_exactly_at_threshold_is_decided_as_in_the_reference(strict):
    current = (torch.randint(-4, 9, SHAPE, generator=torch.Generator().manual_seed(0)) / 4).to(DEVICE)
    reference, fast = pair(strict=strict, reset="soft")
    assert torch.equal(reference(current), fast(current))
    assert not torch.equal(LIF(strict=not strict, reset="soft", backend="triton")(current), fast(current))


@pytest.mark.parametrize("scale_input", [False, True])
@pytest.mark.parametrize("reset", ["hard", "soft", "none"])
@pytest.mark.parametrize("save", ["potential", "recompute"])
def test_the_gradient_of_a_learnt_leak_is_within_a_millionth_of_the_exact_one(scale_input, reset, save):
    options = {"leak": 0.75, "learnable_leak": True, "scale_input": scale_input, "reset": reset, "surrogate": Arctan(0.5), "v_init": 0.1}
    current, g = numbers(*SHAPE).abs() * 2, numbers(*SHAPE, seed=1).abs()
    exact = run(LIF(backend="reference", **options).to(DEVICE, torch.float64), current.double(), g.double())
    neuron = LIF(backend="triton", save=save, **options).to(DEVICE)
    found = run(neuron, current, g)
    assert torch.equal(found[0], exact[0].float())
    assert_close(found[1], exact[1].float())
    assert found[2].item() == pytest.approx(exact[2].item(), rel=1e-6)
    assert all(torch.equal(*both) for both in zip(run(neuron, current, g), found, strict=True))


@pytest.mark.parametrize("scale_input", [False, True])
@pytest.mark.parametrize(("reset", "detach"), [("hard", False), ("soft", True), ("soft", False), ("none", True)])
@pytest.mark.parametrize(("channels", "last"), [(None, False), (3, False), (3, True), ((3, 6, 9), False), ((3, 6, 9), True)])
def test_leak_and_threshold_are_learnt_per_layer_channel_and_neuron(scale_input, reset, detach, channels, last):
    options = {"learn": ("leak", "threshold"), "channels": channels, "scale_input": scale_input, "reset": reset, "detach_reset": detach}
    options |= {"leak": 0.75, "surrogate": Arctan(0.5), "save": "recompute" if last else "potential"}
    current, g = numbers(4, 2, 3, 6, 9).abs() * 2, numbers(4, 2, 3, 6, 9, seed=1).abs()
    if last:
        current = channels_last(current)
    exact, neuron = LIF(backend="reference", **options).to(DEVICE, torch.float64), LIF(backend="triton", **options).to(DEVICE)
    for each in (exact, neuron):
        with torch.no_grad():
            for parameter in each.parameters():
                parameter.copy_(torch.linspace(0.5, 1, parameter.numel()).view(parameter.shape))
    expected, found = run(exact, current.double(), g.double()), run(neuron, current, g)
    assert torch.equal(found[0], expected[0].float())
    assert_close(found[1], expected[1].float())
    for one, other in zip(found[2:], expected[2:], strict=True):
        torch.testing.assert_close(one.double(), other, rtol=1e-6, atol=1e-6 * other.abs().max().item())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("save", ["potential", "recompute"])
def test_in_half_precision_state_and_arithmetic_are_in_single(dtype, save):
    current, g = numbers(*SHAPE, scale=1.5).to(dtype), numbers(*SHAPE, seed=1).to(dtype)
    options = {"detach_reset": False, "scale_input": True, "leak": 0.7, "surrogate": Sigmoid(), "save": save}
    reference, fast = pair(**options)
    expected, found = run(reference, current.float(), g.float()), run(fast, current, g)
    assert found[0].dtype == found[1].dtype == dtype
    assert torch.equal(found[0].float(), expected[0])
    torch.testing.assert_close(found[1].float(), expected[1], rtol=PLACES[dtype] * 1.01, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("save", ["potential", "recompute"])
def test_pieces_of_a_sequence_have_the_spikes_and_the_gradients_of_the_whole(dtype, save):
    current, g = numbers(*SHAPE).to(dtype).requires_grad_(), numbers(*SHAPE, seed=1).to(dtype)
    reference, fast = pair(reset="soft", detach_reset=False, save=save)
    leaf = current.detach().float().requires_grad_()
    whole = reference(leaf)
    with stepping(fast):
        pieces = torch.cat([fast(part) for part in current.split([1, 3, 1])])
        (state,) = fast.carried()
    assert torch.equal(pieces.float(), whole)
    assert state.dtype == torch.float32
    found, expected = torch.autograd.grad(pieces, current, g)[0], torch.autograd.grad(whole, leaf, g.float())[0]
    assert_close(found.float(), expected, PLACES[dtype])


@pytest.mark.parametrize("reset", ["hard", "soft", "none"])
def test_the_gradient_of_the_carried_state_alone_reaches_the_currents_before(reset):
    found = []
    for neuron in pair(reset=reset, detach_reset=False):
        leaf = numbers(5, 2, 9).requires_grad_()
        with stepping(neuron):
            neuron(leaf)
            (state,) = neuron.carried()
        found.append(torch.autograd.grad(state, leaf, numbers(2, 9, seed=1))[0])
    assert found[0].abs().max() > 0
    assert_close(found[1], found[0])


def channels_last(x: Tensor) -> Tensor:
    return x.flatten(0, 1).contiguous(memory_format=torch.channels_last).unflatten(0, x.shape[:2])


LAYOUTS = {
    "contiguous": lambda x: x,
    "channels-last": channels_last,
    "every second step": lambda x: x.repeat_interleave(2, 0)[::2],
    "the same at every step": lambda x: channels_last(x)[:1].expand_as(x),
    "time innermost": lambda x: x.permute(1, 2, 3, 4, 0).contiguous().permute(4, 0, 1, 2, 3),
}


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("upstream", ["contiguous", "channels-last", "the same at every step"])
def test_a_current_in_any_layout_gives_the_same_numbers_and_a_dense_one_is_kept(name, upstream):
    current, g = LAYOUTS[name](numbers(4, 2, 3, 4, 3)), LAYOUTS[upstream](numbers(4, 2, 3, 4, 3, seed=1))
    reference, fast = pair(detach_reset=False)
    expected, found = run(reference, current.contiguous(), g.contiguous()), run(fast, current, g)
    assert torch.equal(found[0], expected[0])
    assert_close(found[1], expected[1])
    if name in ("contiguous", "channels-last"):
        assert found[0].stride() == found[1].stride() == current.stride()


@pytest.mark.parametrize("save", ["potential", "recompute"])
@pytest.mark.parametrize("shape", [(3, 0, 5), (1, 1), (1, 4), (2,)])
def test_empty_batches_single_steps_and_single_neurons_work(shape, save):
    current, g = numbers(*shape), numbers(*shape, seed=1)
    for found, expected in zip(*(run(neuron, current, g) for neuron in pair(save=save)), strict=True):
        assert torch.equal(found, expected)


@pytest.mark.parametrize("surrogate", SURROGATES, ids=str)
@pytest.mark.parametrize("reset", ["hard", "soft"])
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # the interpreter computes with numpy
@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning")
def test_nan_and_infinity_go_where_they_go_in_the_reference(surrogate, reset):
    current, g = numbers(6, 1, 80), numbers(6, 1, 80, seed=1)
    current[2, 0, 3], current[5, 0, 4], current[3, 0, 5], current[1, 0, 70] = math.nan, math.nan, math.inf, -math.inf
    expected, found = (run(neuron, current, g) for neuron in pair(surrogate=surrogate, reset=reset, detach_reset=False))
    assert torch.equal(found[0].nan_to_num(7), expected[0].nan_to_num(7))
    assert found[0][2:, 0, 3].isnan().all()
    assert_close(found[1], expected[1])


def test_few_programs_can_recompute_many_blocks_one_after_another(monkeypatch):
    from methods.nn import lif_triton

    monkeypatch.setattr(lif_triton, "_programs", lambda blocks, bytes_each, kept: 2)
    current, g = numbers(3, 5, 250), numbers(3, 5, 250, seed=1)
    expected, found = (run(neuron, current, g) for neuron in pair(save="recompute", learnable_leak=True))
    assert torch.equal(found[0], expected[0])
    assert_close(found[1], expected[1])
    torch.testing.assert_close(found[2], expected[2], rtol=1e-4, atol=1e-4)  # the reference sums in single precision


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_saved_are_the_currents_or_potentials_in_single_precision(dtype):
    for save, bytes_each in (("recompute", dtype.itemsize), ("potential", 4)):
        current = numbers(6, 2, 40).to(dtype).requires_grad_()
        with SavedTensors() as saved:
            LIF(backend="triton", save=save)(current)
        assert saved.peak == bytes_each * current.numel()


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # opcheck looks at it
@pytest.mark.parametrize(("carry", "recompute"), [(0, 1), (1, 0)])
def test_the_operator_is_registered_as_torch_wants_it(carry, recompute):
    from methods.nn import lif_triton
    from methods.nn.lif_settings import Flags, Numbers

    settings = Numbers(0.0, 1.0, 0.0, 1.0, 1.0, 1.0), Flags(0, 1, 0, 1, 0, 1, recompute, carry, 0)
    current, v0 = numbers(4, 2, 5).requires_grad_(), numbers(2, 5, seed=1).requires_grad_()
    leak = torch.tensor(0.5, device=DEVICE, requires_grad=True)
    torch.library.opcheck(lif_triton.lif.operator, (current, v0, None, leak, None, *(list(part) for part in settings)))


def test_a_compiled_function_has_the_same_numbers():
    neuron, g = LIF(backend="triton", learnable_leak=True).to(DEVICE), numbers(4, 2, 6, seed=1)
    torch._dynamo.reset()
    compiled = torch.compile(neuron, backend="aot_eager", fullgraph=True)
    leaf = numbers(4, 2, 6).requires_grad_()
    found = torch.autograd.grad(compiled(leaf), [leaf, *neuron.parameters()], g)
    for one, other in zip(found, run(neuron, leaf, g)[1:], strict=True):
        assert torch.equal(one, other)


def test_what_the_kernels_cannot_do_is_refused_with_a_reason():
    neuron = LIF(backend="triton")
    with pytest.raises(RuntimeError, match="triton backend cannot be used: it knows float32, bfloat16, float16, the current is"):
        neuron(numbers(2, 3).double())
    with pytest.raises(RuntimeError, match="does not know refractory neurons"):
        LIF(backend="triton", refractory=1)(numbers(2, 3))
    with pytest.raises(RuntimeError, match="does not pack bits"):
        LIF(backend="triton", save="bits", surrogate=Rectangle())(numbers(2, 3))
    with pytest.raises(RuntimeError, match="does not know the surrogate"):
        LIF(backend="triton", surrogate=lambda d: d)(numbers(2, 3))
