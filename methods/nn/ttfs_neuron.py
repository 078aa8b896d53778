"""Neurons that fire once at most, and the activation that trains a network for them: one module, two ways to run it.

A layer listens to the layers before it while they fire and fires in the window after (T steps a window, ``methods.nn.time_code``). Window 0
is that of the pixels; a layer ``window`` synapses away from them fires in window ``window``. At step ``g``, with ``t = g mod T``::

    g = opens T                      u = u + b                 the bias, once
    opens T <= g < window T          u = u + kappa(t) I[g]     I[g]: current of the spikes of step g, linear, no leak
    window T <= g < (window + 1) T   fires if u >= kappa(t), which resets u to 0: no threshold is reached again

While it fires a membrane hears nothing. Since all windows begin together, ``kappa(t)`` is the same for all spikes of a step, whichever
layer they come from: it is applied by the receiver, so spikes are 0/1, and those of layers of several depths (residual sums) add up.
``opens`` is the window of the layer nearest to the pixels that feeds it.

Modes: "relu", "clip" (to [0, 1]) and "code" (``phi``) act on numbers ``[T, B, ...]`` without time, and train the network; "spikes" is the
clocked simulation, which "code" is the closed form of. Straight-through gradient of "clip" and "code": 1 on (0, 1), else 0.
"""

from __future__ import annotations

from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from methods.nn.stepping import Stateful
from methods.nn.time_code import TimeCode

Mode = Literal["relu", "clip", "code", "spikes"]


class Coded(Stateful):
    """Base of what acts on numbers or, in mode "spikes", on spike times: neurons, pixels, read-outs, poolings.

    Attributes: ``mode``; ``opens`` and ``window``, see the module's docstring; ``bias [C]`` that is added to its potentials, or None.
    """

    def __init__(self, code: TimeCode) -> None:
        """Start in mode "clip", one window behind the pixels."""
        super().__init__()
        self.code, self.opens, self.window = code, 0, 1
        self.mode: Mode = "clip"
        self.bias: nn.Parameter | None = None

    def biased(self, u: Tensor, space: int) -> Tensor:
        """Return ``u [..., C, *space]``, which has ``space`` dimensions after the channels, plus the bias."""
        return u if self.bias is None else u + self.bias.view(-1, *[1] * space)

    def now(self) -> int:
        """Return the index of the next step."""
        state = self.carried()
        return int(state[0]) if state else 0

    def advance(self, steps: int, *state: Tensor) -> None:
        """Keep ``state`` and that ``steps`` have passed."""
        self.carry(torch.tensor(self.now() + steps), *state)

    def extra_repr(self) -> str:
        """Return what ``print`` shows."""
        return f"mode={self.mode}, levels={self.code.levels}, tau={self.code.tau:g}, opens={self.opens}, window={self.window}"


class TtfsNeuron(Coded):
    """A layer of neurons ``[T, B, C, ...] -> [T, B, C, ...]``; see the module's docstring."""

    @property
    def spike_kind(self) -> str:
        """Whether what it returns are spikes."""
        return "binary" if self.mode == "spikes" else "none"

    def forward(self, current: Tensor) -> Tensor:
        """Return activations of currents, or in mode "spikes" the spikes."""
        if self.mode == "spikes":
            return self._clocked(current)
        u = self.biased(current, current.dim() - 3)
        if self.mode == "relu":
            return F.relu(u)
        u = u.float() if u.dtype in (torch.float16, torch.bfloat16) else u
        with torch.no_grad():
            values = u.clamp(0, 1) if self.mode == "clip" else self.code.phi(u)
        return _StraightThrough.apply(u, values)

    def rest(self, current: Tensor) -> Tensor:
        """Return the potentials ``[B, ...]`` before the first step."""
        return torch.zeros_like(current[0])

    def _clocked(self, current: Tensor) -> Tensor:
        state, start = self.carried(), self.now()
        u = state[1] if state else self.rest(current)
        kernel, levels = self.code.numbers(u), self.code.levels
        spikes = None
        for i, now in enumerate(current):
            window, t = divmod(start + i, levels)
            if start + i == self.opens * levels:
                u = self.biased(u, u.dim() - 2)
            if self.opens <= window < self.window:
                u.add_(now, alpha=kernel[t])
            elif window == self.window:
                if spikes is None:
                    spikes = u.new_empty_strided((len(current), *u.shape), (u.numel(), *u.stride())).zero_()
                fires = u >= kernel[t]
                spikes[i] = fires
                u.masked_fill_(fires, 0)
        self.advance(len(current), u)
        # A silent layer repeats one step of zeros, which convolutions see once.
        return torch.zeros_like(u).expand(len(current), *u.shape) if spikes is None else spikes


class PixelCode(TtfsNeuron):
    """The data ``[T, B, C, ...]`` scaled to [0, 1], and in mode "code" as ``phi`` of that; in mode "spikes" they fire in window 0.

    ``low`` and ``span [C]`` are the least value and the range of every channel; what is beyond is clamped.
    """

    def __init__(self, code: TimeCode, channels: int) -> None:
        """Expect values in [0, 1] until ``measure`` has seen others."""
        super().__init__(code)
        self.window = 0
        self.register_buffer("low", torch.zeros(channels))
        self.register_buffer("span", torch.ones(channels))

    def measure(self, samples: Tensor) -> None:
        """Take ranges from ``samples [N, C, ...]``; a channel that is the same everywhere gets the range 1."""
        by_channel = samples.movedim(1, 0).flatten(1)
        self.low.copy_(by_channel.amin(1))
        span = by_channel.amax(1) - self.low
        self.span.copy_(torch.where(span > 0, span, 1.0))

    def forward(self, data: Tensor) -> Tensor:
        """Return the pixels, or in mode "spikes" their spikes."""
        if self.mode == "spikes":
            return self._clocked(data)
        pixels = self.scaled(data)
        return self.code.phi(pixels) if self.mode == "code" else pixels

    def scaled(self, data: Tensor) -> Tensor:
        """Return data ``[T, B, C, ...]`` in [0, 1]."""
        shape = -1, *[1] * (data.dim() - 3)
        return ((data - self.low.view(shape)) / self.span.view(shape)).clamp(0, 1)

    def rest(self, current: Tensor) -> Tensor:
        """Return the pixels of the first step, which are what fires."""
        return self.scaled(current[:1])[0]


def set_mode(net: nn.Module, mode: Mode) -> None:
    """Let every coded part of ``net`` run in ``mode``; raise ValueError for one that is not known."""
    if mode not in get_args(Mode):
        raise ValueError(f"mode {mode!r} is unknown; allowed: {', '.join(get_args(Mode))}")
    for module in net.modules():
        if isinstance(module, Coded):
            module.mode = mode


class _StraightThrough(torch.autograd.Function):
    """``values`` forward; backward the gradient of clipping ``u`` to [0, 1], for which one byte per element is kept."""

    @staticmethod
    def forward(ctx: Any, u: Tensor, values: Tensor) -> Tensor:
        ctx.save_for_backward((u > 0) & (u < 1))
        return values.view_as(values)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (passes,) = ctx.saved_tensors
        return grads[0] * passes, None
