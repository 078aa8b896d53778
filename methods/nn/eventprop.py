"""EventProp: a layer of spiking neurons simulated event by event, and its exact gradient by the adjoint equations.

Forward, for the neuron of ``methods.nn.event_drive`` with threshold ``theta``: at ``V = theta`` a spike, and V is set to 0. In an interval
between two input spikes V rises at most once, up to the time ``d*`` at which ``V = I``. So a crossing is bracketed by the beginning of the
interval and d* or the end of the interval, and is solved for by Newton's method that falls back on bisection, at most ``ROUNDS`` times. In
which interval it is, is read off one table for all spikes of a neuron (``event_drive.climb``); the loop is over first, second... spikes.

Backward, for errors ``e = dL/dt`` of the spikes: ``lambda_V`` and ``lambda_I`` begin at 0 after the last spike and go back in time::

    over d:      lambda_I <- lambda_I exp(-d/tau_s) + lambda_V K (exp(-d/tau_m) - exp(-d/tau_s)),  K = tau_m / (tau_m - tau_s)
                 lambda_V <- lambda_V exp(-d/tau_m)
    own spike:   lambda_V <- lambda_V + (theta lambda_V + e) / (I - theta)
    input of i:  dL/dw_ji -= tau_s lambda_I,j        e_i = sum_j w_ji (lambda_V,j - lambda_I,j)

Kept for it are the time and the current I of each spike, and nothing else: what the adjoint needs between spikes follows from them. (``K``
times the difference is ``tau_m / tau_s * h(d)``, which is how it is computed.) Grazing crossings, where ``I - theta`` vanishes, are held at
``GRAZING * theta`` (ours).

Source: "Event-based backpropagation can compute exact gradients for spiking neural networks", Wunderlich, Pehle, Scientific Reports
11:12829, 2021. The vectorised form is ours.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from methods.nn.event_drive import Constants, climb, drive, in_order
from methods.nn.event_layer import EventLayer, EventLinear

ROUNDS = 60
GRAZING = 1e-3  # smallest I - theta of the adjoint, in thresholds


class EventProp(EventLayer):
    """Neurons driven by spike times: ``[B, N, K]`` to ``[B, M, spikes]``, sorted, inf where there is no spike.

    ``spikes`` is how many a neuron may fire, ``until`` the end of the simulation. The gradient is exact for weights and input times, as
    long as no spike appears or vanishes.
    """

    def __init__(
        self,
        features_in: int,
        features_out: int,
        constants: Constants,
        threshold: float = 1.0,
        spikes: int = 1,
        until: float = math.inf,
    ) -> None:
        """Make the layer; raise ValueError for a threshold that is not positive or no spikes."""
        super().__init__(EventLinear(features_in, features_out))
        if not threshold > 0 or spikes < 1:
            raise ValueError(f"threshold must be positive and spikes at least 1, not {threshold} and {spikes}")
        self.constants, self.threshold, self.spikes, self.until = constants, threshold, spikes, until

    def respond(self, times: Tensor) -> Tensor:
        """Return the spike times of the neurons."""
        weight = self.synapse.weight
        return _Spikes.apply(times.to(weight.dtype), weight, self.constants, self.threshold, self.spikes, self.until)

    def extra_repr(self) -> str:
        """Return what ``print`` shows."""
        return f"tau_m={self.constants.tau_m:g}, tau_s={self.constants.tau_s:g}, threshold={self.threshold:g}, spikes={self.spikes}"


class _Spikes(torch.autograd.Function):
    """The event-based simulation and its adjoint."""

    @staticmethod
    def forward(ctx: Any, times: Tensor, weight: Tensor, constants: Constants, threshold: float, spikes: int, until: float) -> Tensor:
        drivers = in_order(times)
        fired, current = simulate(drivers.times, *drive(drivers, weight, constants), constants, threshold, spikes, until)
        ctx.constants, ctx.threshold = constants, threshold
        ctx.save_for_backward(times, weight, fired, current)
        return fired

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, errors: Tensor) -> tuple[Tensor | None, ...]:
        times, weight, fired, current = ctx.saved_tensors
        drivers = in_order(times)
        adjoint_v, adjoint_i = adjoint(drivers.times, fired, current, errors, ctx.constants, ctx.threshold)
        for_weight = drivers.gathered(adjoint_i).mul_(-ctx.constants.tau_s) if ctx.needs_input_grad[1] else None
        for_times = None
        if ctx.needs_input_grad[0]:
            adjoint_v -= adjoint_i
            for_times = drivers.spread((drivers.weights(weight) * adjoint_v).sum(1))
        return for_times, for_weight, None, None, None, None


def simulate(
    times: Tensor, potential: Tensor, current: Tensor, constants: Constants, threshold: float, spikes: int, until: float = math.inf
) -> tuple[Tensor, Tensor]:
    """Return the first spikes ``[B, M, K]`` of neurons and the currents at them (0 where there is no spike).

    K is the largest number of spikes of a neuron, at least 1 and at most ``spikes``. ``times [B, S]`` of the inputs; ``potential`` and
    ``current [B, M, S]`` of ``event_drive.drive``; no spike comes after ``until``.
    """
    batch, neurons, _ = potential.shape
    found, at_spike = [], []
    rows = (current > threshold).any(2).flatten().nonzero().squeeze(1)  # where V reaches theta from below, I is above it
    free, drives, starts = potential.flatten(0, 1)[rows], current.flatten(0, 1)[rows], times[rows // neurons]
    ends = torch.cat([starts[:, 1:], starts.new_full((len(rows), 1), until)], 1).clamp_(max=until)
    per_tau = 1 / constants.tau_m
    reached = climb(free, drives, ends - starts, constants, threshold).add_(starts, alpha=per_tau).cummax(1).values
    wanted = torch.full_like(reached[:, :1], -math.inf)
    spike = now = lost = torch.zeros_like(wanted)  # time of the last spike, current at it, what resets took off V since
    last = torch.full_like(wanted, -1, dtype=torch.long)  # the interval it was in
    for _ in range(spikes):
        place = torch.searchsorted(reached, wanted, right=True)
        kept = (place < times.shape[1]).squeeze(1).nonzero().squeeze(1)
        if not len(kept):
            break
        if len(kept) < len(rows):
            state = rows, free, drives, starts, ends, reached, wanted, place, last, spike, now, lost
            rows, free, drives, starts, ends, reached, wanted, place, last, spike, now, lost = (part[kept] for part in state)
        v, i, t, end = (part.gather(1, place) for part in (free, drives, starts, ends))
        same = place == last  # from the last spike on, where V = 0; else from the input
        v = (v - lost * constants.leak((t - spike).clamp_(min=0))).masked_fill_(same, 0)
        i, t = torch.where(same, now, i), torch.where(same, spike, t)
        d = _root(v, i, torch.minimum(constants.peak(v, i), end - t), constants, threshold)
        lost = lost * constants.leak(t + d - spike) + threshold
        last, spike, now = place, t + d, i * constants.decay(d)
        wanted = torch.logaddexp(wanted, spike * per_tau + math.log(threshold))
        for values, new, nothing in ((found, spike, math.inf), (at_spike, now, 0.0)):
            values.append(potential.new_full((batch * neurons,), nothing))
            values[-1][rows] = new.squeeze(1)
    if not found:
        return potential.new_full((batch, neurons, 1), math.inf), potential.new_zeros(batch, neurons, 1)
    return torch.stack(found, 1).view(batch, neurons, -1), torch.stack(at_spike, 1).view(batch, neurons, -1)


def _root(v: Tensor, i: Tensor, high: Tensor, constants: Constants, threshold: float) -> Tensor:
    """Return when V, from ``v`` on driven by ``i``, crosses the threshold; it rises from 0 to ``high`` and is above it there."""
    low = torch.zeros_like(high)
    leak, _, response = constants.course(high)
    top = v * leak + i * response
    d = high * (1 - (1 - ((threshold - v) / (top - v)).clamp(0, 1)).sqrt())  # of the parabola with its peak at ``high``
    near = 4 * torch.finfo(d.dtype).eps
    rounding = near * (threshold + v.abs() + i)
    for _ in range(ROUNDS):
        leak, decay, response = constants.course(d)
        now, drive_now = v * leak + i * response, i * decay
        above = now > threshold
        high, low = torch.where(above, d, high), torch.where(above, low, d)
        new = d - (now - threshold) * constants.tau_m / (drive_now - now)
        new = torch.where((new >= low) & (new <= high), new, (low + high) / 2)
        done = bool((((new - d).abs() <= near * high) | ((now - threshold).abs() <= rounding)).all())
        d = new
        if done:
            break
    return d


def adjoint(times: Tensor, fired: Tensor, current: Tensor, errors: Tensor, constants: Constants, threshold: float) -> tuple[Tensor, Tensor]:
    """Return ``lambda_V`` and ``lambda_I`` ``[B, M, S]`` at inputs ``times [B, S]``.

    ``fired``, ``current``, ``errors [B, M, K]``: times of the neurons' own spikes, currents at them, and ``dL/dt``.
    """
    there = fired.isfinite()
    slope = (current - threshold).clamp_(min=GRAZING * threshold)
    errors = torch.where(there, errors, 0)
    v, i = torch.zeros_like(fired), torch.zeros_like(fired)
    later_v = later_i = torch.zeros_like(fired[:, :, 0])
    later = fired[:, :, -1]
    ratio = constants.tau_m / constants.tau_s
    for k in reversed(range(fired.shape[2])):
        leak, decay, response = constants.course(torch.where(later.isfinite(), later - fired[:, :, k], 0))
        later_i = later_i * decay + later_v * response * ratio
        later_v = later_v * leak
        jump = (threshold * later_v + errors[:, :, k]) / slope[:, :, k]
        later_v = later_v + jump.masked_fill_(~there[:, :, k], 0)
        v[:, :, k], i[:, :, k], later = later_v, later_i, fired[:, :, k]
    moments = times.unsqueeze(1).expand(-1, fired.shape[1], -1).contiguous()
    following = torch.searchsorted(fired, moments, right=True)
    over = (following == fired.shape[2]).logical_or_(following >= there.sum(2, keepdim=True))
    following.clamp_(max=fired.shape[2] - 1)
    leak, decay, response = constants.course((fired.gather(2, following) - moments).masked_fill_(over, 0))
    v, i = v.gather(2, following).masked_fill_(over, 0), i.gather(2, following).masked_fill_(over, 0)
    return v * leak, i.mul_(decay).addcmul_(v, response, value=ratio)
