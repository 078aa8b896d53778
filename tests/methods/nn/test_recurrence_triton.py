"""The linear recurrence in Triton against the reference: on a GPU, or in Triton's interpreter (see ``test_triton_kernels``)."""

from __future__ import annotations

import os

import pytest
import torch
from torch import Tensor

from methods.nn.recurrence import recurrence

pytest.importorskip("triton")
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not INTERPRETED and not torch.cuda.is_available(), reason="neither a CUDA device nor TRITON_INTERPRET=1"),
]
DOUBLE = torch.float64
STEPS = 13
# The error of rounding a result, as a fraction: half a place, but the interpreter cuts bfloat16 off instead of rounding it.
PLACES = {torch.float16: 2**-11, torch.bfloat16: 2**-7 if INTERPRETED else 2**-8}


@pytest.fixture
def parts(monkeypatch):
    """Choose the number of steps of a part."""
    from methods.nn import recurrence_triton

    def choose(length: int) -> None:
        monkeypatch.setattr(recurrence_triton, "part_length", lambda steps, size, multiprocessors: min(length, steps))

    return choose


def tensors(kind: str, dtype: torch.dtype, with_state: bool) -> list[Tensor | None]:
    generator = torch.Generator().manual_seed(0)
    of = {"number": (), "channels": (70,), "step": (2, 70), "varying": (STEPS, 2, 70), "varying, shared": (STEPS, 1, 70)}[kind]
    a = torch.rand(of, generator=generator, dtype=DOUBLE) * 1.5 - 0.5
    b, state = torch.randn(STEPS, 2, 70, generator=generator, dtype=DOUBLE), torch.randn(2, 70, generator=generator, dtype=DOUBLE)
    return [t.to(DEVICE, dtype).requires_grad_() if t is not None else None for t in (a, b, state if with_state else None)]


KINDS = ["number", "channels", "step", "varying", "varying, shared"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("with_state", [False, True])
@pytest.mark.parametrize(("length", "dtype"), [(STEPS, torch.float32), (4, torch.float32), (4, DOUBLE)])
def test_values_and_gradients_are_those_of_the_reference_however_it_is_cut(parts, kind, with_state, length, dtype):
    parts(length)
    given = tensors(kind, dtype, with_state)
    generator = torch.Generator().manual_seed(1)
    g, g_last = (torch.randn(of, generator=generator).to(DEVICE, dtype) for of in ((STEPS, 2, 70), (2, 70)))
    if length == STEPS:
        assert torch.equal(recurrence(*given, backend="triton")[0], recurrence(*given, backend="reference")[0])
    found, exact = [], []
    # In single precision the reference sums the gradient of a shared decay less exactly than the kernels: it is asked in double.
    for backend, inputs, values in (("triton", given, found), ("reference", [None if t is None else t.double() for t in given], exact)):
        h, last = recurrence(*inputs, backend=backend)
        leaves = [t for t in inputs if t is not None]
        values += [h, *torch.autograd.grad([h, last], leaves, [g.to(h.dtype), g_last.to(h.dtype)])]
    relative = 1e-6 if dtype is torch.float32 else 1e-14
    for one, other in zip(found, exact, strict=True):
        # A decay shared by many sums terms of either sign.
        slack = 1.0 if one.shape == given[1].shape else given[1].numel() ** 0.5
        torch.testing.assert_close(one, other.to(dtype), rtol=0, atol=relative * max(other.abs().max().item(), slack))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_in_half_precision_the_state_is_in_single(parts, dtype):
    parts(4)
    a, b, _ = (None if t is None else t.detach() for t in tensors("varying", dtype, False))
    exact, _ = recurrence(a.double(), b.double(), backend="reference")
    h, _ = recurrence(a, b, backend="triton")
    assert h.dtype == dtype
    torch.testing.assert_close(h.double(), exact, rtol=PLACES[dtype] * 1.01, atol=1e-6)


@pytest.mark.parametrize("varying", [False, True])
@pytest.mark.parametrize("value", [1e-3, -1.0])
def test_long_sequences_do_not_overflow_and_follow_the_closed_form(parts, value, varying):
    steps = 160
    parts(64)
    b = torch.ones(steps, 1, 2, dtype=DOUBLE, device=DEVICE, requires_grad=True)
    a = torch.full((steps, 1, 2) if varying else (2,), value, dtype=DOUBLE, device=DEVICE, requires_grad=True)
    h, last = recurrence(a, b, backend="triton")
    n = torch.arange(1, steps + 1, dtype=DOUBLE, device=DEVICE)
    expected = n if value == 1 else (1 - value**n) / (1 - value)
    torch.testing.assert_close(h[:, 0, 0], expected, rtol=1e-12, atol=0)
    (g_b,) = torch.autograd.grad(last.sum(), b)
    torch.testing.assert_close(g_b[:, 0, 0], value ** (steps - n), rtol=1e-12, atol=1e-300)


@pytest.mark.parametrize("length", [2, 5])
def test_any_layout_gives_the_same_numbers_and_a_dense_one_is_kept(parts, length):
    parts(length)
    plain = torch.randn(5, 2, 3, 4, device=DEVICE)
    a = torch.rand(2, 3, 4, device=DEVICE)
    last = plain.permute(0, 1, 3, 2).contiguous().permute(0, 1, 3, 2)
    inner = plain.permute(1, 2, 3, 0).contiguous().permute(3, 0, 1, 2)
    state = torch.randn(2, 3, 4, device=DEVICE)
    expected, _ = recurrence(a, plain, state, backend="reference")
    for b in (plain, last, inner, plain.repeat_interleave(2, 0)[::2]):
        torch.testing.assert_close(recurrence(a, b, state, backend="triton")[0], expected)
    assert recurrence(a, last, backend="triton")[0].stride() == last.stride()


def test_only_long_sequences_of_few_channels_are_cut():
    from methods.nn.recurrence_triton import part_length

    assert part_length(32_768, 1024, 132) == 249  # 132 parts of 8 blocks
    assert part_length(60, 1024, 132) == 60
    assert part_length(4096, 1 << 20, 132) == 4096
    assert part_length(64, 1, 132) == 32


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # opcheck looks at it
@pytest.mark.parametrize("kind", ["step", "varying"])
def test_the_operator_is_registered_as_torch_wants_it(parts, kind):
    from methods.nn import recurrence_triton

    parts(4)
    torch.library.opcheck(recurrence_triton.recurrence.operator, tuple(tensors(kind, torch.float32, True)))


def test_empty_batches_and_types_that_differ():
    h, _ = recurrence(torch.zeros(4, device=DEVICE), torch.zeros(3, 0, 4, device=DEVICE), backend="triton")
    assert h.shape == (3, 0, 4)
    with pytest.raises(RuntimeError, match="one floating-point type for all"):
        recurrence(torch.zeros(4, dtype=DOUBLE, device=DEVICE), torch.zeros(3, 2, 4, device=DEVICE), backend="triton")
