"""Which layer feeds which synapse, found by running one sample through the network.

Rescaling a synapse needs the norm factor of the layer whose spikes it receives. Pooling and flattening lie between the two, detection
heads branch off, and no list of modules tells. So one sample goes through the network with a label that says where each tensor came from::

    for connection in trace(net, sequence):
        connection.synapse, connection.layer, connection.source

Labels pass through every tensor operation, layers replace them. In a residual block whose currents are added before the neurons, both
branches lead to the block, which has those neurons; its identity shortcut must be a synapse of its own for that (``open_shortcuts``).
Design: ours.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from methods.nn.layer import Layer
from methods.nn.residual import ResidualBlock
from methods.nn.synapse import Conv2d

Site = Layer | ResidualBlock  # what has neurons, as its attribute ``neuron``


@dataclass(frozen=True)
class Connection:
    """A synapse with the layer whose neurons take its current and the layer that feeds it."""

    synapse: nn.Conv2d | nn.Linear
    layer: Site | None  # None: a read-out, which does not spike
    source: Site | None  # None: the data


class _Labelled(Tensor):
    """A tensor that remembers the modules it was computed from (``None`` stands for the data)."""

    sources: frozenset[nn.Module | None] = frozenset()

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = super().__torch_function__(func, types, args, kwargs or {})
        label = _sources(args) | _sources((kwargs or {}).values())
        for part in found if isinstance(found, (tuple, list)) else (found,):
            if isinstance(part, _Labelled):
                part.sources = label
        return found


def _sources(values: Any) -> frozenset[nn.Module | None]:
    """Return the union of the labels of all tensors in nested ``values``."""
    label: frozenset[nn.Module | None] = frozenset()
    for value in values:
        if isinstance(value, _Labelled):
            label |= value.sources
        elif isinstance(value, (tuple, list)):
            label |= _sources(value)
    return label


@torch.no_grad()
def open_shortcuts(net: nn.Module) -> None:
    """Make a synapse of every identity shortcut of blocks that add currents, in place: a weight of 1 for each channel.

    The network computes the same. The spikes that pass a shortcut are in the unit of the layer before and the current that they are added
    to in that of the block's neurons, so that conversion must weigh them (card of TCL; the derivation is ours).
    """
    for block in [module for module in net.modules() if _joins(module)]:
        if isinstance(block.shortcut, nn.Identity):
            inner = block.branch[-1].synapse
            channels, like = inner.out_channels, inner.weight
            synapse = Conv2d(channels, channels, 1, groups=channels, bias=False, device=like.device, dtype=like.dtype)
            nn.init.ones_(synapse.weight)
            block.shortcut = Layer(synapse, nn.Identity(), nn.Identity())


def _send(net: nn.Module, sequence: Tensor, hooks: Iterable[Any]) -> None:
    """Run ``net`` on ``sequence``, labelled as the data, and remove the ``hooks`` that watched."""
    try:
        with torch.no_grad():
            start = sequence.as_subclass(_Labelled)
            start.sources = frozenset([None])
            net(start)
    finally:
        for hook in hooks:
            hook.remove()


def _joins(module: nn.Module) -> bool:
    """Return whether a module is a residual block that adds currents before its neurons."""
    return isinstance(module, ResidualBlock) and module.connect == "vanilla"


def trace(net: nn.Module, sequence: Tensor) -> list[Connection]:
    """Return the connections of ``net`` in the order in which ``sequence [T, B, ...]`` passes them.

    Synapses are ``nn.Conv2d`` and ``nn.Linear``; one that is not the synapse of a ``Layer`` is a read-out. Raises ValueError where
    a synapse is fed by several layers at once (a sum of spikes or a concatenation), by a read-out, or is used twice: one factor
    cannot describe its input; and where neurons take currents that no synapse weighed.
    """
    blocks = {module.neuron: module for module in net.modules() if _joins(module)}
    layers = {module.synapse: module for module in net.modules() if isinstance(module, Layer)}
    names = {module: name for name, module in net.named_modules()}
    found: dict[nn.Module, Connection] = {}

    def enter(synapse: nn.Module, args: tuple[Any, ...]) -> None:
        label: frozenset[nn.Module | None] = getattr(args[0], "sources", frozenset())
        if len(label) != 1:
            fed = ", ".join(sorted(names.get(s, "?") if s else "the data" for s in label)) or "something unknown"
            raise ValueError(f"{names[synapse]} is fed by {fed}; conversion needs exactly one source: currents may be added, spikes not")
        (source,) = label
        if source is not None and (not isinstance(source, Site) or isinstance(source.neuron, nn.Identity)):
            raise ValueError(f"{names[synapse]} is fed by {names[source]}, which has no neuron; conversion needs a Layer in between")
        if synapse in found:
            raise ValueError(f"{names[synapse]} is used twice in one pass; conversion needs a synapse of its own for every input")
        found[synapse] = Connection(synapse, layers.get(synapse), source)  # type: ignore[arg-type]

    def leave(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
        output.sources = frozenset([module])  # type: ignore[attr-defined]

    def join(neuron: nn.Module, args: tuple[Any, ...]) -> None:
        block = blocks[neuron]
        for part in getattr(args[0], "sources", frozenset()):
            if not isinstance(part, Layer) or not isinstance(part.neuron, nn.Identity):
                fed = names.get(part, "?") if part else "the data"
                raise ValueError(f"{names[neuron]} adds the spikes of {fed} to currents; conversion needs a synapse there (open_shortcuts)")
            found[part.synapse] = replace(found[part.synapse], layer=block)

    hooks = [neuron.register_forward_pre_hook(join) for neuron in blocks]
    for module in net.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            hooks.append(module.register_forward_pre_hook(enter))
        if isinstance(module, Layer) or module in blocks.values() or (isinstance(module, (nn.Conv2d, nn.Linear)) and module not in layers):
            hooks.append(module.register_forward_hook(leave))
    _send(net, sequence, hooks)
    return list(found.values())


def feeding(net: nn.Module, modules: Iterable[nn.Module], sequence: Tensor) -> dict[nn.Module, frozenset[nn.Module | None]]:
    """Return for each of ``modules`` that ran which of them fed it, none of them in between; ``None`` stands for the data.

    Unlike ``trace`` it follows residual sums and concatenations. Modules come in the order in which ``sequence [T, B, ...]`` passed them.
    """
    found: dict[nn.Module, frozenset[nn.Module | None]] = {}

    def leave(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        found[module] = found.get(module, frozenset()) | _sources(args)
        output = output.detach().as_subclass(_Labelled)
        output.sources = frozenset([module])
        return output

    hooks = [module.register_forward_hook(leave) for module in modules]
    _send(net, sequence, hooks)
    return found
