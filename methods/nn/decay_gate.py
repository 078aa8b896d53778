"""The gate of neurons with a dynamic decay: a causal convolution over time, ``z[t] = bias + sum_j weight[j] x[t - k + 1 + j]``.

Weights ``[k, C]`` are depthwise (a kernel per channel), weights ``[k, C, C]`` connect all channels (``weight[j] @ x``). Of the inputs, the
only ones that are kept for the backward pass, no padded or shifted copy is made.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def causal_gate(x: Tensor, weight: Tensor, bias: Tensor, past: int) -> Tensor:
    """Return ``z [T, B, C, ...]`` of ``x [past + T, B, C, ...]``, whose first ``past`` rows come before the first step; before, zeros."""
    return _CausalGate.apply(x, weight, bias, past)


def _spans(rows: int, taps: int, past: int) -> Iterator[tuple[int, slice, slice]]:
    """Yield for each tap its number, the rows of x that it reads, and the steps that it adds to."""
    for j in range(taps):
        offset = past - (taps - 1) + j
        count = rows - past + min(offset, 0)
        if count > 0:
            first = max(offset, 0)
            yield j, slice(first, first + count), slice(max(-offset, 0), None)


def _per_channel(values: Tensor, like: Tensor) -> Tensor:
    return values.view(-1, *[1] * (like.dim() - 3))


class _CausalGate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, past: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.past = past
        z = torch.empty_like(x[past:])
        z.copy_(_per_channel(bias, x))
        for j, rows, steps in _spans(len(x), len(weight), past):
            if weight.dim() == 2:
                z[steps].addcmul_(x[rows], _per_channel(weight[j], x))
            else:
                z[steps] += (x[rows].movedim(2, -1) @ weight[j].T).movedim(-1, 2)
        return z

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        other = [d for d in range(x.dim()) if d != 2]
        g_x, g_weight = torch.zeros_like(x), torch.zeros_like(weight)
        for j, rows, steps in _spans(len(x), len(weight), ctx.past):
            if weight.dim() == 2:
                g_x[rows].addcmul_(g[steps], _per_channel(weight[j], x))
                g_weight[j] = (g[steps] * x[rows]).sum(other)
            else:
                now = g[steps].movedim(2, -1)
                g_x[rows] += (now @ weight[j]).movedim(-1, 2)
                g_weight[j] = now.flatten(0, -2).T @ x[rows].movedim(2, -1).flatten(0, -2)
        return g_x, g_weight, g.sum(other), None
