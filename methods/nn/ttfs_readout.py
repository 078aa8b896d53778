"""``TtfsReadout``: a linear read-out whose membrane potential is the answer; it does not fire."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from methods.nn.time_code import TimeCode
from methods.nn.ttfs_neuron import Coded


class TtfsReadout(Coded):
    """``y = W x + b`` on numbers; in mode "spikes" the potentials ``[T, B, ...]`` after each step.

    They are the bias alone until window ``opens`` and final from window ``window`` on (``methods.nn.ttfs_neuron``); between::

        u = u + kappa(t) W s[g]
    """

    def __init__(self, synapse: nn.Conv2d | nn.Linear, code: TimeCode) -> None:
        """Read through ``synapse``, whose bias becomes that of the membrane."""
        super().__init__(code)
        self.synapse, self.bias = synapse, synapse.bias
        synapse.bias = None

    def forward(self, x: Tensor) -> Tensor:
        """Return the answers to ``[T, B, ...]``."""
        current = self.synapse(x)
        space = current.dim() - 3
        if self.mode != "spikes":
            return self.biased(current, space)
        state, start = self.carried(), self.now()
        u = state[1] if state else self.biased(torch.zeros_like(current[0]), space)
        kernel, levels = self.code.numbers(u), self.code.levels
        potentials = []
        for i, now in enumerate(current):
            window, t = divmod(start + i, levels)
            if self.opens <= window < self.window:
                u = torch.add(u, now, alpha=kernel[t])
            potentials.append(u)
        self.advance(len(current), u)
        return torch.stack(potentials)
