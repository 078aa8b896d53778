"""Memory of a training, measured in the first steps of every phase; these steps are left out of the step times.

Step 0 counts what is saved for backward, step 1 everything alive at once, and step 2 takes the peak that the machine sees: of the
allocator on CUDA, of resident memory on the CPU. A step each, because each way of looking would disturb the others; values and gradients
are those of ordinary steps. Resident memory is read while what is freed goes back to the system at once (``harness.allocator``), and
afterwards, for speed, the process keeps it. If something is compiled in step 2, which takes memory of its own, the next step is taken.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from itertools import chain

import torch
from torch import nn

from harness.allocator import keep_memory, return_memory
from harness.loop import Observer
from harness.meters.compiling import CompileMeter
from harness.meters.memory import SavedTensors, TransientPeak, distinct_bytes, optimizer_bytes, parameter_bytes
from harness.meters.resident import CudaPeak, HostPeak
from harness.method import Phase
from harness.record import Memory, PhaseMemory
from harness.task import Training

HOST_STEPS = range(2, 6)  # resident memory is measured in the first of these in which nothing is compiled


class TrainingMeter(Observer):
    """Listens to a training and keeps its memory, phase by phase."""

    def __init__(self, net: nn.Module, device: torch.device) -> None:
        """Listen to the training of ``net``."""
        self.net, self.device = net, device
        self.footprint_bytes = parameter_bytes(net)
        self.phases: list[PhaseMemory] = []
        self.cuda_peak: int | None = None
        self._optimizer: torch.optim.Optimizer | None = None
        self._keeping = False

    def phase(self, phase: Phase, training: Training, optimizer: torch.optim.Optimizer, net: nn.Module) -> None:
        """Begin a phase."""
        self._optimizer, self._keeping = optimizer, False
        return_memory()
        trained = distinct_bytes(p for group in optimizer.param_groups for p in group["params"])
        self.phases.append(PhaseMemory(phase=phase.name, saved_bytes=0, transient_bytes=None, optimizer_bytes=0, trained_bytes=trained))

    def around_step(self, phase: int, step: int) -> AbstractContextManager[None] | None:
        """Return a measurement for each of the first steps of a phase."""
        if step == 0:
            return self._saved()
        if step == 1:
            return self._transient()
        if step == 2 and self.device.type == "cuda":
            return self._cuda()
        if step in HOST_STEPS and self.device.type == "cpu" and not self._keeping:
            return self._host()
        if not self._keeping:
            self._keep()
        return None

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

    @contextmanager
    def _host(self) -> Iterator[None]:
        assert self._optimizer is not None
        return_memory()  # holes that were freed would be used again, and their growth not be seen
        with CompileMeter() as compiling, HostPeak(self._held()) as meter:
            yield
        if not compiling.seconds:
            self.phases[-1].rss_growth_bytes = meter.growth_bytes
            self._keep()

    def _held(self) -> int:
        """Return the bytes that earlier steps have made and that are there when a step begins: gradients and the optimiser's state."""
        assert self._optimizer is not None
        trained = chain(self.net.parameters(), *(group["params"] for group in self._optimizer.param_groups))
        return distinct_bytes(p.grad for p in trained if p.grad is not None) + optimizer_bytes(self._optimizer)

    def _keep(self) -> None:
        """Let the process keep memory from here on, unless that could become too much of it."""
        self._keeping = True
        keep_memory(self.phases[-1].rss_growth_bytes or self.phases[-1].transient_bytes or 0)

    def result(self) -> Memory:
        """Return the memory part of a record: the size of the network as trained, else the largest figures over phases."""
        transient = [p.transient_bytes for p in self.phases if p.transient_bytes is not None]
        rss_growth = [p.rss_growth_bytes for p in self.phases if p.rss_growth_bytes is not None]
        return Memory(
            parameter_count=sum(p.numel() for p in self.net.parameters()),
            parameter_bytes=parameter_bytes(self.net),
            footprint_bytes=self.footprint_bytes,
            optimizer_bytes=max((p.optimizer_bytes for p in self.phases), default=0),
            saved_bytes=max((p.saved_bytes for p in self.phases), default=0),
            transient_bytes=max(transient, default=None),
            peak_rss_growth_bytes=max(rss_growth, default=None),
            cuda_peak_bytes=self.cuda_peak,
            phases=self.phases,
        )
