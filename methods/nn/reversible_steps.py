"""Back-propagation through T steps of coupled levels whose states can be recovered from those of the step after.

Step t (from 0) takes the states ``V_l`` of L levels from ``t-1`` to ``t``, in the order l = 0 ... L-1, nothing before the first step::

    V_l[t] = F_l,t(V_{l-1}[t], V_{l+1}[t-1]) + alpha_l,t * V_l[t-1]            V_{-1}[t] = x[t]
    V_l[t-1] = (V_l[t] - F_l,t(V_{l-1}[t], V_{l+1}[t-1])) / alpha_l,t          in the order l = L-1 ... 0
    loss = sum over t of  loss_t(V[t])

``ReversibleSteps`` is one function over all steps. It keeps x and the states after the last step; backward walks from the last step to the
first, and at each level computes F again with a graph of its own, sends the gradient ``G_l`` of ``V_l[t]`` through it, recovers
``V_l[t-1]`` and passes ``alpha * G_l`` on to it. The losses are within the function, so that no step leaves anything for backward: memory
is that of one level, whatever T.

An error of ``V_l[t]`` is divided by alpha at each step back: it grows like ``|alpha|^-T``, and a potential that crosses a threshold by it
changes a spike. So the states may be kept in double precision (``wide``), whatever F computes in: few numbers, as only those after the
last step are kept, and at T = 16 and alpha = 0.45 the difference between errors of 0.04 and of 1e-10 (float32, random weights).

Source: "High-Performance Temporal Reversible Spiking Neural Networks" (Hu et al., ICML 2024). Its code is a function per step, which keeps
the states of every step; a function over all steps, and losses within it, are ours.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

Gradients = dict[nn.Parameter, Tensor]


class Level(Protocol):
    """What one level does in one step: ``F`` as a call, and ``alpha [C]``, None in the first step."""

    alpha: nn.Parameter | None

    def __call__(self, below: Tensor, above: Tensor | None) -> Tensor:
        """Return ``F(V_{l-1}[t], V_{l+1}[t-1])``; ``above`` is None in the first step and for the last level."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """Return all parameters of the level, alpha included."""


class Levels(Protocol):
    """A network of such levels."""

    steps: Sequence[Sequence[Level]]  # [T][L]
    wide: bool  # whether states are kept in double precision

    def input_at(self, x: Tensor, t: int) -> Tensor:
        """Return ``x[t]``, the input of step t, a view of all that there is."""

    def loss_at(self, t: int, states: Sequence[Tensor]) -> Tensor | None:
        """Return ``loss_t(V[t])``, a number; None where there is none."""

    def loss_parameters(self, t: int) -> Sequence[nn.Parameter]:
        """Return the parameters that ``loss_at`` has at step t and that take a gradient."""

    def modules(self) -> Iterator[nn.Module]:
        """Return all modules, whose batch normalisations must not count what is computed again."""


class ReversibleSteps(torch.autograd.Function):
    """``(levels, x, *parameters) -> loss``; ``parameters`` are those that take a gradient, of levels and losses."""

    @staticmethod
    def forward(ctx: Any, levels: Levels, x: Tensor, *parameters: nn.Parameter) -> Tensor:
        """Run all steps."""
        ctx.levels, ctx.precision = levels, _ambient(x.device.type)
        total, states = None, None
        with precision(*ctx.precision):
            for t in range(len(levels.steps)):
                states = advance(levels.steps[t], levels.input_at(x, t), states, levels.wide)
                loss = levels.loss_at(t, [_narrow(state, x) for state in states])
                if loss is not None:
                    total = loss if total is None else total + loss
        ctx.save_for_backward(x, *states, *parameters)  # parameters: so that a change of them in between is noticed
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Walk back; see the module's docstring."""
        levels, (x, *saved) = ctx.levels, ctx.saved_tensors
        depth = len(levels.steps[0])
        states, parameters = saved[:depth], saved[depth:]
        g_x = torch.zeros_like(x) if ctx.needs_input_grad[1] else None
        found: Gradients = {}
        g_states: list[Tensor | None] = [None] * depth
        with precision(*ctx.precision), still_statistics(levels.modules()):
            for t in reversed(range(len(levels.steps))):
                _through_loss(levels, t, [_narrow(state, x) for state in states], grads[0], g_states, found)
                states, g_states = _through_step(levels, t, x, states, g_x, g_states, found)
        return None, g_x, *(found.get(parameter) for parameter in parameters)


def advance(levels: Sequence[Level], given: Tensor, states: Sequence[Tensor] | None, wide: bool = False) -> list[Tensor]:
    """Return the states after one step with input ``given``; ``states`` before it, None before the first.

    They are in double precision, or in that of ``given``, single at least.
    """
    found: list[Tensor] = []
    for number, level in enumerate(levels):
        below = _narrow(found[-1], given) if found else given
        above = None if states is None else _above(states, number)
        v = level(below, None if above is None else _narrow(above, given))
        v = v.to(torch.float64 if wide else _single(v))
        found.append(v if states is None else torch.addcmul(v, _spread(level.alpha).to(v.dtype), states[number]))
    return found


@torch.no_grad()
def retreat(levels: Sequence[Level], given: Tensor, states: Sequence[Tensor]) -> list[Tensor]:
    """Return the states before one step, not the first, recovered from those after it; call it with still statistics."""
    found: list[Any] = [None] * len(states)
    for number, level in reversed(list(enumerate(levels))):
        below, above = _narrow(states[number - 1], given) if number else given, _above(found, number)
        v = level(below, None if above is None else _narrow(above, given))
        found[number] = _before(level, states[number], v)
    return found


def _before(level: Level, state: Tensor, v: Tensor) -> Tensor:
    """Return the state before a step from that after it and ``v``, what was added."""
    return (state - v.detach().to(state.dtype)) / _spread(level.alpha).detach().to(state.dtype)


def _single(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)


def _narrow(state: Tensor, given: Tensor) -> Tensor:
    """Return a state in the precision of what is ``given`` to the first level, single at least: that of the other levels."""
    return state.to(_single(given))


def _above(states: Sequence[Tensor | None], number: int) -> Tensor | None:
    return states[number + 1] if number + 1 < len(states) else None


def _spread(alpha: Tensor | None) -> Tensor:
    """Return ``alpha [C]`` as it meets ``[T, B, C, H, W]``."""
    assert alpha is not None
    return alpha[:, None, None]


def _through_loss(levels: Levels, t: int, states: Sequence[Tensor], g: Tensor, g_states: list[Tensor | None], found: Gradients) -> None:
    """Add the gradients of ``g * loss_t`` to those of the states and parameters."""
    with torch.enable_grad():
        leaves = [state.detach().requires_grad_() for state in states]
        loss = levels.loss_at(t, leaves)
    if loss is None:
        return
    parameters = levels.loss_parameters(t)
    slopes = torch.autograd.grad(loss, (*leaves, *parameters), g, allow_unused=True)
    for number, slope in enumerate(slopes[: len(states)]):
        g_states[number] = _sum(g_states[number], slope)
    _collect(found, parameters, slopes[len(states) :])


def _through_step(
    levels: Levels, t: int, x: Tensor, states: Sequence[Tensor], g_x: Tensor | None, g_states: list[Tensor | None], found: Gradients
) -> tuple[list[Tensor], list[Tensor | None]]:
    """Return ``V[t-1]`` and its gradients; add those of x and parameters to ``g_x`` and ``found``."""
    depth = len(states)
    before: list[Any] = [None] * depth
    g_before: list[Tensor | None] = [None] * depth
    for number, level in reversed(list(enumerate(levels.steps[t]))):
        g = g_states[number]
        above = _above(before, number)
        below = (_narrow(states[number - 1], x) if number else levels.input_at(x, t)).detach()
        below.requires_grad_(number > 0 or g_x is not None)
        above = None if above is None else _narrow(above, x).detach().requires_grad_()
        with torch.enable_grad():
            v = level(below, above)
            v = v.to(_single(v))
        if g is not None:
            parameters = [p for p in level.parameters() if p.requires_grad and p is not level.alpha]
            leaves = [leaf for leaf in (below, above) if leaf is not None and leaf.requires_grad]
            slopes = list(torch.autograd.grad(v, (*leaves, *parameters), g, allow_unused=True))
            if number:
                g_states[number - 1] = _sum(g_states[number - 1], slopes.pop(0))
            elif g_x is not None:
                slope = slopes.pop(0)
                levels.input_at(g_x, t).add_(0 if slope is None else slope)
            if above is not None:
                g_before[number + 1] = _sum(g_before[number + 1], slopes.pop(0))
            _collect(found, parameters, slopes)
        if t:
            alpha = level.alpha
            before[number] = _before(level, states[number], v)
            if g is not None:
                g_before[number] = _sum(g_before[number], g * _spread(alpha).detach())
                if alpha.requires_grad:
                    _collect(found, [alpha], [(g * before[number].to(g.dtype)).sum((0, 1, 3, 4))])
    return before, g_before


def _sum(one: Tensor | None, two: Tensor | None) -> Tensor | None:
    return two if one is None else one if two is None else one + two


def _collect(found: Gradients, parameters: Sequence[nn.Parameter], slopes: Sequence[Tensor | None]) -> None:
    for parameter, slope in zip(parameters, slopes, strict=True):
        if slope is not None:
            found[parameter] = found[parameter] + slope if parameter in found else slope


@contextmanager
def still_statistics(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Let batch normalisations normalise as before, by the batch in training, and leave their running statistics as they are."""
    norms = [module for module in modules if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.track_running_stats]
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True


def _ambient(device: str) -> tuple[str, torch.dtype, bool]:
    return device, torch.get_autocast_dtype(device), torch.is_autocast_enabled(device)


def precision(device: str, dtype: torch.dtype, enabled: bool) -> torch.autocast:
    """Return a context of that mixed precision which keeps no copies of weights: one made without gradients has none to give later."""
    return torch.autocast(device, dtype=dtype, enabled=enabled, cache_enabled=False)
