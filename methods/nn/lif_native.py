"""The native LIF: one pass over time each way on the CPU, for the options of ``methods.nn.neuron.LIF``.

With ``h = surrogate(u - threshold)``, ``g_s[t]`` the gradient of the spikes and ``g_v[t]`` that of the potential after step t::

    hard reset    g_u[t] = g_s[t] h + g_v[t] (1 - s[t])  - g_v[t] u[t] h         the last term not with a detached reset
    soft reset    g_u[t] = g_s[t] h + g_v[t]             - g_v[t] threshold h
    no reset      g_u[t] = g_s[t] h + g_v[t]
    g_I[t] = gain g_u[t]      g_v[t-1] = leak g_u[t]      g_leak = sum_t g_u[t] (v[t-1] - scaled I[t])

(``scaled`` 1 with scale_input). Saved for the backward pass: 4 bytes per neuron-step in single precision, either the potentials u
("potential"; spikes follow from them) or the currents I ("recompute"; u is computed again, with the same bits). A piece of a sequence that
starts from a carried state keeps potentials in either case, as recomputing would need that state too. The gradient of the leak is summed in
double precision, in an order that does not depend on the number of threads; it needs the state, and with scale_input the currents.
Recursion: card stbp.

Eager calls go through a plain ``autograd.Function``; under ``torch.compile`` and ``torch.export`` the same two functions are the operators
``spikebench::lif`` and ``spikebench::lif_backward``, whose dispatch would cost more than a small layer does (T = 4, 64 neurons, forward +
backward: 55 us the function, 137 us the operator).
"""

from __future__ import annotations

import ctypes
import math
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from methods.nn import native
from methods.nn.layout import arranged, like, settled, step_like
from methods.nn.surrogate import Arctan, FastSigmoid, Gauss, Polynomial, Rectangle, Sigmoid, Surrogate, Triangle

Save = Literal["auto", "potential", "recompute"]
RESETS = ("hard", "soft", "none")
SCRATCH = 1 << 19  # numbers per thread when potentials are recomputed: about what a second-level cache holds


class Numbers(NamedTuple):
    """Settings that are numbers, in the order in which the operators take them."""

    leak: float  # not used where the leak is a tensor
    threshold: float
    v_init: float
    c0: float
    c1: float
    c2: float


class Flags(NamedTuple):
    """Settings that are choices, in the order in which the operators take them."""

    reset: int
    attached: int
    strict: int
    surrogate: int
    scaled: int
    keep: int  # whether a backward pass will come
    recompute: int
    carry: int  # whether the state after the last step is wanted


def coefficients(surrogate: Surrogate) -> tuple[int, float, float, float] | None:
    """Return how kernels.c computes a surrogate, or None if it does not know it."""
    kind = type(surrogate)  # not isinstance: a subclass may have another formula
    if kind is Rectangle:
        return 0, surrogate.width / 2, 1 / surrogate.width, 0.0
    if kind is Triangle:
        return 1, surrogate.width, 1.0, surrogate.scale / surrogate.width**2
    if kind is Polynomial:
        return 1, math.sqrt(surrogate.a) / 2, surrogate.a / 4, 1.0
    if kind is Sigmoid:
        return 2, surrogate.alpha, 0.0, 0.0
    if kind is Gauss:
        return 3, 1 / (2 * surrogate.a), 1 / math.sqrt(2 * math.pi * surrogate.a), 0.0
    if kind is Arctan:
        return 4, math.pi / 2 * surrogate.alpha, surrogate.alpha / 2, 0.0
    if kind is FastSigmoid:
        return 5, surrogate.alpha, surrogate.scale * surrogate.alpha / 2, 0.0
    return None


@lru_cache(maxsize=256)
def _neuron(numbers: tuple[float, ...], flags: tuple[int, ...]) -> native.Neuron:
    n, f = Numbers(*numbers), Flags(*flags)
    return native.Neuron(f.reset, f.attached, f.strict, f.surrogate, f.scaled, n.threshold, n.v_init, n.c0, n.c1, n.c2)


def _leak_and_gain(leak: Tensor | None, numbers: Numbers, flags: Flags) -> tuple[float, float]:
    """Return both as numbers, rounded as PyTorch would."""
    if leak is None:
        return numbers.leak, 1 - numbers.leak if flags.scaled else 1.0
    return leak.item(), (1 - leak).item() if flags.scaled else 1.0


def _address(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def _keeps_current(v0: Tensor | None, leak: Tensor | None, flags: Flags) -> bool:
    """Return whether the currents are saved rather than the potentials."""
    return bool(flags.scaled) if leak is not None else bool(flags.recompute) and v0 is None


def _kept(
    current: Tensor, potential: Tensor | None, v0: Tensor | None, leak: Tensor | None, flags: Flags
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Return what is saved: currents or potentials, the initial state if it is needed, the leak if it is learnt."""
    return current if _keeps_current(v0, leak, flags) else potential, None if leak is None else v0, leak


def forward(
    current: Tensor, v0: Tensor | None, leak: Tensor | None, numbers: Numbers, flags: Flags
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Return spikes and, where wanted, potentials ``[T, B, ...]`` and the state after the last step ``[B, ...]``.

    ``current`` must be settled (see ``methods.nn.layout``).
    """
    spikes = like(current)
    potential = like(current) if flags.keep and not _keeps_current(v0, leak, flags) else None
    v1 = step_like(current) if flags.carry else None
    steps = len(current)
    grid = native.grid(steps, spikes.numel() // steps)
    start = None if v0 is None else arranged(v0, current)
    native.load(current.dtype).lif_forward(
        ctypes.byref(_neuron(numbers, flags)), ctypes.byref(grid), *_leak_and_gain(leak, numbers, flags), current.data_ptr(),
        current.stride(0), _address(start), spikes.data_ptr(), _address(potential), _address(v1),
    )  # fmt: skip
    return spikes, potential, v1


def backward(
    kept: Tensor,
    recompute: bool,
    v0: Tensor | None,
    leak: Tensor | None,
    g: Tensor | None,
    g_v1: Tensor | None,
    numbers: Numbers,
    flags: Flags,
    need_v0: bool,
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Return the gradients of current, of the initial state if needed, and of the leak if it is learnt.

    ``kept`` are the currents (``recompute``) or the potentials; ``g`` and ``g_v1`` the gradients of spikes and of the last state.
    """
    steps = len(kept)
    g_current = like(kept)
    upstream = torch.zeros_like(g_current) if g is None else arranged(g, kept)
    grid = native.grid(steps, g_current.numel() // steps, SCRATCH if recompute else 0)
    start = None if v0 is None else arranged(v0, kept)
    end = None if g_v1 is None else arranged(g_v1, kept)
    g_v0 = step_like(kept) if need_v0 else None
    sums = None if leak is None else torch.empty(native.blocks(grid), dtype=torch.float64)
    failed = native.load(kept.dtype).lif_backward(
        ctypes.byref(_neuron(numbers, flags)), ctypes.byref(grid), *_leak_and_gain(leak, numbers, flags),
        None if recompute else kept.data_ptr(), kept.data_ptr() if recompute else None, kept.stride(0), _address(start),
        upstream.data_ptr(), upstream.stride(0), _address(end), g_current.data_ptr(), _address(g_v0), _address(sums),
    )  # fmt: skip
    if failed:
        raise MemoryError(f"no memory to recompute the potentials of {steps} steps; save='potential' needs none")
    return g_current, g_v0, None if sums is None else sums.sum().to(leak.dtype)


class _NativeLIF(torch.autograd.Function):
    """The eager form."""

    @staticmethod
    def forward(
        ctx: Any, current: Tensor, v0: Tensor | None, leak: Tensor | None, numbers: Numbers, flags: Flags
    ) -> tuple[Tensor, Tensor | None]:
        spikes, potential, v1 = forward(current, v0, leak, numbers, flags)
        ctx.save_for_backward(*_kept(current, potential, v0, leak, flags))
        ctx.set_materialize_grads(False)
        ctx.recompute, ctx.settings = potential is None, (numbers, flags)
        return spikes, v1

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        kept, v0, leak = ctx.saved_tensors
        if grads[0] is None and grads[1] is None:
            return None, None, None, None, None
        return *backward(kept, ctx.recompute, v0, leak, *grads, *ctx.settings, ctx.needs_input_grad[1]), None, None


def lif(current: Tensor, v0: Tensor | None, leak: Tensor | None, numbers: Numbers, flags: Flags) -> tuple[Tensor, Tensor | None]:
    """Return spikes ``[T, B, ...]`` and the state after the last step (None unless ``flags.carry``). ``flags.keep`` is set here."""
    differentiable = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in (current, v0, leak))
    flags = flags._replace(keep=int(differentiable))
    current = settled(current)
    if torch.compiler.is_compiling():
        spikes, _, v1 = operator(current, v0, leak, list(numbers), list(flags))
        return spikes, v1 if flags.carry else None
    if differentiable:
        return _NativeLIF.apply(current, v0, leak, numbers, flags)
    spikes, _, v1 = forward(current, v0, leak, numbers, flags)
    return spikes, v1


# The same as operators. An operator returns tensors only, and none of them may be an input: what is absent is empty.


@torch.library.custom_op("spikebench::lif", mutates_args=(), device_types="cpu")
def operator(
    current: Tensor, v0: Tensor | None, leak: Tensor | None, numbers: list[float], flags: list[int]
) -> tuple[Tensor, Tensor, Tensor]:
    """``forward`` as an operator."""
    found = forward(settled(current), v0, leak, Numbers(*numbers), Flags(*flags))
    return tuple(current.new_empty(0) if part is None else part for part in found)


@operator.register_fake
def _(current: Tensor, v0: Tensor | None, leak: Tensor | None, numbers: list[float], flags: list[int]) -> tuple[Tensor, Tensor, Tensor]:
    named = Flags(*flags)
    current = settled(current)
    potential = like(current) if named.keep and not _keeps_current(v0, leak, named) else current.new_empty(0)
    return like(current), potential, step_like(current) if named.carry else current.new_empty(0)


@torch.library.custom_op("spikebench::lif_backward", mutates_args=(), device_types="cpu")
def backward_operator(
    kept: Tensor,
    recompute: bool,
    v0: Tensor | None,
    leak: Tensor | None,
    g: Tensor,
    g_v1: Tensor | None,
    numbers: list[float],
    flags: list[int],
    need_v0: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """``backward`` as an operator."""
    found = backward(settled(kept), recompute, v0, leak, g, g_v1, Numbers(*numbers), Flags(*flags), need_v0)
    return tuple(kept.new_empty(0) if part is None else part for part in found)


@backward_operator.register_fake
def _(
    kept: Tensor,
    recompute: bool,
    v0: Tensor | None,
    leak: Tensor | None,
    g: Tensor,
    g_v1: Tensor | None,
    numbers: list[float],
    flags: list[int],
    need_v0: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    kept, nothing = settled(kept), kept.new_empty(0)
    return like(kept), step_like(kept) if need_v0 else nothing, kept.new_empty(0) if leak is None else torch.empty_like(leak)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    current, v0, leak, numbers, flags = inputs
    named = Flags(*flags)
    ctx.save_for_backward(*_kept(current, output[1], v0, leak, named))
    ctx.recompute, ctx.need_v0, ctx.settings = _keeps_current(v0, leak, named), v0 is not None, (numbers, flags)


def _differentiate(ctx: Any, g: Tensor, g_potential: Tensor, g_v1: Tensor) -> tuple[Tensor | None, ...]:
    kept, v0, leak = ctx.saved_tensors
    numbers, flags = ctx.settings
    end = g_v1 if Flags(*flags).carry else None
    g_current, g_v0, g_leak = backward_operator(kept, ctx.recompute, v0, leak, g, end, numbers, flags, ctx.need_v0)
    return g_current, g_v0 if ctx.need_v0 else None, None if leak is None else g_leak, None, None


operator.register_autograd(_differentiate, setup_context=_setup)
