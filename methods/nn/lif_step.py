"""One step of the LIF family, in PyTorch's operations: the definition that every backend is measured by. Symbols: ``methods.nn.neuron``.

s, state = step(at_rest(now, v_init=0.0, refractory=0), now, leak, threshold, after, surrogate)
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from methods.nn.surrogate import Surrogate, spike

State = tuple[Tensor, ...]


def reset(u: Tensor, s: Tensor, threshold: Tensor | float, kind: str) -> Tensor:
    """Return the potential that is left of ``u`` after the spikes ``s``; ``kind`` is "hard", "soft" or "none"."""
    if kind == "hard":
        return u * (1 - s)
    return u - threshold * s if kind == "soft" else u


def at_rest(now: Tensor, v_init: float, refractory: int) -> State:
    """Return the state before the first step, of the shape of a step: the potential and, for a refractory neuron, steps of silence left."""
    v = torch.full_like(now, v_init)
    return (v, torch.zeros_like(now)) if refractory else (v,)


def step(
    state: State,
    now: Tensor,
    leak: Tensor | float,
    threshold: Tensor | float,
    after: Callable[[Tensor, Tensor], Tensor],
    surrogate: Surrogate,
    strict: bool = False,
    detach_reset: bool = True,
    refractory: int = 0,
) -> tuple[Tensor, State]:
    """Return the spikes ``[B, ...]`` and the state after a step with the current ``now``, gain included.

    ``after(u, s)`` is the potential after the spikes. While a neuron is silent its potential stays as the reset left it.
    """
    u = leak * state[0] + now
    s = spike(u - threshold, surrogate, strict)
    v = after(u, s.detach() if detach_reset else s)
    if not refractory:
        return s, (v,)
    count = state[1].detach()
    silent = count > 0
    s = torch.where(silent, 0.0, s)
    begun = torch.where(s.detach() > 0, float(refractory), 0.0).to(count.dtype)
    return s, (torch.where(silent, state[0], v), torch.where(silent, count - 1, begun))
