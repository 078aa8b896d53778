"""The training loop: drives the phases of a method, batch by batch. It knows no method.

One step is ``phase.step(net, batch, update)``; the loop adds data order, modes, optimiser, schedule, mixed precision, the step clock,
and an observer that meters listen through. The same loop written by hand costs the same within 5 % (``suites/regression/overhead.py``).
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn

from harness.evaluate import evaluate
from harness.loader import Loader
from harness.meters.clock import StepClock
from harness.meters.pace import Pace
from harness.method import Method, Phase
from harness.task import Training

PRECISIONS = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


class DivergedError(ArithmeticError):
    """The loss is not a finite number any more."""


@dataclass
class EpochTrace:
    """What happened in one epoch."""

    phase: str
    epoch: int
    loss: float  # mean over the samples seen
    seconds: float  # training only, evaluation off the clock; a step that was not timed counts as the mean of the others
    validation: float  # main metric on the validation split
    batches: int
    samples: int
    loading: float  # of these seconds, those that training waited for its batches
    measuring: float = 0.0  # seconds besides, which steps took because something was measured in them


class Updater:
    """What a step uses to change weights (``harness.method.Update``): optimiser, precision and clock inside."""

    def __init__(self, optimizer: torch.optim.Optimizer, clock: StepClock, precision: str, device: torch.device, clip: float):
        """Join an optimiser with the clock of the loop."""
        self.optimizer, self.clock, self.clip, self.device = optimizer, clock, clip, device
        self.scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")
        self.mixed = precision != "fp32"
        self.applied = 0

    def zero_grad(self) -> None:
        """Forget gradients."""
        self.optimizer.zero_grad(set_to_none=True)

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of ``loss``."""
        # Autograd runs each backward operation in the type of its forward one; autocast must not interfere.
        plain = torch.autocast(self.device.type, enabled=False) if self.mixed else nullcontext()
        with self.clock.part("backward"), plain:
            self.scaler.scale(loss).backward()

    def apply(self) -> None:
        """Clip, and let the optimiser change the weights."""
        with self.clock.part("optimizer"):
            if self.clip:
                self.scaler.unscale_(self.optimizer)
                nn.utils.clip_grad_norm_([p for g in self.optimizer.param_groups for p in g["params"]], self.clip)
            self.scaler.step(self.optimizer)
            self.scaler.update()
        self.applied += 1

    def minimise(self, loss: Tensor) -> None:
        """Forget gradients, add those of ``loss``, apply."""
        self.zero_grad()
        self.backward(loss)
        self.apply()


class Observer:
    """What listens to a training: progress and meters. All methods may be left as they are."""

    def phase(self, phase: Phase, training: Training, optimizer: torch.optim.Optimizer, net: nn.Module) -> None:
        """A phase begins."""

    def around_step(self, phase: int, step: int) -> AbstractContextManager[None] | None:
        """Return a context to run a step in, off the clock, or None for an ordinary step."""
        return None

    def epoch(self, trace: EpochTrace, epochs: int) -> None:
        """An epoch has ended."""


def make_optimizer(parameters: list, training: Training) -> torch.optim.Optimizer:
    """Return the optimiser that the settings name; groups of ``parameters`` may override them."""
    if training.optimizer == "sgd":
        return torch.optim.SGD(parameters, training.lr, training.momentum, weight_decay=training.weight_decay)
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[training.optimizer]
    return kind(parameters, training.lr, weight_decay=training.weight_decay)


def make_schedule(optimizer: torch.optim.Optimizer, training: Training) -> torch.optim.lr_scheduler.LRScheduler:
    """Return the schedule of the learning rate, to be stepped after each epoch; groups keep their ratios."""
    return torch.optim.lr_scheduler.LambdaLR(optimizer, training.lr_share)


@contextmanager
def training_modes(net: nn.Module, phase: Phase) -> Iterator[None]:
    """Put the phase's modules in training mode, all others in eval mode."""
    net.train(phase.modules is None)
    for module in phase.modules or ():
        module.train()
    yield
    net.eval()


class _Sum:
    """Sum of losses: checked at once on the CPU, kept on the device elsewhere, where looking would make it wait."""

    def __init__(self, device: torch.device) -> None:
        self.on_cpu = device.type == "cpu"
        self.total: float | Tensor = 0.0 if self.on_cpu else torch.zeros((), dtype=torch.float64, device=device)

    def add(self, loss: Tensor, size: int, where: str) -> None:
        if not self.on_cpu:
            self.total += loss.double() * size
            return
        value = loss.item()
        if not math.isfinite(value):
            raise DivergedError(f"loss is {value} {where}")
        self.total += value * size

    def value(self) -> float:
        return float(self.total)


@dataclass
class Trained:
    """What training leaves behind besides the weights."""

    traces: list[EpochTrace]  # one per epoch
    clocks: list[tuple[str, StepClock]]  # one per phase, with its name
    between: float  # seconds of the method's own work between phases: conversion, calibration


def train(method: Method, net: nn.Module, seed: int, precision: str = "fp32", observer: Observer | None = None) -> Trained:
    """Run all phases. Raises DivergedError when a loss is not finite."""
    observer = observer or Observer()
    found = Trained([], [], 0.0)
    phases = method.phases(net)
    while True:
        started = time.perf_counter()
        phase = next(phases, None)
        found.between += time.perf_counter() - started
        if phase is None:
            break
        clock = StepClock(method.task.device)
        found.traces += _run_phase(method, net, phase, len(found.clocks), seed, precision, observer, clock)
        found.clocks.append((phase.name, clock))
    net.eval()
    return found


def _run_phase(
    method: Method, net: nn.Module, phase: Phase, number: int, seed: int, precision: str, observer: Observer, clock: StepClock
) -> list[EpochTrace]:
    task, device = method.task, method.task.device
    training = phase.training or method.training
    epochs = training.epochs if phase.epochs is None else phase.epochs
    parameters = list(phase.parameters) if phase.parameters is not None else [p for p in net.parameters() if p.requires_grad]
    step = phase.step or method.step
    if epochs == 0:
        return []
    optimizer = make_optimizer(parameters, training)
    schedule = make_schedule(optimizer, replace(training, epochs=epochs))
    update = Updater(optimizer, clock, precision, device, training.clip_norm)
    loader = Loader(task, training.batch_size, seed, training.augment, phase.keep)
    if phase.modules is not None:
        phase.modules = list(phase.modules)  # gone through anew in every epoch
    observer.phase(phase, training, optimizer, net)
    dtype = PRECISIONS[precision]
    precise = partial(torch.autocast, device.type, dtype) if dtype else nullcontext
    traces, count = [], 0
    for epoch in range(epochs):
        if phase.on_epoch:
            phase.on_epoch(epoch, epochs)
        total, seen = _Sum(device), 0
        with training_modes(net, phase):
            pace = Pace(device)
            for batch in pace.waiting(loader):
                measured = observer.around_step(number, count)
                with pace.step(clock, measured is None), measured or nullcontext(), precise():
                    loss = step(net, batch, update)
                total.add(loss.detach(), len(batch.targets), f"in phase {phase.name!r}, epoch {epoch}, step {count}")
                seen += len(batch.targets)
                count += 1
            mean = total.value() / seen  # waits for the device
            seconds, measuring = pace.seconds(), pace.measuring()
        if not math.isfinite(mean):
            raise DivergedError(f"mean loss is {mean} in phase {phase.name!r}, epoch {epoch}")
        schedule.step()
        found = evaluate(method, net, "validation", phase.predict, every_step=False)
        metric = found.metrics[task.metric]
        traces.append(EpochTrace(phase.name, epoch, mean, seconds, metric, len(loader), seen, pace.loading, measuring))
        observer.epoch(traces[-1], epochs)
    return traces
