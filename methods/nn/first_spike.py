"""``FirstSpike``: neurons that fire once at most, their spike time in closed form and its derivatives too (Fast & Deep).

The neuron is that of ``methods.nn.event_drive``, never reset. Between two inputs V is known from V and I at the first, at ``t_0``, and
``V = theta`` can be solved for two ratios of the time constants (published: sums over the inputs so far, ``a = sum_i w_i exp(t_i/tau_s)``
and ``b``, with ``g_l (theta - E_l)`` for theta; here relative to ``t_0``, which shift invariance allows and no exponential overflows)::

    equal,  tau = tau_m = tau_s:     T = t_0 + tau (-V/I - W0(-(theta/I) exp(-V/I)))
    double, tau = tau_m = 2 tau_s:   T = t_0 + tau ln(2I / (b + x)),   b = V + I,   x = sqrt(b^2 - 4 I theta)

W0 is the principal branch of Lambert's function. The spike is the earliest T before the next input. With ``d = T - t_i`` and ``a`` the
current at T, derivatives are, for the inputs before T::

    equal:   dT/dw_i = -exp(-d/tau) d / (a (1 + W))          dT/dt_i = -w_i exp(-d/tau) (d - tau) / (tau a (1 + W))
    double:  dT/dw_i = f1 exp(-d/tau_s) - f2 exp(-d/tau)     dT/dt_i = w_i (f1 exp(-d/tau_s)/tau_s - f2 exp(-d/tau)/tau)
             f1 = (tau/a) (1 + theta/x)    f2 = tau/x        (x at T)

Kept for the backward pass: T, a, and ``1 + W`` or x. Grazing crossings, where ``a (1 + W)`` or x vanish, are held at ``GRAZING * theta``
(ours). Guard: where the gradient of a weight of a neuron exceeds ``guard``, that of all its weights is dropped.

Source: "Fast and energy-efficient neuromorphic deep learning with first-spike times", Goeltz, Kriener et al., Nature Machine Intelligence
3:823-835, 2021, and its code. Currents are in units of ``g_l``, and ``E_l = 0``.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from methods.nn.event_drive import Constants, climb, drive, in_order
from methods.nn.event_layer import EventLayer, EventLinear
from methods.nn.lambert import lambert_w0

GRAZING = 1e-3  # smallest a (1 + W) and x, in thresholds


class FirstSpike(EventLayer):
    """Input spikes ``[B, N, K]`` to the first spike of each neuron ``[B, M, 1]``, inf where there is none until ``until``."""

    def __init__(
        self,
        features_in: int,
        features_out: int,
        constants: Constants,
        threshold: float = 1.0,
        guard: float = math.inf,
        until: float = math.inf,
    ) -> None:
        """Make the layer; raise ValueError for time constants without a closed form or a threshold that is not positive."""
        super().__init__(EventLinear(features_in, features_out))
        if constants.tau_m not in (constants.tau_s, 2 * constants.tau_s):
            raise ValueError(f"tau_m must be tau_s or 2 tau_s for a closed form, not {constants.tau_m} with tau_s = {constants.tau_s}")
        if not threshold > 0:
            raise ValueError(f"the threshold must be positive, not {threshold}")
        self.constants, self.threshold, self.guard, self.until = constants, threshold, guard, until

    def respond(self, times: Tensor) -> Tensor:
        """Return the spike times of the neurons."""
        weight = self.synapse.weight
        return _First.apply(times.to(weight.dtype), weight, self.constants, self.threshold, self.guard, self.until)

    def extra_repr(self) -> str:
        """Return what ``print`` shows."""
        return f"tau_m={self.constants.tau_m:g}, tau_s={self.constants.tau_s:g}, threshold={self.threshold:g}, guard={self.guard:g}"


class _First(torch.autograd.Function):
    """Spike times and their derivatives."""

    @staticmethod
    def forward(ctx: Any, times: Tensor, weight: Tensor, constants: Constants, threshold: float, guard: float, until: float) -> Tensor:
        drivers = in_order(times)
        found = first_spikes(drivers.times, *drive(drivers, weight, constants), constants, threshold, until)
        ctx.constants, ctx.threshold, ctx.guard = constants, threshold, guard
        fired = found[0].unsqueeze(2)
        ctx.save_for_backward(times, weight, fired, *found[1:])
        return fired

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, errors: Tensor) -> tuple[Tensor | None, ...]:
        times, weight, fired, a, branch = ctx.saved_tensors
        drivers = in_order(times)
        errors = torch.where(fired.isfinite(), errors, 0)
        d = fired - drivers.times.unsqueeze(1)
        causal = (d > 0) & fired.isfinite()
        by_weight, by_time = derivatives(d.masked_fill_(~causal, 0), a.unsqueeze(2), branch.unsqueeze(2), ctx.constants, ctx.threshold)
        errors = errors * causal
        for_weight = for_times = None
        if ctx.needs_input_grad[1]:
            for_weight = drivers.gathered(by_weight.mul_(errors))
            for_weight = torch.where(for_weight.abs().amax(1, keepdim=True) <= ctx.guard, for_weight, 0)
        if ctx.needs_input_grad[0]:
            for_times = drivers.spread(by_time.mul_(errors).mul_(drivers.weights(weight)).sum(1))
        return for_times, for_weight, None, None, None, None


def first_spikes(
    times: Tensor, potential: Tensor, current: Tensor, constants: Constants, threshold: float, until: float = math.inf
) -> tuple[Tensor, Tensor, Tensor]:
    """Return T (inf: no spike), a, and ``1 + W`` or x ``[B, M]``, of V and I ``[B, M, S]`` right after inputs at ``times [B, S]``."""
    starts = times.unsqueeze(1).expand_as(potential)
    ends = torch.cat([starts[:, :, 1:], torch.full_like(starts[:, :, :1], until)], 2).clamp_(max=until)
    hit = climb(potential, current, ends - starts, constants, threshold) > -math.inf
    fires = hit.any(2)
    place = hit.to(torch.uint8).argmax(2, keepdim=True)
    v, i, t = (part.gather(2, place).squeeze(2)[fires] for part in (potential, current, starts))
    d, branch = (_equal if constants.tau_m == constants.tau_s else _double)(v, i, constants, threshold)
    found = potential.new_full((3, *fires.shape), math.inf)
    found[:, fires] = torch.stack([t + d.clamp(min=0), i * constants.decay(d), branch])
    return found[0], found[1], found[2]


def _equal(v: Tensor, i: Tensor, constants: Constants, threshold: float) -> tuple[Tensor, Tensor]:
    """Return ``T - t_0`` and ``1 + W`` of neurons at ``v``, ``i`` for equal time constants."""
    # A neuron that reaches the threshold has an argument above -1/e; rounding must not say otherwise.
    w = lambert_w0((-(threshold / i) * torch.exp(-v / i)).clamp(min=-math.exp(-1)))
    return constants.tau_m * (-v / i - w), 1 + w


def _double(v: Tensor, i: Tensor, constants: Constants, threshold: float) -> tuple[Tensor, Tensor]:
    """Return ``T - t_0`` and x at T of neurons at ``v``, ``i`` where ``tau_m = 2 tau_s``."""
    b = v + i
    x = (b * b - 4 * i * threshold).clamp(min=0).sqrt()
    grown = 2 * i / (b + x)  # exp(d/tau)
    return constants.tau_m * grown.log(), x / grown


def derivatives(d: Tensor, a: Tensor, branch: Tensor, constants: Constants, threshold: float) -> tuple[Tensor, Tensor]:
    """Return ``dT/dw`` and ``dT/dt / w`` of inputs a time ``d [B, M, S]`` before T; ``a`` and ``branch [B, M, 1]`` as found at T."""
    tau, tau_s = constants.tau_m, constants.tau_s
    leak, decay, _ = constants.course(d)
    if tau == tau_s:
        scale = decay / (a * branch).clamp(min=GRAZING * threshold)
        return -d * scale, (tau - d) / tau * scale
    x = branch.clamp(min=GRAZING * threshold)
    f1, f2 = tau / a * (1 + threshold / x), tau / x
    return f1 * decay - f2 * leak, f1 / tau_s * decay - f2 / tau * leak
