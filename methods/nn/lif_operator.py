"""The LIF as one differentiable operation on sequences, whichever kernels compute it.

With ``h = surrogate(u - threshold)``, ``g_s[t]`` the gradient of the spikes and ``g_v[t]`` that of the potential after step t::

    g_h[t] = g_s[t]                        + (- g_v[t] u[t], hard reset; - g_v[t] threshold, soft; neither with a detached reset)
    g_u[t] = g_h[t] h + g_v[t] (1 - s[t])    hard reset
           = g_h[t] h + g_v[t]               soft reset, no reset
    g_I[t] = gain g_u[t]                     g_v[t-1] = leak g_u[t]
    g_leak = sum_t g_u[t] (v[t-1] - scaled I[t])              (``scaled`` 1 with scale_input)
    g_threshold = - sum_t (g_h[t] h + g_v[t] s[t])            the last term with a soft reset, detached or not

While a neuron is refractory ``g_v[t-1] = g_v[t]`` and all else is 0. Recursion: card stbp; the sums follow by autograd's rules.

Kept for the backward pass, see ``methods.nn.lif_settings.kept``: potentials in the precision of the state; the currents as they are; or
bits. A piece of a sequence that starts from a carried state keeps potentials where currents were asked for. What is learnt gets a sum in
double precision, in an order that does not depend on the number of threads.

Eager calls go through a plain ``autograd.Function``; under ``torch.compile`` and ``torch.export`` the same two functions are registered
operators, whose dispatch would cost more than a small layer does (T = 4, 64 neurons, native, forward + backward: 55 us the function,
137 us the operator).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from methods.nn.layout import arranged, like, settled, step_like
from methods.nn.lif_settings import CURRENT, POTENTIAL, Flags, Numbers, kept, planes

Parts = tuple[Tensor | None, ...]


def state_type(dtype: torch.dtype) -> torch.dtype:
    """Return the type of state and arithmetic for currents of ``dtype``: single precision for half."""
    return torch.float32 if dtype.itemsize == 2 else dtype


def channel_stride(sequence: Tensor, leak: Tensor | None, threshold: Tensor | None) -> tuple[int, int]:
    """Return the number of channels of the parameters (0: they are numbers), and how far apart those of ``[T, B, C, ...]`` lie.

    A parameter of several dimensions has a number per neuron of a sample: each neuron is then a channel.
    """
    one = leak if leak is not None else threshold
    if one is None or one.numel() == 1:
        return 0, 1
    return one.numel(), 1 if one.dim() > 1 else max(sequence.stride(2), 1)


def placed(parameter: Tensor | None, sequence: Tensor) -> Tensor | None:
    """Return a parameter per neuron so that its numbers lie as the neurons of ``sequence`` do; any other contiguous."""
    if parameter is None:
        return None
    return arranged(parameter.detach(), sequence[0]) if parameter.dim() > 1 else parameter.detach().contiguous()


def gathered(sums: Tensor | None, parameter: Tensor | None, sequence: Tensor, channels: int) -> Tensor | None:
    """Return the gradient of a parameter from sums per block, or with channels from those of each neuron, laid out as in ``sequence``."""
    if sums is None or parameter is None:
        return None
    if channels:
        summed = (0,) if parameter.dim() > 1 else (0, *range(2, sequence.dim() - 1))
        sums = sums.as_strided(sequence.shape[1:], sequence.stride()[1:]).sum(summed)
    found = (sums if channels else sums.sum()).to(parameter.dtype)
    return found.view(parameter.shape) if found.dim() != parameter.dim() else found


def make_kept(current: Tensor, leak: Tensor | None, threshold: Tensor | None, flags: Flags) -> tuple[Tensor | None, Tensor | None]:
    """Return empty tensors for the potentials ``[T, B, ...]`` and the packed bits ``[rows, bytes]``, each None unless it is to be kept."""
    kind = kept(leak, flags) if flags.keep else CURRENT
    if kind == POTENTIAL:
        return like(current, state_type(current.dtype)), None
    if kind == CURRENT:
        return None, None
    deep, size = planes(threshold, flags), current.shape[1:].numel()
    return None, current.new_empty(deep * len(current) + (deep == 2), (size + 7) // 8, dtype=torch.uint8)


class LIFOperator:
    """``lif(current, v0, r0, leak, threshold, numbers, flags) -> (spikes, v1, r1)``, from a pair of functions that launch kernels.

    ``current [T, B, ...]``; ``v0`` and ``r0 [B, ...]`` are the state and the remaining steps of silence before the first step (None: at
    rest); ``leak`` and ``threshold`` tensors where they are learnt, of one number, one per channel or, where a sample lies in one piece of
    memory, one per neuron. ``v1`` and ``r1`` are None unless
    ``flags.carry`` (and a refractory neuron). ``forward(current, v0, r0, leak, threshold, numbers, flags)`` returns spikes, potentials or
    bits, v1 and r1; ``backward(out, kept, v0, r0, leak, threshold, g, g_v1, numbers, flags, need_v0)`` fills ``out`` with the gradient of
    the currents and returns those of v0, leak and threshold. ``forward`` of the class is that of the kernels, with the currents settled.
    """

    def __init__(self, name: str, forward: Callable[..., Parts], backward: Callable[..., Parts], device_types: str | None = None) -> None:
        """Register ``spikebench::<name>`` and ``spikebench::<name>_backward``."""
        self.forward, self.backward = forward, backward
        self.function = _function(forward, backward)
        self.operator = _operators(name, forward, backward, device_types)

    def __call__(
        self,
        current: Tensor,
        v0: Tensor | None,
        r0: Tensor | None,
        leak: Tensor | None,
        threshold: Tensor | None,
        numbers: Numbers,
        flags: Flags,
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Return spikes ``[T, B, ...]`` and the state after the last step; ``flags.keep`` is set here."""
        differentiable = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in (current, v0, leak, threshold))
        # A piece that starts from a carried state keeps potentials rather than currents, as recomputing would need that state too.
        save = POTENTIAL if flags.save == CURRENT and v0 is not None else flags.save
        flags = Flags(*flags[:5], int(differentiable), save, *flags[7:])
        current = settled(current)
        if torch.compiler.is_compiling():
            spikes, _, v1, r1 = self.operator(current, v0, r0, leak, threshold, list(numbers), list(flags))
            return spikes, v1 if flags.carry else None, r1.detach() if flags.carry and flags.refractory else None
        if differentiable:
            return self.function.apply(current, v0, r0, leak, threshold, numbers, flags)
        spikes, _, v1, r1 = self.forward(current, v0, r0, leak, threshold, numbers, flags)
        return spikes, v1, r1


def _saved(current: Tensor, found: Tensor | None, v0: Tensor | None, r0: Tensor | None, parameters: Parts, flags: Flags) -> Parts:
    """Return what is saved: currents, potentials or bits, the state before where it is needed, and what is learnt."""
    kind = kept(parameters[0], flags)
    needed = parameters[0] is not None or kind == CURRENT
    return current if kind == CURRENT else found, v0 if needed else None, r0 if needed else None, *parameters


def _function(forward: Callable[..., Parts], backward: Callable[..., Parts]) -> type[torch.autograd.Function]:
    class LIFFunction(torch.autograd.Function):
        """The eager form."""

        @staticmethod
        def forward(ctx: Any, current: Tensor, v0: Any, r0: Any, leak: Any, threshold: Any, numbers: Numbers, flags: Flags) -> Parts:
            spikes, found, v1, r1 = forward(current, v0, r0, leak, threshold, numbers, flags)
            ctx.save_for_backward(*_saved(current, found, v0, r0, (leak, threshold), flags))
            ctx.set_materialize_grads(False)
            if r1 is not None:
                ctx.mark_non_differentiable(r1)
            ctx.like, ctx.settings = (current.shape, current.stride()[1:], current.dtype), (numbers, flags)
            return spikes, v1, r1

        @staticmethod
        @once_differentiable
        def backward(ctx: Any, *grads: Tensor | None) -> Parts:
            if grads[0] is None and grads[1] is None:
                return (None,) * 7
            found, v0, r0, leak, threshold = ctx.saved_tensors
            out = _out(found, *ctx.like)
            g = torch.zeros_like(out) if grads[0] is None else grads[0]
            slopes = backward(out, found, v0, r0, leak, threshold, g, grads[1], *ctx.settings, ctx.needs_input_grad[1])
            return out, slopes[0], None, *slopes[1:], None, None

    return LIFFunction


def _out(on: Tensor, shape: torch.Size, strides: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Return an empty tensor for the gradient of the currents, laid out as they are."""
    return on.new_empty_strided(shape, (shape[1:].numel(), *strides), dtype=dtype)


def _operators(name: str, forward: Callable[..., Parts], backward: Callable[..., Parts], device_types: str | None) -> Any:
    """Register the same as operators. An operator returns tensors only, and none of them may be an input: what is absent is empty."""

    @torch.library.custom_op(f"spikebench::{name}", mutates_args=(), device_types=device_types)
    def operator(
        current: Tensor,
        v0: Tensor | None,
        r0: Tensor | None,
        leak: Tensor | None,
        threshold: Tensor | None,
        numbers: list[float],
        flags: list[int],
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        found = forward(settled(current), v0, r0, leak, threshold, Numbers(*numbers), Flags(*flags))
        return tuple(current.new_empty(0) if part is None else part for part in found)

    @operator.register_fake
    def _(current: Tensor, v0: Any, r0: Any, leak: Any, threshold: Any, numbers: Any, flags: Any) -> tuple[Tensor, ...]:
        named, current = Flags(*flags), settled(current)
        potential, bits = make_kept(current, leak, threshold, named)
        state = state_type(current.dtype)
        v1 = step_like(current, state) if named.carry else None
        r1 = step_like(current, state) if named.carry and named.refractory else None
        found = (like(current), potential if bits is None else bits, v1, r1)
        return tuple(current.new_empty(0) if part is None else part for part in found)

    @torch.library.custom_op(f"spikebench::{name}_backward", mutates_args=(), device_types=device_types)
    def backward_operator(
        found: Tensor,
        v0: Tensor | None,
        r0: Tensor | None,
        leak: Tensor | None,
        threshold: Tensor | None,
        g: Tensor,
        g_v1: Tensor | None,
        strides: list[int],
        numbers: list[float],
        flags: list[int],
        need_v0: bool,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        out, named = _out(found, g.shape, tuple(strides), g.dtype), Flags(*flags)
        found = found if found.dtype == torch.uint8 else settled(found)
        slopes = backward(out, found, v0, r0, leak, threshold, g, g_v1, Numbers(*numbers), named, need_v0)
        return out, *(g.new_empty(0) if part is None else part for part in slopes)

    @backward_operator.register_fake
    def _(
        found: Tensor,
        v0: Any,
        r0: Any,
        leak: Any,
        threshold: Any,
        g: Tensor,
        g_v1: Any,
        strides: Any,
        numbers: Any,
        flags: Any,
        need_v0: bool,
    ) -> tuple[Tensor, ...]:
        out = _out(found, g.shape, tuple(strides), g.dtype)
        slopes = [step_like(out, state_type(g.dtype)) if need_v0 else None]
        slopes += [None if part is None else torch.empty_like(part) for part in (leak, threshold)]
        return out, *(g.new_empty(0) if part is None else part for part in slopes)

    def setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        current, v0, r0, leak, threshold, numbers, flags = inputs
        ctx.save_for_backward(*_saved(current, output[1], v0, r0, (leak, threshold), Flags(*flags)))
        ctx.strides, ctx.need_v0, ctx.settings = list(settled(current).stride()[1:]), v0 is not None, (numbers, flags)

    def differentiate(ctx: Any, g: Tensor, g_kept: Tensor, g_v1: Tensor, g_r1: Tensor) -> Parts:
        found, v0, r0, leak, threshold = ctx.saved_tensors
        end = g_v1 if Flags(*ctx.settings[1]).carry else None
        out, *slopes = backward_operator(found, v0, r0, leak, threshold, g, end, ctx.strides, *ctx.settings, ctx.need_v0)
        given = (ctx.need_v0, leak is not None, threshold is not None)
        g_v0, g_leak, g_threshold = (slope if there else None for slope, there in zip(slopes, given, strict=True))
        return out, g_v0, None, g_leak, g_threshold, None, None

    operator.register_autograd(differentiate, setup_context=setup)
    return operator
