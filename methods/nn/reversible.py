"""Reversible sequences: blocks whose inputs follow from their outputs, so that training keeps the last output and nothing else.

A block joins two streams ``x1, x2 [T, B, ...]`` by two functions of equal shapes, each a module that starts from rest in every call::

    y1 = x1 + f(x2)        x2 = y2 - g(y1)
    y2 = x2 + g(y1)        x1 = y1 - f(x2)

A sequence of blocks is one autograd function. Its backward pass walks from the last block to the first; with ``d1, d2`` the gradients of
``y1, y2``, one function at a time is run again with a graph, differentiated, and let go::

    g(y1) again:  x2 = y2 - g(y1),  d1 <- d1 + (dg/dy1)^T d2
    f(x2) again:  x1 = y1 - f(x2),  d2 <- d2 + (df/dx2)^T d1

So what is saved for the backward pass does not depend on the number of blocks: two streams, and the graph of one function over all T
steps while it is differentiated. Gradients are those of plain autograd, but for rounding: ``y - g + g`` is not exact, and a membrane
potential that lies within rounding of the threshold may flip a spike of the recomputation.

What the first run met is met again: buffers are copies, so running statistics move once; the random state is put back (kept only where a
function drew numbers, 5 KB a function); modes and autocast are those of the first run. Half-precision streams become single precision, as
sums would lose what has to be subtracted again; ``f`` and ``g`` run in autocast's type.

Source: "Memory-Efficient Reversible Spiking Neural Networks" (Zhang, Zhang, AAAI 2024), after "The Reversible Residual Network" (Gomez et
al., NeurIPS 2017). Ours: statistics that move once, the replay of random state, modes and autocast, and the checks below.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.func import functional_call

from methods.nn.stepping import is_stepping

HALF = (torch.float16, torch.bfloat16)


class ReversibleBlock(nn.Module):
    """``(x1, x2) -> (y1, y2)`` by functions ``f`` and ``g``; see the module's docstring."""

    def __init__(self, f: nn.Module, g: nn.Module) -> None:
        """Join two modules ``[T, B, ...] -> [T, B, ...]``."""
        super().__init__()
        self.f, self.g = f, g

    def forward(self, x1: Tensor, x2: Tensor) -> tuple[Tensor, Tensor]:
        """Return the streams after the block."""
        y1 = x1 + self.f(x2)
        return y1, x2 + self.g(y1)

    def inverse(self, y1: Tensor, y2: Tensor) -> tuple[Tensor, Tensor]:
        """Return the streams before the block, for functions that draw no random numbers."""
        x2 = y2 - self.g(y1)
        return y1 - self.f(x2), x2


class ReversibleSequence(nn.Module):
    """Blocks one after the other, ``(x1, x2) -> (y1, y2)``, with memory that does not grow with their number.

    ``reversible=False`` is the exact twin with plain autograd. Without gradients, and in ``with stepping(net)``, where states come from the
    call before, the blocks run plainly too. The backward pass raises RuntimeError inside ``with stepping(net)``, and where a weight (in
    eval mode also a buffer) was changed in place since the forward pass.
    """

    def __init__(self, blocks: Iterable[ReversibleBlock], reversible: bool = True) -> None:
        """Join the blocks."""
        super().__init__()
        self.blocks, self.reversible = nn.ModuleList(blocks), reversible

    def forward(self, x1: Tensor, x2: Tensor) -> tuple[Tensor, Tensor]:
        """Return the streams after the last block."""
        x1, x2 = (x.float() if x.dtype in HALF else x for x in (x1, x2))
        if self.reversible and len(self.blocks) and torch.is_grad_enabled() and not is_stepping(self):
            learnt = [parameter for parameter in self.parameters() if parameter.requires_grad]
            return _Sequence.apply(self, x1, x2, *learnt)
        for block in self.blocks:
            x1, x2 = block(x1, x2)
        return x1, x2

    def inverse(self, y1: Tensor, y2: Tensor) -> tuple[Tensor, Tensor]:
        """Return the streams before the first block, for functions that draw no random numbers."""
        for block in reversed(self.blocks):
            y1, y2 = block.inverse(y1, y2)
        return y1, y2

    def extra_repr(self) -> str:
        """Return the setting for printing."""
        return f"reversible={self.reversible}"


def halves(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the two halves of the channels of ``x [T, B, C, ...]``, dense and laid out as ``x``; raise ValueError for odd C."""
    if x.shape[2] % 2:
        raise ValueError(f"{x.shape[2]} channels cannot be split into two streams; allowed: even numbers")
    first, second = x.chunk(2, dim=2)
    return first.clone(), second.clone()  # a clone keeps the order of the dimensions and closes the gaps


def joined(x1: Tensor, x2: Tensor) -> Tensor:
    """Return both streams as the channels of one tensor, laid out as they are: the inverse of ``halves``."""
    return torch.cat([x1.flatten(0, 1), x2.flatten(0, 1)], dim=1).unflatten(0, x1.shape[:2])


class _Sequence(torch.autograd.Function):
    """All blocks of a ``ReversibleSequence``; what is learnt is passed so that autograd knows about it."""

    @staticmethod
    def forward(ctx: Any, sequence: ReversibleSequence, x1: Tensor, x2: Tensor, *learnt: Tensor) -> tuple[Tensor, Tensor]:
        ctx.replay = replay = _Replay(sequence, x1.device)
        with replay.precision():
            for block in sequence.blocks:
                x1 = x1 + replay.first(block.f, x2)
                x2 = x2 + replay.first(block.g, x1)
        # Parameters and, where they are read, buffers are saved for autograd's check that nobody has changed them in place.
        ctx.save_for_backward(x1, x2, *learnt, *(() if sequence.training else sequence.buffers()))
        ctx.sequence, ctx.learnt = sequence, learnt
        return x1, x2

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (y1, y2, *_), (d1, d2) = ctx.saved_tensors, grads
        if is_stepping(ctx.sequence):
            raise RuntimeError("a reversible sequence runs its blocks again from rest; leave `with stepping(net)` before the backward pass")
        found: dict[Tensor, Tensor] = {}
        calls = reversed(ctx.replay.calls)
        with ctx.replay.modes():
            for _ in ctx.sequence.blocks:
                again, d = ctx.replay.again(next(calls), y1, d2, found)
                y2, d1 = y2 - again, d1 + d
                again, d = ctx.replay.again(next(calls), y2, d1, found)
                y1, d2 = y1 - again, d2 + d
        return None, d1, d2, *(found.get(parameter) for parameter in ctx.learnt)


class _Call(NamedTuple):
    """One run of a function: with which parameters, and the random state before it; None where nothing was drawn."""

    function: nn.Module
    parameters: dict[str, Tensor]
    random: tuple[Tensor, ...] | None


class _Replay:
    """What the functions of a sequence met in their first run, and their second run under the same circumstances."""

    def __init__(self, sequence: ReversibleSequence, device: torch.device) -> None:
        self.device, kind = device, device.type
        self.enabled, self.dtype = torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)
        self.training = [(module, module.training) for module in sequence.modules()]
        self.calls: list[_Call] = []

    def precision(self) -> torch.autocast:
        """Return autocast as it was, without its cache: casts made without gradients must not be found by those who need them."""
        return torch.autocast(self.device.type, self.dtype, enabled=self.enabled, cache_enabled=False)

    @contextmanager
    def modes(self) -> Iterator[None]:
        """Have all modules in the modes they were in."""
        now = [(module, module.training) for module, _ in self.training]
        try:
            for module, training in self.training:
                module.training = training
            yield
        finally:
            for module, training in now:
                module.training = training

    def first(self, function: nn.Module, x: Tensor) -> Tensor:
        """Run a function without a graph, and remember the call."""
        before = self._state()
        y = function(x)
        drew = any(not torch.equal(a, b) for a, b in zip(before, self._state(), strict=True))
        self.calls.append(_Call(function, dict(function.named_parameters()), before if drew else None))
        return y

    def again(self, call: _Call, x: Tensor, grad: Tensor, found: dict[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Return the output of a call for ``x`` and the gradient of ``x``; add those of its parameters to ``found``."""
        x = x.detach().requires_grad_()
        buffers = {name: buffer.clone() for name, buffer in call.function.named_buffers()}
        with torch.enable_grad(), self.precision(), self._drawing(call.random):
            y = functional_call(call.function, {**call.parameters, **buffers}, (x,))
        wanted = [x, *(parameter for parameter in call.parameters.values() if parameter.requires_grad)]
        slope, *slopes = torch.autograd.grad(y, wanted, grad.to(y.dtype), allow_unused=True)
        for parameter, value in zip(wanted[1:], slopes, strict=True):
            if value is not None:
                found[parameter] = found[parameter] + value if parameter in found else value
        return y.detach(), torch.zeros_like(x) if slope is None else slope

    def _state(self) -> tuple[Tensor, ...]:
        state = torch.get_rng_state()
        return (state, torch.cuda.get_rng_state(self.device)) if self.device.type == "cuda" else (state,)

    @contextmanager
    def _drawing(self, state: tuple[Tensor, ...] | None) -> Iterator[None]:
        """Draw the same numbers as before, and leave the generators as they are now."""
        if state is None:
            yield
            return
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices):
            torch.set_rng_state(state[0])
            for device in devices:
                torch.cuda.set_rng_state(state[1], device)
            yield
