"""What stands for the derivative of the spike, ``df = ds[t]/du[t]``, at every neuron and step: asked of the neurons themselves.

::

    slope = firing_slope(neuron, currents)      # [T, B, ...], as the currents

A neuron is run one step at a time with its state cut from the graph. The spikes of a step then depend on the current of that step through
the potential ``u[t]`` alone, and where the current enters the potential by a constant factor (LIF and its relatives) the gradient of their
sum is ``df`` times that factor: zero where ``df`` is. So no neuron needs to show its potential, whichever backend it has. Parallel
neurons, whose potentials mix the currents of many steps, show theirs (``charge``). Design: ours.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from methods.nn.psn import ParallelNeuron
from methods.nn.stepping import FutureError, Stateful, stepping


def firing_slope(neuron: nn.Module, currents: Tensor) -> Tensor | None:
    """Return ``df``, up to a factor that is not zero, for ``currents [T, B, ...]`` from rest; None where spikes have no derivative.

    Spikes must depend on no other neuron of the layer at the same step. Running statistics of the neuron may change.
    """
    if isinstance(neuron, ParallelNeuron):
        with torch.no_grad():
            return neuron.surrogate(neuron.charge(currents))
    if not isinstance(neuron, Stateful):
        return _slope(neuron, currents)
    found = []
    try:
        with stepping(neuron, detach=True):
            for now in currents.split(1):
                slope = _slope(neuron, now)
                if slope is None:
                    return None
                found.append(slope)
    except FutureError:
        return None
    return torch.cat(found)


def _slope(neuron: nn.Module, currents: Tensor) -> Tensor | None:
    with torch.enable_grad():
        leaf = currents.detach().clone().requires_grad_()
        spikes = neuron(leaf)
        if not spikes.requires_grad:
            return None
        return torch.autograd.grad(spikes.sum(), leaf, allow_unused=True)[0]
