"""Encodings of static inputs: numbers in [0, 1] to sequences in time.

Each maps ``x [B, ...]`` to ``[T, B, ...]``, the sequence that a network sees::

    spikes = rate(pixels, steps=16)

``direct`` repeats the numbers (the first layer turns them into spikes); ``rate`` and ``latency`` give spikes 0/1; ``phase`` gives weighted
spikes, 0 or a power of two.
"""

from __future__ import annotations

import torch
from torch import Tensor


def direct(x: Tensor, steps: int) -> Tensor:
    """Return ``x [B, ...]``, of any range, at every step; a view, not a copy.

    Source: direct (or constant-current) coding, e.g. Wu et al., Direct training for spiking neural networks: faster, larger, better,
    AAAI 2019.
    """
    return x.unsqueeze(0).expand(steps, *x.shape)


def rate(x: Tensor, steps: int, generator: torch.Generator | None = None) -> Tensor:
    """Return spikes drawn at every step with probability ``x`` (Bernoulli, independent), so that their mean rate is ``x [B, ...]``.

    ``generator`` is one of the device of ``x``; None takes torch's own. Source: Poisson input of Diehl et al., Fast-classifying,
    high-accuracy spiking deep networks through weight and threshold balancing, IJCNN 2015, with at most one spike per step.
    """
    drawn = torch.rand((steps, *x.shape), generator=generator, dtype=x.dtype, device=x.device)
    return (drawn < x).to(x.dtype)


def first_spike(x: Tensor, steps: int) -> Tensor:
    """Return the step ``[B, ...]`` (int64) at which ``latency`` lets ``x`` fire: ``floor((1 - x) T)``; T or more means never."""
    return ((1 - x) * steps).floor().long()


def latency(x: Tensor, steps: int) -> Tensor:
    """Return one spike per number, the earlier the larger it is: at step ``floor((1 - x) T)``, and none for ``x = 0``.

    Source: Kheradpisheh, Masquelier, Temporal backpropagation for spiking neural networks with one spike per neuron, International
    Journal of Neural Systems 30(6), 2020: the firing time of an input is linear in its intensity, with ``t_max = T`` here.
    """
    step = torch.arange(steps, device=x.device).view(-1, *[1] * x.dim())
    return (step == first_spike(x, steps)).to(x.dtype)


def phase(x: Tensor, steps: int) -> Tensor:
    """Return weighted spikes: at step t the t-th binary digit of ``x`` cut to T digits, times its weight ``2^-(t+1)``.

    The sum over time is ``x`` rounded down to a multiple of ``2^-T`` (the largest one below 1 for ``x = 1``). Source: Kim et al., Deep
    neural networks with weighted spikes, Neurocomputing 311, 2018, with a period of T steps.
    """
    digits = (x.double() * 2**steps).floor().clamp(0, 2**steps - 1).long()
    places = torch.arange(steps - 1, -1, -1, device=x.device).view(-1, *[1] * x.dim())
    return ((digits >> places) & 1).to(x.dtype) * torch.pow(2.0, places - steps).to(x.dtype)
