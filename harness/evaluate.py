"""Accuracy of a network on a split, at every time step."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from harness.meters.inference import wait
from harness.method import Method, Prediction
from harness.task import Split, Task

LARGEST = 256  # samples that are answered at once
SMALL = 1 << 16  # numbers in the encoded sequence of a sample up to which so many fit
CURVE = 256  # points of a curve


@dataclass
class Evaluation:
    """What an evaluation found."""

    metrics: dict[str, float]  # the final answers; the first is the task's main metric
    curve: list[float]  # main metric of the answers as of the steps ``curve_steps``
    curve_steps: list[int]  # 0-based
    correct: list[bool]  # per item, in data order
    steps_used: float  # mean over samples
    samples: int
    batches: list[tuple[int, float]]  # samples and seconds of each batch that was answered
    extra: dict[str, float] = field(default_factory=dict)  # means of Prediction.extra
    counts: dict[str, dict[str, int]] = field(default_factory=dict)  # Prediction.extra of whole numbers: value -> samples


def curve_steps(steps: int) -> list[int]:
    """Return the steps of an accuracy-versus-time curve: all, or of more than ``CURVE`` that many, evenly spread, the last included."""
    return list(range(steps)) if steps <= CURVE else [round((i + 1) * steps / CURVE) - 1 for i in range(CURVE)]


def final_answers(task: Task, prediction: Prediction) -> Tensor:
    """Return the final answers ``[B, ...]`` of a prediction; where each step has an answer of its own, all ``[B, T, ...]``."""
    return task.final(prediction.outputs) if task.readout == "each" else prediction.final()


def evaluation_batch(method: Method) -> int:
    """Return how many samples to answer at once: many of small ones, else as many as in training."""
    task = method.task
    return LARGEST if method.steps * math.prod(task.input_shape) <= SMALL else min(LARGEST, method.training.batch_size)


def evaluate(
    method: Method,
    net: nn.Module,
    split: Split,
    predict: Callable[[nn.Module, Tensor], Prediction] | None = None,
    every_step: bool = True,
    batch_size: int | None = None,
) -> Evaluation:
    """Answer all samples of ``split`` in eval mode; modules are left in the mode they had."""
    task = method.task
    modes = {module: module.training for module in net.modules()}
    net.eval()
    final, at_step, shown = task.scorer(), [], []
    used: list[Tensor] = []
    batches: list[tuple[int, float]] = []
    extra: dict[str, list[Tensor]] = {}
    try:
        with torch.no_grad():
            for batch in task.batches(split, batch_size or evaluation_batch(method)):
                wait(task.device)
                begin = time.perf_counter()
                prediction = (predict or method.predict)(net, batch.inputs)
                wait(task.device)
                batches.append((len(batch.inputs), time.perf_counter() - begin))
                targets = batch.targets.cpu()
                final.update(final_answers(task, prediction).float().cpu(), targets)
                if every_step:
                    shown = curve_steps(len(prediction.outputs))
                    while len(at_step) < len(shown):
                        at_step.append(task.scorer())
                    for step, scorer in zip(shown, at_step, strict=True):
                        scorer.update(*task.at_step(step, prediction.outputs[step].float().cpu(), targets))
                used.append(prediction.steps_used.cpu())
                for name, values in prediction.extra.items():
                    extra.setdefault(name, []).append(values.cpu())
    finally:
        for module, training in modes.items():
            module.training = training
    figures = {name: torch.cat(parts) for name, parts in extra.items()}
    return Evaluation(
        metrics=final.compute(),
        curve=[scorer.compute()[task.metric] for scorer in at_step],
        curve_steps=shown,
        correct=final.correct(),
        steps_used=torch.cat(used).double().mean().item(),
        samples=sum(len(part) for part in used),
        batches=batches,
        extra={name: values.double().mean().item() for name, values in figures.items()},
        counts={
            name: {str(int(v)): int(n) for v, n in zip(*values.unique(return_counts=True), strict=True)}
            for name, values in figures.items()
            if not values.is_floating_point()
        },
    )
