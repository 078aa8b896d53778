"""Score a trained network in a method's ``report``, apart from the evaluation that the harness does: other steps, other splits."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from harness.method import Prediction
from harness.task import Split, Task

LONGEST = 256  # steps up to which each is scored
BATCH = 64  # samples answered at once


@torch.no_grad()
def score(task: Task, split: Split, predict: Callable[[Tensor], Prediction], limit: int | None = None) -> tuple[float, list[float]]:
    """Return the main metric of the final answers on a split, and that of the answers as of every step (empty if there are over 256).

    ``predict`` answers inputs ``[B, ...]``; ``limit``: the first so many samples.
    """
    final, at_step = task.scorer(), []
    for batch in task.batches(split, BATCH, limit):
        prediction, targets = predict(batch.inputs), batch.targets.cpu()
        outputs = prediction.outputs
        final.update((task.final(outputs) if task.readout == "each" else prediction.final()).float().cpu(), targets)
        shown = len(outputs) if len(outputs) <= LONGEST else 0
        at_step = at_step or [task.scorer() for _ in range(shown)]
        for step, scorer in enumerate(at_step):
            scorer.update(*task.at_step(step, outputs[step].float().cpu(), targets))
    return final.compute()[task.metric], [scorer.compute()[task.metric] for scorer in at_step]
