"""Burst neurons that stand for a ReLU: up to gamma spikes in a step, calibrated, of the height of a scale.

For the current ``I[t]`` and a scale a, the quantile of the ReLU's outputs::

    m <- m + I[t] / a;   s = clamp(floor(m), 0, gamma);   m <- m - s        m = 0 at first; gamma = 1 is an integrate-and-fire neuron
    s <- calibrated s                                                       methods.nn.spike_calibration
    out[t] = a s

so that the mean of ``out`` over time approaches ``min(ReLU(I), gamma a)`` for a constant current. Dividing before and multiplying after
asks nothing of the graph around it; where every synapse has one source, ``absorb`` moves the scales into the weights, and ``out`` is whole.
Sources: "Efficient and Accurate Conversion of Spiking Neural Network with Burst Spikes" (Li and Zeng, IJCAI 2022); "Spike Calibration" (Li
et al., 2022).

Backends: "reference" is the loop over steps; "compiled" the same arithmetic compiled once (``methods.nn.compiled``) for blocks of neurons,
since neurons do not know of each other: one compilation serves all layers and batches. "auto" compiles on a CPU with a compiler, for calls
of 2^22 neuron-steps or more. 8 steps of 8 images of 16 x 120 x 160 on one thread of a Zen 4, reference and compiled: 0.30 and 0.18 s
without calibration, 1.27 and 0.26 s with it; compiling takes 10 s, once. Blocks were not tried on a GPU.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Literal, get_args

import torch
from torch import Tensor

from methods.nn.compiled import Compiled, why_not
from methods.nn.conversion import ONE, Factors, normalise
from methods.nn.layout import dense_step, like, step_like
from methods.nn.piece import Step
from methods.nn.spike_calibration import Mode, calibrate, no_history
from methods.nn.stepping import Stateful
from methods.nn.wiring import Connection

Backend = Literal["auto", "reference", "compiled"]
State = tuple[Tensor, ...]
BLOCK = 1 << 14  # neurons that are compiled for
WORTH = 1 << 22  # neuron-steps of a call from which "auto" compiles


class BurstNeuron(Stateful):
    """Neurons ``[T, B, C, ...] -> [T, B, C, ...]`` in the place of a ReLU; see the module's docstring.

    ``scale``: a number, or one per channel ``[C]``. ``allowance``: steps, 0 for no calibration. ``used`` is the backend of the last call.
    Raises ValueError for a gamma below 1, a scale that is not positive, and an unknown mode or backend.
    """

    spike_kind = "graded"
    scale: Tensor

    def __init__(
        self,
        gamma: int = 5,
        allowance: float = 0.0,
        mode: Mode = "reference",
        scale: Tensor | float = 1.0,
        backend: Backend = "auto",
    ) -> None:
        """Make a layer of neurons of any shape."""
        super().__init__()
        for what, value, allowed in (("mode", mode, Mode), ("backend", backend, Backend)):
            if value not in get_args(allowed):
                raise ValueError(f"{what} {value!r} is unknown; allowed: {', '.join(get_args(allowed))}")
        if gamma < 1:
            raise ValueError(f"a neuron emits up to gamma spikes in a step, 1 or more, not {gamma}")
        self.gamma, self.allowance, self.mode, self.backend = gamma, allowance, mode, backend
        self.used: str | None = None
        self.register_buffer("scale", torch.ones(()))
        self.set_scale(torch.as_tensor(scale, dtype=torch.float32))

    def set_scale(self, scale: Tensor) -> None:
        """Replace the scale by another number, or by one per channel; raise ValueError if one is not positive."""
        if not (scale > 0).all():
            raise ValueError(f"a scale is above 0, not {scale.min().item():g}")
        self.scale = scale.to(self.scale.device)
        self._plain = bool((scale == 1).all())

    def forward(self, current: Tensor) -> Tensor:
        """Return the spikes times their height."""
        if self._plain:
            return self._spikes(current)
        scale = self._spread(current)
        return self._spikes(current / scale).mul_(scale)

    def units(self, output: Tensor) -> Tensor:
        """Return the whole numbers of spikes that an ``output [T, B, C, ...]`` of this layer stands for."""
        return output if self._plain else (output / self._spread(output)).round()

    def _spread(self, like: Tensor) -> Tensor:
        scale = self.scale.to(like.dtype)
        return scale.view(-1, *[1] * (like.dim() - 3)) if scale.dim() else scale

    def _spikes(self, current: Tensor) -> Tensor:
        state = self.carried() or self._at_rest(current[0])
        step = step_of(self.gamma, self.allowance, self.mode)
        compiled = self.backend == "compiled" or (self.backend == "auto" and current.numel() >= WORTH and not current.is_cuda)
        if compiled and dense_step(current) and why_not(current.device.type) is None:
            self.used = "compiled"
            spikes, state = _in_blocks(_compiled(self.gamma, self.allowance, self.mode), current, state)
        else:
            self.used = "reference"
            found = []
            for now in current.unbind(0):
                s, state = step(state, now)
                found.append(s)
            spikes = torch.stack(found)
        self.carry(*state)
        return spikes

    def _at_rest(self, now: Tensor) -> State:
        return torch.zeros_like(now), *(no_history(now) if self.allowance else ())

    def extra_repr(self) -> str:
        """Return the settings for printing."""
        return f"gamma={self.gamma}, allowance={self.allowance:g}, mode={self.mode}, scale={self.scale.mean().item():g}"


@cache
def step_of(gamma: int, allowance: float, mode: Mode) -> Step:
    """Return the step of a neuron: ``step((m, *history), now) -> (s, (m, *history))``."""

    def step(state: State, now: Tensor) -> tuple[Tensor, State]:
        m, *history = state
        m = m + now
        s = m.floor().clamp(0, gamma)
        m = m - s
        if allowance:
            s, history = calibrate(s, history, allowance, mode)  # type: ignore[arg-type, assignment]
        return s, (m, *history)

    return step


@cache
def _compiled(gamma: int, allowance: float, mode: Mode) -> Compiled:
    """Return the compiled step, one for all layers."""
    return Compiled(step_of(gamma, allowance, mode))


def _in_blocks(step: Compiled, current: Tensor, state: State) -> tuple[Tensor, State]:
    """Return spikes and state of neurons that are given to ``step`` some at a time, the last block filled up with zeros."""
    steps, count = len(current), current[0].numel()
    state = tuple(_laid_as(part, current) for part in state)
    spikes, after = like(current), [step_like(current, part.dtype) for part in state]
    flat, out = (_flat(part, steps, count) for part in (current, spikes))
    before, behind = ([_flat(part[None], 1, count)[0] for part in parts] for parts in (state, after))
    for start in range(0, count, BLOCK):
        here = slice(start, min(start + BLOCK, count))
        size = here.stop - here.start
        given, rest = flat[:, here], tuple(part[here] for part in before)
        if size < BLOCK:
            given = torch.nn.functional.pad(given, (0, BLOCK - size))
            rest = tuple(torch.nn.functional.pad(part, (0, BLOCK - size)) for part in rest)
        found, left = step(given, rest)
        out[:, here] = found[:, :size]
        for part, new in zip(behind, left, strict=True):
            part[here] = new[:size]
    return spikes, tuple(after)


def _flat(sequence: Tensor, steps: int, count: int) -> Tensor:
    """Return ``sequence [T, ...]`` with dense steps as ``[T, N]``, the neurons in the order in which they lie in memory."""
    return sequence.as_strided((steps, count), (sequence.stride(0), 1))


def _laid_as(part: Tensor, current: Tensor) -> Tensor:
    """Return a state ``[B, ...]`` laid out as a step of ``current``; itself if it is."""
    model = step_like(current, part.dtype)
    return part if part.stride() == model.stride() else model.copy_(part)


@torch.no_grad()
def absorb(connections: Iterable[Connection], scales: Factors) -> None:
    """Move the ``scales`` of burst neurons into the weights of a network whose connections are these, in place; then all scales are 1.

    A synapse takes up the scale of the layer before it and gives up that of its own: ``W <- W a_before / a``, ``b <- b / a``. Between two
    synapses there must be only what lets a positive factor per channel through (pooling, flattening, enlarging).
    """
    for c in connections:
        normalise(c.synapse, ONE if c.source is None else scales[c.source], ONE if c.layer is None else scales[c.layer])
        if c.layer is not None:
            c.layer.neuron.set_scale(ONE)  # type: ignore[operator]
