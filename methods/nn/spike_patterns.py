"""Where two runs of one network on the same inputs begin to differ in their spikes.

::

    with SpikePatterns(net) as before:
        net(x)
    with SpikePatterns(net) as after:      # with other weights
        net(x)
    before.against(after)
"""

from __future__ import annotations

from dataclasses import dataclass
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn

KINDS = ("binary", "graded")


@dataclass(frozen=True)
class Deviation:
    """How spikes differ."""

    rate_change: float | None  # spikes of the second run over those of the first, minus 1; None where the first had none
    deviating: float | None  # share of samples with another pattern; None where the runs cannot be compared step by step
    first_step: float | None  # at which they differ, from 1, mean over the samples that do; None where none does


class SpikePatterns:
    """Context that keeps which neurons of ``net`` spiked when; sequences ``[T, B, ...]``, in one call or in parts."""

    def __init__(self, net: nn.Module) -> None:
        """Find the spiking modules of ``net``."""
        self._modules = {name: m for name, m in net.named_modules() if getattr(m, "spike_kind", None) in KINDS}
        self._handles: list[Any] = []
        self.runs: dict[str, list[list[Tensor]]] = {}  # of each layer, each sequence that it began, in parts

    def __enter__(self) -> SpikePatterns:
        """Begin to look."""
        for name, module in self._modules.items():
            self._handles += [module.register_forward_pre_hook(self._begin(name)), module.register_forward_hook(self._keep(name))]
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Stop looking; what was seen stays."""
        while self._handles:
            self._handles.pop().remove()

    def _begin(self, name: str) -> Any:
        def begin(module: nn.Module, args: Any) -> None:
            if name not in self.runs or not (hasattr(module, "carried") and module.carried() is not None):
                self.runs.setdefault(name, []).append([])

        return begin

    def _keep(self, name: str) -> Any:
        def keep(module: nn.Module, args: Any, spikes: Tensor) -> None:
            self.runs[name][-1].append(spikes.detach().to(torch.bool) if module.spike_kind == "binary" else spikes.detach())

        return keep

    def against(self, other: SpikePatterns, clocked: bool = True) -> tuple[dict[str, Deviation], Deviation]:
        """Return how ``other`` deviates, layer by layer and in any layer; rates only where the first axis is not of steps (``clocked``)."""
        layers: dict[str, Deviation] = {}
        earliest: Tensor | None = None
        comparable, counts = True, [0, 0]
        for name, sequences in self.runs.items():
            mine, others = ([torch.cat(parts) for parts in run] for run in (sequences, other.runs.get(name, [])))
            numbers = [sum(int((spikes != 0).sum()) for spikes in run) for run in (mine, others)]
            counts = [total + number for total, number in zip(counts, numbers, strict=True)]
            firsts = _first_steps(mine, others) if clocked else None
            layers[name] = _deviation(numbers, firsts)
            if firsts is None or (earliest is not None and earliest.shape != firsts.shape):
                comparable = False
            else:
                earliest = firsts if earliest is None else torch.minimum(earliest, firsts)
        return layers, _deviation(counts, earliest if comparable else None)


def _first_steps(mine: list[Tensor], others: list[Tensor]) -> Tensor | None:
    """Return for each sample the step, from 1, at which sequences begin to differ, inf where they never do; None for unlike shapes."""
    if not mine or [part.shape for part in mine] != [part.shape for part in others] or len({part.shape[1] for part in mine}) > 1:
        return None
    found = []
    for a, b in zip(mine, others, strict=True):
        differs = (a != b).flatten(2).any(2) if a.dim() > 2 else a != b  # [T, B]
        steps = torch.arange(1.0, len(a) + 1, device=a.device).unsqueeze(1)
        found.append(torch.where(differs, steps, torch.inf).amin(0))
    return torch.stack(found).amin(0)


def _deviation(counts: list[int], firsts: Tensor | None) -> Deviation:
    change = counts[1] / counts[0] - 1 if counts[0] else None
    if firsts is None:
        return Deviation(change, None, None)
    reached = firsts[firsts.isfinite()]
    return Deviation(change, len(reached) / len(firsts), float(reached.mean()) if len(reached) else None)
