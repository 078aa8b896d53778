"""Spikes per sample, per neuron, layer by layer and step by step, counted at what the neuron modules return.

A module takes part if its attribute ``spike_kind`` is "binary" (it promises exact 0/1) or "graded" (other values allowed); "none" (the
activation of a network that does not spike) counts for the sparsity of activations only::

    with SpikeMeter(net) as meter, torch.no_grad():
        for batch in task.batches("test"):
            seen += len(batch.inputs)
            method.predict(net, batch.inputs)
    count = meter.result(seen)

Every element that is not zero is a spike: a graded value or a burst is one event, as it is for the synaptic operations that follow.
Only totals are kept and division comes last, so the count is right whether a sequence ``[T, B, ...]`` comes in one call or in parts,
and whether all samples or only those that go on (early exit) are in a call. A module that goes on with a sequence, rather than beginning
one, says so by a method ``carried()`` that does not return None before the call (``methods.nn.stepping``).
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from math import prod
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn

COUNTED = ("binary", "graded")
KINDS = (*COUNTED, "none")
LONGEST = 256  # steps up to which rates are kept step by step
CHECKED = 1 << 22  # elements of a layer after which no more are looked at for other values than 0 and 1


@dataclass(frozen=True)
class LayerSpikes:
    """Spikes of one layer."""

    spikes: int  # in all samples, steps and neurons seen
    elements: int  # neurons x steps x samples seen
    neurons: int  # distinct units: elements of one step of one sample
    spikes_per_sample: float
    rate: float  # spikes per neuron and step, over what ran
    rates: list[float] | None  # the same at each step, [T]; None for more than LONGEST steps


@dataclass(frozen=True)
class SpikeCount:
    """Spikes of a network. ``layers`` has the layers that ran, in the order of ``named_modules``."""

    spikes_per_sample: float
    spikes_per_neuron: float  # per sample: spikes over all steps / number of neurons
    firing_rate: float  # spikes per neuron and step, over what ran
    updates_per_sample: float  # neurons of spiking layers x steps that ran, per sample
    curve: list[float] | None  # spikes per sample at each step, all layers; None where a layer has no rates
    activation_sparsity: float | None  # share of zeros in what all activations (spiking or not) returned; None without any
    layers: dict[str, LayerSpikes]
    offenders: tuple[str, ...]  # "binary" modules that returned something else than 0 and 1 (or NaN) in their first ``CHECKED`` elements


class _Tally:
    """Sums of one module, kept on its device, so that counting does not make a GPU wait."""

    def __init__(self, device: torch.device) -> None:
        self.spikes = torch.zeros((), dtype=torch.int64, device=device)
        self.broken = torch.zeros((), dtype=torch.bool, device=device)
        self.elements = 0
        self.steps = torch.zeros(LONGEST, 2, dtype=torch.int64, device=device)  # spikes and elements of each step
        self.step = self.longest = 0
        self.shapes: set[tuple[int, ...]] = set()


class SpikeMeter:
    """Context that counts what the spiking modules of ``net`` return; see the module's docstring."""

    def __init__(self, net: nn.Module) -> None:
        """Find the spiking modules of ``net``."""
        self._modules = {name: m for name, m in net.named_modules() if getattr(m, "spike_kind", None) in KINDS}
        self._tallies: dict[str, _Tally] = {}
        self._handles: list[Any] = []
        self.seconds = 0.0  # that counting took; on a GPU, that asking for it took

    def __enter__(self) -> SpikeMeter:
        """Begin to listen."""
        for name, module in self._modules.items():
            self._handles.append(module.register_forward_pre_hook(self._begin(name)))
            self._handles.append(module.register_forward_hook(self._hook(name)))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Stop listening; what was counted stays."""
        while self._handles:
            self._handles.pop().remove()

    def _begin(self, name: str) -> Any:
        def note(module: nn.Module, inputs: Any) -> None:
            goes_on = hasattr(module, "carried") and module.carried() is not None
            if name in self._tallies and not goes_on:
                self._tallies[name].step = 0

        return note

    def _hook(self, name: str) -> Any:
        def count(module: nn.Module, inputs: Any, output: Any) -> None:
            if not isinstance(output, Tensor):
                raise TypeError(
                    f"spiking module {name!r} returned {type(output).__name__}; to be counted it must return its spikes [T, B, ...]"
                )
            begin = time.perf_counter()
            spikes = output.detach()
            tally = self._tallies.setdefault(name, _Tally(spikes.device))
            binary, checked = module.spike_kind == "binary", tally.elements >= CHECKED
            tally.elements += spikes.numel()
            tally.shapes.add(tuple(spikes.shape[2:]))
            begun, tally.step = tally.step, tally.step + len(spikes)
            tally.longest = max(tally.longest, tally.step)
            if binary and checked and spikes.device.type == "cpu" and not tally.broken and spikes[:1].numel() < 1 << 24:
                # A sum of zeros and ones, exact up to 2^24 in single precision, is five times as fast as any way to count.
                counts = spikes.sum(tuple(range(1, spikes.dim())), dtype=torch.float32).long()
            else:
                counts = torch.stack([torch.count_nonzero(now) for now in spikes != 0]) if len(spikes) else tally.spikes.new_zeros(0)
            tally.spikes += counts.sum()
            if tally.step <= LONGEST and spikes.numel():
                tally.steps[begun : tally.step, 0] += counts
                tally.steps[begun : tally.step, 1] += spikes[0].numel()
            if binary and not checked:
                tally.broken |= torch.count_nonzero(spikes == 1) != counts.sum()
            self.seconds += time.perf_counter() - begin

        return count

    def result(self, samples: int) -> SpikeCount:
        """Return the count for ``samples`` samples seen; raise ValueError if there were none."""
        if samples < 1:
            raise ValueError(f"spikes per sample need at least one sample, not {samples}")
        layers, offenders, active, seen = {}, [], 0, 0
        for name, module in self._modules.items():
            tally = self._tallies.get(name)
            if tally is None or not tally.elements:
                continue
            spikes = int(tally.spikes.item())
            active, seen = active + spikes, seen + tally.elements
            if module.spike_kind not in COUNTED:
                continue
            neurons = sum(prod(shape) for shape in tally.shapes)
            rates = [fired / ran for fired, ran in tally.steps[: tally.longest].tolist()] if tally.longest <= LONGEST else None
            layers[name] = LayerSpikes(spikes, tally.elements, neurons, spikes / samples, spikes / tally.elements, rates)
            if tally.broken.item():
                offenders.append(name)
        total = sum(layer.spikes for layer in layers.values())
        neurons = sum(layer.neurons for layer in layers.values())
        elements = sum(layer.elements for layer in layers.values())
        return SpikeCount(
            spikes_per_sample=total / samples,
            spikes_per_neuron=total / samples / neurons if neurons else 0.0,
            firing_rate=total / elements if elements else 0.0,
            updates_per_sample=elements / samples,
            curve=self._curve(list(layers), samples),
            activation_sparsity=1 - active / seen if seen else None,
            layers=layers,
            offenders=tuple(offenders),
        )

    def _curve(self, layers: list[str], samples: int) -> list[float] | None:
        tallies = [self._tallies[name] for name in layers]
        longest = max((tally.longest for tally in tallies), default=0)
        if not longest or longest > LONGEST:
            return None
        total = torch.stack([tally.steps[:longest, 0].cpu() for tally in tallies]).sum(0)
        return [count / samples for count in total.tolist()]
