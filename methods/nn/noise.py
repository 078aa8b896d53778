"""Noise on the inputs of a trained network: on pixels before they are coded, and on event frames.

Still images reach a method as their task prepared them, often normalised (minus ``mean``, divided by ``deviation``, by channel); noise
levels and random coding are about pixels in [0, 1]. Draws come from torch's own generator. Protocol: ours.
"""

from __future__ import annotations

import torch
from torch import Tensor

from harness.task import Task
from methods.nn.corruption import noise


def _normalisation(task: Task, inputs: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and deviation by which ``task`` normalised ``inputs [B, C, H, W]``; 0 and 1 if it did not."""
    normalised = hasattr(task, "mean") and getattr(task.options, "encoding", "direct") == "direct"
    values = (task.mean, task.deviation) if normalised else ((0.0,), (1.0,))  # type: ignore[attr-defined]
    mean, deviation = (torch.tensor(part, dtype=inputs.dtype, device=inputs.device).view(-1, 1, 1) for part in values)
    return mean, deviation


def pixels(task: Task, inputs: Tensor) -> Tensor:
    """Return the pixels, in [0, 1], of still images ``inputs [B, C, H, W]`` that ``task`` prepared."""
    mean, deviation = _normalisation(task, inputs)
    return inputs * deviation + mean


def pixel_noise(task: Task, inputs: Tensor, level: float) -> Tensor:
    """Return still images whose pixels have Gaussian noise of standard deviation ``level`` added, in the task's own normalisation."""
    return inputs + torch.randn_like(inputs) * (level / _normalisation(task, inputs)[1]) if level else inputs


def event_noise(inputs: Tensor, level: float) -> Tensor:
    """Return event frames ``[B, T, C, H, W]`` with an event more, of random polarity, at a share ``level`` of the pixels of each step.

    In frames ``[B, T, C]``, without space, each channel is a pixel.
    """
    if inputs.dim() < 5:
        return inputs + (torch.rand_like(inputs) < level)
    return noise(inputs, level)
