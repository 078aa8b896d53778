"""Count the spikes of a whole network at every time step.

::

with StepSpikes(net) as counted:
net(x)
counted.totals  # [T]
"""

from __future__ import annotations

from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn


class StepSpikes:
    """Context that adds up what the spiking modules of ``net`` emit; for runs over whole sequences ``[T, B, ...]``, of one length."""

    def __init__(self, net: nn.Module) -> None:
        """Find the modules that spike."""
        self._modules = [module for module in net.modules() if getattr(module, "spike_kind", "none") != "none"]
        self._handles: list[Any] = []
        self.totals = torch.zeros(0, dtype=torch.float64)

    def __enter__(self) -> StepSpikes:
        """Begin to count."""
        self._handles = [module.register_forward_hook(self._count) for module in self._modules]
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Stop counting; the totals stay."""
        while self._handles:
            self._handles.pop().remove()

    def _count(self, module: nn.Module, inputs: Any, spikes: Tensor) -> None:
        found = (spikes.detach() != 0).flatten(1).sum(1).double().cpu()
        self.totals = found if not len(self.totals) else self.totals + found
