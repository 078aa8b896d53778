"""A network cut into blocks, each with its own classifier, in which only hard samples go deeper.

Block b maps spikes to spikes; its features are the mean of its output over time, flattened. Its classifier tells apart the classes ``K_b``,
its hard-class detector says with probability ``h`` that a sample is of the hard ones, ``K_{b+1}``, which the next block was trained on.
A sample goes through the blocks with weight ``w = 1`` at first; the easy classes are ``E_b = K_b - K_{b+1}``::

    P(c) += w (1 - h) p(c) / sum_{E_b} p    for c in E_b, with p = softmax over K_b
    exit if argmax p is in E_b, max p >= t_cls and h < t_hcd;    else w *= h and on to block b + 1
    P(c) += w p(c)                          at the last block

so that P sums to 1 for samples that reach the end. A block without easy classes has no detector and passes all on. Without combining, the
answer of a sample is ``p`` of the block where it leaves, over ``K_b``: a sample that was sent on by mistake is lost then. Source: BlocTrain
(Srinivasan and Roy, Frontiers in Neuroscience 15:603433, 2021) has blocks, classifiers and detectors; the chain rule for P is ours, as only
its abstract could be read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

import torch
from torch import Tensor, nn

from methods.nn.synapse import Linear


def cut(stages: nn.ModuleList, blocks: int) -> nn.ModuleList:
    """Return the layers of ``stages`` in order as ``blocks`` groups, pooling staying with the layer before it.

    Groups differ by one layer at most; the deeper ones get the longer share, as their maps are smaller. With three stages of two layers,
    three blocks are the stages. Raises ValueError for fewer layers than blocks.
    """
    units: list[list[nn.Module]] = []
    for part in (part for stage in stages for part in stage.children()):
        if units and not any(True for _ in part.parameters()):
            units[-1].append(part)
        else:
            units.append([part])
    if not 1 <= blocks <= len(units):
        raise ValueError(f"{len(units)} layers cannot be cut into {blocks} blocks; allowed: 1 to {len(units)}")
    ends = [len(units) * (b + 1) // blocks for b in range(blocks)]
    return nn.ModuleList(
        nn.Sequential(*[part for unit in units[start:end] for part in unit]) for start, end in zip([0, *ends[:-1]], ends, strict=True)
    )


def hard_classes(accuracy: dict[int, float], theta: float | Literal["dynamic"], least: int = 2) -> tuple[int, ...]:
    """Return the classes whose ``accuracy`` is below ``theta`` ("dynamic": below the mean), at least ``least`` of them (the worst).

    With ``least`` classes or fewer there is nothing to split, and all are returned. Of equally bad classes the first come first.
    """
    # Rounding may put the mean of equal values above all of them.
    bound = min(sum(accuracy.values()) / len(accuracy), max(accuracy.values())) if theta == "dynamic" else theta
    hard = [label for label in accuracy if accuracy[label] < bound]
    if len(hard) < least:
        hard = sorted(accuracy, key=lambda label: (accuracy[label], label))[:least]
    return tuple(sorted(hard))


def features(spikes: Tensor) -> Tensor:
    """Return the mean over time of ``spikes [T, B, ...]``, flattened: ``[B, F]``."""
    return spikes.mean(0).flatten(1)


def features_so_far(spikes: Tensor) -> Tensor:
    """Return for every step t the mean over steps 0..t of ``spikes [T, B, ...]``, flattened: ``[T, B, F]``."""
    count = torch.arange(1, len(spikes) + 1, device=spikes.device, dtype=spikes.dtype)
    means = spikes.flatten(2).cumsum(0) / count.view(-1, 1, 1)
    return torch.cat([means[:-1], features(spikes)[None]])  # the last as in training, to the bit


@dataclass(frozen=True)
class Course:
    """What samples meet on their way through all blocks, whether they leave or not; all ``[blocks, B]``."""

    answers: Tensor  # class of the largest P as of each block
    own: Tensor  # class that the block's classifier alone finds
    confidence: Tensor  # max p
    easy: Tensor  # whether argmax p is an easy class
    hard: Tensor  # h; 1 for a block without detector

    def exits(self, t_cls: float, t_hcd: float) -> Tensor:
        """Return the block ``[B]`` (from 0) at which each sample leaves for these thresholds."""
        leave = self.easy & (self.confidence >= t_cls) & (self.hard < t_hcd)
        leave[-1] = True
        return leave.to(torch.uint8).argmax(0)

    def answers_at(self, exits: Tensor, combine: bool = True) -> Tensor:
        """Return the answers ``[B]`` of samples that leave at blocks ``exits [B]``, combined or of that block alone."""
        return (self.answers if combine else self.own).gather(0, exits[None])[0]

    @staticmethod
    def join(parts: Sequence[Course]) -> Course:
        """Return one course of the samples of several."""
        return Course(*(torch.cat([getattr(part, field.name) for part in parts], 1) for field in fields(Course)))


class BlockNet(nn.Module):
    """Blocks, classifiers and detectors. Blocks exist from the start; heads are added as training finds out their classes.

    ``classes[b]`` is ``K_b``, in the order of the classifier's outputs; block b has been given its classes when ``b < len(net.classes)``.
    The sets travel in the state dict, so that a trained network can be loaded into a fresh one.
    """

    def __init__(self, blocks: nn.ModuleList, sizes: list[int], classes: int) -> None:
        """Join ``blocks``, whose features are of ``sizes``; the first classifier knows all ``classes``."""
        super().__init__()
        self.blocks, self.sizes, self.labels = blocks, sizes, classes
        self.classifiers, self.detectors = nn.ModuleList(), nn.ModuleList()
        self.classes: list[tuple[int, ...]] = []
        self.thresholds: tuple[float, float] | None = None  # of classifiers and detectors, where training has chosen them
        self.add_classifier(tuple(range(classes)))

    def add_classifier(self, classes: tuple[int, ...]) -> None:
        """Give the next block a classifier of ``classes``."""
        depth = len(self.classifiers)
        self.classifiers.append(Linear(self.sizes[depth], len(classes)).to(self._like()))
        self.classes.append(tuple(classes))

    def add_detector(self) -> None:
        """Give the deepest block with a classifier a hard-class detector, before the next block gets its classes."""
        self.detectors.append(Linear(self.sizes[len(self.detectors)], 1).to(self._like()))

    def skip_detector(self) -> None:
        """Say that the deepest block with a classifier has no easy classes, hence no detector."""
        self.detectors.append(nn.Identity())

    def outputs(self) -> list[int]:
        """Return how many numbers the heads of each block answer with that has its classes."""
        detectors = [isinstance(detector, nn.Linear) for detector in self.detectors]
        return [len(classes) + any(detectors[depth : depth + 1]) for depth, classes in enumerate(self.classes)]

    def _like(self) -> Tensor:
        return next(self.blocks.parameters())

    def spikes(self, x: Tensor, depth: int) -> Tensor:
        """Return what block ``depth`` (from 0) receives for inputs ``x [T, B, ...]``; all samples pass the blocks before it."""
        for block in self.blocks[:depth]:
            x = block(x)
        return x

    def easy(self, depth: int) -> list[int]:
        """Return the positions in ``classes[depth]`` of the classes that the next block does not know."""
        return [place for place, label in enumerate(self.classes[depth]) if label not in self.classes[depth + 1]]

    def answer(self, x: Tensor, t_cls: float, t_hcd: float, exits: bool = True, combine: bool = True) -> tuple[Tensor, Tensor]:
        """Return ``P [T, B, classes]`` as of every step and the block ``[B]`` (from 0) at which each sample left.

        ``x [T, B, ...]``. Where a sample leaves is decided once, by its features over all steps; P at step t uses the same blocks with
        features over steps 0..t. Only samples that go on are computed. Blocks without a classifier yet are left out. Unless ``combine``, P
        is that of the block where a sample left.
        """
        steps, batch = x.shape[:2]
        dtype = self._like().dtype
        probability = torch.zeros(steps, batch, self.labels, device=x.device, dtype=dtype)
        weight = torch.ones(steps, batch, device=x.device, dtype=dtype)
        deepest = len(self.classifiers) - 1
        left = torch.full((batch,), deepest, device=x.device)
        going = torch.arange(batch, device=x.device)
        for depth in range(deepest + 1):
            x = self.blocks[depth](x)
            found = features_so_far(x)
            logits = self.classifiers[depth](found)
            p = logits.softmax(-1)
            labels = torch.tensor(self.classes[depth], device=x.device)
            if depth == deepest:
                if combine:
                    probability[:, going[:, None], labels] += weight[..., None] * p
                else:
                    probability[:, going] = self._alone(p, labels)
                break
            easy = torch.tensor(self.easy(depth), device=x.device, dtype=torch.long)
            if not len(easy):
                continue
            hard = self.detectors[depth](found)[..., 0].sigmoid()
            # p over its sum on the easy classes is the softmax of their logits, also where that sum underflows.
            probability[:, going[:, None], labels[easy]] += (weight * (1 - hard))[..., None] * logits[..., easy].softmax(-1)
            weight = weight * hard
            if not exits:
                continue
            best, place = p[-1].max(-1)
            leave = torch.isin(place, easy) & (best >= t_cls) & (hard[-1] < t_hcd)
            left[going[leave]] = depth
            if not combine:
                probability[:, going[leave]] = self._alone(p[:, leave], labels)
            going, x, weight = going[~leave], x[:, ~leave], weight[:, ~leave]
            if not len(going):
                break
        return probability, left

    def _alone(self, p: Tensor, labels: Tensor) -> Tensor:
        return p.new_zeros(*p.shape[:2], self.labels).index_copy(2, labels, p)

    def course(self, x: Tensor) -> Course:
        """Return what the samples of ``x [T, B, ...]`` meet by all steps; every sample passes every block that has a classifier."""
        deepest, batch = len(self.classifiers) - 1, x.shape[1]
        probability = torch.zeros(batch, self.labels, device=x.device, dtype=self._like().dtype)
        weight = torch.ones_like(probability[:, 0])
        found = []
        for depth in range(deepest + 1):
            x = self.blocks[depth](x)
            f = features(x)
            logits = self.classifiers[depth](f)
            labels = torch.tensor(self.classes[depth], device=x.device)
            best, place = logits.softmax(-1).max(-1)
            easy = torch.tensor(self.easy(depth) if depth < deepest else [], device=x.device, dtype=torch.long)
            hard = torch.ones_like(weight)
            combined = probability.clone()
            if depth == deepest:
                combined[:, labels] += weight[:, None] * logits.softmax(-1)
            elif len(easy):
                hard = self.detectors[depth](f)[:, 0].sigmoid()
                probability[:, labels[easy]] += (weight * (1 - hard))[:, None] * logits[:, easy].softmax(-1)
                combined, weight = probability.clone(), weight * hard
            found.append((combined.argmax(1), labels[logits.argmax(1)], best, torch.isin(place, easy), hard))
        return Course(*(torch.stack(parts) for parts in zip(*found, strict=True)))

    def forward(self, x: Tensor) -> Tensor:
        """Return ``log P [T, B, classes]`` of inputs ``[T, B, ...]`` through all blocks that have a classifier."""
        return log_of(self.answer(x, 0.0, 0.0, exits=False)[0])

    def get_extra_state(self) -> dict[str, Any]:
        """Return the classes of every block, which blocks have no detector, and the thresholds."""
        skipped = [isinstance(head, nn.Identity) for head in self.detectors]
        return {"classes": self.classes, "detectors": skipped, "thresholds": self.thresholds}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Make heads for the classes of ``state``; their weights follow from the state dict."""
        self.classifiers, self.detectors, self.classes = nn.ModuleList(), nn.ModuleList(), []
        self.thresholds = state.get("thresholds")
        for classes in state["classes"]:
            self.add_classifier(tuple(classes))
        for skipped in state["detectors"]:
            (self.skip_detector if skipped else self.add_detector)()


def log_of(probability: Tensor) -> Tensor:
    """Return the logarithm of probabilities, finite for zeros too."""
    return probability.clamp_min(torch.finfo(probability.dtype).tiny).log()
