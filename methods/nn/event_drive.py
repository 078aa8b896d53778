"""What the input spikes of a layer do to its neurons between their own spikes, in closed form at every input spike.

The neuron of event-based simulation, a leaky integrator with exponential synapses (time constants ``tau_m`` and ``tau_s``)::

    tau_m dV/dt = -V + I        tau_s dI/dt = -I        input spike of i: I_j += w_ji

so that from ``V0``, ``I0`` on, a time d later and before the next input spike::

    V(d) = V0 exp(-d/tau_m) + I0 h(d)        I(d) = I0 exp(-d/tau_s)
    h(d) = k (exp(-d/tau_m) - exp(-d/tau_s)),  k = tau_s / (tau_m - tau_s);  h(d) = d/tau exp(-d/tau) for equal time constants

``drive`` evaluates V and I of all neurons at all input spikes of a batch by products with the matrices ``h(t_i - t_j)`` and
``exp(-(t_i - t_j)/tau_s)``, ``BLOCK`` spikes at a time. Only differences of times are ever exponentiated, so nothing overflows however
long the recording is. Resets are not in V: a reset takes off ``theta exp(-d/tau_m)``, whatever came before.

    drivers = in_order(times)                                 # times [B, N, K], inf where there is no spike
    potential, current = drive(drivers, weight, constants)    # [B, M, S]
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from methods.nn.spike_times import events

BLOCK = 64  # events whose mutual influence is one matrix


@dataclass(frozen=True)
class Constants:
    """Time constants of a neuron: ``tau_m`` of the membrane, ``tau_s`` of the synapse, in the unit of the spike times."""

    tau_m: float
    tau_s: float

    def __post_init__(self) -> None:
        """Raise ValueError for a time constant that is not positive."""
        if not (self.tau_m > 0 and self.tau_s > 0):
            raise ValueError(f"time constants must be positive, not tau_m = {self.tau_m}, tau_s = {self.tau_s}")

    def leak(self, d: Tensor) -> Tensor:
        """Return ``exp(-d/tau_m)``."""
        return torch.exp(d * (-1 / self.tau_m))

    def decay(self, d: Tensor) -> Tensor:
        """Return ``exp(-d/tau_s)``."""
        return torch.exp(d * (-1 / self.tau_s))

    def course(self, d: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return ``exp(-d/tau_m)``, ``exp(-d/tau_s)`` and ``h(d)``, the potential a time d after a unit jump of the current."""
        leak, decay = self.leak(d), self.decay(d)
        if self.tau_m == self.tau_s:
            return leak, decay, (d / self.tau_m).mul_(leak)
        return leak, decay, (leak - decay).mul_(self.tau_s / (self.tau_m - self.tau_s))

    def peak(self, v: Tensor, i: Tensor) -> Tensor:
        """Return how long a potential at ``v`` rises that is driven by ``i > max(v, 0)``; very long where it rises for ever."""
        if self.tau_m == self.tau_s:
            return (1 - v / i) * self.tau_m
        k = self.tau_s / (self.tau_m - self.tau_s)
        share = (v / (k * i)).add_(1).clamp_(min=torch.finfo(v.dtype).tiny).mul_(self.tau_s / self.tau_m)
        return share.log_().mul_(-self.tau_m * k)


@dataclass(frozen=True)
class Drivers:
    """The input spikes of each sample in order. Slots without a spike lie at the sample's last spike and have no ``source``."""

    times: Tensor  # [B, S]
    source: Tensor  # [B, S], the neuron that fired; N where there is no spike
    slots: Tensor  # [B, S], positions in [N * K]
    shape: torch.Size  # [B, N, K]

    def spread(self, values: Tensor) -> Tensor:
        """Return ``values [B, S]`` in the places of the spikes they belong to, ``[B, N, K]``, zero elsewhere."""
        values = values.masked_fill(self.source == self.shape[1], 0)
        return values.new_zeros(self.shape).flatten(1).scatter_add_(1, self.slots, values).view(self.shape)

    def weights(self, weight: Tensor) -> Tensor:
        """Return the weights ``[B, M, S]`` of the spikes, of ``weight [M, N]``; zero where there is none."""
        return torch.cat([weight.t(), weight.new_zeros(1, len(weight))])[self.source].transpose(1, 2)

    def gathered(self, values: Tensor) -> Tensor:
        """Return the sum ``[M, N]`` over samples and spikes of ``values [B, M, S]``, by the neuron that fired."""
        total = values.new_zeros(self.shape[1] + 1, values.shape[1])
        total.index_add_(0, self.source.flatten(), values.transpose(1, 2).flatten(0, 1))
        return total[:-1].t()


def in_order(times: Tensor) -> Drivers:
    """Return the spikes ``times [B, N, K]`` (inf: none) in order, as many as the sample with most of them has, and at least one."""
    found = events(times)
    batch, features, _ = times.shape
    if not found.times.shape[1]:
        nothing = found.slot.new_zeros(batch, 1)
        return Drivers(times.new_zeros(batch, 1), nothing + features, nothing, times.shape)
    fired = found.times.isfinite()
    last = found.times.masked_fill(~fired, 0).amax(1, keepdim=True)  # 0 where nothing fired
    return Drivers(torch.where(fired, found.times, last), torch.where(fired, found.neuron, features), found.slot, times.shape)


def drive(drivers: Drivers, weight: Tensor, constants: Constants) -> tuple[Tensor, Tensor]:
    """Return potential and current ``[B, M, S]`` right after each input spike, for ``weight [M, N]`` and neurons that never fire."""
    times, weights = drivers.times, drivers.weights(weight)
    potentials, currents = [], []
    v = i = before = None
    for start in range(0, times.shape[1], BLOCK):
        now = times[:, start : start + BLOCK]
        apart = now.unsqueeze(1) - now.unsqueeze(2)  # [B, j, i]: t_i - t_j
        part = weights[:, :, start : start + BLOCK]
        _, decay, response = constants.course(apart.clamp_(min=0))
        potential = part @ response  # h(0) = 0, so earlier spikes see nothing of later ones
        current = part @ decay.triu_()
        if v is not None:
            leak, decay, response = constants.course((now - before).unsqueeze(1))
            potential += v * leak + i * response
            current += i * decay
        v, i, before = potential[:, :, -1:], current[:, :, -1:], now[:, -1:]
        potentials.append(potential)
        currents.append(current)
    return (potentials[0], currents[0]) if len(potentials) == 1 else (torch.cat(potentials, 2), torch.cat(currents, 2))


def climb(v: Tensor, i: Tensor, span: Tensor, constants: Constants, threshold: float) -> Tensor:
    """Return the log of the largest ``G = (V - theta) exp(d/tau_m)`` within ``span`` of each input, all of one shape.

    -inf where G is not above 0, or ``span`` is negative (the input comes after the end). ``v`` and ``i`` are potential and current right
    after the input, without resets; d counts from it, and G rises as long as I > theta. A spike at t' takes ``theta exp(-(t - t')/tau_m)``
    off V, so with all spikes the neuron reaches theta where ``(V - theta) exp(t/tau_m)`` reaches ``theta sum exp(t'/tau_m)`` (0 before the
    first): the left side does not depend on them, and one look at all inputs serves all spikes.
    """
    d = torch.minimum((i * (1 / threshold)).clamp_(min=1).log_().mul_(constants.tau_s), span).clamp_(min=0)
    leak, _, response = constants.course(d)
    g = leak.mul_(v).addcmul_(response, i).sub_(threshold).clamp_(min=0).masked_fill_(span < 0, 0)
    return g.log_().add_(d, alpha=1 / constants.tau_m)
