"""The linear recurrence as one differentiable operation, whichever kernels compute it. Symbols and recursion: ``methods.nn.recurrence``.

Kept for the backward pass: h, a, and the state before. Eager calls go through a plain ``autograd.Function``; under ``torch.compile`` and
``torch.export`` the same two functions are registered operators.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from methods.nn.layout import like, settled, step_like

Forward = Callable[..., Tensor]
Backward = Callable[..., tuple[Tensor, Tensor | None, Tensor | None]]


class RecurrenceOperator:
    """``recurrence(a, b, state) -> h [T, B, ...]``, ``a`` of the shape of ``b`` or of a step of it, from a pair of functions.

    ``forward(a, b, state, *options)`` returns h; ``backward(a, h, state, g, need_a, *options)`` returns the gradients of b, of a (None
    unless needed) and of the state (None without one). Options belong to eager calls; under a compiler the functions choose.
    """

    def __init__(self, name: str, forward: Forward, backward: Backward, device_types: str | None = None) -> None:
        """Register ``spikebench::<name>`` and ``spikebench::<name>_backward``."""
        self.forward = forward
        self.function = _function(forward, backward)
        self.operator = _operators(name, forward, backward, device_types)

    def __call__(self, a: Tensor, b: Tensor, state: Tensor | None, *options: Any) -> Tensor:
        """Return ``h [T, B, ...]``."""
        if torch.compiler.is_compiling():
            return self.operator(a, b, state)
        if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in (a, b, state)):
            return self.function.apply(a, b, state, *options)
        return self.forward(a, b, state, *options)


def _function(forward: Forward, backward: Backward) -> type[torch.autograd.Function]:
    class RecurrenceFunction(torch.autograd.Function):
        """The eager form."""

        @staticmethod
        def forward(ctx: Any, a: Tensor, b: Tensor, state: Tensor | None, *options: Any) -> Tensor:
            h = forward(a, b, state, *options)
            ctx.save_for_backward(a, h, state)
            ctx.options = options
            return h

        @staticmethod
        @once_differentiable
        def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
            a, h, state = ctx.saved_tensors
            g_b, g_a, g_state = backward(a, h, state, grads[0], ctx.needs_input_grad[0], *ctx.options)
            return g_a, g_b, g_state, *[None] * len(ctx.options)

    return RecurrenceFunction


def _operators(name: str, forward: Forward, backward: Backward, device_types: str | None) -> Any:
    @torch.library.custom_op(f"spikebench::{name}", mutates_args=(), device_types=device_types)
    def operator(a: Tensor, b: Tensor, state: Tensor | None) -> Tensor:
        return forward(a, b, state)

    @operator.register_fake
    def _(a: Tensor, b: Tensor, state: Any) -> Tensor:
        return like(settled(b))

    @torch.library.custom_op(f"spikebench::{name}_backward", mutates_args=(), device_types=device_types)
    def backward_operator(a: Tensor, h: Tensor, state: Tensor | None, g: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        g_b, g_a, g_state = backward(a, h, state, g, True)
        return g_b, g_a, h.new_empty(0) if g_state is None else g_state  # an operator returns tensors only: what is absent is empty

    @backward_operator.register_fake
    def _(a: Tensor, h: Tensor, state: Any, g: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return like(h), like(h) if a.dim() == h.dim() else step_like(h), h.new_empty(0) if state is None else step_like(h)

    def setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        a, _, state = inputs
        ctx.save_for_backward(a, output, state)

    def differentiate(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        a, h, state = ctx.saved_tensors
        g_b, g_a, g_state = backward_operator(a, h, state, g)
        return g_a, g_b, None if state is None else g_state

    operator.register_autograd(differentiate, setup_context=setup)
    return operator
