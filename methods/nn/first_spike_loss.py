"""Losses on the first spike times of output neurons, and the answer read from them.

``t [B, classes]`` are first spike times, inf for a neuron that is silent; y is the label. Both losses leave silent neurons out of their sum
(``exp(-inf) = 0``), and a sample whose label neuron is silent has no gradient::

    first_spike_softmax   -log softmax(-t/tau0)_y + alpha (exp(t_y/tau1) - 1)                       EventProp
    first_spike_gap       log sum_i exp(-(t_i - t_y)/(xi tau_s)) + alpha exp(t_y/(beta tau_s))      Fast & Deep

which differ in scale only: the first asks for the label to be earlier, the second term for it to be early.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

SILENT_LABEL = 100.0  # Fast & Deep's loss of a sample whose label neuron is silent


def first_spike_softmax(t: Tensor, targets: Tensor, tau0: float, tau1: float, alpha: float, silent: float) -> Tensor:
    """Return EventProp's loss of first spikes ``t [B, classes]``, mean over the batch; ``silent`` is that of a silent label (ours)."""
    there, label = _label(t, targets)
    early = alpha * torch.expm1(label / tau1)
    return torch.where(there, _competition(t, label, there, tau0) + early, silent).mean()


def first_spike_gap(t: Tensor, targets: Tensor, tau_s: float, xi: float, alpha: float, beta: float) -> Tensor:
    """Return Fast & Deep's loss of first spikes ``t [B, classes]``, mean over the batch."""
    there, label = _label(t, targets)
    early = alpha * torch.exp(label / (beta * tau_s))
    return torch.where(there, _competition(t, label, there, xi * tau_s) + early, SILENT_LABEL).mean()


def first_spike_scores(t: Tensor, instants: Tensor, end: float, scale: float) -> Tensor:
    """Return the scores ``[T, B, classes]`` as of ``instants [T]``: ``(end - t) / scale`` of who has fired, 0 of who has not."""
    return torch.stack([torch.where(t <= instant, (end - t) / scale, 0) for instant in instants])


def _label(t: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Return whether the label neuron fired ``[B]`` and when (0 if it did not)."""
    label = t.gather(1, targets.unsqueeze(1)).squeeze(1)
    there = label.isfinite()
    return there, torch.where(there, label, 0)


def _competition(t: Tensor, label: Tensor, there: Tensor, scale: float) -> Tensor:
    """Return ``log sum_i exp(-(t_i - t_y)/scale)`` over the neurons that fired ``[B]``; 0 where the label did not."""
    gap = torch.where(t.isfinite() & there.unsqueeze(1), (label.unsqueeze(1) - t) / scale, -math.inf)
    return torch.where(there.unsqueeze(1), gap, 0).logsumexp(1).where(there, 0)
