"""``LeakyPeak``: leaky integrators that never fire, read out by the highest potential they reach.

    V_max = max over t >= 0 of V(t)        for the neuron of ``methods.nn.event_drive`` without a threshold; V = 0 without input

V is highest at rest (``V_max = 0``, no gradient), at an input spike, or between two where ``V = I``. With the maximum at ``t*`` the adjoint
of EventProp for an error ``e = dL/dV_max`` is, at an input spike at t < t*, with d = t* - t::

    lambda_V = -(e / tau_m) exp(-d/tau_m)        lambda_I = -(e / tau_m) K (exp(-d/tau_m) - exp(-d/tau_s)),  K = tau_m / (tau_m - tau_s)

and gradients are sampled as everywhere: ``dL/dw_ji -= tau_s lambda_I,j``, ``e_i = sum_j w_ji (lambda_V,j - lambda_I,j)``. A maximum at an
input spike moves with it: ``dV_max/dt_i = dV/dt`` just before (ours; the term is missing between spikes, where dV/dt = 0 at a maximum).
Kept for the backward pass are ``t*`` and that slope, two numbers for each output neuron.

Source: "Event-based backpropagation can compute exact gradients for spiking neural networks", Wunderlich, Pehle, Scientific Reports 11:12829,
2021, and its code's LI layer.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from methods.nn.event_drive import Constants, drive, in_order


class LeakyPeak(nn.Module):
    """Spike times ``[B, N, K]`` to the highest potentials ``[B, M]`` of integrators with ``weight [M, N]``."""

    def __init__(self, features_in: int, features_out: int, constants: Constants) -> None:
        """Make weights of zero."""
        super().__init__()
        self.constants = constants
        self.weight = nn.Parameter(torch.zeros(features_out, features_in))

    def forward(self, times: Tensor) -> Tensor:
        """Return the highest potentials."""
        return _Peak.apply(times.to(self.weight.dtype), self.weight, self.constants)[0]

    def moments(self, times: Tensor) -> Tensor:
        """Return when the potentials are highest, ``[B, M]``; -inf where they never rise above rest."""
        return _Peak.apply(times.to(self.weight.dtype), self.weight, self.constants)[1]


class _Peak(torch.autograd.Function):
    """The maximum, its place, and its gradient."""

    @staticmethod
    def forward(ctx: Any, times: Tensor, weight: Tensor, constants: Constants) -> tuple[Tensor, Tensor]:
        events = in_order(times)
        potential, current = drive(events, weight, constants)
        highest, moment, slope = highest_potential(events.times, potential, current, events.weights(weight).transpose(1, 2), constants)
        ctx.constants = constants
        ctx.save_for_backward(times, weight, moment, slope)
        ctx.mark_non_differentiable(moment)
        return highest, moment

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, error: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        times, weight, moment, slope = ctx.saved_tensors
        constants, events = ctx.constants, in_order(times)
        after = moment.unsqueeze(2) - events.times.unsqueeze(1)
        before = after > 0
        leak, _, response = constants.course(after.masked_fill(~before, 0))
        scale = (error / -constants.tau_m).unsqueeze(2) * before
        adjoint_v, adjoint_i = leak * scale, response * (scale * (constants.tau_m / constants.tau_s))
        for_times = None
        if ctx.needs_input_grad[0]:
            values = (events.weights(weight).transpose(1, 2) * (adjoint_v - adjoint_i)).sum(1)
            place = torch.searchsorted(events.times, moment).clamp_(max=events.times.shape[1] - 1)  # of the spike that moves it
            values.scatter_add_(1, place, error * slope)
            for_times = events.spread(values)
        return for_times, events.gathered(adjoint_i).mul_(-constants.tau_s), None


def highest_potential(
    times: Tensor, potential: Tensor, current: Tensor, weights: Tensor, constants: Constants
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the maximum, when it is (-inf: at rest) and dV/dt just before if that is at an input spike (else 0), all ``[B, M]``.

    ``times [B, S]``; ``potential``, ``current``, ``weights [B, M, S]`` right after the spikes, and of them.
    """
    ends = torch.cat([times[:, 1:], times.new_full((len(times), 1), math.inf)], 1).unsqueeze(1)
    rises = (current > potential) & (current > 0)
    rise = constants.peak(potential, torch.where(rises, current, 1)).masked_fill_(~rises, 0)
    inside = rises & (rise < ends - times.unsqueeze(1))
    at_peak = torch.where(inside, current * constants.decay(rise), -math.inf)  # where V = I
    top, place = torch.maximum(potential, at_peak).max(2, keepdim=True)
    within = inside.gather(2, place) & (at_peak.gather(2, place) >= potential.gather(2, place))
    moment = times.unsqueeze(1).expand_as(potential).gather(2, place) + torch.where(within, rise.gather(2, place), 0)
    slope = (current.gather(2, place) - weights.gather(2, place) - top) / constants.tau_m
    above = top > 0
    moment = moment.masked_fill(~above, -math.inf)
    return top.clamp(min=0).squeeze(2), moment.squeeze(2), slope.masked_fill(within | ~above, 0).squeeze(2)
