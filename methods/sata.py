"""Probe ``sata``: the energy of a training sample, by stage and level, from the zeros that training meets; and of the ANN of the same layers.

At the beginning, in the middle and at the end of every phase some training steps are taken on copies (``methods.nn.rehearsal``) and listened to
(``methods.nn.work_watch``): shapes, steps, zeros of inputs, membrane gradients and firing derivatives, layer by layer. They go into the counts of
SATA's systolic array (``methods.nn.training_energy``), whose unit is one 16-bit multiply-accumulate of an ANN. What comes out is an estimate on a
virtual machine, never a measurement.

How a phase is counted (``methods.nn.work_family``) follows from what its steps do, so that methods need not be known by name::

    event layers ran                                                event
    no spikes were emitted                                          ann; conversion where the method is one
    spikes had a graph that ended at each step, traces              online
    ... and no traces                                               spatial
    spikes had a graph, synapses ran without and with one        recomputed
    spikes had a graph                                              bptt; block where some layers ran forward only
    spikes had none, synapses ran without and with a graph          ann_branch
    spikes had none, and no synapse ran twice                       block

A method may overrule that by an attribute ``work_family``, a name of ``FAMILIES``. All but BPTT and ANN are extrapolated, and labelled so.
Conversion adds the forward pass of the converted network for the samples it simulates (``ConversionMethod.calibration_work``).
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from statistics import fmean
from types import MethodType
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import nn

from harness import plugin
from harness.evaluate import evaluate
from harness.method import Method, Phase
from harness.metrics import TASK_METRICS
from harness.plugin import Claim, ProbeCard, UsageError, did_you_mean
from harness.probe import Probe
from methods.base_conversion import ConversionMethod
from methods.nn.rehearsal import Rehearsal, samples_of
from methods.nn.traced import Traced
from methods.nn.training_energy import LEVELS, STAGES, Energy, Machine, Work, ann_energy, forward_energy, training_energy
from methods.nn.work_family import FAMILIES, Family
from methods.nn.work_watch import WorkWatch

SHARES = ("ss", "sdu", "sdf", "trace")
ESTIMATE = "estimate on a virtual machine, never a measurement; unit: one 16-bit multiply-accumulate"
MISSING = {
    "ss": "spike times have no zeros; events are counted instead",
    "sdu": "no gradient reached neurons behind the layer, so none is skipped (taken as 0)",
    "sdf": "no neurons with a firing derivative behind the layer (taken as 0)",
}
"""Why a sparsity of a layer was not measured."""


@dataclass
class Look:
    """One look at a phase: how far it was, and what its steps did."""

    share: float
    seen: WorkWatch


@dataclass
class Course:
    """A phase of training as the probe saw it."""

    name: str
    family: Family
    looks: list[Look] = field(default_factory=list)
    epochs: int = 0
    samples: int = 0  # of an epoch

    def works(self, names: list[str], zeros: Literal["exact", "quantised"]) -> list[Work]:
        """Return the work of the layers, zeros averaged over the looks."""
        found = []
        for name in names:
            each = [look.seen.work(name, zeros) for look in self.looks if name in look.seen.layers()]
            shares = ("ss", "sdu", "sdf", "source_sdf", "events_in", "events_out", "reach", "causal")
            means = {part: fmean(getattr(work, part) for work in each) for part in shares}
            traces = [work.trace for work in each if work.trace is not None]
            found.append(replace(each[-1], **means, trace=fmean(traces) if traces else None, real=any(work.real for work in each)))
        return found

    def layers(self, skip_output: bool) -> list[str]:
        """Return the layers that count, in the order in which they ran."""
        seen = self.looks[-1].seen
        return [name for name in seen.layers() if not (skip_output and seen.readout(name))]


class Sata(Probe):
    """Training energy from measured sparsities."""

    card = ProbeCard(
        name="sata",
        title="SATA: Sparsity-Aware Training Accelerator for Spiking Neural Networks",
        authors="Yin, Moitra, Bhattacharjee, Kim, Panda",
        venue="IEEE TCAD 42(6):1926-1938",
        year=2023,
        family="probe",
        summary="Energy of training on a systolic array from measured zeros, by stage and level, with and without using them, and of the ANN.",
        claims=(
            Claim("energy", "property", None, "static/cifar10", "compute energy 5.58x less by use of sparsity; VGG-5, T=8", "abstract"),
            Claim("energy", "property", None, "static/cifar10", "SNN training takes 1.27x the energy of the ANN; VGG-5, T=8", "abstract", "ann"),
        ),
        reconstructed="which zeros are measured and how, corrections of the released counts, full words for inputs that are no spikes, use_df, "
        "batch, energy to a target, and all families but BPTT and ANN",
        at_steps=(2, 4, 8),
    )
    headings: ClassVar[dict[str, str]] = {
        "family": "counted as",
        "status": "the source says so",
        "total": "energy / training sample (M 16-bit MAC, estimate)",
        "forward": "forward (M MAC)",
        "backward": "backward (M MAC)",
        "update": "update (M MAC)",
        "compute": "compute (M MAC)",
        "dram_share": "DRAM (%)",
        "gain_compute": "gain from zeros, compute (x)",
        "gain_total": "gain from zeros, total (x)",
        "ann_ratio": "SNN / ANN, total (x)",
        "ann_ratio_compute": "SNN / ANN, compute (x)",
        "ss": "zeros of inputs (%)",
        "sdu": "zeros of dL/du (%)",
        "sdf": "zeros of df (%)",
        "to_target": "energy to the target (G MAC)",
    }

    class Options(plugin.Options):
        """The machine, and what is looked at."""

        bits: int = Field(16, description="bits of weights and membrane in the forward pass (b)", ge=1, le=64)
        strict: bool = Field(False, description="count as the released code does, errors included")
        use_df: bool = Field(False, description="also skip what a zero firing derivative kills")
        batch: int = Field(1, description="samples that share a pass over the weights and their update; the source charges each sample", ge=1)
        skip_output: bool = Field(False, description="leave read-outs out, as the released code does")
        zeros: Literal["exact", "quantised"] = Field("exact", description="exact zeros, or those of 16-bit fixed-point numbers")
        batches: int = Field(4, description="training batches of each look; three looks in a training of one phase", ge=1)

    options: Options

    def __init__(self, options: Any = None) -> None:
        """Resolve options."""
        super().__init__(options)
        o = self.options
        self.machine = Machine(o.bits, o.strict, o.use_df, o.batch)
        self.courses: list[Course] = []
        self.seconds = 0.0
        self.samples_to_target: int | None = None
        self._first: Look | None = None  # before training, of the first phase
        self._phase: Phase | None = None

    # While the network is trained -----------------------------------------------------------------------------------

    def observe(self, method: Method, net: nn.Module, phase: str, share: float) -> None:
        """Look at the network before training, and in the middle and at the end of a phase; wait for the target of the task."""
        begin = time.perf_counter()
        if not phase:
            rehearsal = Rehearsal(method, net)
            self._first = self._look(rehearsal, 0.0)
            self._follow(method)
        else:
            self._epoch(method, net, phase, share)
        self.seconds += time.perf_counter() - begin

    def _follow(self, method: Method) -> None:
        """Let ``method`` tell which phase it is in, as long as it is trained."""
        phases = method.phases

        def told(_: Method, net: nn.Module) -> Iterator[Phase]:
            for phase in phases(net):
                if phase.modules is not None:
                    phase.modules = list(phase.modules)
                self._phase = phase
                yield phase
            del method.phases  # type: ignore[attr-defined]

        method.phases = MethodType(told, method)  # type: ignore[method-assign]

    def _epoch(self, method: Method, net: nn.Module, name: str, share: float) -> None:
        phase = self._phase or Phase(name)
        if not self.courses or self.courses[-1].name != name:
            self.courses.append(Course(name, "bptt", samples=len(samples_of(method, phase))))
        course = self.courses[-1]
        before = (course.epochs / (course.epochs + 1)) * share  # where the last epoch ended, as epochs are equal shares
        course.epochs += 1
        if share > 1 - 1e-9 or before < 0.5 <= share:
            rehearsal = Rehearsal(method, net, phase)
            look = self._look(rehearsal, share)
            if not course.looks:
                course.family = family_of(rehearsal.method, rehearsal.net, look.seen)
                if self._first is not None:
                    course.looks.append(self._first)
                    self._first = None
            course.looks.append(look)
        if phase.predict is None:
            self._wait(method, net)

    def _look(self, rehearsal: Rehearsal, share: float) -> Look:
        seen = WorkWatch(rehearsal.net)
        for batch in rehearsal.batches(self.options.batches):
            with seen:
                rehearsal.step(batch)
            seen.samples += len(batch.targets)
            seen.slopes()
        return Look(share, seen)

    def _wait(self, method: Method, net: nn.Module) -> None:
        """Note how many samples were seen when the validation target is first met."""
        task = method.task
        target = task.budget.target
        if target is None or self.samples_to_target is not None:
            return
        found = evaluate(method, net, "validation", every_step=False).metrics[task.metric]
        direction = TASK_METRICS[task.metric][2] if task.metric in TASK_METRICS else "higher"
        if found >= target if direction == "higher" else found <= target:
            self.samples_to_target = sum(course.epochs * course.samples for course in self.courses)

    # Afterwards -----------------------------------------------------------------------------------------------------

    def measure(self, method: Method, net: nn.Module) -> dict[str, Any]:
        """Return energies per training sample in 16-bit MACs, and what they were computed from.

        ``energy``: by stage and level; ``phases``: the same of each phase, with its descriptor; ``gain_compute`` and ``gain_total``: without use
        of zeros over with it (None for spike times, which have none); ``ann_ratio``: over the ANN of the same layers, ``ann_ratio_training`` over its whole training in as many epochs; ``total_at_batch``: with weights
        shared by a training batch; ``sparsities``: by phase and layer, both kinds of zeros; ``unmeasured``: those taken as 0, and why;
        ``looks``: zeros in the course of training; ``energy_to_target``: up to the samples after which the validation target was met.
        """
        begin, o = time.perf_counter(), self.options
        if not self.courses:  # nobody looked on
            rehearsal = Rehearsal(method, net)
            look = self._look(rehearsal, 1.0)
            self.courses.append(Course("step", family_of(rehearsal.method, rehearsal.net, look.seen), [look], 1, len(rehearsal.indices())))
        self._wait(method, net)
        total = sum(course.epochs * course.samples for course in self.courses)
        layers = [course.works(course.layers(o.skip_output), o.zeros) for course in self.courses]
        weights = [course.epochs * course.samples / total for course in self.courses]
        at_batch = replace(self.machine, batch=max(self.machine.batch, method.training.batch_size))
        simulated = self._simulated(method, net, total)

        def energy(machine: Machine, dense: bool = False) -> Energy:
            found = _mean(
                training_energy([work.dense() for work in works] if dense else works, course.family, machine)
                for course, works in zip(self.courses, layers, strict=True)
            )(weights)
            if simulated is None:
                return found
            works, per_sample = simulated
            return found + forward_energy([work.dense() for work in works] if dense else works, machine) * per_sample

        found, dense = energy(self.machine), energy(self.machine, dense=True)
        passes = float(method.steps) if method.task.temporal else 1.0
        ann = ann_energy(self._architecture(layers), passes, self.machine)
        timed = not any(course.family == "event" for course in self.courses)
        families = list(dict.fromkeys(course.family for course in self.courses))
        target = None if self.samples_to_target is None else self._until(self.samples_to_target, layers, found)
        figures: dict[str, Any] = {
            "estimate": ESTIMATE,
            "family": " + ".join(FAMILIES[family].title for family in families),
            "status": "as published" if all(FAMILIES[family].published for family in families) else "extrapolated",
            "machine": asdict(self.machine),
            "energy": found.parts,
            "total": found.total,
            **{stage: found.stage(stage) for stage in STAGES},
            "compute": found.compute,
            "memory": found.memory,
            "dram_share": found.level("dram") / found.total,
            "gain_compute": dense.compute / found.compute if timed else None,
            "gain_total": dense.total / found.total if timed else None,
            "ann_total": ann.total,
            "ann_ratio": found.total / ann.total,
            "ann_ratio_compute": found.compute / ann.compute,
            "ann_ratio_memory": found.memory / ann.memory,
            "total_at_batch": energy(at_batch).total,
            "batch": at_batch.batch,
            **self._overall(),
            "phases": [self._described(course, works, w) for course, works, w in zip(self.courses, layers, weights, strict=True)],
            "sparsities": {course.name: self._sparsities(course) for course in self.courses},
            "unmeasured": self._unmeasured(),
            "looks": [self._shown(course, look) for course in self.courses for look in course.looks],
            "samples": total,
            "training_total": found.total * total,
            "ann_ratio_training": found.total * total / (ann.total * method.training.epochs * len(method.task.split("train"))),
            "target": method.task.budget.target,
            "samples_to_target": self.samples_to_target,
            "energy_to_target": target,
        }
        if simulated is not None:
            figures["simulated_per_sample"] = simulated[1]
        self.seconds += time.perf_counter() - begin
        return {**figures, "seconds": self.seconds}

    def _architecture(self, layers: list[list[Work]]) -> list[Work]:
        """Return every layer of any phase once."""
        found: dict[str, Work] = {}
        for course, works in zip(self.courses, layers, strict=True):
            found |= dict(zip(course.layers(self.options.skip_output), works, strict=True))
        return [replace(work, learns=True) for work in found.values()]

    @torch.no_grad()
    def _simulated(self, method: Method, net: nn.Module, total: int) -> tuple[list[Work], float] | None:
        """Return what the converted network does for a sample, and how many samples conversion simulates for one of training."""
        if not isinstance(method, ConversionMethod) or not any(course.family == "conversion" for course in self.courses):
            return None
        samples, steps = method.calibration_work(net)
        rehearsal = Rehearsal(method, net, Phase(modules=[]))
        seen = WorkWatch(rehearsal.net)
        for batch in rehearsal.batches(1):
            with seen:
                rehearsal.method.predict(rehearsal.net, batch.inputs)
            seen.samples += len(batch.targets)
        names = [name for name in seen.layers() if not (self.options.skip_output and seen.readout(name))]
        works = [replace(seen.work(name, self.options.zeros), steps=float(steps)) for name in names]
        return works, samples / total

    def _until(self, samples: int, layers: list[list[Work]], whole: Energy) -> float:
        """Return the energy of the first ``samples`` of the training; all of it includes what conversion simulates."""
        if samples >= sum(course.epochs * course.samples for course in self.courses):
            return whole.total * samples
        spent = 0.0
        for course, works in zip(self.courses, layers, strict=True):
            part = min(samples, course.epochs * course.samples)
            spent += part * training_energy(works, course.family, self.machine).total
            samples -= part
        return spent

    # Figures --------------------------------------------------------------------------------------------------------

    def _described(self, course: Course, works: list[Work], weight: float) -> dict[str, Any]:
        energy, descriptor = training_energy(works, course.family, self.machine), FAMILIES[course.family]
        return {
            "phase": course.name,
            **asdict(descriptor),
            "status": "as published" if descriptor.published else "extrapolated",
            "share_of_samples": weight,
            "steps": max(work.steps for work in works),
            "differentiated_steps": max(work.back for work in works),
            "energy": energy.parts,
            "total": energy.total,
            "levels": {level: energy.level(level) for level in LEVELS},
        }

    def _sparsities(self, course: Course) -> dict[str, dict[str, float | None]]:
        """Return the zeros of every layer, mean over the looks; None for what was not measured."""
        found: dict[str, dict[str, float | None]] = {}
        for name in course.layers(False):
            found[name] = {}
            for kind in ("exact", "quantised"):
                each = [look.seen.sparsities(name, kind) for look in course.looks if name in look.seen.layers()]  # type: ignore[arg-type]
                for share in SHARES:
                    known = [one[share] for one in each if one[share] is not None]
                    label = share if kind == "exact" else f"{share}_quantised"
                    found[name][label] = fmean(known) if known else None  # type: ignore[arg-type]
        return found

    def _unmeasured(self) -> dict[str, list[str]]:
        """Return for each reason the sparsities that it holds for."""
        found: dict[str, list[str]] = {}
        for course in self.courses:
            if course.family in ("ann", "conversion"):
                found.setdefault("an ANN is counted without use of zeros", []).append(course.name)
                continue
            for name, shares in self._sparsities(course).items():
                for share, reason in MISSING.items():
                    if shares[share] is None:
                        found.setdefault(f"{share}: {reason}", []).append(f"{course.name}: {name}")
        return found

    def _overall(self) -> dict[str, float | None]:
        """Return the mean over layers and spiking phases of each kind of zeros."""
        found: dict[str, float | None] = {}
        rows = [row for c in self.courses if c.family not in ("ann", "conversion") for row in self._sparsities(c).values()]
        for share in ("ss", "sdu", "sdf"):
            known = [row[share] for row in rows if row[share] is not None]
            found[share] = fmean(known) if known else None  # type: ignore[arg-type]
        return found

    def _shown(self, course: Course, look: Look) -> dict[str, Any]:
        rows = [look.seen.sparsities(name, self.options.zeros) for name in look.seen.layers()]
        means = {share: [row[share] for row in rows if row[share] is not None] for share in ("ss", "sdu", "sdf")}
        found = {share: fmean(known) if known else None for share, known in means.items()}  # type: ignore[arg-type, type-var]
        return {"phase": course.name, "share": look.share, "samples": look.seen.samples, **found}

    @classmethod
    def rows(cls, figures: dict[str, Any]) -> list[dict[str, str | float | None]]:
        """Return one row: how the method is counted, whether that is the source's, energies and zeros."""
        scaled = {name: figures[name] / 1e6 for name in ("total", *STAGES, "compute")}
        shares = {name: None if figures[name] is None else 100 * figures[name] for name in ("dram_share", "ss", "sdu", "sdf")}
        ratios = {name: figures[name] for name in ("gain_compute", "gain_total", "ann_ratio", "ann_ratio_compute")}
        target = figures["energy_to_target"]
        found = {**scaled, **ratios, **shares, "to_target": None if target is None else target / 1e9}
        return [{"family": figures["family"], "status": figures["status"], **{name: found[name] for name in cls.headings if name in found}}]


def _mean(energies: Any) -> Any:
    """Return a function of weights that adds the weighted ``energies``."""
    parts = list(energies)

    def add(weights: list[float]) -> Energy:
        whole = Energy.none()
        for part, weight in zip(parts, weights, strict=True):
            whole = whole + part * weight
        return whole

    return add


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
