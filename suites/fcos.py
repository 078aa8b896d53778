"""Dense detection without anchors: which location answers for which object, the loss, and the boxes that are answered.

FCOS (Tian, Shen, Chen, He, ICCV 2019). Every location of every level answers with class logits, four distances to the sides of a
box, and how central it is (``harness.task.Head``, kind "detect"). With (l, t, r, b) the true distances::

    positive      inside a box, within 1.5 strides of its centre (centre sampling), and half its longer side in the level's range;
                  the smallest box wins where several claim a location
    centre-ness   sqrt(min(l, r) / max(l, r) * min(t, b) / max(t, b))
    loss          3 focal(class) / n + sum(centre-ness * (1 - GIoU)) / sum(centre-ness) + BCE(centre-ness) / n,   n = number of positives
    score         sqrt(p(class) * p(centre-ness))

Ours, for small images and short training:

- an object belongs to one level, by half its longer side, where FCOS asks max(l, t, r, b) of every location: no object goes without a
  location as long as its shorter side is more than half the longer; ranges end at 2 strides for all levels but the last (FCOS: 8);
- focal loss has alpha 0.5, gamma 1, weight 3 (FCOS: 0.25, 2, 1): with FCOS's constants a short run finds the objects and learns
  their classes late;
- distances are ``stride * softplus(raw)``, which cannot overflow, where FCOS has an exponential; GIoU for IoU, as in its later versions.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from suites import boxes

CENTRE_RADIUS = 1.5  # strides
FOCAL = {"alpha": 0.5, "gamma": 1.0}  # ours; see the docstring
CLASS_WEIGHT = 3.0
LARGEST = 2.0  # strides; what a level that is not the last answers for


@dataclass(frozen=True)
class Grid:
    """The locations of all levels, joined row by row: ``points [L, 2]`` in pixels, and per location ``[L]`` stride and range of sizes."""

    points: Tensor
    stride: Tensor
    low: Tensor
    high: Tensor

    @classmethod
    def of(cls, height: int, width: int, strides: tuple[int, ...], device: torch.device | str = "cpu") -> Grid:
        """Return the grid of an image; raise ValueError if it is smaller than a stride."""
        if min(height, width) < max(strides):
            raise ValueError(f"an image of {height}x{width} has no location at stride {max(strides)}")
        parts, low = [], 0.0
        for number, stride in enumerate(strides):
            y, x = torch.meshgrid(torch.arange(height // stride), torch.arange(width // stride), indexing="ij")
            points = (torch.stack([x, y], -1).flatten(0, 1) + 0.5) * stride
            high = LARGEST * stride if number + 1 < len(strides) else float("inf")
            bounds = torch.tensor([stride, low, high]).expand(len(points), 3)
            parts.append(torch.cat([points, bounds], 1))
            low = high
        joined = torch.cat(parts).to(device)
        return cls(joined[:, :2], *joined[:, 2:].unbind(1))


def assign(targets: Tensor, grid: Grid) -> tuple[Tensor, Tensor]:
    """Return for each location its class ``[B, L]`` (-1: background) and the distances ``[B, L, 4]`` to its object's sides.

    ``targets [B, M, 5]`` as in ``suites.boxes``; there may be no object at all. Objects that are not asked for are background.
    """
    batch, most, _ = targets.shape
    if most == 0:
        return targets.new_full((batch, len(grid.points)), -1).long(), targets.new_zeros(batch, len(grid.points), 4)
    label, corners = targets[:, None, :, 0], targets[:, None, :, 1:]  # [B, 1, M], [B, 1, M, 4]
    points = grid.points[None, :, None]
    distances = boxes.encode(points, corners)  # [B, L, M, 4]
    centre = (corners[..., :2] + corners[..., 2:]) / 2
    central = (points - centre).abs().amax(-1) < CENTRE_RADIUS * grid.stride[None, :, None]
    reach = (corners[..., 2:] - corners[..., :2]).amax(-1) / 2
    sized = (reach > grid.low[None, :, None]) & (reach <= grid.high[None, :, None])
    claims = (label >= 0) & (distances.amin(-1) > 0) & central & sized
    cost = boxes.area(corners).expand_as(claims).masked_fill(~claims, float("inf"))
    chosen = cost.argmin(-1, keepdim=True)  # [B, L, 1]
    found = claims.gather(2, chosen).squeeze(2)
    classes = label.expand_as(claims).gather(2, chosen).squeeze(2).long().masked_fill(~found, -1)
    return classes, distances.gather(2, chosen[..., None].expand(-1, -1, -1, 4)).squeeze(2)


def centreness(distances: Tensor) -> Tensor:
    """Return how central points with ``distances [..., 4]`` inside a box are: 1 at its centre, 0 at its sides."""
    left, top, right, bottom = distances.unbind(-1)
    across = torch.minimum(left, right) / torch.maximum(left, right)
    down = torch.minimum(top, bottom) / torch.maximum(top, bottom)
    return (across * down).sqrt()


def read(answers: Tensor, grid: Grid) -> tuple[Tensor, Tensor, Tensor]:
    """Return class logits ``[..., L, K]``, boxes ``[..., L, 4]`` and centre-ness logits ``[..., L]`` of ``answers [..., L, 5 + K]``."""
    answers = answers.float()
    logits, raw, centre = answers[..., :-5], answers[..., -5:-1], answers[..., -1]
    return logits, boxes.decode(grid.points, F.softplus(raw) * grid.stride[:, None]), centre


def loss(answers: Tensor, targets: Tensor, grid: Grid, label_smoothing: float = 0.0) -> Tensor:
    """Return the scalar loss of ``answers [B, L, 5 + K]`` to ``targets [B, M, 5]``.

    ``label_smoothing`` softens the class of the positive locations only: a background of 99 in 100 locations must stay at zero.
    """
    from torchvision.ops import generalized_box_iou_loss, sigmoid_focal_loss

    logits, predicted, centre = read(answers, grid)
    classes, distances = assign(targets, grid)
    positive = classes >= 0
    count = positive.sum().clamp_min(1)
    kinds = logits.shape[-1]
    wanted = F.one_hot(classes.clamp_min(0), kinds).to(logits.dtype) * (1 - label_smoothing) + label_smoothing / kinds
    wanted = wanted * positive[..., None]
    true = boxes.decode(grid.points, distances)[positive]
    weight = centreness(distances[positive])
    miss = generalized_box_iou_loss(predicted[positive], true)
    return (
        CLASS_WEIGHT * sigmoid_focal_loss(logits, wanted, **FOCAL, reduction="sum") / count
        + (miss * weight).sum() / weight.sum().clamp_min(1e-6)
        + F.binary_cross_entropy_with_logits(centre[positive], weight, reduction="sum") / count
    )


@dataclass(frozen=True)
class Detections:
    """What was found in one image, best first: ``boxes [D, 4]``, ``scores [D]``, ``classes [D]``."""

    boxes: Tensor
    scores: Tensor
    classes: Tensor


def detections(
    answers: Tensor, grid: Grid, least: float = 0.05, candidates: int = 50, overlap: float = 0.5, most: int = 100
) -> list[Detections]:
    """Return what each sample of ``answers [B, L, 5 + K]`` says.

    Of the ``candidates`` best scores (an object has as many as there are locations within ``CENTRE_RADIUS`` of its centre), those of at
    least ``least`` whose box is finite, after suppression per class of boxes that overlap a better one by more than ``overlap`` (IoU); of
    these the ``most`` best.
    """
    from torchvision.ops import batched_nms

    logits, corners, centre = read(answers, grid)
    kinds = logits.shape[-1]
    score = (logits.sigmoid() * centre.sigmoid()[..., None]).sqrt().flatten(1)
    score, place = score.nan_to_num(0.0).topk(min(candidates, score.shape[1]), dim=1)
    found = corners.gather(1, (place // kinds)[..., None].expand(-1, -1, 4))
    sample, rank = ((score >= least) & found.isfinite().all(-1)).nonzero(as_tuple=True)
    score, found, kind = score[sample, rank], found[sample, rank], place[sample, rank] % kinds
    kept = batched_nms(found, score, sample * kinds + kind, overlap)  # best first over the whole batch
    kept = kept[sample[kept].argsort(stable=True)]
    sizes = sample[kept].bincount(minlength=len(answers)).tolist()
    parts = zip(*(values[kept].split(sizes) for values in (found, score, kind)), strict=True)
    return [Detections(*(values[:most] for values in part)) for part in parts]
