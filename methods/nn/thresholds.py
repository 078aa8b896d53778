"""What learnt thresholds and firing rates do in the course of a training: looked at on the same samples, again and again.

::

    watch = ThresholdWatch()
    watch.look(net, sequence)                  # before every epoch
    figures = watch.figures(net, sequence)     # after the last: for the record
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from methods.nn.calibration import watching
from methods.nn.neuron import LIF

BINS = 20


class ThresholdWatch:
    """Thresholds (mean, standard deviation) and firing rates (mean) of every LIF layer with learnt thresholds, look by look."""

    def __init__(self) -> None:
        """Start without looks."""
        self.means: list[list[float]] = []  # [look][layer]
        self.deviations: list[list[float]] = []
        self.rates: list[list[float]] = []

    @staticmethod
    def layers(net: nn.Module) -> dict[str, LIF]:
        """Return the layers whose thresholds are parameters, by name."""
        return {name: m for name, m in net.named_modules() if isinstance(m, LIF) and isinstance(m.threshold, nn.Parameter)}

    def thresholds(self, net: nn.Module) -> list[nn.Parameter]:
        """Return their thresholds."""
        return [layer.threshold for layer in self.layers(net).values()]  # type: ignore[misc]

    @torch.no_grad()
    def _spikes(self, net: nn.Module, sequence: Tensor) -> dict[nn.Module, Tensor]:
        """Return the rate of each neuron ``[...]`` over time and batch, by layer; ``net`` is run in eval mode and keeps its modes."""
        found: dict[nn.Module, Tensor] = {}
        modes = {module: module.training for module in net.modules()}
        net.eval()
        with watching(self.layers(net).values(), lambda layer, spikes: found.__setitem__(layer, spikes.mean((0, 1)))):
            net(sequence)
        for module, training in modes.items():
            module.training = training
        return found

    def look(self, net: nn.Module, sequence: Tensor) -> None:
        """Note thresholds, and rates under ``sequence [T, B, ...]``."""
        rates = self._spikes(net, sequence)
        layers = list(self.layers(net).values())
        values = [layer.threshold.detach() for layer in layers]  # type: ignore[union-attr]
        self.means.append([value.mean().item() for value in values])
        self.deviations.append([value.std(correction=0).item() for value in values])
        self.rates.append([rates[layer].mean().item() for layer in layers])

    def figures(self, net: nn.Module, sequence: Tensor) -> dict[str, Any]:
        """Return all looks, the last one of ``sequence`` now; histograms, silent neurons and parameters by layer.

        ``rate_std``: standard deviation of the mean rate of a layer over the looks after the first. Histograms have 20 bins: of
        thresholds from the least to the largest (``threshold_range``), of rates from 0 to 1.
        """
        self.look(net, sequence)
        rates, layers = self._spikes(net, sequence), self.layers(net)
        values = {name: layer.threshold.detach().float() for name, layer in layers.items()}  # type: ignore[union-attr]
        later = torch.tensor(self.rates[1:] or self.rates)
        return {
            "threshold_layers": list(layers),
            "threshold_parameters": [value.numel() for value in values.values()],
            "threshold_means": self.means,
            "threshold_deviations": self.deviations,
            "threshold_range": [[value.min().item(), value.max().item()] for value in values.values()],
            "threshold_histogram": [torch.histc(value, BINS).tolist() for value in values.values()],
            "rates": self.rates,
            "rate_std": later.std(0, correction=0).tolist(),
            "rate_histogram": [torch.histc(rates[layer].float(), BINS, 0, 1).tolist() for layer in layers.values()],
            "silent_neurons": [(rates[layer] == 0).double().mean().item() for layer in layers.values()],
        }
