"""Energy of inference by firing rates: the estimate that papers of spiking transformers print.

For every convolution and linear layer that runs, with ``rate`` the share of its inputs (over samples, steps and places) that are not 0 and
``macs`` its multiply-accumulates per sample, all T steps and taps on padding included::

    E = E_MAC * macs[first] + E_AC * ( sum of rate[i] * macs[i] over the others + additions of attention )

It differs from the record's ``energy``, which is counted operation by operation: here rate and place are taken as independent, the first
layer is always multiplied, the others never, and attention counts. The first layer counts at each step that it is fed (ours). Constants of
45 nm: ``harness.energy``. Source: "Spike-driven Transformer" (Yao et al., NeurIPS 2023).
"""

from __future__ import annotations

from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn

from harness.energy import joules


class RateEnergy:
    """Context that listens to the synapses of ``net``, and to modules with ``synops_other`` for additions of attention.

    ``rates()`` has the rate of every synapse, in the order in which they first ran; ``energy(samples)`` is E in joules per sample.
    """

    def __init__(self, net: nn.Module) -> None:
        """Find the synapses of ``net``."""
        self._net = net
        self._sums: dict[nn.Module, list[Tensor | int]] = {}  # inputs not 0, inputs, MACs
        self._additions: Tensor | float = 0.0
        self._handles: list[Any] = []

    def __enter__(self) -> RateEnergy:
        """Begin to listen."""
        for module in self._net.modules():
            if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Linear):
                self._handles.append(module.register_forward_hook(self._synapse))
            elif hasattr(module, "synops_other"):
                self._handles.append(module.register_forward_hook(self._attention))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Stop listening; what was counted stays."""
        while self._handles:
            self._handles.pop().remove()

    def _synapse(self, module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        sums = self._sums.setdefault(module, [0, 0, 0])
        weight: Tensor = module.weight  # type: ignore[assignment]
        new = (torch.count_nonzero(args[0].detach()), args[0].numel(), output.numel() * weight[0].numel())
        sums[:] = [old + more for old, more in zip(sums, new, strict=True)]

    def _attention(self, module: Any, args: tuple[Tensor, ...], output: Tensor) -> None:
        self._additions = self._additions + module.synops_other(args, output)

    def rates(self) -> list[float]:
        """Return the share of inputs that are not 0, for each synapse that ran."""
        return [float(active) / max(float(seen), 1.0) for active, seen, _ in self._sums.values()]

    def additions(self, samples: int) -> float:
        """Return the additions of attention per sample; raise ValueError if there were no samples."""
        if samples < 1:
            raise ValueError(f"a figure per sample needs at least one sample, not {samples}")
        return float(self._additions) / samples

    def energy(self, samples: int) -> float:
        """Return E in joules per sample of ``samples`` seen; raise ValueError if there were none."""
        attention = self.additions(samples)
        macs = [float(count) / samples for _, _, count in self._sums.values()]
        accumulates = sum(rate * count for rate, count in zip(self.rates()[1:], macs[1:], strict=True))
        return joules(accumulates + attention, sum(macs[:1]))
