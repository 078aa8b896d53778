"""Mirrored images, each by its own coin; boxes and masks move with their image.

::

    batch = mirrored(batch, generator, ("horizontal", "vertical"))
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from harness.task import Batch

Axis = Literal["horizontal", "vertical"]
AXES: dict[Axis, tuple[int, int, int]] = {"horizontal": (-1, 1, 3), "vertical": (-2, 2, 4)}  # axis of images, columns of two box sides


def mirrored(batch: Batch, generator: torch.Generator, axes: Sequence[Axis], chance: float = 0.5) -> Batch:
    """Return a batch of which every sample is mirrored along each of ``axes`` by ``chance``.

    ``inputs [B, C, H, W]``; ``targets`` are boxes ``[B, M, 5]``, or masks ``[B, H, W]`` if their shape is that of the images.
    ``generator`` is on the CPU, so that every device draws the same.
    """
    inputs, targets = batch.inputs, batch.targets
    masks = targets.shape[1:] == inputs.shape[-2:]
    for axis in axes:
        chosen = (torch.rand(len(inputs), generator=generator) < chance).to(inputs.device)
        inputs = _turned(inputs, chosen, AXES[axis][0])
        targets = _turned(targets, chosen, AXES[axis][0]) if masks else _moved(targets, chosen, axis, inputs.shape[AXES[axis][0]])
    return batch._replace(inputs=inputs, targets=targets)


def _turned(pictures: Tensor, chosen: Tensor, axis: int) -> Tensor:
    """Return ``pictures [B, ..., H, W]``, the ``chosen [B]`` ones flipped along an axis."""
    return torch.where(chosen.view(-1, *[1] * (pictures.dim() - 1)), pictures.flip(axis), pictures)


def _moved(targets: Tensor, chosen: Tensor, axis: Axis, length: int) -> Tensor:
    """Return boxes ``[B, M, 5]`` in images that are ``length`` pixels along ``axis``, those of the ``chosen [B]`` mirrored."""
    _, low, high = AXES[axis]
    flipped = targets.clone()
    flipped[..., low], flipped[..., high] = length - targets[..., high], length - targets[..., low]
    real = targets[..., :1] != -1  # what only fills up stays as it is
    return torch.where(chosen[:, None, None] & real, flipped, targets)
