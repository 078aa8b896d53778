"""Neurons without reset whose decay is computed from the recent input, so that a whole sequence is one parallel scan.

For currents ``X [T, B, C, ...]``, ``H`` zero before the first step and inputs before it too::

    z[t]     = bias + sum_j weight[j] X[t - k + 1 + j]       j = 0 .. k - 1: a causal convolution, k = ``taps``
    alpha[t] = sigmoid(z[t])^(1/tau)                         in (0, 1); tau = 1/4: the fourth power
    H[t]     = alpha[t] H[t-1] + (1 - alpha[t]) X[t]
    S[t]     = clip(round(H[t]), 0, N)                       N = ``levels``; N = 1: binary; see ``methods.nn.rounded_spike``

H is linear in the state, so it is a scan, and step by step the state is H and the last k - 1 inputs. It is a convex mixture of inputs and
zero: ``|H[t]| <= max |X[0..t]|`` at any length. alpha = 0 forgets all at once, as a hard reset does. Nothing depends on T.

Never computed by dividing through the product of all alpha, which underflows. Backends compute the same:

"reference"   the equations step by step, differentiated by autograd: the definition
"native"      gate, scan and spikes in one kernel, on the CPU (``methods.nn.decay_native``)
"log_depth", "chunked", "serial"   scans in plain PyTorch (``methods.nn.scan``) in an operation with a backward pass by hand
"triton"      the scan of ``methods.nn.recurrence_triton`` in that operation, on CUDA; on request, as it was not measured on a GPU

All but the reference keep X, alpha and H for the backward pass. "auto" is native where it can be, else "serial" for few steps or many
neurons and "log_depth" beyond. How many times as fast as PSN (``methods.nn.psn``), 128 neurons, forward + backward, one thread
(``python -m suites.regression.lengths``); PSN took 12 ms at 1k and 3.5 s at 16k:

==========================  =====  =====  =====  =====  =====
T                              1k     2k     4k     8k    16k
==========================  =====  =====  =====  =====  =====
native                         12     27     43     89    216
log_depth                     3.9    8.4     16     36     95
native, full gate             1.7    3.3    6.0     12     32
==========================  =====  =====  =====  =====  =====

Source: "Parallel Training in Spiking Neural Networks" (Huang et al., 2026), equations as given by a public digest; the start of the
convolution (PyTorch's default weights, bias 0), the kernels and their backward pass are ours.
"""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from methods.nn import decay_native, gpu, native
from methods.nn.decay_charge import charge
from methods.nn.decay_gate import causal_gate
from methods.nn.rounded_spike import RoundedSpike
from methods.nn.scan import SCANS
from methods.nn.stepping import Stateful
from methods.nn.surrogate import Surrogate

Gate = Literal["depthwise", "full"]
Backend = Literal["auto", "reference", "native", "log_depth", "chunked", "serial", "triton"]
FEW, WIDE = 16, 4096  # steps, and numbers in a step, from which on one operation per step is as fast as a scan in log depth


class DynamicDecay(Stateful):
    """A layer of neurons with a dynamic decay, ``[T, B, C, ...] -> [T, B, C, ...]``, for any T.

    ``gate``: "depthwise", a kernel of ``taps`` weights per channel (``weight [k, C]``); "full", all channels are seen (``[k, C, C]``).
    ``bias [C]`` starts at ``gate_bias``: with tau = 1/4 and 0 alpha is about 1/16 at the start, nearly no memory; 2, or tau = 1, give more.
    ``surrogate`` replaces the straight-through gradient of binary spikes. ``used`` is the backend of the last call.

    Raises ValueError for settings out of their range and currents without those channels, RuntimeError when a backend that was asked for
    cannot do what is asked.
    """

    def __init__(
        self,
        channels: int,
        gate: Gate = "depthwise",
        taps: int = 4,
        tau: float = 0.25,
        levels: int = 4,
        surrogate: Surrogate | None = None,
        gate_bias: float = 0.0,
        backend: Backend = "auto",
    ) -> None:
        """Make a layer; weights are drawn as PyTorch draws those of a convolution, uniform in ``+-1/sqrt(inputs)``."""
        super().__init__()
        for what, value, allowed in (("gate", gate, Gate), ("backend", backend, Backend)):
            if value not in get_args(allowed):
                raise ValueError(f"{what} {value!r} is unknown; allowed: {', '.join(get_args(allowed))}")
        if taps < 1:
            raise ValueError(f"taps is a number of inputs, 1 or more, not {taps}")
        if tau <= 0:
            raise ValueError(f"tau must be above 0, not {tau}")
        self.fire = RoundedSpike(levels, surrogate)
        self.spike_kind = "binary" if levels == 1 else "graded"
        self.channels, self.gate, self.taps, self.tau, self.backend = channels, gate, taps, tau, backend
        self.used: str | None = None
        shape = (taps, channels) if gate == "depthwise" else (taps, channels, channels)
        bound = 1 / math.sqrt(taps if gate == "depthwise" else taps * channels)
        self.weight = nn.Parameter(torch.empty(shape).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.full((channels,), float(gate_bias)))
        if backend in ("auto", "native"):
            native.available(torch.float32)  # may compile: better here than on the clock of a training step

    @property
    def levels(self) -> int:
        """The largest spike, N."""
        return self.fire.levels

    @property
    def macs(self) -> int:
        """Multiply-accumulates of a neuron in a step (ours): the gate's taps, the sigmoid as one, its power, and two for H."""
        power = {1.0: 0, 0.5: 1, 0.25: 2}.get(self.tau, 1)
        return self.taps * (1 if self.gate == "depthwise" else self.channels) + 1 + power + 2

    def forward(self, current: Tensor) -> Tensor:
        """Return the spikes of currents of the same shape."""
        return self._run(current)[0].to(current.dtype)

    def potentials(self, current: Tensor) -> Tensor:
        """Return the potentials ``H``, differentiable, in single precision for currents in half."""
        return self._run(current)[1]

    def decay(self, current: Tensor) -> Tensor:
        """Return the decay factors ``alpha`` of a whole sequence of currents, without gradients."""
        with torch.no_grad():
            return causal_gate(current.to(self.weight.dtype), self.weight, self.bias, 0).sigmoid() ** (1 / self.tau)

    def _run(self, current: Tensor) -> tuple[Tensor, Tensor]:
        if current.dim() < 3 or current.shape[2] != self.channels or len(current) == 0:
            raise ValueError(f"a current [T, B, {self.channels}, ...] with T of 1 or more is needed, not {list(current.shape)}")
        with torch.autocast(current.device.type, enabled=False):
            # Products of many factors need single precision.
            x = current.float() if current.dtype.itemsize == 2 else current
            state = self.carried()
            past, before = self.taps - 1, None
            if state is None:
                past = 0
            else:
                history, before = state
                x = torch.cat([history, x]) if past else x
            spikes, h = self._charged(x, before, past)
            if self._stepping:
                self.carry(self._last_inputs(x), h[-1])
        return spikes, h

    def _last_inputs(self, x: Tensor) -> Tensor:
        """Return the last k - 1 rows of x, after rows of zeros if there are fewer."""
        wanted = self.taps - 1
        missing = wanted - len(x)
        return torch.cat([x.new_zeros(missing, *x.shape[1:]), x]) if missing > 0 else x[len(x) - wanted :]

    def _charged(self, x: Tensor, state: Tensor | None, past: int) -> tuple[Tensor, Tensor]:
        self.used = backend = self._choose(x, state, past)
        if backend == "reference":
            return self._reference(x, state, past)
        fused = backend == "native" and self.gate == "depthwise" and self.taps <= decay_native.TAPS
        z = None if fused else causal_gate(x, self.weight, self.bias, past)
        if backend == "native":
            # Without a fused gate the kernel gets no rows but those of the steps.
            rows, past = (x, past) if fused else (x[past:], 0)
            return decay_native.charge(rows, self.weight, self.bias, z, state, past, self.tau, self.fire)
        if backend == "triton":
            from methods.nn import recurrence_triton

            return charge(x[past:], z, state, self.tau, self.fire, recurrence_triton)
        return charge(x[past:], z, state, self.tau, self.fire, SCANS[backend])

    def _choose(self, x: Tensor, state: Tensor | None, past: int) -> str:
        if self.backend in ("auto", "native") and not torch.compiler.is_compiling():
            given = (self.weight, self.bias) if state is None else (self.weight, self.bias, state)
            reason = decay_native.why_not(x, given, self.fire)
            if reason is None:
                return "native"
            if self.backend == "native":
                raise RuntimeError(f"the native backend cannot be used: {reason}")
        if self.backend == "triton":
            reason = gpu.why_not(x.device)
            if reason is not None:
                raise RuntimeError(f"the triton backend cannot be used: {reason}")
        if self.backend in ("auto", "native"):
            return "serial" if len(x) - past <= FEW or x[0].numel() >= WIDE else "log_depth"
        return self.backend

    def _reference(self, x: Tensor, state: Tensor | None, past: int) -> tuple[Tensor, Tensor]:
        steps = len(x) - past
        missing = self.taps - 1 - past
        rows = (torch.cat([x.new_zeros(missing, *x.shape[1:]), x]) if missing else x).unbind(0)
        h = torch.zeros_like(rows[0]) if state is None else state
        side = [1] * (x.dim() - 3)
        found = []
        for t in range(steps):
            z = self.bias.view(-1, *side)
            for j, tap in enumerate(self.weight):
                seen = rows[t + j]
                z = z + (tap.view(-1, *side) * seen if self.gate == "depthwise" else torch.einsum("oi,bi...->bo...", tap, seen))
            alpha = torch.sigmoid(z) ** (1 / self.tau)
            h = alpha * h + (1 - alpha) * rows[t + self.taps - 1]
            found.append(h)
        potentials = torch.stack(found)
        return self.fire(potentials), potentials

    def extra_repr(self) -> str:
        """Return the settings for printing."""
        return f"channels={self.channels}, gate={self.gate}, taps={self.taps}, tau={self.tau:g}, levels={self.levels}"
