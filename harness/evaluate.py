"""Accuracy of a network on a split, at every time step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from harness.method import Method, Prediction
from harness.task import Split


@dataclass
class Evaluation:
    """What an evaluation found."""

    metrics: dict[str, float]  # the final answers; the first is the task's main metric
    curve: list[float]  # main metric of the answers as of each step
    correct: list[bool]  # per item, in data order
    steps_used: float  # mean over samples
    samples: int
    extra: dict[str, float] = field(default_factory=dict)  # means of Prediction.extra
    counts: dict[str, dict[str, int]] = field(default_factory=dict)  # Prediction.extra of whole numbers: value -> samples


def evaluate(
    method: Method,
    net: nn.Module,
    split: Split,
    predict: Callable[[nn.Module, Tensor], Prediction] | None = None,
    every_step: bool = True,
    batch_size: int = 256,
) -> Evaluation:
    """Answer all samples of ``split`` in eval mode; modules are left in the mode they had."""
    task = method.task
    modes = {module: module.training for module in net.modules()}
    net.eval()
    final, at_step = task.scorer(), []
    used: list[Tensor] = []
    extra: dict[str, list[Tensor]] = {}
    try:
        with torch.no_grad():
            for batch in task.batches(split, batch_size):
                prediction = (predict or method.predict)(net, batch.inputs)
                targets = batch.targets.cpu()
                final.update(prediction.final().float().cpu(), targets)
                if every_step:
                    while len(at_step) < len(prediction.outputs):
                        at_step.append(task.scorer())
                    for scorer, answers in zip(at_step, prediction.outputs.float().cpu(), strict=True):
                        scorer.update(answers, targets)
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
        correct=final.correct(),
        steps_used=torch.cat(used).double().mean().item(),
        samples=sum(len(part) for part in used),
        extra={name: values.double().mean().item() for name, values in figures.items()},
        counts={
            name: {str(int(v)): int(n) for v, n in zip(*values.unique(return_counts=True), strict=True)}
            for name, values in figures.items()
            if not values.is_floating_point()
        },
    )
