"""Spikes of event layers, and how many synapses and earlier spikes each meets: what an event-based simulation works on."""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor, nn

from harness.meters.synops import fan_out
from methods.nn.event_layer import EventConv2d, EventLayer
from methods.nn.spike_times import fired
from methods.nn.training_energy import Work


class EventCounts:
    """Totals over the calls of one event layer.

    A layer of integrators has no spikes: each of its neurons counts as one event that all input spikes precede. Of a convolution, input
    spikes in a receptive field before a spike are those in the whole image before it, times the share of the image that a field sees.
    """

    def __init__(self) -> None:
        """Start with none."""
        self.weights = 0
        self.spiking = True
        self.inputs = self.outputs = 0  # neurons before and behind
        self.linear = False
        self.places_in = self.places_out = 1
        self.events_in = self.events_out = self.reach = self.causal = 0.0

    @torch.no_grad()
    def add(self, layer: EventLayer, times: Tensor, output: Tensor) -> None:
        """Count a call with input spike ``times [B, ..., K]``; ``output`` are spike times ``[B, ..., K']`` or potentials ``[B, N]``."""
        synapse = layer.synapse
        self.weights, self.spiking, self.linear = synapse.weight.numel(), layer.spiking, isinstance(synapse, nn.Linear)
        times = times.flatten(1, -2) if self.linear else times
        spikes = fired(times)
        self.inputs = prod(times.shape[1:-1])
        self.outputs = prod(output.shape[1:-1] if layer.spiking else output.shape[1:])
        if isinstance(synapse, EventConv2d):
            self.places_in, self.places_out = prod(times.shape[2:-1]), prod(output.shape[2:-1])
        per_input = spikes.sum(-1)  # [B, ...]
        reached = fan_out(synapse, torch.ones_like(synapse.weight, dtype=torch.bool), times.shape[1:-1]).to(per_input)
        self.events_in += float(per_input.sum())
        self.reach += float((per_input * reached).sum())
        seen = synapse.weight[0].numel() / self.inputs  # share of the inputs that a neuron sees
        if not layer.spiking:
            self.events_out += output.numel()
            self.causal += seen * float(per_input.sum()) * self.outputs
            return
        self.events_out += float(fired(output).sum())
        earlier = times.flatten(1).sort(1).values.contiguous()
        ours = output.flatten(1).contiguous()
        before = torch.searchsorted(earlier, ours, right=True)
        self.causal += seen * float((before * torch.isfinite(ours)).sum())

    def work(self, samples: int) -> Work:
        """Return the work for one of ``samples`` samples."""
        return Work(
            self.weights,
            self.inputs,
            self.outputs,
            self.places_in,
            self.places_out,
            self.linear,
            self.spiking,
            events_in=self.events_in / samples,
            events_out=self.events_out / samples,
            reach=self.reach / samples,
            causal=self.causal / samples,
        )
