"""Average precision of detections, as COCO defines it, by torchmetrics and pycocotools."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from suites import fcos

MATCHED = 0.5  # IoU
CONFIDENT = 0.3  # score


class MeanAveragePrecision:
    """mAP@.5 and mAP@[.5:.95]; the item is the object. Of an image, the 100 best detections count, as in COCO.

    An object counts as found when the best-scored detection that overlaps it by an IoU of 0.5 or more has its class and a score of
    0.3 or more. (Any such detection would not do: a location may answer several classes, and one that answers all would always be right.)
    Objects that are not asked for (``suites.boxes``) count as COCO's crowds: a detection inside one is neither right nor wrong.
    """

    def __init__(self, grid: fcos.Grid, candidates: int = 50) -> None:
        """Start empty, for answers at the locations of ``grid``; ``candidates`` as in ``fcos.detections``."""
        self.grid, self.candidates = grid, candidates
        self._found: list[fcos.Detections] = []
        self._true: list[Tensor] = []  # per image [objects, 5]

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        """Add answers ``[B, L, 5 + K]`` to ``targets [B, M, 5]``."""
        self._found += fcos.detections(outputs, self.grid, candidates=self.candidates)
        self._true += [rows[rows[:, 0] != -1] for rows in targets]

    def compute(self) -> dict[str, float]:
        """Return ``map_50`` and ``map``; not a number where there is no object at all."""
        from torchmetrics.detection import MeanAveragePrecision as Coco

        # COCO's own thresholds: those of torchmetrics are rounded to single precision, and a recall of just 0.7 then counts otherwise.
        coco = Coco(iou_thresholds=np.linspace(0.5, 0.95, 10).tolist(), rec_thresholds=np.linspace(0, 1, 101).tolist())
        coco.update(
            [{"boxes": d.boxes, "scores": d.scores, "labels": d.classes} for d in self._found],
            [{"boxes": rows[:, 1:], "labels": _classes(rows), "iscrowd": (rows[:, 0] < 0).long()} for rows in self._true],
        )
        found = coco.compute()
        return {name: value if (value := found[name].item()) >= 0 else math.nan for name in ("map_50", "map")}

    def correct(self) -> list[bool]:
        """Return for each object that is asked for, image by image, whether it was found."""
        from torchvision.ops import box_iou

        right = []
        for found, everything in zip(self._found, self._true, strict=True):
            rows = everything[everything[:, 0] >= 0]
            near = box_iou(found.boxes, rows[:, 1:]) >= MATCHED
            if not len(found.boxes):
                right.append(torch.zeros(len(rows), dtype=torch.bool))
                continue
            best = near.int().argmax(0)  # the first hit: detections come best first
            right.append(near.any(0) & (found.classes[best] == rows[:, 0]) & (found.scores[best] >= CONFIDENT))
        answer: list[bool] = torch.cat(right).tolist()
        return answer


def _classes(rows: Tensor) -> Tensor:
    """Return the classes ``[M]`` of objects ``[M, 5]``, asked for or not."""
    label = rows[:, 0].long()
    return torch.where(label < 0, -2 - label, label)
