"""Synapses and pooling on time-major sequences ``[T, B, ...]``: torch's own modules with time merged into the batch.

A synapse is what has weights and is stateless (``DelayLine`` excepted). Since they derive from torch's classes, meters and
conversion see plain ``nn.Conv2d``, ``nn.Linear`` and ``nn.Conv1d``.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from methods.nn.stepping import Stateful

Linear = nn.Linear  # acts on the last dimension of [T, B, F] as it is


class Conv2d(nn.Conv2d):
    """``nn.Conv2d`` on ``[T, B, C, H, W]``. An input that is one image repeated (``expand``) is convolved once."""

    def forward(self, x: Tensor) -> Tensor:
        """Return ``[T, B, C', H', W']``."""
        if x.shape[0] > 1 and x.stride(0) == 0:
            return super().forward(x[0]).expand(x.shape[0], -1, -1, -1, -1)
        return super().forward(x.flatten(0, 1)).unflatten(0, x.shape[:2])


class AvgPool2d(nn.AvgPool2d):
    """``nn.AvgPool2d`` on ``[T, B, C, H, W]``, which keeps nothing for the backward pass.

    PyTorch's keeps its input, the spikes of a whole layer, though its gradient needs no more than their shape. An input that is one image
    repeated (``expand``) is pooled once.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Return ``[T, B, C, H', W']``."""
        if x.shape[0] > 1 and x.stride(0) == 0:
            return self.forward(x[:1]).expand(x.shape[0], -1, -1, -1, -1)
        settings = (self.kernel_size, self.stride, self.padding, self.ceil_mode, self.count_include_pad, self.divisor_override)
        pairs = *([size, size] if isinstance(size, int) else list(size) for size in settings[:3]), *settings[3:]
        return _AveragePool.apply(x.flatten(0, 1), pairs).unflatten(0, x.shape[:2])


class _AveragePool(torch.autograd.Function):
    """Average pooling of ``[N, C, H, W]`` that remembers the shape and layout of its input only."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, settings: tuple[Any, ...]) -> Tensor:
        ctx.shape, ctx.strides, ctx.settings = x.shape, x.stride(), settings
        return torch.ops.aten.avg_pool2d(x, *settings)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        like = grads[0].new_empty_strided(ctx.shape, ctx.strides)  # never read: PyTorch looks at its shape and layout
        return torch.ops.aten.avg_pool2d_backward(grads[0], like, *ctx.settings), None


class DelayLine(Stateful):
    """A linear synapse with delays: ``y[t] = b + sum_k W_k x[t - k * dilation]``, nothing before the first step.

    ``[T, B, in] -> [T, B, out]``, evaluated as a causal convolution over time, so long sequences are parallel.
    Delays give a feed-forward spiking network its memory; networks of this kind: "Learning delays in spiking neural networks using dilated
    convolutions with learnable spacings" (Hammouamri et al., ICLR 2024), here with fixed, dilated taps.
    """

    def __init__(self, features_in: int, features_out: int, taps: int, dilation: int, bias: bool = True) -> None:
        """Make ``taps`` weight matrices, ``dilation`` steps apart."""
        super().__init__()
        self.conv = nn.Conv1d(features_in, features_out, taps, dilation=dilation, bias=bias)
        self.conv.over_time = True  # for the meter of operations
        self.past = (taps - 1) * dilation

    def forward(self, x: Tensor) -> Tensor:
        """Return the currents ``[T, B, out]`` of inputs ``[T, B, in]``."""
        state = self.carried()
        x = torch.cat([state[0], x]) if state else F.pad(x, (0, 0, 0, 0, self.past, 0))
        self.carry(x[len(x) - self.past :])
        return self.conv(x.permute(1, 2, 0)).permute(2, 0, 1)
