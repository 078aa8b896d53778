"""GLIF: leaky integrate-and-fire neurons whose leak, input and reset each mix two kinds by a learnt gate, with all constants learnt.

Everything on the right is a sigmoid of a parameter, so lies in (0, 1): gates ``al be ga [C]``; constants ``tau vth leak revth [C]``; the
conductance ``g [T, C]``, which has a value per time step. For currents ``x [T, B, C, ...]``, with u and s zero before the first step::

    u[t] = (1 - al (1 - tau)) u[t-1] (1 - ga s[t-1])    leak: al = 1 multiplies by tau; reset: ga = 1 is to zero
         - (1 - al) leak                                leak: al = 0 subtracts
         + x[t] (1 - be (1 - g[t]))                     input: be = 1 weighs it by g[t], be = 0 does not
         - (1 - ga) revth s[t-1]                        reset: ga = 0 subtracts revth
    s[t] = 1[u[t] > vth],   ds/du = 1[|u - vth| < 1/2]

``al, be, ga`` of 0 and 1 are eight plain LIF neurons; (1, 0, 1) is the usual one. No gradient is kept out of the reset. A gate is used as
it is, or with ``hard`` as ``1[gate > 1/2]`` with the gradient of the gate itself.

Backends: "reference" is the loop below; "compiled" the same step through ``methods.nn.compiled``, with the same spikes bit for bit.
Compiling takes seconds per shape, so "auto" does so for what is called thousands of times: in training mode, where gradients are wanted,
for batches as large as the largest so far. All else, so the remainder of an epoch and evaluation, takes the loop.

Source: "GLIF: A Unified Gated Leaky Integrate-and-Fire Neuron for Spiking Neural Networks" (Yao et al., NeurIPS 2022).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, NamedTuple, cast, get_args

import torch
from torch import Tensor, nn

from methods.nn.compiled import Compiled, State, why_not
from methods.nn.stepping import Stateful
from methods.nn.surrogate import Rectangle, Surrogate, spike

Backend = Literal["auto", "reference", "compiled"]
BINS = 10  # of a histogram


@dataclass(frozen=True)
class Start:
    """Values, not logits, that a layer starts from. Defaults: those for CIFAR and ImageNet.

    ``gates``: arguments ``p`` of (al, be, ga), which start at ``1/2 + (p - 1/2) / 2``; None: random, of logits uniform in (-0.1, 0.1).
    ``revth`` starts as ``vth``.
    """

    tau: float = 0.25
    vth: float = 0.5
    leak: float = 0.0625
    g: float = 0.5
    gates: tuple[float, float, float] | None = (0.6, 0.8, 0.6)

    def __post_init__(self) -> None:
        """Raise ValueError for a value that no sigmoid takes."""
        for name, value in [(name, getattr(self, name)) for name in ("tau", "vth", "leak", "g")]:
            if not 0 < value < 1:
                raise ValueError(f"{name} starts between 0 and 1, both excluded, not at {value}")
        if self.gates is not None and not all(0 <= p <= 1 for p in self.gates):
            raise ValueError(f"gate arguments are between 0 and 1, not {self.gates}")


class Values(NamedTuple):
    """Gates and constants of a layer, each ``[C]``, ``g [T, C]``; C is 1 where a layer shares them."""

    al: Tensor
    be: Tensor
    ga: Tensor
    tau: Tensor
    vth: Tensor
    leak: Tensor
    revth: Tensor
    g: Tensor


class GLIF(Stateful):
    """A layer of gated LIF neurons for exactly ``steps`` time steps, ``[T, B, C, ...] -> [T, B, C, ...]``.

    ``channels``: gates and constants per channel; None: one of each for the layer (``g`` has a value per step in both). Parameters are the
    logits ``gates [3, C]``, ``constants [4, C]`` (tau, vth, leak, revth) and ``conductance [T, C]``: ``(7 + T) C`` numbers. ``used`` is the
    backend of the last call, ``trained_with`` that of full batches in training. Raises ValueError for an unknown backend, a ``steps`` below
    1, and currents of another number of steps or channels (inside ``stepping``: of more steps in all).
    """

    spike_kind = "binary"

    def __init__(
        self,
        steps: int,
        channels: int | None = None,
        start: Start = Start(),
        hard: bool = False,
        surrogate: Surrogate = Rectangle(),  # noqa: B008 - a frozen dataclass
        strict: bool = True,
        backend: Backend = "auto",
    ) -> None:
        """Make a layer; random gates are drawn here."""
        super().__init__()
        if backend not in get_args(Backend):
            raise ValueError(f"backend {backend!r} is unknown; allowed: {', '.join(get_args(Backend))}")
        if steps < 1:
            raise ValueError(f"a GLIF is made for 1 time step or more, not {steps}")
        self.steps, self.channels, self.hard, self.backend = steps, channels, hard, backend
        self.surrogate, self.strict = surrogate, strict
        self.used: str | None = None
        self.trained_with: str | None = None
        self._largest = 0  # numbers in a current that was compiled for
        count = channels or 1
        self.gates = nn.Parameter(torch.empty(3, count).uniform_(-0.1, 0.1))
        if start.gates is not None:
            with torch.no_grad():
                self.gates.copy_((0.5 + (torch.tensor(start.gates)[:, None] - 0.5) / 2).logit().expand(3, count))
        constants = torch.tensor([start.tau, start.vth, start.leak, start.vth]).logit()
        self.constants = nn.Parameter(constants[:, None].repeat(1, count))
        self.conductance = nn.Parameter(torch.full((steps, count), start.g).logit())

    def values(self) -> Values:
        """Return gates and constants as the neurons use them."""
        soft = self.gates.sigmoid()
        gates = _Binarised.apply(soft) if self.hard else soft
        return Values(*gates.unbind(0), *self.constants.sigmoid().unbind(0), self.conductance.sigmoid())

    def forward(self, current: Tensor) -> Tensor:
        """Return the spikes of currents of the same shape."""
        state, start, parameters, gains = self._prepared(current)
        compiled = self.backend == "compiled" or (self.backend == "auto" and self._worth_compiling(current))
        self.used = "compiled" if compiled else "reference"
        if self.training and (compiled or self.trained_with is None):
            self.trained_with = self.used
        if compiled:
            spikes, state = _compiled(self.surrogate, self.strict)(current, state, parameters, (gains,))
        else:
            trains, states = self._loop(current, state, parameters, gains)
            spikes, state = torch.stack(trains), states[-1]
        self.carry(*state, torch.tensor(start + len(current)))
        return spikes.to(current.dtype)

    def potentials(self, current: Tensor) -> Tensor:
        """Return the membrane potentials ``u [T, B, C, ...]`` before the reset, by the reference loop."""
        state, _, parameters, gains = self._prepared(current)
        return torch.stack([u for u, _ in self._loop(current, state, parameters, gains)[1]])

    def _prepared(self, current: Tensor) -> tuple[State, int, tuple[Tensor, ...], Tensor]:
        """Return the state before ``current``, the index of its first step, what a step needs of parameters, and the gain of each step."""
        if self.channels is not None and (current.dim() < 3 or current.shape[2] != self.channels):
            raise ValueError(f"a current [T, B, {self.channels}, ...] is needed for channels={self.channels}, not {list(current.shape)}")
        carried = self.carried()
        start = int(carried[2]) if carried else 0
        stop = start + len(current)
        if stop > self.steps or (stop < self.steps and not self._stepping):
            told = f"cannot run step {stop}" if self._stepping else f"got {len(current)}"
            raise ValueError(f"this GLIF was made for {self.steps} time steps, as its conductance g has a value for each, and {told}")
        v = self.values()
        shape = (-1, *[1] * (current.dim() - 3))
        keep, linear, drop = 1 - v.al * (1 - v.tau), (1 - v.al) * v.leak, (1 - v.ga) * v.revth
        parameters = tuple(part.view(shape) for part in (keep, v.ga, linear, drop, v.vth))
        gains = (1 - v.be * (1 - v.g[start:stop])).view(-1, *parameters[0].shape)
        if carried:
            return carried[:2], start, parameters, gains
        rest = torch.zeros_like(current[0], dtype=torch.promote_types(current.dtype, v.tau.dtype))
        return (rest, rest), start, parameters, gains

    def _worth_compiling(self, current: Tensor) -> bool:
        """Return whether to compile for ``current``, by the rule of "auto"."""
        often = self.training and torch.is_grad_enabled() and not self._stepping and current.numel() >= self._largest
        if not often or type(current) is not Tensor or why_not(current.device.type) is not None:
            return False
        self._largest = current.numel()
        return True

    def _loop(self, current: Tensor, state: State, parameters: State, gains: Tensor) -> tuple[list[Tensor], list[State]]:
        """Return spikes and state of every step."""
        step = step_function(self.surrogate, self.strict)
        spikes, states = [], []
        for now, gain in zip(current.unbind(0), gains.unbind(0), strict=True):
            s, state = step(state, now, *parameters, gain)
            spikes.append(s)
            states.append(state)
        return spikes, states

    def extra_repr(self) -> str:
        """Return the settings for printing."""
        return f"steps={self.steps}, channels={self.channels}, hard={self.hard}"


@lru_cache(maxsize=64)
def step_function(surrogate: Surrogate, strict: bool) -> Callable[..., tuple[Tensor, State]]:
    """Return the step of GLIF for ``methods.nn.compiled``: ``step((u, s), x, keep, ga, linear, drop, vth, gain) -> (s, (u, s))``.

    What depends on parameters alone is computed once for all steps: ``keep = 1 - al (1 - tau)``, ``linear = (1 - al) leak``,
    ``drop = (1 - ga) revth``, ``gain = 1 - be (1 - g[t])``.
    """

    def step(
        state: State, now: Tensor, keep: Tensor, ga: Tensor, linear: Tensor, drop: Tensor, vth: Tensor, gain: Tensor
    ) -> tuple[Tensor, State]:
        u, s = state
        u = keep * u * (1 - ga * s) - linear + now * gain - drop * s
        s = spike(u - vth, surrogate, strict)
        return s, (u, s)

    return step


@lru_cache(maxsize=64)
def _compiled(surrogate: Surrogate, strict: bool) -> Compiled:
    """Return the compiled step, one for all layers."""
    return Compiled(step_function(surrogate, strict))


class _Binarised(torch.autograd.Function):
    """``1[x > 1/2]`` with the gradient of ``x`` (straight through)."""

    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        return (x > 0.5).to(x.dtype)

    @staticmethod
    def backward(ctx: object, *grads: Tensor) -> Tensor:
        return grads[0]


def glifs(net: nn.Module) -> list[GLIF]:
    """Return the gated neurons of a network."""
    return [module for module in net.modules() if isinstance(module, GLIF)]


@torch.no_grad()
def histograms(net: nn.Module) -> dict[str, list[list[int]]]:
    """Return for each gate and constant, layer by layer, how many values lie in each tenth of 0..1; empty without gated neurons."""
    layers = [neuron.values()._asdict() for neuron in glifs(net)]
    if not layers:
        return {}

    def count(value: Tensor) -> list[int]:
        return cast(list[int], torch.histc(value.float().cpu(), BINS, 0, 1).long().tolist())

    return {name: [count(layer[name]) for layer in layers] for name in Values._fields}
