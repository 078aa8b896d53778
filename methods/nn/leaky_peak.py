"""``LeakyPeak``: leaky integrators that never fire, read out by the highest potential they reach.

    V_max = max over t >= 0 of V(t)        for the neuron of ``methods.nn.event_drive`` without a threshold; V = 0 without input

V is highest at rest (``V_max = 0``, no gradient), at an input spike, or between two where ``V = I``. With the maximum at ``t*`` the adjoint
of EventProp for an error ``e = dL/dV_max`` is, at an input spike at t < t*, with d = t* - t::

    lambda_V = -(e / tau_m) exp(-d/tau_m)        lambda_I = -(e / tau_m) K (exp(-d/tau_m) - exp(-d/tau_s)),  K = tau_m / (tau_m - tau_s)

and gradients are sampled as everywhere: ``dL/dw_ji -= tau_s lambda_I,j``, ``e_i = sum_j w_ji (lambda_V,j - lambda_I,j)``. A maximum at an
input spike moves with it: ``dV_max/dt_i = dV/dt`` just before (ours; the term is missing between spikes, where dV/dt = 0 at a maximum).
Kept for the backward pass are ``t*`` and that slope, two numbers for each output neuron.

Source: "Event-based backpropagation can compute exact gradients for spiking neural networks", Wunderlich, Pehle, Scientific Reports
11:12829, 2021, and its code's LI layer.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from methods.nn.event_drive import Constants, Drivers, drive, in_order
from methods.nn.event_layer import EventLayer, EventLinear


class LeakyPeak(EventLayer):
    """Spike times ``[B, N, K]`` to the highest potentials ``[B, M]`` that integrators reach in ``[0, until]``."""

    spiking = False

    def __init__(self, features_in: int, features_out: int, constants: Constants, until: float = math.inf) -> None:
        """Make the layer."""
        super().__init__(EventLinear(features_in, features_out))
        self.constants, self.until = constants, until

    def respond(self, times: Tensor) -> Tensor:
        """Return the highest potentials."""
        weight = self.synapse.weight
        return _Peak.apply(times.to(weight.dtype), weight, self.constants, self.until)

    @torch.no_grad()
    def so_far(self, times: Tensor, instants: Tensor) -> Tensor:
        """Return the highest potentials ``[T, B, M]`` that ``times [B, N, K]`` lead to, each until one of ``instants [T]``."""
        weight = self.synapse.weight
        drivers = in_order(times.to(weight.dtype))
        course = drivers, *drive(drivers, weight, self.constants), weight, self.constants
        return torch.stack([highest_potential(*course, min(instant, self.until))[0] for instant in instants.tolist()])


class _Peak(torch.autograd.Function):
    """The maximum and its gradient."""

    @staticmethod
    def forward(ctx: Any, times: Tensor, weight: Tensor, constants: Constants, until: float) -> Tensor:
        drivers = in_order(times)
        highest, moment, slope = highest_potential(drivers, *drive(drivers, weight, constants), weight, constants, until)
        ctx.constants = constants
        ctx.save_for_backward(times, weight, moment, slope)
        return highest

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, error: Tensor) -> tuple[Tensor | None, ...]:
        times, weight, moment, slope = ctx.saved_tensors
        constants, drivers = ctx.constants, in_order(times)
        after = moment.unsqueeze(2) - drivers.times.unsqueeze(1)
        before = after > 0
        leak, _, response = constants.course(after.masked_fill(~before, 0))
        scale = (error / -constants.tau_m).unsqueeze(2) * before
        adjoint_v, adjoint_i = leak.mul_(scale), response.mul_(scale * (constants.tau_m / constants.tau_s))
        for_weight = drivers.gathered(adjoint_i).mul_(-constants.tau_s) if ctx.needs_input_grad[1] else None
        for_times = None
        if ctx.needs_input_grad[0]:
            values = (drivers.weights(weight) * (adjoint_v - adjoint_i)).sum(1)
            place = torch.searchsorted(drivers.times, moment).clamp_(max=drivers.times.shape[1] - 1)  # of the spike that moves it
            for_times = drivers.spread(values.scatter_add_(1, place, error * slope))
        return for_times, for_weight, None, None


def highest_potential(
    drivers: Drivers, potential: Tensor, current: Tensor, weight: Tensor, constants: Constants, until: float = math.inf
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the maximum, when it is (-inf: at rest) and dV/dt just before if that is at an input spike (else 0), all ``[B, M]``.

    ``potential``, ``current [B, M, S]`` right after the spikes, of ``event_drive.drive``.
    """
    times = drivers.times.unsqueeze(1)
    ends = torch.cat([times[:, :, 1:], times.new_full((len(times), 1, 1), until)], 2).clamp_(max=until)
    rises = (current > potential) & (current > 0)
    peak, span = constants.peak(potential, torch.where(rises, current, 1)), ends - times
    inside = rises & ((peak < span) | (ends == until))  # the end of an interval is the beginning of the next
    rise = torch.minimum(peak, span).masked_fill_(~rises, 0)
    leak, _, response = constants.course(rise)
    reached = torch.where(inside, potential * leak + current * response, potential).masked_fill_(times > until, -math.inf)
    top, place = reached.max(2, keepdim=True)
    within = inside.gather(2, place)
    moment = times.expand_as(potential).gather(2, place) + torch.where(within, rise.gather(2, place), 0)
    first = torch.searchsorted(drivers.times, drivers.times.gather(1, place.squeeze(2))).unsqueeze(2)  # of spikes at one time
    before = current.gather(2, first) - drivers.weights(weight).gather(2, first)
    slope = (before - top) / constants.tau_m
    rest = top <= 0
    moment.masked_fill_(rest, -math.inf)
    return top.clamp(min=0).squeeze(2), moment.squeeze(2), slope.masked_fill_(within | rest, 0).squeeze(2)
