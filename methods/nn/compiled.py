"""The "compiled" backend: ``torch.compile`` of a few steps of any neuron at a time, looped over the sequence.

A neuron is a step function ``step(state, now, *parameters) -> (spikes, state)``: ``state`` is a tuple of tensors ``[B, ...]``, ``now`` the
current of one step, and ``parameters`` are the tensors it learns (numbers that never change may be closed over)::

    def step(state, now, tau):
        (v,) = state
        u = v + (now - v) / tau
        s = spike(u - 1, Triangle())
        return s, (u * (1 - s),)

    neuron = Compiled(step)
    seconds = neuron.warm_up(current, (v0,), (tau,))     # compiles; afterwards a call takes only its own time
    spikes, state = neuron(current, (v0,), (tau,))       # [T, B, ...]

Between 4 and 8 steps are one compiled piece, forward and backward, so compile time does not depend on T: at most two pieces are made per
shape of a step, one for the remainder. An uncompiled loop reads and writes every intermediate number of every step; a piece reads its
currents and writes its spikes and what its backward pass needs. Results are those of the uncompiled loop: the compiler is told not to
contract products and sums.

Where there is no C++ compiler (on the CPU) or Triton (on CUDA), the steps run as they are; ``Compiled.reason`` then says why.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from functools import cache
from types import FunctionType
from typing import Any

import torch
from torch import Tensor

from methods.nn import gpu

State = tuple[Tensor, ...]
Step = Callable[..., tuple[Tensor, State]]
LONGEST, SHORTEST = 8, 4  # steps of a piece


@cache
def why_not(device: str) -> str | None:
    """Return why ``torch.compile`` cannot be used on ``device`` ("cpu", "cuda"), or None if it can."""
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


def _own(function: FunctionType) -> FunctionType:
    """Return a copy of ``function`` that the compiler takes for another one: it bounds how often it compiles the same."""
    code = function.__code__.replace()
    return FunctionType(code, function.__globals__, function.__name__, function.__defaults__, function.__closure__)


class Compiled:
    """A neuron's step function, compiled in pieces; see the module's docstring.

    ``seconds`` is the time spent in ``warm_up``, ``reason`` why the steps run uncompiled, or None.
    """

    def __init__(self, step: Step) -> None:
        """Make the callable; nothing is compiled yet."""
        self.step, self.seconds, self.reason = step, 0.0, None
        self._pieces: dict[Any, Callable[..., tuple[Tensor, ...]]] = {}

    def __call__(self, current: Tensor, state: State, parameters: State = ()) -> tuple[Tensor, State]:
        """Return the spikes ``[T, B, ...]`` and the state after the last step.

        ``current [T, B, ...]``, ``state`` of tensors ``[B, ...]``. The first call for a shape compiles unless ``warm_up`` did.
        """
        self.reason = None if torch.compiler.is_compiling() else why_not(current.device.type)
        if self.reason is not None or torch.compiler.is_compiling() or current.numel() == 0:
            # Inside a larger compiled function the steps are a part of it.
            spikes, *after = _run(self.step, current, parameters, *state)
            return spikes, tuple(after)
        if torch.is_grad_enabled() and any(t.requires_grad for t in (current, *parameters)):
            # A first state that takes no gradient would have to be compiled for itself.
            state = tuple(part if part.requires_grad else part.detach().requires_grad_() for part in state)
        found = []
        for part in current.split(piece_of(len(current))):
            spikes, *state = self._piece(part)(part, parameters, *state)
            found.append(spikes)
        return found[0] if len(found) == 1 else torch.cat(found), tuple(state)

    def warm_up(self, current: Tensor, state: State, parameters: State = ()) -> float:
        """Compile what a call with such tensors needs, of any values; return the seconds that took.

        With gradients enabled that is the forward and the backward pass of a current that takes a gradient; without, the forward pass alone
        (evaluation is compiled apart from training). No gradient is accumulated anywhere.
        """
        started = time.perf_counter()
        learning = torch.is_grad_enabled()
        leaves = [current.detach().requires_grad_(learning), *(p.detach().requires_grad_(p.requires_grad and learning) for p in parameters)]
        spikes, after = self(leaves[0], tuple(part.detach() for part in state), tuple(leaves[1:]))
        if learning:
            outputs = [t for t in (spikes, *after) if t.requires_grad]
            torch.autograd.grad(outputs, [t for t in leaves if t.requires_grad], [torch.ones_like(t) for t in outputs], allow_unused=True)
        seconds = time.perf_counter() - started
        self.seconds += seconds
        return seconds

    def _piece(self, part: Tensor) -> Callable[..., tuple[Tensor, ...]]:
        key = (part.shape, part.stride(), part.dtype, part.device)
        if key not in self._pieces:
            step = self.step

            def piece(current: Tensor, parameters: State, *state: Tensor) -> tuple[Tensor, ...]:
                return _run(step, current, parameters, *state)

            self._pieces[key] = torch.compile(_own(piece), fullgraph=True, dynamic=False, options={"emulate_precision_casts": True})
        return self._pieces[key]


def _run(step: Step, current: Tensor, parameters: State, *state: Tensor) -> tuple[Tensor, ...]:
    spikes = []
    for now in current.unbind(0):
        s, state = step(state, now, *parameters)
        spikes.append(s)
    return torch.stack(spikes), *state
