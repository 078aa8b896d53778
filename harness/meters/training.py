"""Memory of a training, measured in the first steps of every phase; these steps are left out of the step times.

Step 0 counts what is saved for backward, step 1 everything alive at once, and on CUDA step 2 the allocator's peak: a step each, because
each way of looking would disturb the others. Values and gradients are those of ordinary steps.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import torch
from torch import nn

from harness.loop import Observer
from harness.meters.memory import SavedTensors, TransientPeak, distinct_bytes, optimizer_bytes, parameter_bytes
from harness.meters.resident import CudaPeak
from harness.method import Phase
from harness.record import Memory, PhaseMemory
from harness.task import Training


class TrainingMeter(Observer):
    """Listens to a training and keeps its memory, phase by phase."""

    def __init__(self, net: nn.Module, device: torch.device) -> None:
        """Listen to the training of ``net``."""
        self.net, self.device = net, device
        self.phases: list[PhaseMemory] = []
        self.cuda_peak: int | None = None
        self._optimizer: torch.optim.Optimizer | None = None

    def phase(self, phase: Phase, training: Training, optimizer: torch.optim.Optimizer, net: nn.Module) -> None:
        """Begin a phase."""
        self._optimizer = optimizer
        trained = distinct_bytes(p for group in optimizer.param_groups for p in group["params"])
        self.phases.append(PhaseMemory(phase=phase.name, saved_bytes=0, transient_bytes=None, optimizer_bytes=0, trained_bytes=trained))

    def around_step(self, phase: int, step: int) -> AbstractContextManager[None] | None:
        """Return a measurement for each of the first steps of a phase."""
        if step == 0:
            return self._saved()
        if step == 1:
            return self._transient()
        return self._cuda() if step == 2 and self.device.type == "cuda" else None

    @contextmanager
    def _saved(self) -> Iterator[None]:
        with SavedTensors(self.net) as meter:
            yield
        self.phases[-1].saved_bytes = meter.peak
        assert self._optimizer is not None
        self.phases[-1].optimizer_bytes = optimizer_bytes(self._optimizer)

    @contextmanager
    def _transient(self) -> Iterator[None]:
        with TransientPeak() as meter:
            yield
        self.phases[-1].transient_bytes = meter.peak

    @contextmanager
    def _cuda(self) -> Iterator[None]:
        with CudaPeak(self.device) as meter:
            yield
        assert meter.peak_bytes is not None
        self.cuda_peak = max(self.cuda_peak or 0, meter.peak_bytes)

    def result(self, rss_growth: int | None) -> Memory:
        """Return the memory part of a record: the size of the network as trained, else the largest figures over phases."""
        transient = [p.transient_bytes for p in self.phases if p.transient_bytes is not None]
        return Memory(
            parameter_count=sum(p.numel() for p in self.net.parameters()),
            parameter_bytes=parameter_bytes(self.net),
            optimizer_bytes=max((p.optimizer_bytes for p in self.phases), default=0),
            saved_bytes=max((p.saved_bytes for p in self.phases), default=0),
            transient_bytes=max(transient, default=None),
            peak_rss_growth_bytes=rss_growth if self.device.type == "cpu" else None,
            cuda_peak_bytes=self.cuda_peak,
            phases=self.phases,
        )
