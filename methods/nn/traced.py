"""Presynaptic traces: a synapse whose weights learn from the leaky sum of their inputs instead of the inputs of this step.

For an input ``x[t]``, the weight ``W`` and the error ``delta[t]`` of the current ``y[t]`` (all of one step)::

    a[t]  = leak * a[t-1] + x[t]            a before the first step is 0
    y[t]  = W x[t] + b                      the value never sees the trace
    dW   += delta[t] (outer) a[t]           the trace stands in for the input
    db   += delta[t]                        the constant input of the bias is not traced
    dx[t] = W^T delta[t]                    the error goes on at this step only

Pooling, constant scales and dropout with a fixed mask are linear and the same at every step, so the trace of what reaches the synapse
equals the trace of the spikes carried through them: it is enough to keep it here. One pass forward and one backward; what is kept for the
backward pass is ``a[t]`` and ``W``. Source: "Online Training Through Time for Spiking Neural Networks" (Xiao et al., NeurIPS 2022).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from methods.nn.stepping import Stateful
from methods.nn.synapse import DelayLine


class _TracedConvolution(torch.autograd.Function):
    """``convolution(x)`` in value; its weight gradient is that of ``convolution(trace)``."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, trace: Tensor, weight: Tensor, bias: Tensor | None, geometry: tuple[Any, ...]) -> Tensor:
        ctx.save_for_backward(trace, weight)
        ctx.geometry, ctx.bias_sizes = geometry, None if bias is None else list(bias.shape)
        stride, padding, dilation, groups = geometry
        return torch.convolution(x, weight, bias, stride, padding, dilation, False, [0] * len(stride), groups)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        trace, weight = (saved.to(grads[0].dtype) for saved in ctx.saved_tensors)
        stride, padding, dilation, groups = ctx.geometry
        need_x, _, need_weight, need_bias, _ = ctx.needs_input_grad
        # The gradient of the input needs the weight alone and that of the weight the "input" alone, so the trace may stand in.
        wanted = [need_x, need_weight, need_bias]
        sizes, zero = ctx.bias_sizes, [0] * len(stride)
        x_grad, weight_grad, bias_grad = torch.ops.aten.convolution_backward(
            grads[0], trace, weight, sizes, stride, padding, dilation, False, zero, groups, wanted
        )
        return x_grad, None, weight_grad, bias_grad, None


class _TracedProduct(torch.autograd.Function):
    """``x W^T + b`` in value; its weight gradient is that of ``trace W^T``."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, trace: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(trace, weight)
        return F.linear(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        delta = grads[0]
        trace, weight = (saved.to(delta.dtype) for saved in ctx.saved_tensors)
        need_x, _, need_weight, need_bias = ctx.needs_input_grad
        rows = delta.flatten(0, -2)
        return (
            delta @ weight if need_x else None,
            None,
            rows.T @ trace.flatten(0, -2) if need_weight else None,
            rows.sum(0) if need_bias else None,
        )


class Traced(Stateful):
    """A synapse with a presynaptic trace: ``Traced(Conv2d | Linear | DelayLine, leak)``, ``[T, B, ...] -> [T, B, ...]``.

    The trace lives where gradients are cut between steps: in training mode, inside ``stepping(net, detach=True)``, one step per call.
    Everywhere else (evaluation, or the whole sequence at once, which is ordinary back-propagation through time) the synapse is the plain
    one. In a ``DelayLine`` every tap has the trace of its own delayed input; the past inputs themselves carry no gradient. Raises
    TypeError for another kind of synapse, ValueError for padding that is not zeros of a given width.
    """

    def __init__(self, synapse: nn.Module, leak: float) -> None:
        """Wrap ``synapse``; ``leak`` is the fraction of the trace that is left after a step, that of the neurons."""
        super().__init__()
        if not isinstance(synapse, (nn.Conv2d, nn.Linear, DelayLine)):
            raise TypeError(f"{type(synapse).__name__} cannot be traced; allowed: Conv2d, Linear, DelayLine")
        if isinstance(synapse, nn.Conv2d) and (synapse.padding_mode != "zeros" or isinstance(synapse.padding, str)):
            raise ValueError(f"a traced convolution needs zero padding in numbers, not {synapse.padding_mode}, {synapse.padding!r}")
        self.synapse, self.leak = synapse, leak

    @property
    def bias(self) -> Tensor | None:
        """The bias of the synapse."""
        return self.synapse.conv.bias if isinstance(self.synapse, DelayLine) else self.synapse.bias

    def forward(self, x: Tensor) -> Tensor:
        """Return the currents; raise ValueError for several steps in one call of an online rule."""
        if not (self.training and self._stepping and self._detach):
            return self.synapse(x)
        if len(x) != 1:
            raise ValueError(f"an online rule sees one step per call, not {len(x)}")
        if isinstance(self.synapse, DelayLine):
            return self._delayed(self.synapse, x)
        before = self.carried()
        trace = x.detach() if before is None else self.leak * before[0] + x.detach()
        self.carry(trace)
        if isinstance(self.synapse, nn.Linear):
            return _TracedProduct.apply(*_mixed_precision(x, trace, _weight(self.synapse), self.bias))
        return _convolve(self.synapse, x[0], trace[0]).unsqueeze(0)

    def _delayed(self, line: DelayLine, x: Tensor) -> Tensor:
        """Return the currents ``[1, B, out]`` of a delay line; state: past inputs, past traces, the last trace."""
        now = x.detach()
        state = self.carried()
        if state is None:
            inputs, traces, trace = now.new_zeros(line.past, *now.shape[1:]), now.new_zeros(line.past, *now.shape[1:]), now
        else:
            inputs, traces, trace = state[0], state[1], self.leak * state[2] + now
        inputs, traces = torch.cat([inputs, x]), torch.cat([traces, trace])
        self.carry(inputs[1:], traces[1:], trace)
        every = line.conv.dilation[0]  # only the steps that a tap looks at
        return _convolve(line.conv, _taps(inputs, every), _taps(traces, every), dilation=(1,)).permute(2, 0, 1)


def _taps(sequence: Tensor, every: int) -> Tensor:
    """Return every n-th step of ``[steps, B, C]`` as ``[B, C, taps]``."""
    return sequence[::every].permute(1, 2, 0)


def _weight(synapse: nn.Module) -> Tensor:
    return synapse.effective_weight if hasattr(synapse, "effective_weight") else synapse.weight


def _convolve(conv: nn.Conv1d | nn.Conv2d, x: Tensor, trace: Tensor, dilation: tuple[int, ...] | None = None) -> Tensor:
    geometry = (conv.stride, conv.padding, dilation or conv.dilation, conv.groups)
    return _TracedConvolution.apply(*_mixed_precision(x, trace, _weight(conv), conv.bias), geometry)


def _mixed_precision(*operands: Tensor | None) -> tuple[Tensor | None, ...]:
    """Return the operands in the precision of autocast, which does not look into custom functions by itself."""
    device = next(part.device.type for part in operands if part is not None)
    if not torch.is_autocast_enabled(device):
        return operands
    dtype = torch.get_autocast_dtype(device)
    return tuple(None if part is None else part.to(dtype) for part in operands)
