"""Synaptic operations in the meaning of NeuroBench: what a synapse has to do for the input it gets.

For each linear or convolution layer that runs::

    effective = sum over outputs of (input != 0) * (weight != 0)      what hardware that skips zeros does
    dense     = the same with all inputs and all weights taken as non-zero    what hardware that skips nothing does

    nominal   = dense, with the taps that fall on zero padding         what counters of MACs report, times the steps that ran

Taps that fall on zero padding are operations in neither of the first two. Effective operations are accumulates (AC) where the inputs are
all in {-1, 0, 1}, so that nothing is multiplied, and multiply-accumulates (MAC) otherwise. That is decided for each input that the layer
meets on its own: one image or sequence (convolutions) or one vector (linear), of one sample and time step. Hence the count is the same for
``[T, B, ...]``, for time merged into the batch, for single steps, and for any batch.

Work that is not a weight times an input goes into ``other``: the effective operations of transposed convolutions, and what modules say of
themselves (products of activations, as in attention) by a method ``synops_other(inputs, output)`` that returns a number for the call. Not
counted: biases, normalisation, pooling, and neuron dynamics.

Effective operations are also added up step by step where every layer shows its steps: inputs ``[T, B, ...]``, or ``[B, C, T]`` for a
convolution over time, which says so by an attribute ``over_time`` and whose operations count at the step of its output.
Source: NeuroBench (Yik et al., Nature Communications 2025), metric "synaptic operations"; there the AC/MAC choice is made per call,
for the whole batch at once.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass
from itertools import chain
from types import TracebackType
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Synapse: TypeAlias = nn.Linear | nn.Conv1d | nn.Conv2d
Transposed: TypeAlias = nn.ConvTranspose1d | nn.ConvTranspose2d
LONGEST = 256  # steps up to which operations are kept step by step


@dataclass(frozen=True)
class Operations:
    """Synaptic operations per sample."""

    effective: float
    dense: float
    ac: float
    mac: float
    nominal: float


@dataclass(frozen=True)
class SynopsCount(Operations):
    """Synaptic operations per sample of a network; ``layers`` has the layers that ran."""

    curve: list[float] | None  # effective at each step, [T]; None where a layer does not show its steps, or for more than LONGEST of them
    other: float  # operations that are not a weight times an input, and of transposed convolutions
    connection_sparsity: float | None  # share of weights that are zero; None without synapses
    layers: dict[str, Operations]


class SynopsMeter:
    """Context that counts the synaptic operations of ``net``'s ``nn.Linear``, ``nn.Conv1d`` and ``nn.Conv2d`` modules.

    A module whose weights are not used as they are stored (weight standardisation, quantisation) shows those it uses as
    ``effective_weight``. Only what runs is counted, so early exit and skipped branches show. An input that is one image repeated over T
    (``expand``) counts T times. Numbers are whole and kept on the device; division by the samples comes last. Call ``begin()`` before each
    batch for what is done at each step; without it all calls go on with one sequence.
    """

    def __init__(self, net: nn.Module) -> None:
        """Find the synapses of ``net``."""
        self._modules = {name: m for name, m in net.named_modules() if isinstance(m, Synapse)}
        self._others = {n: m for n, m in net.named_modules() if isinstance(m, Transposed) or hasattr(m, "synops_other")}
        self._counts: dict[str, Tensor] = {}  # [effective, dense, ac, nominal]
        self._other: Tensor | int = 0
        self._curve: Tensor | None = None  # [LONGEST], of all layers
        self._at: dict[str, int] = {}  # the step that each layer has come to
        self._stepwise, self._longest = True, 0
        self._fan_outs: dict[tuple[str, tuple[int, ...]], tuple[int, Tensor, Tensor]] = {}
        self._handles: list[Any] = []

    def __enter__(self) -> SynopsMeter:
        """Begin to listen."""
        for name, module in self._modules.items():
            self._handles.append(module.register_forward_hook(self._hook(name), with_kwargs=True))
        for module in self._others.values():
            self._handles.append(module.register_forward_hook(self._add_other))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Stop listening; what was counted stays."""
        while self._handles:
            self._handles.pop().remove()

    def begin(self) -> None:
        """Say that a batch of sequences comes next, from their first step."""
        self._close()
        self._at = {}

    def _close(self) -> None:
        self._longest = max(self._longest, *self._at.values(), 0)
        self._stepwise &= len(set(self._at.values())) <= 1  # all layers must have come equally far

    def _add_steps(self, name: str, counts: Tensor) -> None:
        begun = self._at.get(name, 0)
        self._at[name] = end = begun + len(counts)
        self._stepwise &= end <= LONGEST
        if self._stepwise:
            self._curve = counts.new_zeros(LONGEST) if self._curve is None else self._curve
            self._curve[begun:end] += counts

    def _add_other(self, module: nn.Module, inputs: Any, output: Any) -> None:
        if hasattr(module, "synops_other"):
            self._other = self._other + module.synops_other(inputs, output)
            return
        x = inputs[0].detach()
        x = x.reshape(-1, *x.shape[x.dim() - module.weight.dim() + 1 :])
        self._other = self._other + ((x != 0).sum(0) * fan_out(module, module.weight != 0, x.shape[1:])).sum()

    def _hook(self, name: str) -> Any:
        def count(module: Synapse, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            x = (args[0] if args else kwargs["input"]).detach()
            repeats = 1
            unit = module.weight.dim() - 1  # dimensions of one input: features, or channels and space
            steps = len(x) if x.dim() > unit + 1 else 0  # 0: not shown
            if x.dim() > unit and x.shape[0] > 1 and x.stride(0) == 0:
                x, repeats = x[0], x.shape[0]
            x = x.reshape(-1, *x.shape[x.dim() - unit :])
            effective, dense = self._fan_out(name, module, x)
            nonzero = x != 0
            each = _weighted_sums(nonzero, effective, int(dense.sum()))
            spiking = each if torch.equal(x == 1, nonzero) else each * (x.abs() == nonzero).flatten(1).all(1)
            found = [
                each.sum(),
                dense.sum() * len(x),
                spiking.sum(),
                torch.as_tensor(output.numel() // repeats * module.weight[0].numel(), device=x.device),
            ]
            self._counts[name] = self._counts.get(name, 0) + torch.stack(found) * repeats
            if getattr(module, "over_time", False):
                self._add_steps(name, operations_over_time(module, nonzero))
            elif steps:
                self._add_steps(name, each.unflatten(0, (steps // repeats, -1)).sum(1).expand(steps))
            else:
                self._stepwise = False

        return count

    def _fan_out(self, name: str, module: Synapse, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return, for each element of one input, how many outputs it reaches: by non-zero weights, and by all."""
        key = (name, tuple(x.shape[1:]))
        version = sum(part._version for part in chain(module.parameters(), module.buffers()))
        if key not in self._fan_outs or self._fan_outs[key][0] != version:
            weight: Tensor = getattr(module, "effective_weight", module.weight)
            pair = (fan_out(module, weight != 0, x.shape[1:]), fan_out(module, torch.ones_like(weight, dtype=torch.bool), x.shape[1:]))
            self._fan_outs[key] = (version, *pair)
        return self._fan_outs[key][1:]

    def result(self, samples: int) -> SynopsCount:
        """Return operations per sample for ``samples`` samples seen; raise ValueError if there were none."""
        if samples < 1:
            raise ValueError(f"operations per sample need at least one sample, not {samples}")
        totals = {name: self._counts[name].tolist() for name in self._modules if name in self._counts}
        layers = {name: _operations(counts, samples) for name, counts in totals.items()}
        whole = _operations([sum(counts[i] for counts in totals.values()) for i in range(4)], samples)
        weights = [getattr(module, "effective_weight", module.weight) for module in self._modules.values()]
        count = sum(weight.numel() for weight in weights)
        self._close()
        curve = [count / samples for count in self._curve[: self._longest].tolist()] if self._stepwise and self._curve is not None else None
        sparsity = 1 - sum(int(weight.count_nonzero()) for weight in weights) / count if count else None
        return SynopsCount(*astuple(whole), curve, float(self._other) / samples, sparsity, layers)


def _operations(counts: list[int], samples: int) -> Operations:
    effective, dense, ac, nominal = counts
    return Operations(effective / samples, dense / samples, ac / samples, (effective - ac) / samples, nominal / samples)


def _weighted_sums(nonzero: Tensor, weights: Tensor, most: int) -> Tensor:
    """Return for each of ``nonzero [N, ...]`` the sum of the whole ``weights [...]`` at its places, ``[N]``; none is above ``most``.

    A product of matrices is by far the fastest such sum. It is exact in single precision up to 2^24.
    """
    if nonzero.dim() == 4 and nonzero.is_contiguous(memory_format=torch.channels_last):  # flat as it lies in memory
        nonzero, weights = nonzero.permute(0, 2, 3, 1), weights.permute(1, 2, 0)
    dtype = torch.float32 if most < 1 << 24 else torch.float64
    with torch.autocast(nonzero.device.type, enabled=False):
        return (nonzero.flatten(1).to(dtype) @ weights.flatten().to(dtype)).long()


def operations_over_time(module: nn.Conv1d, nonzero: Tensor) -> Tensor:
    """Return the effective operations ``[T]`` at each output of a convolution over time, for ``nonzero [N, C, T']`` inputs."""
    weight: Tensor = getattr(module, "effective_weight", module.weight)
    kernel = (weight != 0).unflatten(0, (module.groups, -1)).sum(1).double()
    with torch.autocast(nonzero.device.type, enabled=False):
        return nn.Conv1d._conv_forward(module, nonzero.double(), kernel, None).sum((0, 1)).round().long()


def fan_out(module: Synapse | Transposed, mask: Tensor, shape: torch.Size) -> Tensor:
    """Return how many outputs each element of one input of ``shape`` reaches through the synapses in ``mask`` (as the weight).

    The number of outputs is linear in a 0/1 input, so it is the gradient of "sum of outputs for 0/1 weights" with respect
    to the input: right for any stride, padding, dilation and grouping.
    """
    if isinstance(module, nn.Linear):
        return mask.sum(0)
    if isinstance(module, Transposed):
        transpose = F.conv_transpose2d if isinstance(module, nn.ConvTranspose2d) else F.conv_transpose1d
        with torch.inference_mode(False), torch.enable_grad():
            one_input = torch.zeros(1, *shape, dtype=torch.float64, device=mask.device, requires_grad=True)
            geometry = (module.stride, module.padding, module.output_padding, module.groups, module.dilation)
            (gradient,) = torch.autograd.grad(transpose(one_input, mask.double(), None, *geometry).sum(), one_input)
        return gradient[0].round().long()
    # Outputs of a group that share an input are added up before the convolution: one output channel per group is enough.
    base: Any = nn.Conv2d if isinstance(module, nn.Conv2d) else nn.Conv1d  # not the subclass: it may change weights on the way
    with torch.inference_mode(False), torch.enable_grad():
        kernel = mask.unflatten(0, (module.groups, -1)).sum(1).double()
        one_input = torch.zeros(1, *shape, dtype=torch.float64, device=mask.device, requires_grad=True)
        reached = base._conv_forward(module, one_input, kernel, None).sum()
        (gradient,) = torch.autograd.grad(reached, one_input)
    return gradient[0].round().long()
