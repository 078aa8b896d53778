"""The leaky integrate-and-fire family. One class, one set of symbols.

For input current ``I[t]`` of shape ``[T, B, ...]`` (``v`` starts at ``v_init``)::

    u[t] = leak * v[t-1] + gain * I[t]        gain = 1, or 1 - leak with scale_input
    s[t] = H(u[t] - threshold)                >= threshold, or > with strict
    v[t] = u[t] * (1 - s[t])                  reset "hard" (to zero)
         = u[t] - threshold * s[t]            reset "soft" (by subtraction)
         = u[t]                               reset "none"

``leak = 1`` is the integrate-and-fire neuron. Source: STBP (Wu et al. 2018), in the three-stage form.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from methods.nn.stepping import Stateful
from methods.nn.surrogate import Surrogate, Triangle, spike

Reset = Literal["hard", "soft", "none"]


class LIF(Stateful):
    """Leaky integrate-and-fire neuron; see the module's docstring for the symbols.

    ``detach_reset`` keeps gradients out of the reset. ``learnable_leak`` makes the leak one parameter per layer,
    ``leak = 1 - sigmoid(w)`` (PLIF). Raises ValueError for an unknown reset.
    """

    spike_kind = "binary"

    def __init__(
        self,
        leak: float = 0.5,
        threshold: float = 1.0,
        reset: Reset = "hard",
        detach_reset: bool = True,
        surrogate: Surrogate = Triangle(),  # noqa: B008 - a frozen dataclass
        strict: bool = False,
        scale_input: bool = False,
        learnable_leak: bool = False,
        v_init: float = 0.0,
    ) -> None:
        """Make a layer of neurons of any shape."""
        super().__init__()
        if reset not in ("hard", "soft", "none"):
            raise ValueError(f"reset {reset!r} is unknown; allowed: hard, soft, none")
        self.threshold, self.reset, self.detach_reset, self.v_init = threshold, reset, detach_reset, v_init
        self.surrogate, self.strict, self.scale_input = surrogate, strict, scale_input
        self._leak = leak
        if learnable_leak:
            self.leak_logit = nn.Parameter(torch.tensor(math.log((1 - leak) / leak)))

    @property
    def leak(self) -> Tensor | float:
        """Fraction of the membrane potential that is left after a step."""
        return 1 - torch.sigmoid(self.leak_logit) if hasattr(self, "leak_logit") else self._leak

    def forward(self, current: Tensor) -> Tensor:
        """Return the spikes ``[T, B, ...]`` of a current of the same shape."""
        leak = self.leak
        if self.scale_input:
            current = (1 - leak) * current
        state = self.carried()
        v = state[0] if state else torch.full_like(current[0], self.v_init)
        spikes = []
        for now in current.unbind(0):  # indexing by t would make the backward pass quadratic in T
            u = leak * v + now
            s = spike(u - self.threshold, self.surrogate, self.strict)
            v = self._after(u, s.detach() if self.detach_reset else s)
            spikes.append(s)
        self.carry(v)
        return torch.stack(spikes)

    def _after(self, u: Tensor, s: Tensor) -> Tensor:
        if self.reset == "hard":
            return u * (1 - s)
        return u - self.threshold * s if self.reset == "soft" else u

    def extra_repr(self) -> str:
        """Return the settings for printing."""
        leak = self.leak.item() if isinstance(self.leak, Tensor) else self.leak
        return f"leak={leak:g}, threshold={self.threshold:g}, reset={self.reset}"


class ReLU(nn.ReLU):
    """The neuron of a non-spiking network: what a spiking layer is compared with."""

    spike_kind = "none"
