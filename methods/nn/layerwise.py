"""From a trained ReLU network to a spiking one layer by layer, while the layers that are left train on the spike counts of those replaced.

The network is made of paired parts (``methods.nn.pair``), all of which start with ``relu`` set. To replace layer l::

    theta_l = percentile of ReLU(z_l) over training images / T        (a count of T stands for it)
    IF neurons of threshold theta_l, weights folded and frozen; weights behind it times theta_l, since a count stands for a / theta_l

The first layer that is not replaced sums its input over time, so that it sees counts. Source: "Progressive Tandem Learning for Pattern
Recognition with Deep Spiking Neural Networks" (Wu et al., IEEE TPAMI 44(11), 2022); when the last layers must follow is ours.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from methods.nn.calibration import activation_factors
from methods.nn.conversion import normalise
from methods.nn.wiring import Connection, trace


class Layerwise:
    """Replaces the ReLU layers of ``net`` one after another: at each look when ``patience`` looks brought no gain, or it is time.

    ``spiking(theta)`` makes neurons; ``images`` are training sequences ``[T, B, ...]`` that thresholds are taken from.
    """

    def __init__(
        self, net: nn.Module, spiking: Callable[[float], nn.Module], images: Sequence[Tensor], percent: float, steps: int, patience: int
    ) -> None:
        """Turn all layers of ``net`` into ReLU layers; raise ValueError for a network with residual sums."""
        self.net, self.spiking, self.images = net, spiking, images
        self.percent, self.steps, self.patience = percent, steps, patience
        for module in net.modules():
            if hasattr(module, "relu"):
                module.relu = True
        self.connections: list[Connection] = trace(net, images[0][:, :1])
        self.layers = [c.layer for c in self.connections if c.layer is not None]
        self.thresholds: list[float] = []
        self.best, self.waited = float("-inf"), 0

    def look(self, epoch: int, epochs: int, score: float) -> None:
        """Before ``epoch`` of ``epochs``: replace a layer if ``score``, of the network as it is, asks for it, and all that are due."""
        if score > self.best:
            self.best, self.waited = score, 0
        else:
            self.waited += 1
        due = (epoch * len(self.layers)) // epochs + 1
        if self.waited >= self.patience:
            self.replace()
        while len(self.thresholds) < min(due, len(self.layers)):
            self.replace()

    def finish(self) -> None:
        """Replace what is left, and let the read-outs answer every step."""
        while len(self.thresholds) < len(self.layers):
            self.replace()
        for module in self.net.modules():
            if hasattr(module, "relu"):
                module.relu = False

    @torch.no_grad()
    def replace(self) -> None:
        """Replace the next layer; nothing happens when none is left."""
        if len(self.thresholds) == len(self.layers):
            return
        layer = self.layers[len(self.thresholds)]
        samples = sum(sequence.shape[1] for sequence in self.images)
        modes = {module: module.training for module in self.net.modules()}
        self.net.eval()
        peak = activation_factors(self.net, [layer], self.images, samples, self.percent)[layer]
        for module, training in modes.items():
            module.training = training
        theta = float(peak) / self.steps
        layer.synapse.relu = layer.neuron.relu = False  # type: ignore[union-attr]
        layer.neuron.neuron = self.spiking(theta)
        for parameter in layer.parameters():
            parameter.requires_grad_(False)
        for connection in self.connections:
            if connection.source is layer:
                normalise(connection.synapse, before=peak / self.steps)
        self.thresholds.append(theta)
        self.best, self.waited = float("-inf"), 0
