"""How well a network of blocks answers samples that leave early, and how well its detectors tell the hard ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from methods.nn.conditional import BlockNet, Course


def accuracy_by_class(answers: Tensor, targets: Tensor, classes: Sequence[int]) -> dict[int, float]:
    """Return the accuracy of ``answers [B]`` to ``targets [B]`` for each of ``classes``; 0 for one without samples."""
    right = answers == targets
    own = {label: targets == label for label in classes}
    return {label: int(right[own[label]].sum()) / max(int(own[label].sum()), 1) for label in classes}


def named(by_class: dict[int, float]) -> dict[str, float]:
    """Return the same with texts as keys, as records have them."""
    return {str(label): found for label, found in by_class.items()}


def exit_figures(net: BlockNet, course: Course, targets: Tensor, exits: Tensor) -> dict[str, Any]:
    """Return figures of samples of classes ``targets [B]`` that leave at blocks ``exits [B]`` (from 0).

    ``accuracy_exit``; ``accuracy_no_exit``; ``accuracy_own``, with exit but the answer of the last block's classifier alone;
    ``accuracy_class``, with exit, by class; ``exits``, how many leave at each block;
    ``detector_accuracy`` (see there).
    """
    answers = course.answers_at(exits)
    return {
        "accuracy_exit": (answers == targets).double().mean().item(),
        "accuracy_no_exit": (course.answers[-1] == targets).double().mean().item(),
        "accuracy_own": (course.answers_at(exits, combine=False) == targets).double().mean().item(),
        "accuracy_class": named(accuracy_by_class(answers, targets, range(net.labels))),
        "exits": torch.bincount(exits, minlength=len(net.blocks)).tolist(),
        "detector_accuracy": detector_accuracy(net, course, targets),
    }


def detector_accuracy(net: BlockNet, course: Course, targets: Tensor) -> list[list[float] | None]:
    """Return for each block the shares of easy and of hard samples that its detector tells, of those of its classes; None without one.

    ``targets [B]`` are the classes of the samples of ``course``; without such samples a share is 0.
    """
    found: list[list[float] | None] = []
    for depth, hard in enumerate(net.classes[1:]):
        easy = [net.classes[depth][place] for place in net.easy(depth)]
        kinds = [torch.isin(targets, torch.tensor(kind, device=targets.device)) for kind in (easy, hard)]
        says_hard = course.hard[depth] >= 0.5
        shares = [(says_hard[kind] == wanted).sum().item() / max(int(kind.sum()), 1) for wanted, kind in enumerate(kinds)]
        found.append(shares if easy else None)
    return found
