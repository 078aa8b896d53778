"""Boxes: their shape in a batch, and the change between corners and distances from a point.

A box is (x1, y1, x2, y2) in pixels, x to the right, y down, with x1 < x2 and y1 < y2; pixel i covers [i, i + 1]. Targets ``[B, M, 5]`` hold
(class, box) per object; class -1 pads, and ``-2 - k`` is an object of class k that is neither asked for nor a false alarm when found (VOC's
difficult objects, COCO's crowds). Seen from a point inside, a box is its distances (left, top, right, bottom), as in FCOS.
"""

from __future__ import annotations

import torch
from torch import Tensor


def encode(points: Tensor, boxes: Tensor) -> Tensor:
    """Return the distances ``[..., 4]`` from ``points [..., 2]`` (x, y) to the sides of ``boxes [..., 4]``; negative outside."""
    return torch.cat([points - boxes[..., :2], boxes[..., 2:] - points], dim=-1)


def decode(points: Tensor, distances: Tensor) -> Tensor:
    """Return the boxes ``[..., 4]`` whose sides are ``distances [..., 4]`` from ``points [..., 2]``."""
    return torch.cat([points - distances[..., :2], points + distances[..., 2:]], dim=-1)


def area(boxes: Tensor) -> Tensor:
    """Return the areas ``[...]`` of ``boxes [..., 4]`` in square pixels."""
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def checked(targets: Tensor, classes: int, height: int, width: int) -> Tensor:
    """Return ``targets [N, M, 5]`` unchanged.

    Raises ValueError that names the first sample and object whose class is unknown or whose box is empty, reversed, not a number, or not
    inside the image: data sets do contain such boxes, and a loss of them is silently wrong.
    """
    if targets.dim() != 3 or targets.shape[-1] != 5:
        raise ValueError(f"targets must be [N, M, 5] (class, x1, y1, x2, y2), not {list(targets.shape)}")
    label, (x1, y1, x2, y2) = targets[..., 0], targets[..., 1:].unbind(-1)
    faults = {
        f"its class is not a whole number from 0 to {classes - 1}, -1 for padding, or -2 - class for what is not asked for": ~torch.isin(
            label, torch.arange(-1 - classes, classes, dtype=label.dtype, device=label.device)
        ),
        "its box has no area (x1 < x2 and y1 < y2 are needed)": (label != -1) & ~((x1 < x2) & (y1 < y2)),
        f"its box leaves the image of {height}x{width}": (label != -1) & ~((x1 >= 0) & (y1 >= 0) & (x2 <= width) & (y2 <= height)),
    }
    for fault, where in faults.items():
        if where.any():
            sample, place = where.nonzero()[0].tolist()
            raise ValueError(f"object {place} of sample {sample}, {targets[sample, place].tolist()}: {fault}")
    return targets
