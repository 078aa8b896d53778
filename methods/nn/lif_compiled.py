"""The step of the LIF family as a function, for the compiled backend. Symbols and equations: ``methods.nn.neuron``."""

from __future__ import annotations

from functools import lru_cache

from torch import Tensor

from methods.nn.compiled import Compiled, State
from methods.nn.surrogate import Surrogate, spike


@lru_cache(maxsize=256)
def compiled(
    leak: float | None, threshold: float, reset: str, detach_reset: bool, surrogate: Surrogate, strict: bool, scale_input: bool
) -> Compiled:
    """Return the compiled LIF of these settings, one for all layers that have them.

    A ``leak`` of None is learnt: a tensor that is passed as the only parameter. The surrogate must be hashable.
    """

    def step(state: State, now: Tensor, *learnt: Tensor) -> tuple[Tensor, State]:
        (v,) = state
        beta = learnt[0] if leak is None else leak
        u = beta * v + ((1 - beta) * now if scale_input else now)
        s = spike(u - threshold, surrogate, strict)
        r = s.detach() if detach_reset else s
        if reset == "hard":
            return s, (u * (1 - r),)
        return s, (u - threshold * r if reset == "soft" else u,)

    return Compiled(step)
