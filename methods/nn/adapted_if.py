"""Integrate-and-fire neurons with a threshold each that is no parameter, and whose potentials are dropped out in training.

For currents ``I[t]``, a threshold ``Vth`` per neuron and random ``mask[t]`` of 0 and 1 with equal probability::

    u = m[t-1] + I[t]     s[t] = 1[u > Vth]     m[t] = u (1 - s[t])                        in eval mode
                                                m[t] = 2 mask[t] u (1 - s[t])              in training mode

``Vth`` starts from U(0, 1). ``raise_thresholds`` (adaptive threshold adjustment) is for layers that fire where they should not. Source:
"SNN2ANN" (Tang et al., arXiv 2206.09449), by its official code.
"""

from __future__ import annotations

import torch
from torch import Tensor

from methods.nn.layout import like, settled
from methods.nn.neuron import LIF

BITS = 8  # time steps for which one random byte per neuron is enough


class AdaptedIF(LIF):
    """IF neurons ``[T, B, *shape]`` with the buffer ``threshold [*shape]``, hard reset, firing strictly above threshold.

    With ``membrane_dropout`` a layer in training mode loses each potential with probability 1/2 after every step and doubles the others;
    it then has no gradient, since the branch that it is for has none.
    """

    def __init__(self, shape: tuple[int, ...], membrane_dropout: bool = True) -> None:
        """Make neurons of ``shape`` (without T and B)."""
        super().__init__(1.0, 1.0, "hard", strict=True, learn=("threshold",), channels=shape)
        del self.threshold
        self.register_buffer("threshold", torch.rand(shape))
        self.membrane_dropout = membrane_dropout

    def forward(self, current: Tensor) -> Tensor:
        """Return the spikes ``[T, B, *shape]``."""
        return self._dropped(current) if self.training and self.membrane_dropout else super().forward(current)

    @torch.no_grad()
    def _dropped(self, current: Tensor) -> Tensor:
        current = settled(current)
        state = self.carried()
        m = state[0] if state else torch.zeros_like(current[0])
        threshold = torch.empty_like(current[0]).copy_(self.threshold)  # laid out as the currents, for speed
        spikes = like(current)
        for t, now in enumerate(current.unbind(0)):
            if t % BITS == 0:
                coins = _bytes(now)
            u = m + now
            torch.gt(u, threshold, out=spikes[t])
            u.addcmul_(u, spikes[t], value=-1)
            m = u.mul_(((coins >> (t % BITS)) & 1) << 1)
        self.carry(m)
        return spikes

    def raise_thresholds(self, step: Tensor) -> None:
        """Add the scalar ``step`` to all thresholds, in place."""
        self.threshold.add_(step)


def _bytes(now: Tensor) -> Tensor:
    """Return a random byte for every element, laid out as ``now``, which must be dense: 8 fair coins each, drawn 64 at a time."""
    drawn = torch.empty(-(-now.numel() // 8), dtype=torch.int64, device=now.device).random_(-(2**63), None)
    return drawn.view(torch.uint8).as_strided(now.shape, now.stride())
