"""Batch normalisation that takes its statistics anew, for a network whose currents have changed.

::

    with refitted(net, run):      # run() calls the network on training samples
        evaluate(net)

Within the context running means and variances are the averages over all batches of ``run``, during which only the normalisations are in
training mode; afterwards they are what they were.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from methods.nn.step_norm import StepBatchNorm


def normalisations(net: nn.Module) -> list[nn.Module]:
    """Return the modules of ``net`` that keep running statistics with a momentum."""
    return [m for m in net.modules() if isinstance(getattr(m, "running_mean", None), Tensor) and hasattr(m, "momentum")]


class _Average:
    """Gives each call of a normalisation the momentum with which its running statistics become averages over all calls so far."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, norm: nn.Module, args: tuple[Tensor, ...]) -> None:
        goes_on = hasattr(norm, "carried") and norm.carried() is not None  # with the statistics of later steps
        self.calls += not goes_on
        updates = len(args[0]) if isinstance(norm, StepBatchNorm) else 1  # it updates at each step
        norm.momentum = 1 - (1 - 1 / self.calls) ** (1 / updates)


@contextmanager
def refitted(net: nn.Module, run: Callable[[], Any]) -> Iterator[None]:
    """Let the batch normalisations of ``net`` have the statistics of what they see in ``run``; see the module's docstring."""
    norms = normalisations(net)
    before = [(norm.momentum, norm.training, {name: buffer.clone() for name, buffer in norm.named_buffers()}) for norm in norms]
    try:
        handles = [norm.register_forward_pre_hook(_Average()) for norm in norms]
        try:
            for norm in norms:
                norm.training = True
            with torch.no_grad():
                run()
        finally:
            for handle in handles:
                handle.remove()
            for norm, (momentum, training, _) in zip(norms, before, strict=True):
                norm.momentum, norm.training = momentum, training
        yield
    finally:
        for norm, (*_, buffers) in zip(norms, before, strict=True):
            for name, buffer in norm.named_buffers():
                buffer.copy_(buffers[name])
