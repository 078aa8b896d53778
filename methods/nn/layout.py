"""How a sequence ``[T, B, ...]`` lies in memory: the native kernels take any dense layout of a step, and keep it.

A step is dense when its numbers fill a stretch of memory without gaps, in any order of the dimensions (contiguous, channels-last).
Steps may be any distance apart; distance 0 is an input that is the same at every step.
"""

from __future__ import annotations

import torch
from torch import Tensor


def dense_step(sequence: Tensor) -> bool:
    """Return whether each step of ``sequence`` is dense."""
    if sequence.is_contiguous():
        return True
    expected = 1
    for stride, size in sorted(zip(sequence.stride()[1:], sequence.shape[1:], strict=True)):
        if size == 1:
            continue
        if stride != expected:
            return False
        expected *= size
    return True


def channels_last(images: Tensor) -> Tensor:
    """Return ``images [T, B, C, H, W]`` with the channels of a pixel side by side, as torch's ``channels_last`` for each step.

    Convolutions on a CPU are faster so, and every part of a network keeps the layout. An image that is the same at every step stays one.
    """
    if images.shape[0] > 1 and images.stride(0) == 0:
        return channels_last(images[:1]).expand(images.shape)
    return images.flatten(0, 1).contiguous(memory_format=torch.channels_last).unflatten(0, images.shape[:2])


def settled(sequence: Tensor) -> Tensor:
    """Return ``sequence`` itself if its steps are dense, else a contiguous copy."""
    return sequence if dense_step(sequence) else sequence.contiguous()


def like(sequence: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Return an empty tensor of the shape of ``sequence``, whose steps lie as those of ``sequence`` do and follow each other."""
    step = sequence.shape[1:].numel()
    return sequence.new_empty_strided(sequence.shape, (step, *sequence.stride()[1:]), dtype=dtype or sequence.dtype)


def step_like(sequence: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Return an empty tensor of the shape and layout of one step of ``sequence``."""
    return sequence.new_empty_strided(sequence.shape[1:], sequence.stride()[1:], dtype=dtype or sequence.dtype)


def arranged(tensor: Tensor, model: Tensor) -> Tensor:
    """Return ``tensor [..., steps]`` with its last dimensions laid out as those of a step of ``model``; itself if they are.

    ``tensor`` is a sequence of the shape of ``model``, or one step of it.
    """
    inner = model.dim() - 1
    shape, strides = model.shape[1:], model.stride()[1:]
    mine = tensor.stride()[tensor.dim() - inner :]
    if all(a == b or size == 1 for a, b, size in zip(mine, strides, shape, strict=True)):
        return tensor
    copy = like(model, tensor.dtype) if tensor.dim() == model.dim() else step_like(model, tensor.dtype)
    return copy.copy_(tensor)
