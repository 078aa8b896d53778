"""Probe ``crossbar``: how much of a trained network is left on memristive crossbars that are not ideal.

Each weight matrix is cut into tiles and mapped to pairs of conductances; each tile is replaced by the matrix that the circuit applies, with
its wires, drivers, sense amplifiers and devices as programmed (``methods.nn.crossbar_circuit``, ``crossbar_devices``, ``crossbar_tiles``).
For given conductances the circuit is linear, so this matrix ``W_eff`` holds for every input and time step, and any network can be tested,
by its task's own metric. Neurons, normalisation, pooling, attention products and biases stay digital, the first layer that runs too unless
asked for. Draws of the devices are the same for every size and variation. Modes::

    raw         W_eff
    calibrated  alpha W_eff, one alpha = <W_eff, W> / <W_eff, W_eff> per layer, as the scale of an ADC would be set
    bn_refit    W_eff, and batch normalisation with statistics of training samples that pass the crossbars

Wires and drivers cost mostly a common gain: ``raw`` has that and the loss of information, ``calibrated`` shows the second alone.

Why time steps matter: before a neuron fires, its potential is off by the sum over t of ``E s[t]``, which grows as T for an error E of the
weights that stays (devices, wires) and as the root of T for one redrawn at each read; every spike that flips goes on to the next layer.

Source: the paper's claims are those of its abstract; sizes, values and figures of it were not found. The circuit is standard nodal
analysis, conductances and wires are SpikeSim's, drivers, modes and the figures of non-ideality are ours.
"""

from __future__ import annotations

import copy
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from functools import partial
from statistics import fmean, stdev
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import nn

from harness import plugin
from harness.evaluate import Evaluation, evaluate
from harness.method import Method
from harness.metrics import TASK_METRICS
from harness.plugin import Claim, ProbeCard, UsageError
from harness.probe import Probe
from methods.nn.crossbar_array import Crossbar, Held
from methods.nn.crossbar_circuit import Circuit, Solver
from methods.nn.crossbar_devices import Devices
from methods.nn.crossbar_read import Read, Synapse, disobedient, effective_weight, in_order, on_crossbars
from methods.nn.event_layer import EventConv2d, EventLinear
from methods.nn.norm_refit import normalisations, refitted
from methods.nn.spike_patterns import SpikePatterns

Mode = Literal["raw", "calibrated", "bn_refit"]
FEWER = 'probes."crossbar[modes=raw/calibrated,sizes=64]".crossbars."64"."0.0".raw.drop'  # by how much accuracy falls
CALIBRATED = 64  # training samples on which the range of ADCs is found
REFIT_BATCH = 64
DEAR = ("detect", "segment")  # kinds of task whose metric is dear: scored at the last step only
Places = dict[str, Synapse]
Figures = dict[str, Any]


class Crossbars(Probe):
    """Accuracy of a trained network on non-ideal crossbars."""

    card = ProbeCard(
        name="crossbar",
        title="Examining the Robustness of Spiking Neural Networks on Non-ideal Memristive Crossbars",
        authors="Bhattacharjee, Kim, Moitra, Panda",
        venue="arXiv 2206.09599",
        year=2022,
        family="probe",
        summary="Accuracy on memristive crossbars with wire resistance, device variation and noise, by size and over time steps.",
        claims=(
            Claim(
                "test_accuracy",
                "property",
                None,
                "any",
                "errors of repeated reads add up over steps: accuracy falls much",
                "abstract",
                unmeasured="how much is not said; drops by size, variation and step: docs/conversion.md",
            ),
            Claim(
                "test_accuracy",
                "property",
                None,
                "any",
                "networks trained with fewer steps keep more accuracy",
                "abstract",
                variant="ms_resnet@T=2",
                against="ms_resnet@T=8",
                expect="lower",
                figure=FEWER,
            ),
        ),
        reconstructed="all of the circuit, the devices, the modes and the figures: the paper was read as far as its abstract",
        at_steps=(2, 8, 24),
    )
    headings: ClassVar[dict[str, str]] = {
        "size": "tile",
        "variation": "device variation",
        "mode": "mode",
        "software": "software [% or unit]",
        "crossbar": "on crossbars [% or unit]",
        "drop": "drop [points or unit]",
        "spread": "± over programmings",
        "non_ideality": "non-ideality factor [%]",
        "residual": "residual after a gain [%]",
        "rate_change": "change of firing rate [%]",
        "deviating": "samples with other spikes [%]",
        "first_step": "first step with other spikes",
    }

    class Options(plugin.Options):
        """The arrays, what is wrong with them, and what is looked at. Resistances in ohm, conductances in siemens."""

        sizes: tuple[Annotated[int, Field(ge=1)], ...] = Field((16, 32, 64), description="rows and columns of a tile")
        variation: tuple[Annotated[float, Field(ge=0)], ...] = Field((0.0, 0.1, 0.2), description="relative deviation of devices (sigma)")
        modes: tuple[Mode, ...] = Field(("raw", "calibrated", "bn_refit"), description="what is done about it")
        programmings: int = Field(5, description="how often random devices are drawn", ge=1)
        g_on: float = Field(1 / 20e3, description="conductance of a device that is on", gt=0)
        g_off: float = Field(1 / 200e3, description="conductance of a device that is off", gt=0)
        driver: float = Field(100.0, description="resistance of a row's driver; 1000 is harsh", ge=0)
        sense: float = Field(100.0, description="resistance of a column's sense amplifier; 1000 is harsh", ge=0)
        row: float = Field(5.0, description="resistance of a row wire between cells", ge=0)
        column: float = Field(5.0, description="resistance of a column wire between cells", ge=0)
        levels: int = Field(0, description="levels that a device can have; 0: any value", ge=0)
        stuck_on: float = Field(0.0, description="share of devices stuck at on", ge=0, le=1)
        stuck_off: float = Field(0.0, description="share of devices stuck at off", ge=0, le=1)
        read_noise: float = Field(0.0, description="relative deviation of devices, redrawn at every time step", ge=0)
        adc_bits: int = Field(0, description="bits of the ADC of each column; 0: none", ge=0)
        first_layer: Literal["digital", "crossbar"] = Field("digital", description="where the layer that runs first is computed")
        samples: int | None = Field(None, description="test samples that are answered; None: all", ge=1)
        refit_samples: int = Field(1000, description="training samples of bn_refit", ge=1)
        inspected: int = Field(64, description="test samples whose spikes are compared", ge=1)
        solver: Solver = Field("elimination", description="how the circuit is solved")
        seed: int = Field(0, description="of devices, noise and random inputs", ge=0)

    options: Options

    def __init__(self, options: Mapping[str, Any] | None = None) -> None:
        """Resolve options; raise UsageError for values that exclude each other."""
        super().__init__(options)
        o = self.options
        if o.g_off >= o.g_on:
            raise UsageError(f"crossbar: g_off = {o.g_off:g} must be below g_on = {o.g_on:g}")
        if o.levels == 1 or o.adc_bits == 1:
            raise UsageError("crossbar: one level, or one bit, holds no number; allowed: 0 (no limit), 2 and more")
        if o.stuck_on + o.stuck_off > 1:
            raise UsageError(f"crossbar: stuck_on + stuck_off = {o.stuck_on + o.stuck_off:g}; allowed: up to 1, all devices")

    @torch.no_grad()
    def measure(self, method: Method, net: nn.Module) -> Figures:
        """Return accuracy in software and on crossbars, and layer by layer what crossbars do to currents and spikes.

        ``software``: ``metric``, ``curve`` (as of the steps ``curve_steps``, from 0). ``crossbars``: by size and variation: ``layers``
        (non-ideality ``factor``, ``residual`` and ``gain`` of each), their means, and by mode: ``metrics`` of the programmings, ``mean``,
        ``std``, ``drop``, ``curve``, and of the first programming ``spikes``, by layer and in all (``Deviation``). Only
        ``cannot`` where nothing can be put on crossbars.
        """
        training = {module: module.training for module in net.modules()}
        net.eval()
        try:
            with torch.random.fork_rng([method.task.device] if method.task.device.type == "cuda" else []):
                return self._measure(method, net)
        finally:
            for module, mode in training.items():
                module.training = mode

    def _measure(self, method: Method, net: nn.Module) -> Figures:
        o, task = self.options, method.task
        images = next(task.batches("test", o.inspected, o.inspected)).inputs
        run = partial(self._seeded, method.predict, net, images)
        synapses = in_order(net, run)
        digital = list(synapses)[: o.first_layer == "digital"]
        mapped = {name: module for name, module in synapses.items() if name not in digital}
        if reason := self._why_not(mapped, partial(self._seeded, method.predict, net, images[:2])):
            return {"cannot": reason}
        weights = {name: effective_weight(module).clone() for name, module in mapped.items()}
        test = self._evaluate(method, net)
        with SpikePatterns(net) as before:
            run()
        title, unit, direction, _ = TASK_METRICS.get(task.metric, (task.metric, "fraction", "higher", ""))
        software = {"metric": test.metrics[task.metric], "curve": test.curve, "curve_steps": test.curve_steps}
        modes = [mode for mode in o.modes if mode != "bn_refit" or normalisations(net)]
        clocked = not any(isinstance(module, (EventLinear, EventConv2d)) for module in mapped.values())
        found: dict[str, dict[str, Figures]] = {}
        for size in o.sizes:
            found[str(size)] = {}
            for variation in o.variation:
                crossbar = self._crossbar(size, variation)
                figures: Figures = {mode: {"metrics": [], "curves": []} for mode in modes}
                for k in range(o.programmings if crossbar.devices.random or o.read_noise else 1):
                    held = {
                        name: crossbar.hold(weights[name], getattr(module, "groups", 1), self._generator(k, i))
                        for i, (name, module) in enumerate(mapped.items())
                    }
                    if k == 0:
                        figures |= self._currents(held)
                    for mode in modes:
                        with self._installed(method, net, mapped, held, mode, k):
                            test = self._evaluate(method, net)
                            figures[mode]["metrics"].append(test.metrics[task.metric])
                            figures[mode]["curves"].append(test.curve)
                            if k == 0:
                                with SpikePatterns(net) as after:
                                    run()
                                layers, whole = before.against(after, clocked)
                                each = {name: asdict(deviation) for name, deviation in layers.items()}
                                figures[mode]["spikes"] = {**asdict(whole), "layers": each}
                for mode in modes:
                    figures[mode] = _summary(figures[mode], software["metric"], direction)
                found[str(size)][str(variation)] = figures
        return {"metric": title, "unit": unit, "software": software, "digital": digital, "crossbars": found}

    # Parts of it ----------------------------------------------------------------------------------------------------

    def _why_not(self, mapped: Places, run: Callable[[], object]) -> str | None:
        o = self.options
        if not mapped:
            return "no synapse but the first, which is digital; first_layer=crossbar puts that on crossbars"
        clocked = {name: module for name, module in mapped.items() if not isinstance(module, (EventLinear, EventConv2d))}
        if len(clocked) < len(mapped) and (o.read_noise or o.adc_bits):
            return "spike times have no reads step by step: an event-exact network has no use for read_noise and adc_bits"
        if names := disobedient(clocked, run):
            return f"{', '.join(names)} computes with another weight than `weight` or `effective_weight` says"
        return None

    def _crossbar(self, size: int, variation: float) -> Crossbar:
        o = self.options
        devices = Devices(o.g_on, o.g_off, o.levels, variation, o.stuck_on, o.stuck_off)
        return Crossbar(size, devices, Circuit(o.driver, o.sense, o.row, o.column, o.solver), o.read_noise)

    def _generator(self, programming: int, place: int, salt: int = 0) -> torch.Generator:
        """Return random numbers of their own for a programming of the layer at a place, and for a purpose (``salt``)."""
        name = f"{self.options.seed}/{programming}/{place}/{salt}"
        return torch.Generator().manual_seed(zlib.crc32(name.encode()))  # of a seed, torch looks at 32 bits only

    def _seeded(self, call: Callable[..., Any], *given: Any, **settings: Any) -> Any:
        """Call with the random inputs (encodings, noise) that every other call has."""
        torch.manual_seed(self.options.seed)
        return call(*given, **settings)

    def _evaluate(self, method: Method, net: nn.Module) -> Evaluation:
        if self.options.samples is not None:
            task = copy.copy(method.task)
            task.batches = partial(method.task.batches, limit=self.options.samples)  # type: ignore[method-assign]
            method = copy.copy(method)
            method.task = task
        return self._seeded(evaluate, method, net, "test", every_step=method.task.head.kind not in DEAR)

    def _currents(self, held: Mapping[str, Held]) -> Figures:
        """Return the tiles and, layer by layer and in the mean, what wires do to currents."""
        layers = {}
        for i, (name, each) in enumerate(held.items()):
            factor, residual = each.non_ideality(self._generator(0, i, salt=1))
            layers[name] = {"factor": factor, "residual": residual, "gain": each.gain, "tiles": each.tiles}
        means = {key: fmean(layer[key] for layer in layers.values()) for key in ("factor", "residual")}
        return {"layers": layers, "tiles": sum(layer["tiles"] for layer in layers.values()), **means}

    @contextmanager
    def _installed(
        self, method: Method, net: nn.Module, mapped: Places, held: Mapping[str, Held], mode: Mode, programming: int
    ) -> Iterator[None]:
        """Let ``net`` read from what is ``held``, in a mode."""
        o = self.options
        gains = {name: each.gain if mode == "calibrated" else 1.0 for name, each in held.items()}
        noise = {name: self._generator(programming, i, salt=2) for i, name in enumerate(held)}
        reads = {mapped[name]: Read(each, gains[name], o.adc_bits, noise[name]) for name, each in held.items()}

        def train_samples(samples: int) -> None:
            for batch in method.task.batches("train", REFIT_BATCH, samples):
                method.predict(net, batch.inputs)

        with ExitStack() as stack:
            stack.enter_context(on_crossbars(reads))
            if o.adc_bits:
                for read in reads.values():
                    read.calibrating = True
                self._seeded(train_samples, CALIBRATED)
                for read in reads.values():
                    read.calibrating = False
            if mode == "bn_refit":
                stack.enter_context(refitted(net, partial(self._seeded, train_samples, o.refit_samples)))
            yield

    @classmethod
    def rows(cls, figures: Figures) -> list[dict[str, str | float | None]]:
        """Return a row for each size, variation and mode."""
        points = 100.0 if figures.get("unit") == "fraction" else 1.0
        rows: list[dict[str, str | float | None]] = []
        for size, by_variation in figures.get("crossbars", {}).items():
            for variation, found in by_variation.items():
                for mode in (mode for mode in ("raw", "calibrated", "bn_refit") if mode in found):
                    of, spikes = found[mode], found[mode]["spikes"]
                    rows.append(
                        {
                            "size": size,
                            "variation": variation,
                            "mode": mode,
                            "software": points * figures["software"]["metric"],
                            "crossbar": points * of["mean"],
                            "drop": points * of["drop"],
                            "spread": points * of["std"],
                            "non_ideality": 100 * found["factor"],
                            "residual": 100 * found["residual"],
                            "rate_change": None if spikes["rate_change"] is None else 100 * spikes["rate_change"],
                            "deviating": None if spikes["deviating"] is None else 100 * spikes["deviating"],
                            "first_step": spikes["first_step"],
                        }
                    )
        return rows


def _summary(found: Figures, software: float, direction: str) -> Figures:
    """Return the figures of all programmings in one mode; a drop is what is worse than in software, whichever way that is."""
    metrics = found["metrics"]
    mean = fmean(metrics)
    curve = [fmean(step) for step in zip(*found["curves"], strict=True)]
    drop = software - mean if direction == "higher" else mean - software
    std = stdev(metrics) if len(metrics) > 1 else 0.0
    return {"metrics": metrics, "mean": mean, "std": std, "drop": drop, "curve": curve, "spikes": found["spikes"]}
