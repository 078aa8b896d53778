"""From a trained ReLU network to integrate-and-fire neurons whose rate stands for the activation.

A ReLU layer with norm factor ``lam`` becomes an IF layer that fires at the rate ``activation / lam``. In place, on the same network::

    connections = trace(net, sequence)                   # methods.nn.wiring
    fold(net)                                            # batch normalisation into the weights
    install(connections, {layer: lam, ...}, neuron)      # weights rescaled, ReLU replaced

Symbols: ``W, b`` weights and bias of layer l, ``lam_l`` its norm factor (scalar, or one per channel ``[C]``), ``lam_0 = 1`` for the
data, ``theta`` threshold. Simulation: ``v <- v + W s + b``; ``s = 1[v >= theta]``; ``v <- v - theta s``. Read-outs keep factor 1,
so that their mean current is the logit. Sources: Diehl et al., IJCNN 2015 (normalisation); Rueckauer et al., Frontiers in
Neuroscience 2017 (folding, soft reset).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from methods.nn.layer import Layer
from methods.nn.neuron import LIF
from methods.nn.norm import BatchNorm
from methods.nn.wiring import Connection, Site

Factors = Mapping[Site, Tensor]
Form = Literal["weights", "thresholds"]
ONE = torch.ones(())


def integrate_and_fire(threshold: float = 1.0, v_init: float = 0.0, reset: Literal["soft", "hard"] = "soft") -> LIF:
    """Return IF neurons that start at ``v_init * threshold`` and fire at or above ``threshold``."""
    return LIF(leak=1.0, threshold=threshold, reset=reset, v_init=v_init * threshold)


class Amplitude(nn.Module):
    """Spikes of a given height: ``height * s``."""

    def __init__(self, height: float) -> None:
        """Keep the ``height``."""
        super().__init__()
        self.height = height

    def forward(self, spikes: Tensor) -> Tensor:
        """Return ``spikes [T, B, ...]`` times the height."""
        return self.height * spikes

    def extra_repr(self) -> str:
        """Return the height for printing."""
        return f"height={self.height:g}"


@torch.no_grad()
def fold(net: nn.Module) -> None:
    """Fold the batch normalisation of every layer of ``net`` into its synapse, as it acts in eval mode.

    ``W <- a W``, ``b <- a b + c`` with ``a = gamma / sqrt(var + eps)``, ``c = beta - a mean``. Raises ValueError for a layer
    whose normalisation is neither ``BatchNorm`` nor nothing.
    """
    for layer in [module for module in net.modules() if isinstance(module, Layer)]:
        if isinstance(layer.norm, nn.Identity):
            continue
        if not isinstance(layer.norm, BatchNorm) or not isinstance(layer.synapse, (nn.Conv2d, nn.Linear)):
            given = f"{type(layer.norm).__name__} after {type(layer.synapse).__name__}"
            raise ValueError(f"cannot fold {given}; allowed: BatchNorm or Identity after Conv2d or Linear")
        synapse = layer.synapse
        a, c = layer.norm.affine()
        synapse.weight.mul_(a.view(-1, *[1] * (synapse.weight.dim() - 1)))
        bias = c if synapse.bias is None else a * synapse.bias + c
        synapse.bias = nn.Parameter(bias.clone())
        layer.norm = nn.Identity()


def _spread(factor: Tensor, features: int) -> Tensor:
    """Return a factor for each of ``features``: of a scalar, of channels, or of channels that were flattened with their places."""
    repeats, rest = divmod(features, factor.numel())
    if rest:
        raise ValueError(f"{factor.numel()} norm factors do not fit {features} features; allowed: one, or one per channel")
    return factor.flatten().repeat_interleave(repeats)


@torch.no_grad()
def normalise(synapse: nn.Conv2d | nn.Linear, before: Tensor = ONE, after: Tensor = ONE) -> None:
    """Rescale a synapse in place: ``W <- W before / after``, ``b <- b / after``.

    ``before`` is the factor of the layer that feeds it and ``after`` that of its own layer: scalars, or one value per channel.
    The layer then computes its former output divided by ``after`` from its former input divided by ``before``.
    """
    groups = getattr(synapse, "groups", 1)
    outputs, inputs = synapse.weight.shape[:2]
    before, after = before.to(synapse.weight), after.to(synapse.weight)
    columns = _spread(before, groups * inputs).view(groups, inputs).repeat_interleave(outputs // groups, 0)
    rows = _spread(after, outputs)
    gain = columns / rows[:, None]
    synapse.weight.mul_(gain.view(outputs, inputs, *[1] * (synapse.weight.dim() - 2)))
    if synapse.bias is not None:
        synapse.bias.div_(rows)


def install(
    connections: Iterable[Connection],
    factors: Factors,
    neuron: Callable[[float], nn.Module] = integrate_and_fire,
    form: Form = "weights",
    data: Tensor = ONE,
) -> None:
    """Replace the ReLU of every layer by ``neuron(threshold)``, in place.

    ``form`` "weights": weights take up the factors, thresholds are 1, spikes are 0/1. "thresholds": weights stay, the threshold of
    a layer is its factor and so is the height of its spikes. Both are the same network; in the second form synapses see values
    other than 0/1, so meters count multiplications. ``data`` is the factor that the input will be divided by. Fold first. Raises
    ValueError for factors per channel in the form "thresholds".
    """
    for c in connections:
        if c.source is None:
            normalise(c.synapse, before=data)
        if form == "weights":
            normalise(c.synapse, ONE if c.source is None else factors[c.source], ONE if c.layer is None else factors[c.layer])
            if c.layer is not None:
                c.layer.neuron = neuron(1.0)
        elif c.layer is not None:
            if factors[c.layer].numel() != 1:
                raise ValueError(f'{factors[c.layer].numel()} norm factors for one threshold; factors per channel need the form "weights"')
            threshold = factors[c.layer].item()
            c.layer.neuron = nn.Sequential(neuron(threshold), Amplitude(threshold))
