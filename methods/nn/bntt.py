"""Batch normalisation through time (BNTT): statistics and a scale of their own for every time step; a shift only where asked for.

For currents ``x[t]`` of channel ``c``, over batch and space at step ``t`` only::

    y[t] = gamma[t, c] * (x[t] - mean[t, c]) / sqrt(var[t, c] + eps)        eps = 1e-4

With ``bias`` a shift ``beta[t, c]`` is added. ``gamma`` shapes when a layer fires. Where the gammas of all layers have
become small, later steps carry no information: ``exit_step``.
Source: "Revisiting batch normalization for training low-latency deep spiking neural networks from scratch" (Kim and Panda, Frontiers in
Neuroscience 15:773954, 2021). The rule that ignores an early dip is ours.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.task import Training
from methods.nn.stepping import Stateful


class BatchNormThroughTime(Stateful):
    """BNTT of currents ``[T, B, C, ...]`` for at most ``steps`` time steps; learnt: ``gamma [steps, C]``, and with ``bias`` ``beta``."""

    def __init__(self, features: int, steps: int, eps: float = 1e-4, momentum: float = 0.1, bias: bool = False) -> None:
        """Make a normalisation of ``features`` channels over ``steps`` time steps."""
        super().__init__()
        self.steps, self.eps, self.momentum = steps, eps, momentum
        self.gamma = nn.Parameter(torch.ones(steps, features))
        self.beta = nn.Parameter(torch.zeros(steps, features)) if bias else None
        self.register_buffer("running_mean", torch.zeros(steps, features))
        self.register_buffer("running_var", torch.ones(steps, features))

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalised currents; raise ValueError for more steps than there are statistics for."""
        state = self.carried()
        start = int(state[0]) if state else 0
        stop = start + len(x)
        if stop > self.steps:
            raise ValueError(f"BNTT was built for {self.steps} time steps and has no statistics for more; {stop} were given")
        self.carry(torch.tensor(stop))
        # One normalisation of T*C channels, since every step and channel has statistics of its own. The slices of the
        # buffers are views, updated in place.
        folded = x.transpose(0, 1).flatten(1, 2)
        mean, var, gamma = (part[start:stop].flatten() for part in (self.running_mean, self.running_var, self.gamma))
        beta = None if self.beta is None else self.beta[start:stop].flatten()
        y = F.batch_norm(folded, mean, var, gamma, beta, self.training, self.momentum, self.eps)
        return y.unflatten(1, x.shape[0:3:2]).transpose(0, 1)

    def extra_repr(self) -> str:
        """Return the settings for printing."""
        return f"{self.gamma.shape[1]}, steps={self.steps}, eps={self.eps:g}"


def gamma_table(net: nn.Module, largest: bool = False) -> Tensor:
    """Return the mean gamma (``largest``: the largest ``|gamma|``) of every BNTT layer of ``net`` at every step, ``[layers, T]``.

    Layers are in the order of the modules; raises ValueError if there is none.
    """
    gammas = [module.gamma.detach() for module in net.modules() if isinstance(module, BatchNormThroughTime)]
    if not gammas:
        raise ValueError("the network has no BNTT layer, so no time step to exit at")
    return torch.stack([gamma.abs().amax(1) if largest else gamma.mean(1) for gamma in gammas])


def exit_step(table: Tensor, threshold: float = 0.1) -> int:
    """Return how many steps to run: the first from which on every layer stays below ``threshold``, but at least 1.

    ``table [layers, T]`` holds signed mean gammas. A dip that ends again does not count. T where no such step exists.
    """
    awake = (table >= threshold).any(0).nonzero()
    return int(awake.max()) + 1 if len(awake) else 1


def decay_exponent(training: Training, updates: int, decay: float) -> float:
    """Return x such that SGD shrinks a gamma that gets no gradient by the factor ``exp(-x)``: ``decay * sum of lr / (1 - momentum)``.

    ``updates``: iterations per epoch; the sum is over all iterations, by the schedule of the settings. Source: ours.
    """
    shares = sum(training.lr_share(epoch) for epoch in range(training.epochs))
    return decay * training.lr * shares * updates / (1 - training.momentum)
