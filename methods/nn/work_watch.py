"""What the layers of a network do in a training step: shapes, steps forward and backward, and zeros, found by listening.

::

    with WorkWatch(net) as seen:
        method.step(net, batch, Looking(net))       # an update that changes nothing
    seen.samples += len(batch.inputs)
    seen.slopes()                                   # zeros of the firing derivative
    seen.work("backbone.layers.0.synapse")          # methods.nn.training_energy.Work, per sample

Zeros are those of a synapse's input (``ss``), of dL/du of the neurons behind it (``sdu``), u before the reset, and of their firing
derivative (``sdf``, ``methods.nn.firing_slope``). As ``u[t]`` is the current of step t plus what is left of the step before, dL/du[t] is,
but for a constant factor, the gradient of the current that the neurons are given; so backends that keep u to themselves can be listened
to, and gradients that a rule cuts are missing here too. Parallel neurons show their potentials. A synapse belongs to the first neurons
that run after it; one without any is a read-out, and its ``sdu`` is of the gradient of its output. In a synapse with a presynaptic trace
the zeros of that count too.

A call that leaves no graph ran forward only. A network whose parts know both branches of weight-sharing methods hands them to each other
in an object with ``spikes`` and ``counts``; either branch counts as a call.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import TracebackType
from typing import Any, Literal

import torch
from torch import Tensor, nn

from methods.nn.event_layer import EventConv2d, EventLayer, EventLinear
from methods.nn.event_work import EventCounts
from methods.nn.firing_slope import firing_slope
from methods.nn.psn import ParallelNeuron
from methods.nn.synapse import DelayLine
from methods.nn.traced import Traced
from methods.nn.training_energy import Work
from methods.nn.work_seen import Neuron, Synapse, sequences, shape_of
from methods.nn.zeros import Zeros

SYNAPSES = (nn.Linear, nn.Conv1d, nn.Conv2d)
SPIKING = ("binary", "graded")
ZerosKind = Literal["exact", "quantised"]


class WorkWatch:
    """Context that listens to ``net``; may be entered once per batch, figures add up. ``samples`` is the user's to count."""

    def __init__(self, net: nn.Module) -> None:
        """Find synapses and neurons."""
        self.samples = 0
        self.synapses: dict[str, Synapse] = {}  # in the order in which they ran
        self.neurons: dict[str, Neuron] = {}
        self.events: dict[str, EventCounts] = {}
        self._net = net
        self._handles: list[Any] = []
        self._pending: list[Synapse] = []
        self._last: str | None = None
        self._shown: list[nn.Module] = []

    def __enter__(self) -> WorkWatch:
        """Begin to listen."""
        self._pending, self._last = [], None
        for name, module in self._net.named_modules():
            if isinstance(module, EventLayer):
                self._handles.append(module.register_forward_hook(self._event_hook(name)))
            elif isinstance(module, Traced):
                self._handles.append(module.register_forward_hook(self._trace_hook(name)))
            elif isinstance(module, SYNAPSES) and not isinstance(module, (EventLinear, EventConv2d)):
                self._handles.append(module.register_forward_hook(self._synapse_hook(name), with_kwargs=True))
            elif _is_neuron(module):
                self._listen(name, module)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Stop listening; what was seen stays."""
        while self._handles:
            self._handles.pop().remove()
        while self._shown:
            del self._shown.pop().charge

    # Neurons --------------------------------------------------------------------------------------------------------

    def _listen(self, name: str, module: nn.Module) -> None:
        seen = self.neurons.setdefault(name, Neuron(module, module.spike_kind))
        seen.kind = module.spike_kind

        def watched(x: Tensor) -> Tensor:
            """Return ``x`` for these neurons alone: what else it goes to must not add to the gradient."""
            if not (x.requires_grad and torch.is_grad_enabled()):
                return x
            own = x.view_as(x)
            own.register_hook(seen.du.add)
            return own

        def before(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
            for synapse in self._pending:
                synapse.neuron = synapse.neuron or name
            self._pending, self._last = [], name
            if seen.kind not in SPIKING or not args or not isinstance(args[0], Tensor):
                return None
            return args if isinstance(module, ParallelNeuron) else (watched(args[0]), *args[1:])

        def after(_: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            if seen.kind not in SPIKING or not isinstance(output, Tensor):
                return
            fired = output.detach()
            if seen.kind == "binary" and not bool(((fired == 0) | (fired == 1)).all()):
                return  # it stands for an activation now
            graph, stepping = output.requires_grad, bool(getattr(module, "_stepping", False))
            seen.spiking, seen.graph = True, seen.graph or graph
            seen.cut = seen.cut or (graph and stepping and bool(getattr(module, "_detach", False)))
            seen.currents.append((args[0].detach(), graph, stepping))

        self._handles += [module.register_forward_pre_hook(before), module.register_forward_hook(after)]
        if isinstance(module, ParallelNeuron) and not module.rectify:
            module.charge = lambda current, charge=module.charge: watched(charge(current))  # type: ignore[method-assign, misc]
            self._shown.append(module)

    def slopes(self) -> None:
        """Count the zeros of the firing derivatives where spikes of the last batch had a graph. The watch must not be listening."""
        for seen in self.neurons.values():
            for currents, wanted in sequences(seen.currents) if seen.graph else ():
                slope = firing_slope(seen.module, currents)
                if slope is not None:
                    seen.df.add(slope[wanted])
            seen.currents = []

    def forget(self) -> None:
        """Let go of the network; what was found stays."""
        self._net = nn.Identity()
        for seen in self.neurons.values():
            seen.module = self._net

    # Synapses -------------------------------------------------------------------------------------------------------

    def _synapse_hook(self, name: str) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            x = args[0] if args else kwargs["input"]
            if isinstance(x, Tensor):
                self._call(name, module, x, output)
                return
            both = not isinstance(output, Tensor)
            if both:
                self._call(name, module, x.spikes, output.spikes)
            self._call(name, module, x.counts, output.counts if both else output)

        return hook

    def _trace_hook(self, name: str) -> Any:
        def hook(traced: Traced, args: tuple[Any, ...], output: Tensor) -> None:
            state = traced.carried()
            if not (traced.training and traced._stepping and traced._detach) or state is None:
                return  # the plain synapse ran, and was heard
            line = traced.synapse
            module = line.conv if isinstance(line, DelayLine) else line
            seen = self._call(name, module, args[0], output)
            if output.requires_grad:
                seen.trace.add(state[2] if isinstance(line, DelayLine) else state[0])

        return hook

    def _call(self, name: str, module: nn.Module, x: Tensor, y: Tensor) -> Synapse:
        """Note a call of a synapse with input ``x`` and output ``y``."""
        weight: Tensor = module.weight  # type: ignore[assignment]
        seen = self.synapses.setdefault(name, Synapse(weight.numel(), isinstance(module, nn.Linear), weight.requires_grad))
        seen.learns, seen.source = weight.requires_grad, seen.source or self._last
        step_samples, seen.inputs, seen.outputs, seen.places_in, seen.places_out = shape_of(module, x, y)
        graph = y.requires_grad and torch.is_grad_enabled()
        x, repeats = (x[0], len(x)) if x.dim() > 1 and len(x) > 1 and x.stride(0) == 0 else (x, 1)
        x = x.detach()
        seen.forward[graph] += step_samples
        seen.zeros[graph].add(x, repeats)
        seen.real[graph] |= not bool(((x == 0) | (x.abs() == 1)).all())
        self._pending.append(seen)
        if graph:

            def reached(g: Tensor) -> None:
                seen.back += step_samples
                seen.gradient.add(g)

            y.register_hook(reached)
        return seen

    def _event_hook(self, name: str) -> Any:
        def hook(layer: EventLayer, args: tuple[Any, ...], output: Tensor) -> None:
            self.events.setdefault(name, EventCounts()).add(layer, args[0], output)

        return hook

    # Results --------------------------------------------------------------------------------------------------------

    @property
    def spiking(self) -> list[Neuron]:
        """The layers of neurons that emitted spikes."""
        return [seen for seen in self.neurons.values() if seen.spiking]

    @property
    def shared(self) -> bool:
        """Whether spikes were emitted without a graph only, and synapses used both without and with one: an ANN has their weights."""
        return bool(self.spiking) and not any(seen.graph for seen in self.spiking) and self.run_twice

    @property
    def run_twice(self) -> bool:
        """Whether synapses ran without a graph and with one."""
        return any(all(seen.forward.values()) for seen in self.synapses.values())

    def layers(self) -> Iterator[str]:
        """Yield the names of the layers in the order in which they ran."""
        yield from self.synapses
        yield from self.events

    def readout(self, name: str) -> bool:
        """Return whether no neurons follow the layer."""
        return not self.events[name].spiking if name in self.events else self.synapses[name].neuron is None

    def sparsities(self, name: str, zeros: ZerosKind = "exact") -> dict[str, float | None]:
        """Return ``ss``, ``sdu``, ``sdf`` and ``trace`` of a layer; None for what was not seen."""
        if name in self.events:
            return dict.fromkeys(("ss", "sdu", "sdf", "trace"))
        seen, quantised = self.synapses[name], zeros == "quantised"
        inputs = Zeros()
        for graph, part in seen.zeros.items():
            if not (self.shared and graph):
                inputs.merge(part)
        behind = self.neurons.get(seen.neuron or "")
        sdu = (seen.gradient if behind is None else behind.du).share(quantised)
        sdf = None if behind is None else behind.df.share(quantised)
        return {"ss": inputs.share(quantised), "sdu": sdu, "sdf": sdf, "trace": seen.trace.share(quantised)}

    def work(self, name: str, zeros: ZerosKind = "exact") -> Work:
        """Return what a layer does for a sample; a sparsity that was not seen is 0."""
        if name in self.events:
            return self.events[name].work(self.samples)
        seen, found = self.synapses[name], self.sparsities(name, zeros)
        source = self.neurons[seen.source].df.share(zeros == "quantised") if seen.source else None
        without, graph = (seen.forward[key] / self.samples for key in (False, True))
        return Work(
            seen.weights,
            seen.inputs,
            seen.outputs,
            seen.places_in,
            seen.places_out,
            seen.linear,
            seen.neuron is not None,
            seen.learns,
            real=seen.real[False] if self.shared else any(seen.real.values()),
            steps=without if self.shared else without + graph,
            back=seen.back / self.samples,
            passes=graph if self.shared else 0.0,
            ss=found["ss"] or 0.0,
            sdu=found["sdu"] or 0.0,
            sdf=found["sdf"] or 0.0,
            source_sdf=source or 0.0,
            trace=found["trace"],
        )


def _is_neuron(module: nn.Module) -> bool:
    """Return whether ``module`` is an activation, spiking or not, and holds no other."""
    inner = list(module.modules())[1:]
    return hasattr(module, "spike_kind") and not any(hasattr(part, "spike_kind") for part in inner)
