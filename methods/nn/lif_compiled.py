"""The step of the LIF family as the compiled backend takes it: ``methods.nn.lif_step`` with its settings closed over."""

from __future__ import annotations

from functools import lru_cache

from torch import Tensor

from methods.nn import lif_step
from methods.nn.compiled import Compiled, State
from methods.nn.surrogate import Surrogate


@lru_cache(maxsize=256)
def compiled(
    leak: float | None,
    threshold: float | None,
    reset: str,
    detach_reset: bool,
    surrogate: Surrogate,
    strict: bool,
    scale_input: bool,
    refractory: int = 0,
) -> Compiled:
    """Return the compiled LIF of these settings, one for all layers that have them.

    A ``leak`` or ``threshold`` of None is learnt: a tensor that is passed as a parameter, in this order. The surrogate must be hashable.
    """

    def step(state: State, now: Tensor, *learnt: Tensor) -> tuple[Tensor, State]:
        beta = learnt[0] if leak is None else leak
        theta = learnt[-1] if threshold is None else threshold
        now = (1 - beta) * now if scale_input else now

        def after(u: Tensor, s: Tensor) -> Tensor:
            return lif_step.reset(u, s, theta, reset)

        return lif_step.step(state, now, beta, theta, after, surrogate, strict, detach_reset, refractory)

    return Compiled(step)
