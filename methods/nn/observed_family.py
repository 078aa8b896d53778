"""Which family of training rules a phase belongs to, told from what its steps were seen to do, so that methods need not be known by name.

::

    event layers ran                                                event
    no spikes were emitted                                          ann; conversion where the method is one
    spikes had a graph that ended at each step, traces              online
    ... and no traces                                               spatial
    spikes had a graph, synapses ran without and with one           recomputed
    spikes had a graph                                              bptt; block where some layers ran forward only
    spikes had none, synapses ran without and with a graph          ann_branch
    spikes had none, and no synapse ran twice                       block

A method may overrule that by an attribute ``work_family``, a name of ``methods.nn.work_family.FAMILIES``. Design: ours.
"""

from __future__ import annotations

from torch import nn

from harness.method import Method
from harness.plugin import UsageError, did_you_mean
from methods.nn.traced import Traced
from methods.nn.work_family import FAMILIES, Family
from methods.nn.work_watch import WorkWatch


def family_of(method: Method, net: nn.Module, seen: WorkWatch) -> Family:
    """Return how to count a phase whose steps were ``seen``; see the module's docstring. Raise UsageError for a declared family unknown."""
    declared = getattr(method, "work_family", None)
    if declared is not None:
        if declared not in FAMILIES:
            raise UsageError(f"{method.card.name}: work_family = {declared!r} is unknown{did_you_mean(str(declared), FAMILIES)}")
        return declared
    if seen.events:
        return "event"
    spiking = seen.spiking
    if not spiking:
        return "conversion" if method.card.family == "conversion" else "ann"
    some_forward_only = any(not synapse.back for synapse in seen.synapses.values())
    if any(neuron.graph for neuron in spiking):
        if any(neuron.cut for neuron in spiking):
            return "online" if any(isinstance(module, Traced) for module in net.modules()) else "spatial"
        if seen.run_twice:
            return "recomputed"
        return "block" if some_forward_only else "bptt"
    return "ann_branch" if seen.shared else "block"
