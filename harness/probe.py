"""A probe analyses a network: its training energy, its accuracy on a crossbar, what it leaks.

Probes run off the clock and return figures that go into the record; a table of their own shows them (``spikebench table --probe NAME``)::

    class Sparsity(Probe):
        card = ProbeCard(name="sparsity", ...)

        def measure(self, method, net):
            return {"zero_weights": ...}

Options are given as for a method: ``--probe "crossbar[variation=0.1]"``. One probe object goes through one run.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from torch import nn

from harness.method import Method, Phase
from harness.plugin import Plugin, ProbeCard


class Probe(Plugin, ABC):
    """An analysis of a trained network, which may also look at it while it is trained."""

    card: ClassVar[ProbeCard]
    headings: ClassVar[dict[str, str]] = {}  # of its table: name of a figure -> heading with unit; names without one head themselves

    def supports(self, method: Method) -> str | None:
        """Return why this probe cannot look at networks of ``method``, or None if it can."""
        return None

    def observe(self, method: Method, net: nn.Module, phase: Phase | None, share: float) -> None:
        """Look at a network in training: before it begins (``phase`` is None, ``share`` 0), and after each epoch of a phase.

        ``share`` of the phase's epochs are done then. Weights, buffers and gradients must be left as they are. Off the clock.
        """

    @abstractmethod
    def measure(self, method: Method, net: nn.Module) -> dict[str, Any]:
        """Return named figures of the trained ``net``: numbers, texts, lists and dictionaries of them. Weights must be left as they are.

        ``method`` gives the task, the number of time steps and ``predict``.
        """

    @classmethod
    def rows(cls, figures: dict[str, Any]) -> list[dict[str, str | float | None]]:
        """Return the rows of this probe's table for what ``measure`` found in one run.

        Texts say what a row is about, numbers are averaged over seeds, and None is a figure that is missing. Default: one row with all
        figures that are numbers.
        """
        return [{name: value for name, value in figures.items() if isinstance(value, (int, float))}]
