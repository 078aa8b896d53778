"""The leaky integrate-and-fire family. One class, one set of symbols.

For input current ``I[t]`` of shape ``[T, B, ...]`` (``v`` starts at ``v_init``)::

    u[t] = leak * v[t-1] + gain * I[t]        gain = 1, or 1 - leak with scale_input
    s[t] = H(u[t] - threshold)                >= threshold, or > with strict
    v[t] = u[t] * (1 - s[t])                  reset "hard" (to zero)
         = u[t] - threshold * s[t]            reset "soft" (by subtraction)
         = u[t]                               reset "none"

``leak = 1`` is the integrate-and-fire neuron. Source: STBP (Wu et al. 2018), in the three-stage form.

Backends: "reference" is the loop below, PyTorch's operations and autograd, the definition; "native" computes the same in one pass over time
each way (``methods.nn.lif_native``), on the CPU in single and double precision, for the surrogates of ``methods.nn.surrogate``; "triton"
does so on CUDA (``methods.nn.lif_triton``); "compiled" is ``torch.compile`` of a few steps at a time (``methods.nn.compiled``). "auto" is
native on the CPU wherever it can be: no size was found at which the reference is faster (at worst 1.36 times the time of native, one
neuron, T = 1, float64). Elsewhere it is the reference: the Triton kernels were tested in Triton's interpreter and are not measured on a
GPU yet, so they must be asked for. One thread of a Zen 4, forward + backward in us, reference and native, minima of interleaved runs:
T = 1, 1 neuron 159, 79; T = 4, 64 neurons 355, 81; T = 16, 8192 neurons 1680, 170; T = 4, 65536 neurons 1550, 250. A training step of
stbp (static/digits, events/digits-saccade) takes 1.1 to 1.4 times as long with the reference, disturbed runs aside.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from methods.nn import gpu, lif_compiled, lif_native, native
from methods.nn.compiled import Compiled
from methods.nn.lif_native import Flags, Numbers, Save
from methods.nn.stepping import Stateful
from methods.nn.surrogate import Surrogate, Triangle, spike

Reset = Literal["hard", "soft", "none"]
Backend = Literal["auto", "reference", "native", "compiled", "triton"]


class LIF(Stateful):
    """Leaky integrate-and-fire neuron; see the module's docstring for the symbols.

    ``detach_reset`` keeps gradients out of the reset. ``learnable_leak`` makes the leak one parameter per layer,
    ``leak = 1 - sigmoid(w)`` (PLIF). ``save`` is what kernels keep for the backward pass: "potential"; "recompute", the currents, from
    which they compute the potentials again; or "auto", the currents where they are smaller, as they are the same at every step or in half
    precision, and else the potentials. Forward + backward with potentials took 0.6 to 0.8 times as long as with currents at T = 4 and 16
    (32 x 4096 neurons, 2 threads), and about as long at T = 64. ``used`` is the backend of the last call. Raises ValueError for an unknown
    reset, backend or save, and RuntimeError when "native" cannot do what is asked.
    """

    spike_kind = "binary"

    def __init__(
        self,
        leak: float = 0.5,
        threshold: float = 1.0,
        reset: Reset = "hard",
        detach_reset: bool = True,
        surrogate: Surrogate = Triangle(),  # noqa: B008 - a frozen dataclass
        strict: bool = False,
        scale_input: bool = False,
        learnable_leak: bool = False,
        v_init: float = 0.0,
        backend: Backend = "auto",
        save: Save = "auto",
    ) -> None:
        """Make a layer of neurons of any shape."""
        super().__init__()
        for what, value, allowed in (("reset", reset, Reset), ("backend", backend, Backend), ("save", save, Save)):
            if value not in get_args(allowed):
                raise ValueError(f"{what} {value!r} is unknown; allowed: {', '.join(get_args(allowed))}")
        self.backend, self.save = backend, save
        self.used: str | None = None
        if backend != "reference":
            native.available(torch.float32)  # may compile: better here than on the clock of a training step
        self.threshold, self.reset, self.detach_reset, self.v_init = threshold, reset, detach_reset, v_init
        self.surrogate, self.strict, self.scale_input = surrogate, strict, scale_input
        self._leak = leak
        if learnable_leak:
            self.leak_logit = nn.Parameter(torch.tensor(math.log((1 - leak) / leak)))

    @property
    def leak(self) -> Tensor | float:
        """Fraction of the membrane potential that is left after a step."""
        return 1 - torch.sigmoid(self.leak_logit) if hasattr(self, "leak_logit") else self._leak

    def forward(self, current: Tensor) -> Tensor:
        """Return the spikes ``[T, B, ...]`` of a current of the same shape."""
        state = self.carried()
        v = state[0] if state else None
        if self.backend == "compiled" and not torch.compiler.is_compiling():  # inside a larger compiled function: as the reference
            self.used = "compiled"
            return self._compiled(current, v)
        if self.backend not in ("reference", "compiled"):
            triton = self.backend == "triton"
            reason = self.why_not_triton(current, v) if triton else self.why_not_native(current, v)
            if reason is None:
                self.used = "triton" if triton else "native"
                return self._native(current, v, triton)
            if self.backend != "auto":
                raise RuntimeError(f"the {self.backend} backend cannot be used: {reason}")
        self.used = "reference"
        return self._reference(current, v)

    def why_not_triton(self, current: Tensor, v: Tensor | None = None) -> str | None:
        """Return why the Triton backend cannot take ``current`` (and the state ``v``), or None if it can."""
        reason = gpu.why_not(current.device) or self._why_not(current)
        if reason is None:
            from methods.nn import lif_triton  # importing Triton takes a while, and it is not everywhere

            reason = lif_triton.why_not(current, v)
        return reason

    def why_not_native(self, current: Tensor, v: Tensor | None = None) -> str | None:
        """Return why the native backend cannot take ``current`` (and the state ``v``), or None if it can."""
        if current.device.type != "cpu":
            return f"it runs on the CPU, the current is on {current.device}"
        if current.dtype not in native.REALS:
            return f"it knows float32 and float64, the current is {current.dtype}"
        if v is not None and (v.dtype != current.dtype or v.shape != current.shape[1:]):
            return f"the state is {v.dtype} {list(v.shape)}, the current {current.dtype} {list(current.shape)}"
        reason = self._why_not(current)
        if reason is None and not native.available(current.dtype):
            reason = native.describe()
        return reason

    def _why_not(self, current: Tensor) -> str | None:
        """Return why no kernel of ours can take ``current``, or None."""
        if type(current) is not Tensor and type(current) is not nn.Parameter:
            return f"the current is a {type(current).__name__}, which kernels cannot look into"
        if current.dim() < 1 or len(current) == 0:
            return "there is no time step"
        if type(self)._after is not LIF._after:
            return f"it does not know the reset of {type(self).__name__}"
        if lif_native.coefficients(self.surrogate) is None:
            return f"it does not know the surrogate {type(self.surrogate).__name__}"
        if isinstance(self.threshold, Tensor) or isinstance(self.v_init, Tensor) or isinstance(self._leak, Tensor):
            return "threshold, leak and initial potential must be numbers"
        return None

    def _compiled(self, current: Tensor, v: Tensor | None) -> Tensor:
        if v is None:
            v = torch.full_like(current[0], self.v_init)
        leak = self.leak
        learnt = (leak,) if isinstance(leak, Tensor) else ()
        spikes, after = self.compiled()(current, (v,), learnt)
        self.carry(*after)
        return spikes

    def compiled(self) -> Compiled:
        """Return the compiled step that backend "compiled" runs: shared by all layers of the same settings."""
        leak = None if hasattr(self, "leak_logit") else self._leak
        return lif_compiled.compiled(leak, self.threshold, self.reset, self.detach_reset, self.surrogate, self.strict, self.scale_input)

    def _native(self, current: Tensor, v: Tensor | None, triton: bool) -> Tensor:
        kind, *shape = lif_native.coefficients(self.surrogate)
        leak = self.leak
        learnt = leak if isinstance(leak, Tensor) else None
        numbers = Numbers(0.0 if learnt is not None else float(leak), float(self.threshold), float(self.v_init), *shape)
        reset = lif_native.RESETS.index(self.reset)
        flags = Flags(reset, not self.detach_reset, self.strict, kind, self.scale_input, False, self._recompute(current), self._stepping)
        if triton:
            from methods.nn import lif_triton as kernels
        else:
            kernels = lif_native
        spikes, after = kernels.lif(current, v, learnt, numbers, Flags(*map(int, flags)))
        if after is not None:
            self.carry(after)
        return spikes

    def _recompute(self, current: Tensor) -> bool:
        """Return whether currents are kept rather than potentials."""
        if self.save == "auto":
            return current.dtype.itemsize == 2 or (len(current) > 1 and current.stride(0) == 0)
        return self.save == "recompute"

    def _reference(self, current: Tensor, v: Tensor | None) -> Tensor:
        leak = self.leak
        if self.scale_input:
            current = (1 - leak) * current
        if v is None:
            v = torch.full_like(current[0], self.v_init)
        spikes = []
        for now in current.unbind(0):  # indexing by t would make the backward pass quadratic in T
            u = leak * v + now
            s = spike(u - self.threshold, self.surrogate, self.strict)
            v = self._after(u, s.detach() if self.detach_reset else s)
            spikes.append(s)
        self.carry(v)
        return torch.stack(spikes)

    def _after(self, u: Tensor, s: Tensor) -> Tensor:
        if self.reset == "hard":
            return u * (1 - s)
        return u - self.threshold * s if self.reset == "soft" else u

    def extra_repr(self) -> str:
        """Return the settings for printing."""
        leak = self.leak.item() if isinstance(self.leak, Tensor) else self.leak
        return f"leak={leak:g}, threshold={self.threshold:g}, reset={self.reset}"


def backends(net: nn.Module) -> dict[str, int]:
    """Return how many layers of ``net`` used which backend in their last call; empty without LIF neurons or before any call."""
    return dict(Counter(module.used for module in net.modules() if isinstance(module, LIF) and module.used))


class ReLU(nn.ReLU):
    """The neuron of a non-spiking network: what a spiking layer is compared with."""

    spike_kind = "none"
