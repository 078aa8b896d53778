"""A probe analyses a trained network: its training energy, its accuracy on a crossbar, what it leaks.

Probes run after training and evaluation, off the clock, and return plain figures that go into the record::

    class Sparsity(Probe):
        card = ProbeCard(name="sparsity", ...)

        def measure(self, method, net):
            return {"zero_weights": ...}
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import nn

from harness.method import Method
from harness.plugin import Plugin


class Probe(Plugin, ABC):
    """An analysis of a trained network."""

    def supports(self, method: Method) -> str | None:
        """Return why this probe cannot look at networks of ``method``, or None if it can."""
        return None

    @abstractmethod
    def measure(self, method: Method, net: nn.Module) -> dict[str, float | list[float]]:
        """Return named figures of the trained ``net``. Weights must be left as they are.

        ``method`` gives the task, the number of time steps and ``predict``.
        """
