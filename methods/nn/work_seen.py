"""What is seen of the synapses and neurons of a network in training steps, for ``methods.nn.work_watch``: shapes, calls, zeros."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from math import prod

import torch
from torch import Tensor, nn

from methods.nn.zeros import Zeros


@dataclass
class Synapse:
    """What was seen of a synapse. A step-sample is one step of one sample."""

    weights: int
    linear: bool
    learns: bool
    inputs: float = 0.0  # of a step-sample
    outputs: float = 0.0
    places_in: float = 1.0
    places_out: float = 1.0
    forward: dict[bool, int] = field(default_factory=lambda: {False: 0, True: 0})  # step-samples without and with a graph
    zeros: dict[bool, Zeros] = field(default_factory=lambda: {False: Zeros(), True: Zeros()})  # of the inputs, likewise
    real: dict[bool, bool] = field(default_factory=lambda: {False: False, True: False})  # whether inputs were no spikes, likewise
    back: int = 0  # step-samples that a gradient reached
    gradient: Zeros = field(default_factory=Zeros)  # of the output
    trace: Zeros = field(default_factory=Zeros)
    neuron: str | None = None  # behind it
    source: str | None = None  # the neurons before it


@dataclass
class Neuron:
    """What was seen of a layer of neurons."""

    module: nn.Module
    kind: str
    spiking: bool = False  # whether it emitted spikes
    graph: bool = False  # whether they had a graph
    cut: bool = False  # and that ended at the step
    du: Zeros = field(default_factory=Zeros)
    df: Zeros = field(default_factory=Zeros)
    currents: list[tuple[Tensor, bool, bool]] = field(default_factory=list)  # of this batch; with a graph? stepping?


def sequences(calls: list[tuple[Tensor, bool, bool]]) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the sequences of currents ``[T, B, ...]`` that ``calls`` were parts of, and which of their steps are wanted ``[T]``.

    Calls while stepping follow each other; every other call starts from rest, and is of no interest without a graph.
    """
    steps = [(current, graph) for current, graph, stepping in calls if stepping]
    if steps:
        flags = torch.cat([torch.full((len(current),), graph) for current, graph in steps])
        yield torch.cat([current for current, _ in steps]), flags.to(steps[0][0].device)
    for current, graph, stepping in calls:
        if graph and not stepping:
            yield current, torch.ones(len(current), dtype=torch.bool, device=current.device)


def shape_of(module: nn.Module, x: Tensor, y: Tensor) -> tuple[int, float, float, float, float]:
    """Return the step-samples of a call, inputs and outputs of each, and their places."""
    if isinstance(module, nn.Linear):
        count, channels_in, channels_out = prod(x.shape[:2]) if x.dim() > 2 else prod(x.shape[:-1]), module.in_features, module.out_features
    else:
        assert isinstance(module, (nn.Conv1d, nn.Conv2d))
        channels_in, channels_out = module.in_channels, module.out_channels
        if getattr(module, "over_time", False):
            count = y.numel() // channels_out
            return count, channels_in, channels_out, 1.0, 1.0
        count = x.numel() // prod(x.shape[1 - module.weight.dim() :])
    inputs, outputs = x.numel() / count, y.numel() / count
    return count, inputs, outputs, inputs / channels_in, outputs / channels_out
