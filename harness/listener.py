"""What listens to the training of a run: memory meters, progress, probes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import asdict
from typing import Any

import torch
from torch import nn

from harness.loop import EpochTrace
from harness.meters.training import TrainingMeter
from harness.method import Method, Phase
from harness.probe import Probe
from harness.task import Training

Emit = Callable[[dict[str, Any]], None]


class Listener(TrainingMeter):
    """Measures the memory of a training, reports its progress, and lets probes look on.

    Attribute: ``probing``, the seconds that probes took.
    """

    def __init__(self, method: Method, net: nn.Module, probes: Iterable[Probe], emit: Emit) -> None:
        """Report through ``emit``."""
        super().__init__(net, method.task.device)
        self.method, self.net, self.probes, self.emit = method, net, list(probes), emit
        self.probing = 0.0
        self.now: Phase | None = None
        self.show(0.0)

    def show(self, share: float) -> None:
        """Let the probes look at the network; their random numbers are their own."""
        begin, device = time.perf_counter(), self.method.task.device
        for probe in self.probes:
            with torch.random.fork_rng([device] if device.type == "cuda" else []):
                probe.observe(self.method, self.net, self.now, share)
        self.probing += time.perf_counter() - begin

    def phase(self, phase: Phase, training: Training, optimizer: torch.optim.Optimizer, net: nn.Module) -> None:
        """Report that a phase begins."""
        super().phase(phase, training, optimizer, net)
        self.now = phase
        self.emit({"event": "phase", "phase": phase.name})

    def epoch(self, trace: EpochTrace, epochs: int) -> None:
        """Report an epoch."""
        self.emit({"event": "epoch", "epochs": epochs, **asdict(trace)})
        self.show((trace.epoch + 1) / epochs)
