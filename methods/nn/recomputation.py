"""How exactly a reversible network is run backwards: errors of the streams and spikes that come out otherwise."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from methods.nn.reversible import ReversibleSequence


@torch.no_grad()
def recomputation(net: nn.Module, run: Callable[[nn.Module], object]) -> dict[str, list[float]]:
    """Return figures per ``ReversibleSequence`` of ``net``, whose copy in training mode ``run`` calls with a batch.

    ``reconstruction_error``: largest difference between the streams given to the sequence and those found from its output, over the largest
    value of the given ones. ``spike_flip_rate``: spikes that the run backwards makes or leaves out, over neurons, samples and steps.
    ``net`` keeps its statistics, as what runs is a copy of it.
    """
    net = copy.deepcopy(net).train()
    sequences = [module for module in net.modules() if isinstance(module, ReversibleSequence) and len(module.blocks)]
    streams: dict[nn.Module, tuple[tuple[Tensor, ...], tuple[Tensor, ...]]] = {}

    def keep(module: nn.Module, args: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:
        streams[module] = args, output

    handles = [sequence.register_forward_hook(keep) for sequence in sequences]
    with _spikes(net) as forth:
        run(net)
    for handle in handles:
        handle.remove()
    figures: dict[str, list[float]] = {"reconstruction_error": [], "spike_flip_rate": []}
    for sequence in sequences:
        given, output = streams[sequence]
        with _spikes(sequence) as back:
            found = sequence.inverse(*output)
        error = max((a - b).abs().max().item() for a, b in zip(given, found, strict=True))
        flips = sum((forth[module] != spikes).sum().item() for module, spikes in back.items())
        figures["reconstruction_error"].append(error / max(max(x.abs().max().item() for x in given), torch.finfo(given[0].dtype).tiny))
        figures["spike_flip_rate"].append(flips / max(1, sum(spikes.numel() for spikes in back.values())))
    return figures


@contextmanager
def _spikes(net: nn.Module) -> Iterator[dict[nn.Module, Tensor]]:
    """Keep what each spiking module returns."""
    found: dict[nn.Module, Tensor] = {}

    def keep(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        found[module] = output

    handles = [module.register_forward_hook(keep) for module in net.modules() if hasattr(module, "spike_kind")]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()
