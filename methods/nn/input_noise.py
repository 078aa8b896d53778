"""Gaussian noise on what enters some modules: how robust answers are to noisy currents or potentials.

::

    with noisy(neurons, sigma=0.1):
        answers = net(x)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


@contextmanager
def noisy(modules: Iterable[nn.Module], sigma: float) -> Iterator[None]:
    """Add noise of standard deviation ``sigma`` to the input of each of ``modules``; the same noise each time the context is entered."""
    drawn: dict[torch.device, torch.Generator] = {}

    def add(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        x = args[0]
        generator = drawn.setdefault(x.device, torch.Generator(x.device).manual_seed(0))
        return x + sigma * torch.randn(x.shape, generator=generator, dtype=x.dtype, device=x.device), *args[1:]

    handles = [module.register_forward_pre_hook(add) for module in modules] if sigma else []
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
