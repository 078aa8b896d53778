"""The linear recurrence: both backends against its closed form, numerical derivatives, pieces, layouts and long sequences."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from harness.meters.memory import SavedTensors
from methods.nn import native
from methods.nn import recurrence as module
from methods.nn.recurrence import recurrence

DOUBLE = torch.float64
requires_compiler = pytest.mark.skipif(not native.available(torch.float32), reason=f"no native kernels: {native.describe()}")
BACKENDS = ["reference", pytest.param("native", marks=requires_compiler)]


def decay(kind: str, shape: tuple[int, ...], dtype: torch.dtype = DOUBLE) -> Tensor:
    """A decay of one of the shapes allowed for ``b`` of ``shape``."""
    of = {"number": (), "channels": shape[-1:], "step": shape[1:], "varying": shape, "varying, shared": (shape[0], 1, shape[-1])}[kind]
    return torch.rand(of, dtype=dtype) * 1.5 - 0.5


KINDS = ["number", "channels", "step", "varying", "varying, shared"]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kind", KINDS)
def test_it_is_the_sum_of_decayed_inputs(backend, kind):
    torch.manual_seed(0)
    b, state = torch.randn(6, 2, 5, dtype=DOUBLE), torch.randn(2, 5, dtype=DOUBLE)
    a = decay(kind, b.shape)
    every = a.expand_as(b)
    expected = torch.stack(
        [state * every[: t + 1].prod(0) + sum(b[k] * every[k + 1 : t + 1].prod(0) for k in range(t + 1)) for t in range(6)]
    )
    h, last = recurrence(a, b, state, backend)
    torch.testing.assert_close(h, expected, atol=1e-12, rtol=0)
    assert torch.equal(last, h[-1])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kind", KINDS)
def test_its_derivatives_are_the_numerical_ones(backend, kind):
    torch.manual_seed(1)
    b, state = torch.randn(4, 2, 3, dtype=DOUBLE, requires_grad=True), torch.randn(2, 3, dtype=DOUBLE, requires_grad=True)
    a = decay(kind, b.shape).requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b, state: recurrence(a, b, state, backend), (a, b, state))
    assert torch.autograd.gradcheck(lambda a, b: recurrence(a, b, None, backend)[0], (a, b))


@requires_compiler
@settings(max_examples=80, deadline=None)
@given(
    steps=st.integers(1, 30),
    shape=st.lists(st.integers(0, 6), min_size=2, max_size=3) | st.just([2, 130]),
    kind=st.sampled_from(KINDS[:4]),
    dtype=st.sampled_from([torch.float32, DOUBLE]),
    with_state=st.booleans(),
    seed=st.integers(0, 10_000),
)
def test_the_native_backend_equals_the_reference(steps, shape, kind, dtype, with_state, seed):
    torch.manual_seed(seed)
    b = torch.randn(steps, *shape, dtype=dtype, requires_grad=True)
    a = decay(kind, tuple(b.shape), dtype).requires_grad_()
    state = torch.randn(*shape, dtype=dtype, requires_grad=True) if with_state else None
    leaves = [t for t in (a, b, state) if t is not None]
    g, g_last = torch.randn_like(b), torch.randn_like(b[0])
    outputs, grads = [], []
    for backend in ("reference", "native"):
        h, last = recurrence(a, b, state, backend)
        outputs.append(h)
        grads.append(torch.autograd.grad([h, last], leaves, [g, g_last]))
    assert torch.equal(*outputs)
    for expected, found in zip(*grads, strict=True):
        scale = expected.abs().max().item() if expected.numel() else 0.0
        # A decay shared by many sums terms of either sign.
        slack = b.numel() if kind != "varying" else 1.0
        torch.testing.assert_close(found, expected, rtol=0, atol=(1e-6 if dtype is torch.float32 else 1e-13) * max(scale, slack**0.5))


@pytest.mark.parametrize("backend", BACKENDS)
@settings(max_examples=20, deadline=None)
@given(cuts=st.lists(st.integers(1, 5), min_size=1, max_size=5), varying=st.booleans(), seed=st.integers(0, 10_000))
def test_pieces_joined_by_the_state_are_the_whole(backend, cuts, varying, seed):
    torch.manual_seed(seed)
    b = torch.randn(sum(cuts), 2, 3, dtype=DOUBLE, requires_grad=True)
    a = decay("varying" if varying else "channels", b.shape).requires_grad_()
    whole, _ = recurrence(a, b, None, backend)
    pieces, state = [], None
    factors = a.split(cuts) if varying else [a] * len(cuts)
    for factor, part in zip(factors, b.split(cuts), strict=True):
        h, state = recurrence(factor, part, state, backend)
        pieces.append(h)
    joined = torch.cat(pieces)
    assert torch.equal(joined, whole)
    g = torch.randn_like(whole)
    for found, expected in zip(torch.autograd.grad(joined, (a, b), g), torch.autograd.grad(whole, (a, b), g), strict=True):
        torch.testing.assert_close(found, expected, atol=1e-12, rtol=1e-12)


@requires_compiler
@pytest.mark.parametrize("varying", [False, True])
@pytest.mark.parametrize("value", [1e-3, 0.5, 1.0, -1.0])
def test_long_sequences_do_not_overflow(value, varying):
    # 32k steps of decay 1e-3 are a factor of 10^-98304: a scan by ratios of cumulative products would divide by zero.
    steps = 32_768
    b = torch.ones(steps, 1, 4, dtype=DOUBLE, requires_grad=True)
    a = torch.full((steps, 1, 4) if varying else (4,), value, dtype=DOUBLE, requires_grad=True)
    h, last = recurrence(a, b, backend="native")
    n = torch.arange(1, steps + 1, dtype=DOUBLE)
    expected = n if value == 1 else (1 - value**n) / (1 - value)
    torch.testing.assert_close(h[:, 0, 0], expected, rtol=1e-9, atol=0)
    g_a, g_b = torch.autograd.grad(last.sum(), (a, b))
    torch.testing.assert_close(g_b[:, 0, 0], value ** (steps - n), rtol=1e-9, atol=0)
    # dh[T-1]/da of a constant decay: sum_t a^(T-1-t) h[t-1]
    before = torch.cat([torch.zeros(1, dtype=DOUBLE), expected[:-1]])
    terms = value ** (steps - n) * before
    torch.testing.assert_close(g_a[:, 0, 0] if varying else g_a[0], terms if varying else terms.sum(), rtol=1e-9, atol=1e-300)


@requires_compiler
@pytest.mark.parametrize("varying", [False, True])
def test_any_layout_gives_the_same_numbers_and_a_dense_one_is_kept(varying):
    torch.manual_seed(2)
    plain = torch.randn(5, 2, 3, 4)
    a = decay("varying" if varying else "step", plain.shape, torch.float32)
    expected, _ = recurrence(a, plain, backend="reference")
    last = plain.flatten(0, 1).permute(0, 2, 1).contiguous().permute(0, 2, 1).unflatten(0, (5, 2))
    inner = plain.permute(1, 2, 3, 0).contiguous().permute(3, 0, 1, 2)
    for b in (plain, last, inner, plain.repeat_interleave(2, 0)[::2]):
        b = b.detach().requires_grad_()
        h, _ = recurrence(a, b, backend="native")
        assert torch.equal(h, expected)
        grads = torch.autograd.grad(h, b, torch.ones(()).expand_as(h))[0]
        torch.testing.assert_close(grads, torch.autograd.grad(recurrence(a, b, backend="reference")[0].sum(), b)[0])
    assert recurrence(a, last, backend="native")[0].stride() == last.stride()


@requires_compiler
def test_nan_stays_where_it_is_and_goes_on_in_time():
    b = torch.zeros(5, 1, 70)
    b[2, 0, 3] = torch.nan
    h, _ = recurrence(torch.tensor(0.5), b, backend="native")
    assert h[2:, 0, 3].isnan().all()
    assert h.isnan().sum() == 3


@requires_compiler
@pytest.mark.parametrize(("varying", "numbers"), [(False, 1), (True, 2)])
def test_what_is_saved_is_h_and_a_decay_that_varies(varying, numbers):
    b = torch.randn(50, 2, 30, requires_grad=True)
    a = decay("varying" if varying else "channels", b.shape, torch.float32).requires_grad_()
    with SavedTensors() as saved:
        recurrence(a, b, backend="native")
    assert saved.peak == 4 * (numbers * b.numel() + (0 if varying else 30))


@requires_compiler
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # opcheck looks at it
@pytest.mark.parametrize("varying", [False, True])
@pytest.mark.parametrize("with_state", [False, True])
def test_the_operator_is_registered_as_torch_wants_it(varying, with_state):
    b = torch.randn(4, 2, 5, requires_grad=True)
    a = decay("varying" if varying else "step", b.shape, torch.float32).requires_grad_()
    state = torch.randn(2, 5, requires_grad=True) if with_state else None
    torch.library.opcheck(module.operator, (a, b, state))


@requires_compiler
@pytest.mark.parametrize("varying", [False, True])
def test_a_compiled_function_has_the_same_numbers(varying):
    b = torch.randn(6, 2, 5, requires_grad=True)
    a = decay("varying" if varying else "channels", b.shape, torch.float32).requires_grad_()
    torch._dynamo.reset()
    compiled = torch.compile(recurrence, backend="aot_eager", fullgraph=True)
    found, expected = (torch.autograd.grad(f(a, b)[0].square().sum(), (a, b)) for f in (compiled, recurrence))
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


def test_what_does_not_fit_is_refused():
    b = torch.zeros(3, 2, 4)
    with pytest.raises(ValueError, match=r"a of shape \[5\] does not broadcast against \[2, 4\]"):
        recurrence(torch.zeros(5), b)
    with pytest.raises(ValueError, match=r"does not broadcast against \[3, 2, 4\]"):
        recurrence(torch.zeros(2, 2, 4), b)
    with pytest.raises(ValueError, match="does not broadcast"):
        recurrence(torch.zeros(1, 3, 2, 4), b)
    with pytest.raises(ValueError, match="shape of a step"):
        recurrence(torch.zeros(4), b, torch.zeros(4))
    with pytest.raises(ValueError, match="at least one time step"):
        recurrence(torch.zeros(4), torch.zeros(0, 2, 4))
    with pytest.raises(ValueError, match="unknown; allowed: auto, reference, native"):
        recurrence(torch.zeros(4), b, backend="cuda")
    with pytest.raises(RuntimeError, match="float32 or float64"):
        recurrence(torch.zeros(4, dtype=torch.bfloat16), b.bfloat16(), backend="native")
