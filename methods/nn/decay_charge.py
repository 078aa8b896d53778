"""Charging of neurons with a dynamic decay as one differentiable operation on sequences, by any scan of linear recurrences.

With the gate's ``z`` given (symbols: ``methods.nn.dynamic_decay``)::

    alpha = sigmoid(z)^(1/tau)      H[t] = alpha[t] H[t-1] + (1 - alpha[t]) X[t]      S = clip(round(H), 0, N)

    g[t]   = dL/dS[t] S'(H[t]) + alpha[t+1] g[t+1]                the reverse scan
    g_X    = (1 - alpha) g
    g_z[t] = g[t] (H[t-1] - X[t]) alpha[t] (1 - alpha[t]^tau) / tau      g_H0 = alpha[0] g[0]

Kept for the backward pass: X, alpha, H and the state before. Derivation: ours, the adjoint of the recurrence.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from methods.nn.rounded_spike import RoundedSpike


class Scanning(Protocol):
    """What computes the recurrence: ``methods.nn.scan.SCANS``, or the kernels of ``methods.nn.recurrence`` and ``recurrence_triton``."""

    def forward(self, a: Tensor, b: Tensor, state: Tensor | None) -> Tensor:
        """Return ``h[t] = a[t] h[t-1] + b[t]``."""

    def backward(self, a: Tensor, h: Tensor, state: Tensor | None, g: Tensor, need_a: bool) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Return the gradients of b, a and the state."""


def decay_of(z: Tensor, tau: float) -> Tensor:
    """Return ``sigmoid(z)^(1/tau)``, a new tensor; for tau = 1/2 and 1/4 by squaring."""
    s = z.sigmoid()
    if tau in (0.5, 0.25):
        s.mul_(s)
        return s.mul_(s) if tau == 0.25 else s
    return s if tau == 1 else s.pow_(1 / tau)


def charge(x: Tensor, z: Tensor, state: Tensor | None, tau: float, fire: RoundedSpike, scan: Scanning | Any) -> tuple[Tensor, Tensor]:
    """Return spikes and potentials ``[T, B, ...]`` of currents ``x`` and gate arguments ``z`` of that shape, ``state [B, ...]`` or None."""
    return _Charge.apply(x, z, state, tau, fire, scan)


class _Charge(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, z: Tensor, state: Tensor | None, tau: float, fire: RoundedSpike, scan: Any) -> tuple[Tensor, Tensor]:
        alpha = decay_of(z, tau)
        h = scan.forward(alpha, x - alpha * x, state)
        ctx.save_for_backward(x, alpha, h, state)
        ctx.settings = tau, fire, scan
        ctx.set_materialize_grads(False)
        return fire.value(h), h

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g_s: Tensor | None, g_h: Tensor | None) -> tuple[Tensor | None, ...]:
        x, alpha, h, state = ctx.saved_tensors
        tau, fire, scan = ctx.settings
        if g_s is None and g_h is None:
            return (None,) * 6
        g = g_h if g_s is None else g_s * fire.slope(h)
        if g_s is not None and g_h is not None:
            g += g_h
        g_b, g_alpha, g_state = scan.backward(alpha, h, state, g, True)
        g_z = g_alpha.addcmul_(g_b, x, value=-1).mul_(alpha)
        root = alpha.sqrt() if tau in (0.5, 0.25) else alpha.pow(tau)
        g_z.mul_((root.sqrt_() if tau == 0.25 else root).neg_().add_(1)).div_(tau)
        return g_b - alpha * g_b, g_z, g_state, None, None, None
