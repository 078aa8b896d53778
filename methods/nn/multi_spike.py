"""``MultiSpike``: LIF neurons with ``tau = 2 tau_s`` whose spike times, several each, have a closed form and exact gradients.

``du/dt = -u/tau + g``, ``dg/dt = -g/tau_s``, ``g += w_j`` at an input spike of j; at ``u = theta`` a spike, and ``u -= delta_theta``.
With ``z = exp(t/tau)``, ``c = theta/tau``, ``d = delta_theta/tau`` and sums over the inputs so far::

    a = sum w_j z_j^2      b = sum w_j z_j      r = d * sum of z of own earlier spikes
    u = theta   <=>   c z^2 - (b - r) z + a = 0
    x = sqrt((b - r)^2 - 4 a c)      z_k = 2 a / (b - r + x)      t_k = tau ln z_k          (the upward crossing)

Forward. Divided by z the condition reads ``g(z) = b - a/z - c z = r``: g is continuous, does not depend on the neuron's own spikes, and
every spike raises the level r that it has to reach. So a spike falls into the first interval between inputs in which the largest g, that at
``sqrt(a/c)`` or at a border of the interval, reaches r (``searchsorted`` in the running maximum). This costs O(S) once for the S inputs
and O(log S) per spike, and finds what walking from input to input finds; the formulation is ours.

Backward. Given ``e_k = dL/dt_k``, from the last spike to the first ``E_k = e_k + z_k C``, then ``C += E_k d/x_k`` (own resets, O(K)), and::

    f1_k = tau / (x_k z_k)      f2_k = tau / x_k                                   dt/da, -dt/db
    dL/dw_j = sum_k E_k [ f1_k sum z_j^2 - f2_k sum z_j ]                          over spikes of j before t_k
    dL/dt_j = sum_{k: t_k > t_j} E_k w_j [ f1_k z_j^2 / tau_s - f2_k z_j / tau ]   added over neurons

(``f1 = (tau/a)(1 + (c/x) z)`` of the paper is the same number.) Which inputs precede a spike is taken as constant: an appearing or
vanishing spike has no gradient. ``x`` is clamped at ``1e-6 c`` where a crossing grazes (ours).

Large times: z overflows, so time is cut into windows of at most 40 tau_s with a reference time each; a, b and r are rescaled from one to
the next, which is exact. Source: "Exact Error Backpropagation Through Spikes" (Bacho, Chu, 2022), derived anew.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from methods.nn.event_layer import EventConv2d, EventLayer, EventLinear
from methods.nn.spike_times import SILENT, Events, events, ordered

LONGEST = 40.0  # tau_s in a window: exp(40) squared is far from the end of single precision
GRAZING = 1e-6  # smallest x, in units of c
ELEMENTS = 1 << 21  # neurons x samples x inputs that are worked on at once


@dataclass(frozen=True)
class Lif:
    """Constants of a layer of neurons; ``tau = 2 tau_s``. Times in seconds."""

    theta: float
    delta: float  # what a spike takes from the potential
    tau_s: float
    buffer: int  # K, the most spikes that a neuron emits; the rest of its train is neither emitted nor counted
    end: float  # no spike after it

    @property
    def tau(self) -> float:
        """Time constant of the membrane."""
        return 2 * self.tau_s

    @property
    def c(self) -> float:
        """Threshold over tau."""
        return self.theta / self.tau

    @property
    def d(self) -> float:
        """Reset over tau."""
        return self.delta / self.tau


@dataclass(frozen=True)
class Window:
    """A stretch of time with its reference, and the input spikes in it."""

    start: float  # seconds; z = exp((t - start) / tau)
    length: float
    inputs: Events

    def z(self, tau: float) -> Tensor:
        """Return z of the inputs ``[B, S]``, 0 where padded."""
        times = self.inputs.times
        return torch.where(torch.isfinite(times), ((times - self.start) / tau).exp(), 0)


def windows(times: Tensor, lif: Lif) -> list[Window]:
    """Return the windows from the first spike of ``times [B, F, K]`` to the end of the simulation; none without a spike."""
    begin = float(times.detach().amin()) if times.numel() else SILENT
    if begin >= lif.end:
        return []
    number = max(1, math.ceil((lif.end - begin) / (LONGEST * lif.tau_s)))
    length = (lif.end - begin) / number
    borders = [begin + i * length for i in range(number)] + [lif.end]
    return [Window(lo, length, events(times, lo, hi)) for lo, hi in zip(borders[:-1], borders[1:], strict=True)]


def spike_times(times: Tensor, weight: Tensor, lif: Lif) -> Tensor:
    """Return the sorted spike times ``[B, N, K']`` of neurons with ``weight [N, F]`` and inputs ``times [B, F, K]``; 1 <= K' <= buffer.

    K' is the largest number of spikes emitted. Exactly differentiable in times and weights.
    """
    found = windows(times, lif)
    load = len(times) * max((w.inputs.times.shape[1] + 1 for w in found), default=1)
    parts = [_SpikeTimes.apply(times, rows, found, lif) for rows in weight.split(max(1, ELEMENTS // load))]
    longest = max(part.shape[2] for part in parts)
    joined = torch.cat([F.pad(part, (0, longest - part.shape[2]), value=SILENT) for part in parts]).transpose(0, 1)
    return joined if len(found) < 2 else ordered(joined)


class _SpikeTimes(torch.autograd.Function):
    """Spike times ``[N, B, K']``, window by window along K', with gaps where a window has fewer spikes of a neuron than of another."""

    @staticmethod
    def forward(ctx: Any, times: Tensor, weight: Tensor, found: list[Window], lif: Lif) -> Tensor:
        neurons, batch = len(weight), len(times)
        ctx.windows, ctx.lif, ctx.shape = found, lif, times.shape
        a0, b0 = (weight.new_zeros(neurons, batch) for _ in range(2))
        left = torch.full((neurons, batch), lif.buffer, device=weight.device)
        trains, kept = [], []
        for window in found:
            train, a0, b0 = _emit(window, weight, a0, b0, left, lif)
            if train:
                z, x, interval = (torch.stack(part, -1) for part in zip(*train, strict=True))
                fired = z > 0
                left = left - fired.sum(-1)
                trains.append(torch.where(fired, window.start + lif.tau * z.log(), SILENT))
            else:
                z = x = weight.new_zeros(neurons, batch, 0)
                interval = torch.zeros(neurons, batch, 0, dtype=torch.int32, device=weight.device)
            kept += [z, x, interval]
        ctx.save_for_backward(weight, *kept)
        return torch.cat(trains, -1) if trains else weight.new_full((neurons, batch, 1), SILENT)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, errors: Tensor) -> tuple[Tensor | None, ...]:
        weight, *kept = ctx.saved_tensors
        lif, (batch, features, slots) = ctx.lif, ctx.shape
        of_times = weight.new_zeros(batch, features * slots) if ctx.needs_input_grad[0] else None
        of_weight = torch.zeros_like(weight)
        reset, g1, g2 = (weight.new_zeros(len(weight), batch) for _ in range(3))  # carried from window to window, back in time
        stop = errors.shape[-1]
        for place in reversed(range(len(ctx.windows))):
            window, (z, x, interval) = ctx.windows[place], kept[3 * place : 3 * place + 3]
            start = stop - z.shape[-1] if z.shape[-1] else stop
            total, reset = own_resets(errors[..., start:stop], z, x, reset, lif)
            stop = start
            by_b = total * lif.tau / x.clamp(min=GRAZING * lif.c)
            by_a = torch.where(z > 0, by_b / z, 0)
            g1, g2 = _hand_back(window, weight, by_a, by_b, interval, (g1, g2), lif, of_weight, of_times)
            shrink = math.exp(-window.length / lif.tau)
            reset, g1, g2 = reset * shrink, g1 * shrink**2, g2 * shrink
        return None if of_times is None else of_times.view(ctx.shape), of_weight, None, None


def _emit(
    window: Window, weight: Tensor, a0: Tensor, b0: Tensor, left: Tensor, lif: Lif
) -> tuple[list[tuple[Tensor, ...]], Tensor, Tensor]:
    """Return, spike by spike, ``(z, x, interval) [N, B]`` (z = 0: none), and a and b for the window that follows."""
    c, inputs = lif.c, window.inputs
    neurons, (batch, size) = len(weight), inputs.times.shape
    z = window.z(lif.tau)
    final = math.exp(window.length / lif.tau)
    borders = F.pad(torch.where(z > 0, z, final), (1, 0), value=1.0)  # [B, S + 1], where intervals begin
    ends = F.pad(borders[:, 1:], (0, 1), value=final)
    a, b = (weight.new_empty(neurons, batch, size + 1) for _ in range(2))
    a[..., 0], b[..., 0] = a0, b0
    torch.mul(weight.index_select(1, inputs.neuron.flatten()).view(neurons, batch, size), z, out=b[..., 1:])
    torch.mul(b[..., 1:], z, out=a[..., 1:])
    a.cumsum_(-1), b.cumsum_(-1)
    peak = (a.clamp(min=0) * (1 / c)).sqrt_()
    torch.minimum(torch.maximum(peak, borders, out=peak), ends, out=peak)
    highest = (b - a / peak).sub_(peak, alpha=c).cummax(-1).values
    level = torch.zeros_like(b0)
    train: list[tuple[Tensor, ...]] = []
    borders, ends = (side.expand(neurons, -1, -1) for side in (borders, ends))
    while len(train) < lif.buffer:
        interval = torch.searchsorted(highest, level.unsqueeze(-1))
        fires = (interval.squeeze(-1) <= size) & (left > len(train))
        if not fires.any():
            break
        interval.clamp_(max=size)
        a_k, b_k, lo, hi = (side.gather(-1, interval).squeeze(-1) for side in (a, b, borders, ends))
        b_k = b_k - level
        x = (b_k * b_k - 4 * c * a_k).clamp(min=0).sqrt()
        z_k = torch.minimum(torch.maximum(2 * a_k / (b_k + x), lo), hi)
        z_k = torch.where(fires, z_k, 0)
        train.append((z_k, x, interval.squeeze(-1).int()))
        level = level + lif.d * z_k
    shrink = math.exp(-window.length / lif.tau)
    return train, a[..., -1] * shrink**2, (b[..., -1] - level) * shrink


def own_resets(errors: Tensor, z: Tensor, x: Tensor, carried: Tensor, lif: Lif) -> tuple[Tensor, Tensor]:
    """Return the errors of spike times ``[N, B, K]`` with the paths through later own spikes, and the sum C ``[N, B]`` for what is earlier.

    ``(I - R^T)^-1 e`` with ``R_qz = dt_q/dt_z = (d / x_q) z_z`` for z < q, in O(K). Slots with ``z = 0`` are no spikes.
    """
    found: list[Tensor] = []
    for e, z_k, x_k in zip(*(part.unbind(-1)[::-1] for part in (errors, z, x)), strict=True):
        total = torch.where(z_k > 0, e + z_k * carried, 0)
        carried = carried + total * lif.d / x_k.clamp(min=GRAZING * lif.c)
        found.append(total)
    return (torch.stack(found[::-1], -1) if found else errors), carried


def _hand_back(
    window: Window,
    weight: Tensor,
    by_a: Tensor,
    by_b: Tensor,
    interval: Tensor,
    later: tuple[Tensor, Tensor],
    lif: Lif,
    of_weight: Tensor,
    of_times: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Add the gradients of a window to ``of_weight [N, F]`` and ``of_times [B, F K]``; return dL/da and -dL/db at its start.

    An input acts on the spikes of its own interval and all later ones: sums from the end, so arrays run backwards in time here.
    """
    neurons, (batch, size) = len(weight), window.inputs.times.shape
    place = size - interval.long()
    sums = []
    for part, carried in zip((by_a, by_b), later, strict=True):
        at = part.new_zeros(neurons, batch, size + 1)
        at[..., 0] = carried
        sums.append(at.scatter_add_(-1, place, part).cumsum_(-1))
    (sum_a, start_a), (sum_b, start_b) = ((s[..., :size], s[..., size]) for s in sums)
    start_a, start_b = start_a.clone(), start_b.clone()
    z, neuron, slot = (part.flip(1) for part in (window.z(lif.tau), window.inputs.neuron, window.inputs.slot))
    first, second = sum_a.mul_(z).mul_(z), sum_b.mul_(z)
    of_weight.scatter_add_(1, neuron.flatten().expand(neurons, -1), (first - second).reshape(neurons, -1))
    if of_times is not None:
        by_time = (first / lif.tau_s).sub_(second, alpha=1 / lif.tau)
        by_time.mul_(weight.index_select(1, neuron.flatten()).view(neurons, batch, size))
        of_times.scatter_add_(1, slot, by_time.sum(0))
    return start_a, start_b


class MultiSpike(EventLayer):
    """A dense or convolution layer of these neurons; a convolution is the dense layer of every patch, with one set of filters."""

    def __init__(self, synapse: EventLinear | EventConv2d, lif: Lif) -> None:
        """Join synapse and neurons; weights start uniform in -1..1."""
        super().__init__(synapse)
        self.lif = lif
        nn.init.uniform_(synapse.weight, -1, 1)

    def set_threshold(self, theta: float, reset: float = 1.0) -> None:
        """Set theta and, as ``reset`` times theta, what a spike takes from the potential."""
        self.lif = replace(self.lif, theta=theta, delta=reset * theta)

    def respond(self, times: Tensor) -> Tensor:
        """Return the spike times."""
        weight = self.synapse.weight
        if isinstance(self.synapse, nn.Linear):
            return spike_times(times, weight, self.lif)
        down, across = self.synapse.kernel_size
        patches = times.unfold(2, down, 1).unfold(3, across, 1).permute(0, 2, 3, 1, 5, 6, 4)  # [B, H', W', C, k, k, K]
        found = spike_times(patches.flatten(3, 5).flatten(0, 2), weight.flatten(1), self.lif)
        return found.unflatten(0, patches.shape[:3]).permute(0, 3, 1, 2, 4)

    def extra_repr(self) -> str:
        """Return the constants for printing."""
        return f"theta={self.lif.theta:.3g}, tau_s={self.lif.tau_s:g}, K={self.lif.buffer}"
