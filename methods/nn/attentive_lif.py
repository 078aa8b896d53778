"""LIF neurons whose membrane potential passes gates made from their own spikes: spatial-channel-temporal-fused attention (SCTFA).

For currents ``I[t] [B, C, H, W]`` of a convolution layer, and its state ``v``, ``s``, zeros before the first step::

    Sp(s) = sigmoid(sum_c w_c s_c + b)                            [B, 1, H, W]   attention "spatial"
    Ch(s) = sigmoid(W2 relu(W1 mean_{H,W}(s)))                    [B, C, 1, 1]   attention "channel"
    A[t]  = Sp(s[t-1]) * Ch(s[t-1])                               [B, C, H, W]   attention "fused"; all in (0, 1)
    u[t]  = leak * A[t] * v[t-1] + I[t]
    s[t]  = H(u[t] - threshold)        > threshold with strict, else >=
    v[t]  = u[t] * (1 - s[t])          hard reset; with detach_reset the gradient does not see s here

The current is not gated. As the potential is recursive, gates multiply up over time: what was attended keeps its charge, the rest is
forgotten faster than by the leak alone, never slower. Serial over time: A[t] needs the spikes of the step before.

``backend="reference"`` is the loop above under autograd, the definition; "native" (``methods.nn.attentive_native``) computes the same on
the CPU in one pass over time each way. "auto" is native wherever it can be.
Source: "A Spatial-Channel-Temporal-Fused Attention for Spiking Neural Networks" (Cai et al., IEEE TNNLS 2023), official example; the
the runs with one gate alone are ours to define.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn

from methods.nn import attentive_native
from methods.nn.lif_operator import state_type
from methods.nn.stepping import Stateful
from methods.nn.surrogate import Surrogate, Triangle, spike

Attention = Literal["fused", "spatial", "channel"]
Backend = Literal["auto", "reference", "native"]


class Gates(NamedTuple):
    """What the gates learn: ``weight [C]``, ``bias []`` (w, b), ``squeeze [C/r, C]``, ``excite [C, C/r]`` (W1, W2); None: no such gate."""

    weight: Tensor | None
    bias: Tensor | None
    squeeze: Tensor | None
    excite: Tensor | None

    def __call__(self, s: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Return Sp ``[B, P, 1]`` and Ch ``[B, 1, C]`` of spikes ``s [B, P, C]`` at P places."""
        space = channel = None
        if self.weight is not None and self.bias is not None:
            space = torch.sigmoid(torch.matmul(s, self.weight.unsqueeze(1)) + self.bias)
        if self.squeeze is not None and self.excite is not None:
            channel = torch.sigmoid(torch.relu(s.mean(1) @ self.squeeze.T) @ self.excite.T).unsqueeze(1)
        return space, channel

    def to(self, dtype: torch.dtype) -> Gates:
        """Return the same in the precision of the arithmetic."""
        return Gates(*(None if part is None else part.to(dtype) for part in self))


class Rule(NamedTuple):
    """What is fixed for a layer."""

    leak: float
    threshold: float
    surrogate: Surrogate
    strict: bool
    detach_reset: bool


class AttentiveLIF(Stateful):
    """Leaky integrate-and-fire neurons with attention on their potential; see the module's docstring for symbols and backends.

    ``features`` is C; ``reduction`` r divides it in the channel gate, whose hidden layer has ``max(1, C // r)`` units. Extra parameters:
    C + 1 (spatial) and 2 C (C // r) (channel). The gates' first weights are drawn aside, so that with one seed the other layers of a
    network start the same whatever the attention. Arithmetic is float32 at least. ``used`` is the backend of the last call. Raises
    ValueError for an unknown attention or backend, a reduction below 1, and currents that are not ``[T, B, C, H, W]``.
    """

    spike_kind = "binary"

    def __init__(
        self,
        features: int,
        attention: Attention = "fused",
        reduction: int = 4,
        leak: float = 0.5,
        threshold: float = 1.0,
        detach_reset: bool = True,
        surrogate: Surrogate = Triangle(),  # noqa: B008 - a frozen dataclass
        strict: bool = True,
        backend: Backend = "auto",
    ) -> None:
        """Make the neurons of a layer of ``features`` channels."""
        super().__init__()
        for what, value, allowed in (("attention", attention, Attention), ("backend", backend, Backend)):
            if value not in get_args(allowed):
                raise ValueError(f"{what} {value!r} is unknown; allowed: {', '.join(get_args(allowed))}")
        if reduction < 1:
            raise ValueError(f"reduction divides the channels; allowed: 1 and more, not {reduction}")
        self.features, self.attention, self.backend = features, attention, backend
        self.used: str | None = None
        self._operations = 0
        self.rule = Rule(leak, threshold, surrogate, strict, detach_reset)
        hidden = max(1, features // reduction)
        sizes = {"weight": (features,), "bias": (), "squeeze": (hidden, features), "excite": (features, hidden)}
        absent = {"fused": (), "spatial": ("squeeze", "excite"), "channel": ("weight", "bias")}[attention]
        with torch.random.fork_rng(devices=[]):
            aside = torch.Generator().manual_seed(int(torch.randint(2**62, ())))
        for name, size in sizes.items():
            bound = (hidden if name == "excite" else features) ** -0.5  # as torch.nn's own layers start
            start = torch.empty(size).uniform_(-bound, bound, generator=aside)
            self.register_parameter(name, None if name in absent else nn.Parameter(start))

    @property
    def gates(self) -> Gates:
        """What the gates have learnt."""
        return Gates(self.weight, self.bias, self.squeeze, self.excite)

    def forward(self, current: Tensor) -> Tensor:
        """Return the spikes ``[T, B, C, H, W]`` of a current of the same shape."""
        if current.dim() != 5 or current.shape[2] != self.features:
            raise ValueError(
                f"attention over {self.features} channels needs a current [T, B, {self.features}, H, W], not {[*current.shape]}"
            )
        dtype, state = current.dtype, self.carried()
        v, s = state or (None, None)
        with torch.autocast(current.device.type, enabled=False):
            x = columns(current.to(state_type(dtype)))
            reason = self.why_not_native(x)
            if reason is not None and self.backend == "native":
                raise RuntimeError(f"the native backend cannot be used: {reason}")
            self.used = "reference" if reason else "native"
            spikes, after = self._reference(x, v, s) if reason else self._native(x, v, s)
            self._operations = self._count(x, v, s) if self._forward_hooks else 0  # a meter may listen
        if self._stepping:
            assert after is not None
            self.carry(after, spikes[-1])
        return restored(spikes, current.shape).to(dtype)

    def why_not_native(self, x: Tensor) -> str | None:
        """Return why the native backend is not used for currents ``[T, B, P, C]``, or None if it is."""
        if self.backend == "reference" or torch.compiler.is_compiling():
            return "the reference was asked for" if self.backend == "reference" else "the loop is part of a larger compiled function"
        return attentive_native.why_not(x, self.rule.surrogate)

    def _reference(self, x: Tensor, v: Tensor | None, s: Tensor | None) -> tuple[Tensor, Tensor]:
        found = list(walk(x, v, s, self.gates.to(x.dtype), self.rule))
        return torch.stack([s for s, _ in found]), found[-1][1]

    def _native(self, x: Tensor, v: Tensor | None, s: Tensor | None) -> tuple[Tensor, Tensor | None]:
        gates = self.gates.to(x.dtype)
        if torch.is_grad_enabled() and any(part is not None and part.requires_grad for part in (x, v, s, *gates)):
            return attentive_native.Attentive.apply(x, v, s, *gates, self.rule, self._stepping)
        return attentive_native.forward(x, v, s, gates, self.rule, keep=False, carry=self._stepping)[:2]

    @torch.no_grad()
    def attend(self, spikes: Tensor) -> Tensor:
        """Return the gates A ``[B, C, H, W]`` that follow spikes of that shape; a gate that is absent is 1."""
        s = columns(spikes.to(state_type(spikes.dtype)))
        found = torch.ones_like(s)
        for gate in self.gates.to(s.dtype)(s):
            found = found if gate is None else found * gate
        return restored(found, spikes.shape)

    def synops_other(self, inputs: tuple[Tensor, ...], output: Tensor) -> int:
        """Return the effective operations of the attention in the last call, for ``harness.meters.synops``.

        Of both gates those with an input and a weight that are not 0, and of each potential that is not 0 a product with either gate.
        """
        return self._operations

    @torch.no_grad()
    def _count(self, x: Tensor, v: Tensor | None, s: Tensor | None) -> int:
        # A gate that follows rest does no operation, so the first step counts as none.
        start = (torch.zeros_like(x[0]),) * 2 if v is None or s is None else (s, v)
        count = torch.zeros((), dtype=torch.long, device=x.device)
        states = [start, *walk(x, v, s, self.gates.to(x.dtype), self.rule)][:-1]  # before each step
        for s, v in states:
            count += (v != 0).sum() * (2 if self.attention == "fused" else 1)
            if self.weight is not None:
                count += ((s != 0).sum((0, 1)) * (self.weight != 0)).sum()
            if self.squeeze is not None and self.excite is not None:
                hidden = torch.relu(s.mean(1) @ self.squeeze.T.to(s.dtype))
                count += ((s != 0).any(1).sum(0) * (self.squeeze != 0)).sum() + ((hidden != 0).sum(0) * (self.excite != 0)).sum()
        return int(count)

    def extra_repr(self) -> str:
        """Return the settings for printing."""
        return f"{self.features}, attention={self.attention}, leak={self.rule.leak:g}, threshold={self.rule.threshold:g}"


def columns(x: Tensor) -> Tensor:
    """Return ``x [..., C, H, W]`` as ``[..., P, C]``, P = H * W places: a view where the layout allows one."""
    return x.flatten(-2).transpose(-1, -2)


def restored(y: Tensor, shape: torch.Size) -> Tensor:
    """Return ``y [..., P, C]`` as ``[..., C, H, W]``, where ``shape`` ends with H, W."""
    return y.transpose(-1, -2).unflatten(-1, shape[-2:])


def walk(currents: Tensor, v: Tensor | None, s: Tensor | None, gates: Gates, rule: Rule) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield spikes and potential after each step of ``currents [T, B, P, C]``, from a state or from rest (None): the definition."""
    for now in currents.unbind(0):
        u = now if v is None or s is None else _carried_over(v, *gates(s), rule.leak) + now
        s = spike(u - rule.threshold, rule.surrogate, rule.strict)
        v = u * (1 - (s.detach() if rule.detach_reset else s))
        yield s, v


def _carried_over(v: Tensor, space: Tensor | None, channel: Tensor | None, leak: float) -> Tensor:
    """Return ``(leak * A) * v``. The fused A is an outer product, made by a matrix product: broadcasting over a few channels is slow."""
    if space is None or channel is None:
        return v * (leak * (channel if space is None else space))
    return torch.bmm(space, leak * channel) * v
