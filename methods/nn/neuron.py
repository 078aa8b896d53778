"""The leaky integrate-and-fire family. One class, one set of symbols.

For input current ``I[t]`` of shape ``[T, B, ...]`` (``v`` starts at ``v_init``)::

    u[t] = leak * v[t-1] + gain * I[t]        gain = 1, or 1 - leak with scale_input
    s[t] = H(u[t] - threshold)                >= threshold, or > with strict
    v[t] = u[t] * (1 - s[t])                  reset "hard" (to zero)
         = u[t] - threshold * s[t]            reset "soft" (by subtraction)
         = u[t]                               reset "none"

``leak = 1`` is the integrate-and-fire neuron. Source: STBP (Wu et al. 2018), in the three-stage form. With a refractory period of R steps,
``s[t] = 0`` and ``v[t] = v[t-1]`` for the R steps after a spike. Leak and threshold are numbers, or learnt per layer, channel or neuron.

Backends: "reference" is the loop below, PyTorch's operations and autograd, the definition; "native" computes the same in one pass over time
each way (``methods.nn.lif_native``), on the CPU in single and double precision and in bfloat16, for the surrogates of
``methods.nn.surrogate``; "triton" does so on CUDA (``methods.nn.lif_triton``); "compiled" is ``torch.compile`` of a few steps at a time
(``methods.nn.compiled``). "auto" is native on the CPU wherever it can be: no size was found at which the reference is faster; they are even
at T = 1 with one neuron per channel whose leak and threshold are learnt (231 us, 230 us). Elsewhere it is the reference: the Triton kernels
were tested in Triton's interpreter and are not measured on a GPU yet, so they must be asked for. One thread of a Zen 4, forward + backward
in us (the last column in ms), reference and native, minima of interleaved runs; T = 1, 1 neuron: 165, 133.

=======================================  ===================  =====================  ============================
reference, native (us)                   T = 4, 64 neurons    T = 16, 8192 neurons   T = 64, 131072 neurons (ms)
=======================================  ===================  =====================  ============================
triangle, hard reset                     382, 153             1900, 357              108, 43
leak and threshold learnt, per layer     436, 258             2096, 588              147, 44
leak and threshold learnt, per channel   474, 281             2199, 695              160, 65
refractory                               550, 157             4357, 666              258, 31
bfloat16                                 382, 153             2017, 487              75, 25
rectangle, save="potential"              384, 148             1942, 271              111, 30
rectangle, save="bits"                   387, 155             1910, 753              114, 65
=======================================  ===================  =====================  ============================

A training step of stbp (static/digits, events/digits-saccade) takes 1.1 to 1.4 times as long with the reference, disturbed runs aside.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from methods.nn import gpu, lif_compiled, native
from methods.nn.compiled import Compiled
from methods.nn.lif_operator import state_type
from methods.nn.lif_settings import BITS, CURRENT, POTENTIAL, RESETS, Flags, Numbers, Save, coefficients, why_not_bits
from methods.nn.lif_step import State, at_rest, reset, step
from methods.nn.stepping import Stateful
from methods.nn.surrogate import Surrogate, Triangle

Reset = Literal["hard", "soft", "none"]
Learnt = Literal["leak", "threshold"]
Backend = Literal["auto", "reference", "native", "compiled", "triton"]


class LIF(Stateful):
    """Leaky integrate-and-fire neuron; see the module's docstring for the symbols.

    ``detach_reset`` keeps gradients out of the reset. ``learn`` names what is learnt: "leak", as ``leak = 1 - sigmoid(w)`` (PLIF), w the
    parameter ``leak_logit``; "threshold", itself the parameter. Each is one number per layer, or with ``channels=C`` one per channel of
    currents ``[T, B, C, ...]``, or with ``channels=(C, H, W)`` one per neuron of currents ``[T, B, C, H, W]``. ``learnable_leak`` is the
    same as ``learn=("leak",)``. ``refractory``: so many steps after a spike a neuron ignores its input and emits nothing, its potential
    stays as the reset left it.

    ``save`` is what kernels keep for the backward pass: "potential"; "recompute", the currents, from which they compute the potentials
    again; "bits", 2 bits per neuron-step instead of 32 (1 with a soft reset or none, and a threshold that is not learnt), exact where a
    gradient depends on no more: the surrogate a ``Rectangle``, the reset soft, none, or hard and detached, the leak not learnt, not
    refractory (packing takes time, see the table above); or "auto", the currents where they are smaller, as they are the same at every step
    or in half precision, and else the potentials. Forward + backward with potentials took 0.6 to 0.8 times as long as with currents at
    T = 4 and 16 (32 x 4096 neurons, 2 threads), and about as long at T = 64. A scaled input with a learnt leak keeps currents, and so does
    a refractory neuron, with the state before each piece when stepping.

    ``used`` is the backend of the last call. Raises ValueError for an unknown reset, backend, save or name in ``learn``, for "bits" where
    it would not be exact; for a threshold to learn that is not positive, a negative ``refractory``, and currents without those channels;
    RuntimeError when a backend that was asked for cannot do what is asked.
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
        learn: Sequence[Learnt] = (),
        channels: int | tuple[int, ...] | None = None,
        refractory: int = 0,
    ) -> None:
        """Make a layer of neurons of any shape."""
        super().__init__()
        learn = (learn,) if isinstance(learn, str) else tuple(learn)
        choices = [("reset", reset, Reset), ("backend", backend, Backend), ("save", save, Save)]
        for what, value, allowed in (*choices, *(("learn", name, Learnt) for name in learn)):
            if value not in get_args(allowed):
                raise ValueError(f"{what} {value!r} is unknown; allowed: {', '.join(get_args(allowed))}")
        learnt_leak = learnable_leak or "leak" in learn
        if refractory < 0:
            raise ValueError(f"refractory is a number of steps, 0 or more, not {refractory}")
        if save == "bits" and (reason := why_not_bits(surrogate, reset, detach_reset, learnt_leak, refractory)):
            raise ValueError(f"save='bits' would not be exact: {reason}")
        self.backend, self.save = backend, save
        self.used: str | None = None
        if backend != "reference":
            native.available(torch.float32)  # may compile: better here than on the clock of a training step
        self.reset, self.detach_reset, self.v_init, self.refractory = reset, detach_reset, v_init, refractory
        self.surrogate, self.strict, self.scale_input = surrogate, strict, scale_input
        self.channels = channels
        self._leak = leak
        shape = channels if isinstance(channels, tuple) else () if channels is None else (channels,)
        if learnt_leak:
            self.leak_logit = nn.Parameter(torch.full(shape, math.log((1 - leak) / leak)))
        if "threshold" in learn and threshold <= 0:
            raise ValueError(f"a threshold to learn must start above 0, not at {threshold}")
        self.threshold = nn.Parameter(torch.full(shape, float(threshold))) if "threshold" in learn else threshold

    @property
    def leak(self) -> Tensor | float:
        """Fraction of the membrane potential that is left after a step: a number, or a tensor that is learnt."""
        return 1 - torch.sigmoid(self.leak_logit) if hasattr(self, "leak_logit") else self._leak

    def forward(self, current: Tensor) -> Tensor:
        """Return the spikes ``[T, B, ...]`` of a current of the same shape."""
        if self.channels is not None and not self._fits(current.shape[2:]):
            wanted = f"{', '.join(map(str, self.channels))}]" if isinstance(self.channels, tuple) else f"{self.channels}, ...]"
            raise ValueError(f"a current [T, B, {wanted} is needed for channels={self.channels}, not {list(current.shape)}")
        state = self.carried()
        if self.backend == "compiled" and not torch.compiler.is_compiling():  # inside a larger compiled function: as the reference
            self.used = "compiled"
            return self._compiled(current, state)
        if self.backend not in ("reference", "compiled"):
            v = state[0] if state else None
            triton = self.backend == "triton"
            reason = self.why_not_triton(current, v) if triton else self.why_not_native(current, v)
            if reason is None:
                self.used = "triton" if triton else "native"
                return self._kernel(current, state, triton)
            if self.backend != "auto":
                raise RuntimeError(f"the {self.backend} backend cannot be used: {reason}")
        self.used = "reference"
        return self._reference(current, state)

    def _fits(self, shape: torch.Size) -> bool:
        return shape == self.channels if isinstance(self.channels, tuple) else shape[:1] == (self.channels,)

    def why_not_triton(self, current: Tensor, v: Tensor | None = None) -> str | None:
        """Return why the Triton backend cannot take ``current`` (and the state ``v``), or None if it can."""
        reason = gpu.why_not(current.device) or self._why_not(current, v)
        if reason is None:
            from methods.nn import lif_triton  # importing Triton takes a while, and it is not everywhere

            reason = lif_triton.why_not(current, self.refractory, self.save)
        return reason

    def why_not_native(self, current: Tensor, v: Tensor | None = None) -> str | None:
        """Return why the native backend cannot take ``current`` (and the state ``v``), or None if it can."""
        if current.device.type != "cpu":
            return f"it runs on the CPU, the current is on {current.device}"
        if current.dtype not in native.REALS and current.dtype != torch.bfloat16:
            return f"it knows float32, float64 and bfloat16, the current is {current.dtype}"
        reason = self._why_not(current, v)
        if reason is None and not native.available(state_type(current.dtype)):
            reason = native.describe()
        return reason

    def _why_not(self, current: Tensor, v: Tensor | None) -> str | None:
        """Return why no kernel of ours can take ``current`` and the state ``v``, or None."""
        if type(current) is not Tensor and type(current) is not nn.Parameter:
            return f"the current is a {type(current).__name__}, which kernels cannot look into"
        if current.dim() < 1 or len(current) == 0:
            return "there is no time step"
        real = state_type(current.dtype)
        if v is not None and (v.dtype != real or v.shape != current.shape[1:]):
            return f"the state must be {real} {list(current.shape[1:])}, not {v.dtype} {list(v.shape)}"
        if type(self)._after is not LIF._after:
            return f"it does not know the reset of {type(self).__name__}"
        if coefficients(self.surrogate) is None:
            return f"it does not know the surrogate {type(self.surrogate).__name__}"
        threshold = 0.0 if "threshold" in (*self._parameters, *self._buffers) else self.threshold
        if isinstance(threshold, Tensor) or isinstance(self.v_init, Tensor) or isinstance(self._leak, Tensor):
            return "threshold, leak and initial potential must be numbers or learnt"
        if self._parameters and real != torch.float64 and any(p.dtype == torch.float64 for p in self._parameters.values()):
            return f"leak and threshold are torch.float64, the current is {current.dtype}"
        return None

    def compiled(self) -> Compiled:
        """Return the compiled step that backend "compiled" runs: shared by all layers of the same settings."""
        leak = None if isinstance(self.leak, Tensor) else self._leak
        threshold = None if isinstance(self.threshold, Tensor) else self.threshold
        return lif_compiled.compiled(
            leak, threshold, self.reset, self.detach_reset, self.surrogate, self.strict, self.scale_input, self.refractory
        )

    def _compiled(self, current: Tensor, state: State | None) -> Tensor:
        learnt = tuple(value for value in (self._spread(self.leak, current), self._spread(self.threshold, current)) if _is_tensor(value))
        spikes, after = self.compiled()(current, state or at_rest(current[0], self.v_init, self.refractory), learnt)
        self._remember(after)
        return spikes

    def _kernel(self, current: Tensor, state: State | None, triton: bool) -> Tensor:
        kind, *shape = coefficients(self.surrogate)
        leak, threshold = self.leak, self.threshold
        learnt_leak = leak if isinstance(leak, Tensor) else None
        learnt_threshold = threshold if isinstance(threshold, Tensor) else None
        beta = float(leak) if learnt_leak is None else 0.0
        numbers = Numbers(beta, float(threshold) if learnt_threshold is None else 0.0, float(self.v_init), *shape)
        choices = int(not self.detach_reset), int(self.strict), kind, int(self.scale_input), 0, self._kept(current)
        flags = Flags(RESETS.index(self.reset), *choices, int(self._stepping), self.refractory)
        if triton:
            from methods.nn.lif_triton import lif
        else:
            from methods.nn.lif_native import lif
        v0, r0 = (*(state or ()), None, None)[:2]
        if isinstance(self.channels, tuple) and len(current[0]) > 1 and current.stride(1) != math.prod(self.channels):
            current = current.contiguous()  # the neurons of a sample must lie side by side
        spikes, v1, r1 = lif(current, v0, r0, learnt_leak, learnt_threshold, numbers, flags)
        if v1 is not None:
            self._remember((v1,) if r1 is None else (v1, r1))
        return spikes

    def _kept(self, current: Tensor) -> int:
        """Return what kernels are asked to keep."""
        if self.save == "auto":
            smaller = current.dtype.itemsize == 2 or (len(current) > 1 and current.stride(0) == 0)
            return CURRENT if smaller else POTENTIAL
        return {"potential": POTENTIAL, "recompute": CURRENT, "bits": BITS}[self.save]

    def _reference(self, current: Tensor, state: State | None) -> Tensor:
        leak, threshold = self._spread(self.leak, current), self._spread(self.threshold, current)
        dtype = current.dtype
        if self.scale_input:
            current = (1 - leak) * current
        state = state or at_rest(current[0], self.v_init, self.refractory)
        spikes = []
        for now in current.unbind(0):  # indexing by t would make the backward pass quadratic in T
            s, state = step(state, now, leak, threshold, self._after, self.surrogate, self.strict, self.detach_reset, self.refractory)
            spikes.append(s)
        self._remember(state)
        return torch.stack(spikes).to(dtype)  # parameters per channel may be of a wider type

    def _remember(self, state: Sequence[Tensor]) -> None:
        self.carry(state[0], *(count.detach() for count in state[1:]))

    def _after(self, u: Tensor, s: Tensor) -> Tensor:
        return reset(u, s, self._spread(self.threshold, u, 1), self.reset)

    def _spread(self, value: Tensor | float, like: Tensor, channel: int = 2) -> Tensor | float:
        """Return a value per channel so that it broadcasts against ``like``, whose dimension ``channel`` they are."""
        if not isinstance(self.channels, int) or not _is_tensor(value):
            return value
        return value.view(-1, *[1] * (like.dim() - channel - 1))

    def extra_repr(self) -> str:
        """Return the settings for printing."""
        leak, threshold = (value.mean().item() if _is_tensor(value) else value for value in (self.leak, self.threshold))
        told = f"leak={leak:g}, threshold={threshold:g}, reset={self.reset}"
        if self.refractory:
            told += f", refractory={self.refractory}"
        return told if self.channels is None else f"{told}, channels={self.channels} (means)"


def _is_tensor(value: Tensor | float) -> bool:
    return isinstance(value, Tensor)


def backends(net: nn.Module) -> dict[str, int]:
    """Return how many layers of ``net`` used which backend in their last call; empty without LIF neurons or before any call."""
    return dict(Counter(module.used for module in net.modules() if isinstance(module, LIF) and module.used))


class ReLU(nn.ReLU):
    """The neuron of a non-spiking network: what a spiking layer is compared with."""

    spike_kind = "none"
