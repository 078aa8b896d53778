"""Norm factors from data: how large the activations of each layer get.

Three rules. *Max*: the largest activation (Diehl et al., IJCNN 2015). *Percentile*: robust against outliers (Rueckauer et al.,
Frontiers in Neuroscience 2017), over the non-zero activations of all calibration images. *Spikes*: threshold balancing layer by
layer, the largest current that spikes of the layers before cause (Sengupta et al., 2019). Sequences are ``[T, B, ...]``;
calibration images are training images, never test images.
"""

from __future__ import annotations

import copy
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from methods.nn.conversion import ONE, integrate_and_fire, normalise
from methods.nn.stepping import stepping
from methods.nn.wiring import Site, trace


class Percentile:
    """The exact percentile of the positive values of a stream, kept as its largest values only.

    Ranks are interpolated linearly, as NumPy does. 99.9 % of a thousand images of a convolution layer then needs a thousandth of
    their memory.
    """

    def __init__(self, percent: float, most: int) -> None:
        """Prepare for at most ``most`` values; ``percent`` in (0, 100], and 100 is the maximum."""
        self.percent, self.count = percent, 0
        self._keep = math.ceil(most * (1 - percent / 100)) + 3
        self._largest: Tensor | None = None

    def add(self, values: Tensor) -> None:
        """Add values of any shape; those that are not positive are left out."""
        positive = values[values > 0]
        self.count += len(positive)
        if self._largest is not None:
            positive = torch.cat([self._largest, positive])
        self._largest = positive.topk(min(self._keep, len(positive))).values

    def value(self) -> Tensor:
        """Return the percentile (scalar); 1 if nothing was positive, since any factor suits a silent layer."""
        if self._largest is None:
            raise ValueError("a percentile of no values; add some first")
        if self.count == 0:
            return self._largest.new_ones(())
        rank = self.percent / 100 * (self.count - 1)
        low = math.floor(rank)
        below = self._largest[self.count - 1 - low]
        above = self._largest[max(self.count - 2 - low, 0)]
        return below + (above - below) * (rank - low)


@contextmanager
def watching(modules: Iterable[nn.Module], see: Callable[[nn.Module, Tensor], None]) -> Iterator[None]:
    """Call ``see(module, output)`` for every output of ``modules`` inside the context."""
    hooks = [module.register_forward_hook(lambda m, args, output: see(m, output)) for module in modules]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@torch.no_grad()
def activation_factors(
    net: nn.Module, layers: Iterable[Site], sequences: Iterable[Tensor], samples: int, percent: float = 100.0
) -> dict[Site, Tensor]:
    """Return for each layer the percentile of its positive activations over ``sequences [1, B, ...]``, ``samples`` in all."""
    found: dict[nn.Module, Percentile] = {}

    def see(layer: nn.Module, output: Tensor) -> None:
        if layer not in found:
            found[layer] = Percentile(percent, samples * output[0, 0].numel())
        found[layer].add(output)

    layers = list(layers)
    with watching(layers, see):
        for sequence in sequences:
            net(sequence)
    return {layer: found[layer].value() for layer in layers}


@torch.no_grad()
def spike_factors(
    net: nn.Module, sequences: list[Tensor], steps: int, neuron: Callable[[float], nn.Module] = integrate_and_fire
) -> dict[Site, Tensor]:
    """Return the factors of threshold balancing; ``net`` (batch normalisation folded) is left as it is.

    Layer by layer: ``lam_l`` is the largest current, over ``steps`` time steps and all ``sequences [1, B, ...]``, that the spikes
    of the layers before cause, which carry their own factors already. Biases are part of the current (the published procedure has
    none; ours).
    """
    trial = copy.deepcopy(net)
    pairs = list(zip(trace(net, sequences[0]), trace(trial, sequences[0]), strict=True))
    factors: dict[Site, Tensor] = {}
    arriving = Counter(original.layer for original, _ in pairs)  # synapses whose current a layer still waits for
    for original, trying in pairs:
        layer = original.layer
        if layer is None or trying.layer is None:
            continue
        normalise(trying.synapse, ONE if original.source is None else factors[original.source])
        arriving[layer] -= 1
        if arriving[layer]:
            continue
        peaks: list[Tensor] = []
        hook = trying.layer.neuron.register_forward_pre_hook(lambda _, args, peaks=peaks: peaks.append(args[0].max()))  # type: ignore[misc]
        for sequence in sequences:
            with stepping(trial):
                for _ in range(steps):
                    trial(sequence)
        hook.remove()
        peak = torch.stack(peaks).max()
        factors[layer] = peak if peak > 0 else torch.ones_like(peak)
        for other, tried in pairs:
            if other.layer is layer:
                normalise(tried.synapse, after=factors[layer])
        trying.layer.neuron = neuron(1.0)
    return factors


@torch.no_grad()
def mean_outputs(net: nn.Module, layers: Iterable[Site], sequence: Tensor) -> dict[Site, Tensor]:
    """Return for each layer its output ``[B, ...]``, averaged over the steps of ``sequence [T, B, ...]``."""
    layers = list(layers)
    total: dict[nn.Module, Tensor] = {}

    def see(layer: nn.Module, output: Tensor) -> None:
        total[layer] = total.get(layer, torch.zeros_like(output[0])) + output.sum(0) / len(sequence)

    with watching(layers, see), stepping(net):
        for now in sequence.split(1):
            net(now)
    return {layer: total[layer] for layer in layers}
