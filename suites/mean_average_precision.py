"""Average precision of detections, as COCO defines it, by torchmetrics and pycocotools."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from suites import fcos

MATCHED = 0.5  # IoU
CONFIDENT = 0.3  # score


class MeanAveragePrecision:
    """mAP@.5 and mAP@[.5:.95]; the item is the object.

    An object counts as found when a detection of its class, of score 0.3 or more, overlaps it by an IoU of 0.5 or more. One detection cannot find two
    objects so, unless these overlap each other.
    """

    def __init__(self, grid: fcos.Grid) -> None:
        """Start empty, for answers at the locations of ``grid``."""
        self.grid = grid
        self._found: list[fcos.Detections] = []
        self._true: list[Tensor] = []  # per image [objects, 5]

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        """Add answers ``[B, L, 5 + K]`` to ``targets [B, M, 5]``."""
        self._found += fcos.detections(outputs, self.grid)
        self._true += [rows[rows[:, 0] >= 0] for rows in targets]

    def compute(self) -> dict[str, float]:
        """Return ``map_50`` and ``map``; not a number where there is no object at all."""
        from torchmetrics.detection import MeanAveragePrecision as Coco

        coco = Coco()
        coco.update(
            [{"boxes": d.boxes, "scores": d.scores, "labels": d.classes} for d in self._found],
            [{"boxes": rows[:, 1:], "labels": rows[:, 0].long()} for rows in self._true],
        )
        found = coco.compute()
        return {name: value if (value := found[name].item()) >= 0 else math.nan for name in ("map_50", "map")}

    def correct(self) -> list[bool]:
        """Return for each object, image by image, whether it was found."""
        from torchvision.ops import box_iou

        right = []
        for found, rows in zip(self._found, self._true, strict=True):
            same = (found.classes[:, None] == rows[None, :, 0]) & (found.scores[:, None] >= CONFIDENT)
            hits = same & (box_iou(found.boxes, rows[:, 1:]) >= MATCHED)
            right.append(hits.any(0))
        return torch.cat(right).tolist()
