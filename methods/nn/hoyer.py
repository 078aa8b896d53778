"""Hoyer threshold: neurons that fire at the Hoyer extremum of their own clipped potentials, and the Hoyer-square of these as a penalty.

For potentials ``m [B, C, ...]`` of one time step and one learnt number ``v`` per layer (clip value)::

    u = m / |v|,  x = clamp(u, 0, 1)
    E = sum(x^2) / sum(x)                  Hoyer extremum, per channel or of the whole tensor; no gradient; 1 where sum(x) = 0
    s = 1[u >= scale * E]                  so the threshold is |v| * scale * E, at most |v| * scale
    ds/du := 1/2 on the window             "unit": 0 < u < 1;  "wide": 0 < u <= 2;  0 elsewhere
    H = sum(x)^2 / sum(x^2)                Hoyer-square of the whole tensor;  dH/dx = (2 S/Q)(1 - x S/Q),  S = sum(x), Q = sum(x^2)

The gradient of H is zero at the extremum of the whole tensor, positive below and negative above: descent pushes potentials away from it. H
is the same for ``x`` and ``|v| x``. What differs is whether ``v`` takes a gradient: penalty "clipped" (``clamp(m, 0, |v|)``, v held fixed,
as in the official VGG code) or "normalised" (``clamp(m / |v|, 0, 1)``, as the abstract has it).

In training E is that of the batch, and ``running <- 0.9 running + 0.1 E``; in eval mode ``running`` stands for E. It starts at 0 and is far
too low for the first 30 batches or so; ``start`` says what to do about that: "zero" nothing, as the official code; "corrected" divides by
``1 - 0.9^n`` (as Adam does); "first" begins with the E of the first batch. Vectors ``[B, C]`` have an extremum of the whole tensor.

One step needs no state. With several, ``m[t] = leak * m[t-1] + I[t]``, less ``|v| * scale * E`` after a spike (reset "soft", kept out of
the gradient; "none": never). E is that of the step, all steps share ``running``, and H is the mean over steps: these are ours.
Source: "Hoyer Regularizer Is All You Need for Ultra Low-Latency Spiking Neural Networks" (Datta, Liu, Beerel, arXiv 2212.10170).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from methods.nn.compiled import Compiled
from methods.nn.piece import Step, run
from methods.nn.stepping import Stateful

Extremum = Literal["channel", "tensor", "none"]
Window = Literal["unit", "wide"]
Penalty = Literal["clipped", "normalised"]
Start = Literal["zero", "corrected", "first"]
Reset = Literal["soft", "none"]
Backend = Literal["auto", "reference", "compiled"]
KEPT = 0.9  # of the running extremum
LONG = 32  # steps from which compiling pays; see HoyerThreshold


def hoyer_extremum(x: Tensor, per_channel: bool = False) -> Tensor:
    """Return ``sum(x^2) / sum(x)`` of non-negative ``x [B, C, ...]``: one number, or ``[C]``; 1 where the sum is 0."""
    total, squares = _sums(x, per_channel)
    return torch.where(total > 0, squares / total, 1.0)


def hoyer_square(x: Tensor) -> Tensor:
    """Return ``sum(x)^2 / sum(x^2)`` of non-negative ``x``: between 1 and the number of its entries that are not 0; 0 if all are."""
    total, squares = _sums(x, False)
    return torch.where(squares > 0, total * total / squares, 0.0)


def _sums(x: Tensor, per_channel: bool) -> tuple[Tensor, Tensor]:
    """Return ``sum(x)`` and ``sum(x^2)``, in single precision at least."""
    dims = [d for d in range(x.dim()) if d != 1] if per_channel else list(range(x.dim()))
    dtype = torch.promote_types(x.dtype, torch.float32)
    return x.sum(dims, dtype=dtype), (x * x).sum(dims, dtype=dtype)


@dataclass(frozen=True)
class _Rule:
    """What decides a step: settings of the layer, and whether it is training and whether the penalty is wanted."""

    extremum: Extremum
    scale: float
    window: Window
    penalty: Penalty
    start: Start
    leak: float
    reset: Reset
    training: bool
    penalised: bool


class HoyerThreshold(Stateful):
    """Neurons ``[T, B, C, ...] -> [T, B, C, ...]``; see the module's docstring.

    ``extremum="none"`` puts 1 in place of E: a threshold ``|v| * scale``, learnt or (``learn=False``) fixed, the baselines of the method.
    ``backend`` of several steps: "reference" (a loop), "compiled" (``methods.nn.compiled``), "auto": compiled from 32 steps on, where the
    time to compile is soon won back. Raises ValueError for an unknown choice and for currents with another number of channels.
    """

    spike_kind = "binary"
    running: Tensor
    batches: Tensor

    def __init__(
        self,
        channels: int,
        extremum: Extremum = "channel",
        v: float = 1.0,
        learn: bool = True,
        scale: float = 1.0,
        window: Window = "unit",
        penalty: Penalty = "clipped",
        start: Start = "zero",
        leak: float = 0.5,
        reset: Reset = "soft",
        backend: Backend = "auto",
    ) -> None:
        """Make a layer of neurons of ``channels`` channels."""
        super().__init__()
        choices = (("extremum", extremum, Extremum), ("window", window, Window), ("penalty", penalty, Penalty), ("start", start, Start))
        for what, value, allowed in (*choices, ("reset", reset, Reset), ("backend", backend, Backend)):
            if value not in get_args(allowed):
                raise ValueError(f"{what} {value!r} is unknown; allowed: {', '.join(get_args(allowed))}")
        self.channels, self.extremum, self.scale, self.window, self.penalty = channels, extremum, scale, window, penalty
        self.start, self.leak, self.reset, self.backend = start, leak, reset, backend
        self.v = nn.Parameter(torch.tensor(float(v)), requires_grad=learn)
        self.register_buffer("running", torch.zeros(channels))
        self.register_buffer("batches", torch.zeros((), dtype=torch.long))
        self._penalties: list[Tensor] | None = None

    def forward(self, current: Tensor) -> Tensor:
        """Return the spikes of a current of the same shape."""
        if current.dim() < 3 or current.shape[2] != self.channels:
            raise ValueError(f"a current [T, B, {self.channels}, ...] is needed, not {list(current.shape)}")
        carried, collect = self.carried(), self._penalties
        kind = self.extremum if self.extremum == "none" or current.dim() > 3 else "tensor"
        choices = kind, self.scale, self.window, self.penalty, self.start, self.leak, self.reset
        rule = _Rule(*choices, self.training, collect is not None)
        none_yet = torch.zeros((), dtype=self.running.dtype, device=current.device)
        rest = carried[0] if carried else torch.zeros_like(current[0]) if len(current) > 1 or self._stepping else None
        compiles = self.backend == "compiled" or (self.backend == "auto" and len(current) >= LONG)
        if compiles and rest is not None:
            state = (rest, self.running.clone(), self.batches.clone(), none_yet)
            spikes, after = _compiled(rule)(current, state, (self.v,))
        else:
            steps = [current.squeeze(0)] if len(current) == 1 else current.unbind(0)  # the gradient of unbind is a copy
            rows, after = run(_step(rule), [steps], (rest, self.running, self.batches, none_yet), (self.v,))
            spikes = rows[0].unsqueeze(0) if len(rows) == 1 else torch.stack(rows)
        if self.training and kind != "none":
            with torch.no_grad():
                self.running.copy_(after[1].detach())
                self.batches.copy_(after[2])
        if collect is not None:
            collect.append(after[3] / len(current))
        if self._stepping:
            self.carry(after[0])
        return spikes

    def threshold(self) -> Tensor:
        """Return the threshold of every channel in eval mode, ``|v| * scale * E``: ``[C]``."""
        one = torch.ones_like(self.running)
        found = one if self.extremum == "none" else _settled(self.running, self.batches, self.start)
        return self.v.detach().abs() * self.scale * found

    def extra_repr(self) -> str:
        """Return the settings for printing."""
        return f"channels={self.channels}, extremum={self.extremum}, v={self.v.item():g}, scale={self.scale:g}, window={self.window}"


@contextmanager
def penalties(net: nn.Module) -> Iterator[list[Tensor]]:
    """Collect the Hoyer-square of every call of every ``HoyerThreshold`` of ``net`` that happens inside: numbers that take gradients."""
    found: list[Tensor] = []
    neurons = [module for module in net.modules() if isinstance(module, HoyerThreshold)]
    for neuron in neurons:
        neuron._penalties = found
    try:
        yield found
    finally:
        for neuron in neurons:
            neuron._penalties = None


def _settled(running: Tensor, batches: Tensor, start: Start) -> Tensor:
    """Return the extremum that evaluation uses, 1 before any batch was seen (start "zero": 0)."""
    if start == "zero":
        return running
    corrected = running / (1 - KEPT ** batches.clamp_min(1).to(running.dtype)) if start == "corrected" else running
    return torch.where(batches > 0, corrected, 1.0)


@cache
def _compiled(rule: _Rule) -> Compiled:
    return Compiled(_step(rule))


@cache
def _step(rule: _Rule) -> Step:
    """Return the step ``((potential, running, batches, penalty), current, v) -> (spikes, the same)``; a potential of None is at rest."""

    def step(state: tuple[Any, ...], now: Tensor, v: Tensor) -> tuple[Tensor, tuple[Any, ...]]:
        potential, running, batches, penalty = state
        m = now if potential is None else torch.add(now, potential, alpha=rule.leak)
        given: Tensor | None = None
        if rule.extremum == "none":
            given = torch.ones_like(running)
        elif not rule.training:
            given = _settled(running.detach(), batches, rule.start)
        s, extremum, h = _Fire.apply(m, v, given, rule)
        if given is None:
            share = 1 - KEPT if rule.start != "first" else torch.where(batches > 0, 1 - KEPT, 1.0)
            running, batches = running + share * (extremum - running), batches + 1
        if potential is not None and rule.reset == "soft":
            threshold = (v.detach().abs() * rule.scale * extremum).to(m.dtype)
            m = torch.addcmul(m, s.detach(), _spread(threshold, m), value=-1)
        return s, (m if potential is not None else None, running, batches, penalty + h if rule.penalised else penalty)

    return step


def _spread(value: Tensor, like: Tensor) -> Tensor:
    """Return ``value`` (one number or ``[C]``) so that it broadcasts against ``like [B, C, ...]``."""
    return value.view(-1, *[1] * (like.dim() - 2)) if value.dim() else value


class _Fire(torch.autograd.Function):
    """Spikes, extremum and Hoyer-square of potentials ``m``; keeps ``u`` for the backward pass."""

    @staticmethod
    def forward(ctx: Any, m: Tensor, v: Tensor, given: Tensor | None, rule: _Rule) -> tuple[Tensor, Tensor, Tensor]:
        u = m / v.abs().to(m.dtype)
        x = u.clamp(0, 1)
        total = squares = h = torch.zeros((), dtype=torch.promote_types(m.dtype, torch.float32), device=m.device)
        extremum = given
        if given is None or rule.penalised:
            total, squares = _sums(x, given is None and rule.extremum == "channel")
            if extremum is None:
                extremum = torch.where(total > 0, squares / total, 1.0)
            if rule.penalised:
                total, squares = total.sum(), squares.sum()
                h = torch.where(squares > 0, total * total / squares, 0.0)
        assert extremum is not None
        spikes = torch.ge(u, _spread((rule.scale * extremum).to(u.dtype), u), out=torch.empty_like(u))
        spikes.add_(x, alpha=0)  # a comparison alone would turn NaN into silence
        ctx.save_for_backward(u, v, total, squares)
        ctx.rule = rule
        ctx.mark_non_differentiable(extremum)
        ctx.set_materialize_grads(False)
        return spikes, extremum, h

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        u, v, total, squares = ctx.saved_tensors
        rule: _Rule = ctx.rule
        g, _, g_h = grads
        inverse = (1 / v.abs()).to(u.dtype)
        g_m = g_v = None  # g_v: gradient times -v
        if g is not None:
            passed = _inside(g, u, 2 + 2 * torch.finfo(u.dtype).eps if rule.window == "wide" else 1)  # u = 2 is inside, u = 1 is not
            g_m = passed * (0.5 * inverse)
            g_v = 0.5 * (passed * u).sum() if ctx.needs_input_grad[1] else None
        if g_h is not None and rule.penalised:
            slope = torch.where(squares > 0, total / squares, 0.0)  # S / Q, the inverse of the extremum
            first = 2 * g_h * slope * inverse
            below = _inside((u * (-first * slope).to(u.dtype)).add_(first.to(u.dtype)), u, 1)
            g_m = below if g_m is None else g_m.add_(below)
            if rule.penalty == "normalised" and ctx.needs_input_grad[1]:
                through = (below * u).sum() * v.abs()
                g_v = through if g_v is None else g_v + through
        return g_m, None if g_v is None else (-g_v / v).to(v.dtype), None, None


def _inside(g: Tensor, u: Tensor, most: float) -> Tensor:
    """Return ``g`` where 0 < u < most, else 0."""
    return torch.ops.aten.hardtanh_backward(g, u, 0, most)
