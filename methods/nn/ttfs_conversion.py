"""From a network that was trained with ``TtfsNeuron`` as activation to the clocked one: when each layer fires, and where its bias is."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from methods.nn.ttfs_neuron import Coded, PixelCode, TtfsNeuron
from methods.nn.ttfs_readout import TtfsReadout
from methods.nn.wiring import feeding


def place(net: nn.Module, sequence: Tensor) -> int:
    """Give every layer and read-out its windows and return how many windows an inference takes, L + 1 for L layers in a row.

    A layer fires in the window after the last that it hears. ``sequence [1, B, ...]`` is data of any values; it may be on device "meta".
    Raises ValueError for a network without read-out.
    """
    parts = [module for module in net.modules() if isinstance(module, (TtfsNeuron, TtfsReadout)) and not isinstance(module, PixelCode)]
    windows: dict[nn.Module | None, int] = {None: 0}
    for part, sources in feeding(net, parts, sequence).items():
        heard = [windows[source] for source in sources]
        assert isinstance(part, Coded)
        part.opens, part.window = min(heard), max(heard) + 1
        windows[part] = part.window
    ends = [window for part, window in windows.items() if isinstance(part, TtfsReadout)]
    if not ends:
        raise ValueError(f"{type(net).__name__} has no TtfsReadout; its answer would be spikes that nobody decodes")
    return max(ends)


@torch.no_grad()
def gather_biases(net: nn.Module, sequence: Tensor) -> None:
    """Move the biases of all synapses into the neurons that they charge, in place, so that clocked neurons get them once.

    Found by running the network with nothing but zeros for activations: what is left of a neuron's current is its bias, the sum of several
    where branches are added. Fold normalisations first; ``sequence [1, B, ...]`` is data of any values.
    """
    neurons = [module for module in net.modules() if isinstance(module, TtfsNeuron)]
    found: dict[TtfsNeuron, Tensor] = {}

    def silence(neuron: TtfsNeuron, args: tuple[Tensor, ...], output: Tensor) -> Any:
        found[neuron] = args[0][0, 0].flatten(1)[:, 0] if args[0].dim() > 3 else args[0][0, 0]
        return torch.zeros_like(output)

    hooks = [neuron.register_forward_hook(silence) for neuron in neurons]
    try:
        net(sequence)
    finally:
        for hook in hooks:
            hook.remove()
    for neuron, bias in found.items():
        if not isinstance(neuron, PixelCode):
            neuron.bias = nn.Parameter(bias.clone() if neuron.bias is None else neuron.bias + bias)
    for module in net.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            module.bias = None
