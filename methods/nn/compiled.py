"""The "compiled" backend: a few steps of any neuron at a time, compiled by ``torch.compile``'s compiler and looped over the sequence.

A neuron is a step function ``step(state, now, *parameters) -> (spikes, state)``: ``state`` is a tuple of tensors ``[B, ...]``, ``now`` the
current of one step, and ``parameters`` are the tensors it learns (numbers that never change may be closed over)::

    def step(state, now, decay):
        (v,) = state
        u = decay * v + now
        s = spike(u - 1, Triangle())
        return s, (u * (1 - s),)

    neuron = Compiled(step)
    seconds = neuron.warm_up(current, (v0,), (decay,))     # compiles; afterwards a call takes only its own time
    spikes, state = neuron(current, (v0,), (decay,))       # [T, B, ...]

Parameters that have another value at every step, ``[T, ...]``, are given apart (``varying``); the step function receives theirs of its step
last. What depends on parameters alone (``decay = sigmoid(w)``) is best computed once, outside.

Between 4 and 8 steps are one compiled piece (``methods.nn.piece``), so compile time does not depend on T: at most two pieces are made per
shape of a step, one for the remainder. A piece reads currents and writes spikes; the backward pass reads the currents again, with the
state at the border of each piece, and computes everything else anew. Saved for it are therefore the currents, 4 bytes per neuron-step in
single precision, and each state once per piece. Results are those of the uncompiled loop: the compiler is told not to contract products
and sums.

Where there is no C++ compiler (on the CPU) or Triton (on CUDA), and where a step draws random numbers, the steps run as they are;
``Compiled.reason`` then says why.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from methods.nn import gpu
from methods.nn.piece import Piece, State, Step, UnsuitableError, run

LONGEST, SHORTEST = 8, 4  # steps of a piece


@cache
def why_not(device: str) -> str | None:
    """Return why the compiler cannot be used on ``device`` ("cpu", "cuda"), or None if it can."""
    if device == "cpu":
        from torch._inductor import config, cpp_builder, exc

        # What PyTorch itself would call: $CXX, or the compilers of its settings.
        try:
            found = cpp_builder.get_cpp_compiler()
        except (exc.InvalidCxxCompiler, RuntimeError):
            found = None
        if found is None or shutil.which(found) is None:
            return f"no C++ compiler was found; tried {', '.join(str(name) for name in config.cpp.cxx if name)}"
        return None
    if device == "cuda":
        return None if gpu.installed() else "Triton is not installed"
    return f"it was not tried on {device}"


def piece_of(steps: int) -> int:
    """Return how many steps to compile together: the largest of 4 to 8 that divides ``steps`` if any does."""
    if steps <= LONGEST:
        return steps
    return next((k for k in range(LONGEST, SHORTEST - 1, -1) if steps % k == 0), LONGEST)


class Compiled:
    """A neuron's step function, compiled in pieces; see the module's docstring.

    ``seconds`` is the time spent in ``warm_up``, ``reason`` why the steps run uncompiled, or None.
    """

    def __init__(self, step: Step) -> None:
        """Make the callable; nothing is compiled yet."""
        self.step, self.seconds, self.reason = step, 0.0, None
        self._pieces: dict[Any, Piece] = {}
        self._unsuitable: str | None = None

    def __call__(self, current: Tensor, state: State, parameters: State = (), varying: State = ()) -> tuple[Tensor, State]:
        """Return the spikes ``[T, B, ...]`` and the state after the last step.

        ``current [T, B, ...]``, ``state`` of tensors ``[B, ...]``, ``parameters`` of any shape, ``varying`` of tensors ``[T, ...]``. The
        first call for a shape compiles unless ``warm_up`` did.
        """
        compiling = torch.compiler.is_compiling()
        self.reason = None if compiling else self._why_not(current)
        tensors = (current, *varying, *state, *parameters)
        if self.reason is None and not compiling and current.numel():
            try:
                if torch.is_grad_enabled() and any(t.requires_grad for t in tensors):
                    spikes, *after = _Pieces.apply(self, (1 + len(varying), len(state)), *tensors)
                else:
                    spikes, after, *_ = self._forward((current, *varying), state, parameters, ())
                return spikes, tuple(after)
            except UnsuitableError as why:
                self.reason = self._unsuitable = str(why)
        # Inside a larger compiled function the steps are a part of it.
        spikes, after = run(self.step, [sequence.unbind(0) for sequence in (current, *varying)], state, parameters)
        return torch.stack(spikes), tuple(after)

    def warm_up(self, current: Tensor, state: State, parameters: State = (), varying: State = ()) -> float:
        """Compile what a call with such tensors needs, of any values; return the seconds that took.

        With gradients enabled that is the forward and the backward pass of a current that takes a gradient; without, the forward pass alone
        (evaluation is compiled apart from training). No gradient is accumulated anywhere.
        """
        started = time.perf_counter()
        learning = torch.is_grad_enabled()
        leaf = current.detach().requires_grad_(learning)
        state, parameters, varying = (
            tuple(part.detach().requires_grad_(part.requires_grad and learning) for part in parts) for parts in (state, parameters, varying)
        )
        self(leaf, state, parameters, varying)
        seconds = time.perf_counter() - started
        self.seconds += seconds
        return seconds

    def _why_not(self, current: Tensor) -> str | None:
        if type(current) is not Tensor and type(current) is not nn.Parameter:
            return f"the current is a {type(current).__name__}, which compiled code cannot look into"
        return self._unsuitable or why_not(current.device.type)

    def _piece(self, rows: Sequence[Sequence[Tensor]], state: State, parameters: State, wanted: tuple[bool, ...]) -> Piece:
        like = *(sequence[0] for sequence in rows), *state, *parameters
        device = like[0].device.type
        settings = torch.get_num_threads(), torch.is_autocast_enabled(device) and torch.get_autocast_dtype(device)
        key = len(rows[0]), wanted, settings, *((t.shape, t.stride(), t.dtype, t.device) for t in like)
        found = self._pieces.get(key)
        if found is None:
            found = self._pieces[key] = Piece(self.step, rows, state, parameters, wanted)
        return found

    def _forward(
        self, sequences: Sequence[Tensor], state: State, parameters: State, wanted: tuple[bool, ...]
    ) -> tuple[Tensor, State, list[Piece], list[State]]:
        """Return the spikes, the state after the last step, the pieces and the state before each."""
        rows, length = [sequence.unbind(0) for sequence in sequences], piece_of(len(sequences[0]))
        spikes, pieces, states = None, [], []
        for start in range(0, len(rows[0]), length):
            part = [sequence[start : start + length] for sequence in rows]
            piece = self._piece(part, state, parameters, wanted)
            if spikes is None:
                one, device = piece.spikes, sequences[0].device
                shape, strides = (len(rows[0]), *one.shape), (one.numel(), *one.stride())
                spikes = torch.empty_strided(shape, strides, dtype=one.dtype, device=device)
                out = spikes.unbind(0)
            pieces.append(piece)
            states.append(state)
            state = piece.forward(part, state, parameters, out[start : start + length])
        return spikes, state, pieces, states


class _Pieces(torch.autograd.Function):
    """The loop over pieces, each way."""

    @staticmethod
    def forward(ctx: Any, compiled: Compiled, counts: tuple[int, int], *tensors: Tensor) -> tuple[Tensor, ...]:
        given, needed = _parted([t.detach() for t in tensors], counts), _parted(ctx.needs_input_grad[2:], counts)
        spikes, after, ctx.pieces, borders = compiled._forward(*given, (*needed[0], *needed[2]))
        ctx.counts, ctx.needed = counts, needed
        ctx.save_for_backward(*tensors, *(part for border in borders[1:] for part in border))
        return spikes, *after

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor, *g_after: Tensor) -> tuple[Tensor | None, ...]:
        given = len(ctx.needs_input_grad) - 2
        sequences, first, parameters = _parted(ctx.saved_tensors[:given], ctx.counts)
        states, saved, length = len(first), ctx.saved_tensors[given:], piece_of(len(g))
        found = [torch.empty_like(sequence) for sequence, wanted in zip(sequences, ctx.needed[0], strict=True) if wanted]
        rows, out = ([sequence.unbind(0) for sequence in group] for group in (sequences, found))
        g_rows = _arranged(g, ctx.pieces[0].spikes).unbind(0)
        g_state = [part for part in g_after if part.is_floating_point()]
        totals: list[Tensor] = []
        for i, piece in reversed(list(enumerate(ctx.pieces))):
            span = slice(i * length, (i + 1) * length)
            before = saved[(i - 1) * states : i * states] if i else first
            part, out_part = ([sequence[span] for sequence in group] for group in (rows, out))
            g_state, summands = piece.backward(part, before, parameters, g_rows[span], g_state, out_part)
            totals = [total + new for total, new in zip(totals, summands, strict=True)] if totals else summands
        gradients = (
            *_filled(found, ctx.needed[0]),
            *_filled(g_state, [part.is_floating_point() for part in first]),
            *_filled(totals, ctx.needed[2]),
        )
        return None, None, *(grad if needed else None for grad, needed in zip(gradients, ctx.needs_input_grad[2:], strict=True))


def _parted(tensors: Sequence[Any], counts: tuple[int, int]) -> tuple[Sequence[Any], Sequence[Any], Sequence[Any]]:
    """Return what belongs to sequences, state and parameters, of which ``counts`` gives the first two."""
    sequences, states = counts
    return tensors[:sequences], tuple(tensors[sequences : sequences + states]), tensors[sequences + states :]


def _arranged(g: Tensor, step: Tensor) -> Tensor:
    """Return ``g [T, ...]``, or a copy of it, whose steps lie as ``step`` does."""
    if all(a == b or size == 1 for a, b, size in zip(g.stride()[1:], step.stride(), step.shape, strict=True)):
        return g
    return g.new_empty_strided(g.shape, (step.numel(), *step.stride())).copy_(g)


def _filled(tensors: Sequence[Tensor], present: Sequence[bool]) -> list[Tensor | None]:
    """Return ``tensors`` in the places that are ``present``, None in the others."""
    left = iter(tensors)
    return [next(left) if here else None for here in present]
