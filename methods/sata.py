"""Probe ``sata``: energy of a training sample, by stage and level, from the zeros that training meets; and of the ANN of the same layers.

At the beginning, in the middle and at the end of every phase some training steps are taken on copies (``methods.nn.rehearsal``) and
listened to (``methods.nn.work_watch``): shapes, steps, zeros of inputs, membrane gradients and firing derivatives, layer by layer. They go
into the counts of SATA's systolic array (``methods.nn.training_energy``), whose unit is one 16-bit multiply-accumulate of an ANN. What
comes out is an estimate on a virtual machine, never a measurement.

How a phase is counted (``methods.nn.work_family``) follows from what its steps do (``methods.nn.observed_family``), unless the method says
so by an attribute ``work_family``. All but BPTT and ANN are extrapolated, and labelled so. Conversion adds the forward pass of the
converted network for the samples it simulates (``ConversionMethod.calibration_work``).
"""

from __future__ import annotations

import time
from dataclasses import asdict, replace
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import nn

from harness import plugin
from harness.evaluate import evaluate
from harness.method import Method, Phase
from harness.metrics import TASK_METRICS
from harness.plugin import Claim, ProbeCard
from harness.probe import Probe
from methods.base_conversion import ConversionMethod
from methods.nn.observed_family import family_of
from methods.nn.rehearsal import Rehearsal, samples_of
from methods.nn.training_energy import STAGES, Energy, Machine, Work, ann_energy, forward_energy, training_energy
from methods.nn.work_course import Course, Look, means_of
from methods.nn.work_family import FAMILIES
from methods.nn.work_watch import WorkWatch

ESTIMATE = "estimate on a virtual machine, never a measurement; unit: one 16-bit multiply-accumulate"
LEFT_OUT = "normalisation, products of activations, optimiser state and residual sums; neurons of every kind are charged as LIF steps"


class Sata(Probe):
    """Training energy from measured sparsities."""

    card = ProbeCard(
        name="sata",
        title="SATA: Sparsity-Aware Training Accelerator for Spiking Neural Networks",
        authors="Yin, Moitra, Bhattacharjee, Kim, Panda",
        venue="IEEE TCAD 42(6):1926-1938",
        year=2023,
        family="probe",
        summary="Energy of training on a systolic array from measured zeros, with and without using them, and that of the ANN.",
        claims=(
            Claim(
                "energy",
                "value",
                5.58,
                "static/cifar10",
                "compute energy this many times less by use of sparsity; VGG-5, T=8",
                "abstract",
                variant="stbp",
                figure="probes.sata.gain_compute",
            ),
            Claim(
                "energy",
                "ratio",
                1.27,
                "static/cifar10",
                "energy of training over that of the ANN; VGG-5, T=8",
                "abstract",
                "ann",
                variant="stbp",
                figure="probes.sata.total",
            ),
        ),
        reconstructed="which zeros are measured and how, corrections of the released counts, full words for inputs that are no spikes, "
        "use_df, batch, energy to a target, and all families but BPTT and ANN",
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
        batch: int = Field(1, description="samples that share a pass over weights and update; the source charges each", ge=1)
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
        self._first: dict[str, Look] = {}  # before training, of the phase that comes first

    # While the network is trained -----------------------------------------------------------------------------------

    def observe(self, method: Method, net: nn.Module, phase: Phase | None, share: float) -> None:
        """Look at the network before training, and in the middle and at the end of a phase; wait for the target of the task."""
        begin = time.perf_counter()
        if phase is None:
            rehearsal = Rehearsal(method, net)
            self._first = {rehearsal.phase.name: Look.at(rehearsal, self.options.batches, 0.0)}
        else:
            self._epoch(method, net, phase, share)
        self.seconds += time.perf_counter() - begin

    def _epoch(self, method: Method, net: nn.Module, phase: Phase, share: float) -> None:
        name = phase.name
        if not self.courses or self.courses[-1].name != name:
            self.courses.append(Course(name, samples=len(samples_of(method, phase))))
        course = self.courses[-1]
        before = (course.epochs / (course.epochs + 1)) * share  # where the last epoch ended, as epochs are equal shares
        course.epochs += 1
        if share > 1 - 1e-9 or before < 0.5 <= share:
            rehearsal = Rehearsal(method, net, phase)
            look = Look.at(rehearsal, self.options.batches, share)
            if not course.looks:
                course.family = family_of(rehearsal.method, rehearsal.net, look.seen)
                course.looks += [first for phase_name, first in self._first.items() if phase_name == name]
                self._first = {}
            course.looks.append(look)
        if phase.predict is None:
            self._wait(method, net)

    def _wait(self, method: Method, net: nn.Module) -> None:
        """Note how many samples were seen when the validation target is first met."""
        task = method.task
        target = task.budget.target
        if target is None or self.samples_to_target is not None:
            return
        found = evaluate(method, net, "validation", every_step=False).metrics[task.metric]
        direction = TASK_METRICS[task.metric][2] if task.metric in TASK_METRICS else "higher"
        if found >= target if direction == "higher" else found <= target:
            self.samples_to_target = sum(course.trained_on for course in self.courses)

    # Afterwards -----------------------------------------------------------------------------------------------------

    def measure(self, method: Method, net: nn.Module) -> dict[str, Any]:
        """Return energies per training sample in 16-bit MACs, and what they were computed from.

        ``energy``: by stage and level; ``phases``: the same of each phase, with its descriptor; ``gain_compute`` and ``gain_total``:
        without use of zeros over with it (None for spike times, which have none); ``ann_ratio``: over the ANN of the same layers,
        ``ann_ratio_training`` over its whole training in as many epochs; ``total_at_batch``: with weights shared by a training batch;
        ``sparsities``: by phase and layer, both kinds of zeros; ``unmeasured``: those taken as 0, and why; ``looks``: zeros in the course
        of training; ``energy_to_target``: up to the samples after which the validation target was met.
        """
        begin, o = time.perf_counter(), self.options
        if not self.courses:  # nobody looked on
            rehearsal = Rehearsal(method, net)
            look = Look.at(rehearsal, self.options.batches, 1.0)
            self.courses.append(Course("step", family_of(rehearsal.method, rehearsal.net, look.seen), [look], 1, len(rehearsal.indices())))
        self._wait(method, net)
        total = sum(course.trained_on for course in self.courses)
        layers = [course.works(o.skip_output, o.zeros) for course in self.courses]
        weights = [course.trained_on / total for course in self.courses]
        at_batch = replace(self.machine, batch=max(self.machine.batch, method.training.batch_size))
        simulated = self._simulated(method, net, total)

        def energy(machine: Machine, dense: bool = False) -> Energy:
            found = Energy.none()
            for course, works, weight in zip(self.courses, layers, weights, strict=True):
                found += training_energy([work.dense() for work in works] if dense else works, course.family, machine) * weight
            if simulated is not None:
                works, per_sample = simulated
                found += forward_energy([work.dense() for work in works] if dense else works, machine) * per_sample
            return found

        found, dense = energy(self.machine), energy(self.machine, dense=True)
        passes = float(method.steps) if method.task.temporal else 1.0
        ann = ann_energy(self._architecture(layers), passes, self.machine)
        timed = not any(course.family == "event" for course in self.courses)
        families = list(dict.fromkeys(course.family for course in self.courses))
        target = None if self.samples_to_target is None else self._until(self.samples_to_target, layers, found)
        figures: dict[str, Any] = {
            "estimate": ESTIMATE,
            "not_modelled": LEFT_OUT,
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
            **means_of(row for course in self.courses if course.spiking for row in course.sparsities().values()),
            "phases": [course.described(works, self.machine) for course, works in zip(self.courses, layers, strict=True)],
            "sparsities": {course.name: course.sparsities() for course in self.courses},
            "unmeasured": self._unmeasured(),
            "looks": [shown for course in self.courses for shown in course.shown(o.zeros)],
            "samples": total,
            "training_total": found.total * total,
            "ann_ratio_training": found.total * total / (ann.total * method.training.epochs * len(method.task.split("train"))),
            "target": method.task.budget.target,
            "samples_to_target": self.samples_to_target,
            "energy_to_target": target,
        }
        if simulated is not None:
            figures["simulated_per_sample"] = simulated[1]
            figures["simulated_ss"] = [work.ss for work in simulated[0]]
        self.seconds += time.perf_counter() - begin
        return {**figures, "seconds": self.seconds}

    def _architecture(self, layers: list[list[Work]]) -> list[Work]:
        """Return every layer of any phase once."""
        found: dict[str, Work] = {}
        for course, works in zip(self.courses, layers, strict=True):
            found |= dict(zip(course.layers(self.options.skip_output), works, strict=True))
        return [replace(work, learns=True) for work in found.values()]

    def _simulated(self, method: Method, net: nn.Module, total: int) -> tuple[list[Work], float] | None:
        """Return what the converted network does for a sample, and how many samples conversion simulates for one of training."""
        if not isinstance(method, ConversionMethod) or not any(course.family == "conversion" for course in self.courses):
            return None
        samples, steps = method.calibration_work(net)
        rehearsal = Rehearsal(method, net, Phase(modules=[]))
        seen = WorkWatch(rehearsal.net)
        for batch in rehearsal.batches(1):
            with seen, torch.no_grad():
                rehearsal.method.predict(rehearsal.net, batch.inputs)
            seen.samples += len(batch.targets)
        names = [name for name in seen.layers() if not (self.options.skip_output and seen.readout(name))]
        works = [replace(seen.work(name, self.options.zeros), steps=float(steps)) for name in names]
        return works, samples / total

    def _until(self, samples: int, layers: list[list[Work]], whole: Energy) -> float:
        """Return the energy of the first ``samples`` of the training; all of it includes what conversion simulates."""
        if samples >= sum(course.trained_on for course in self.courses):
            return whole.total * samples
        spent = 0.0
        for course, works in zip(self.courses, layers, strict=True):
            part = min(samples, course.trained_on)
            spent += part * training_energy(works, course.family, self.machine).total
            samples -= part
        return spent

    # Figures --------------------------------------------------------------------------------------------------------

    def _unmeasured(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for course in self.courses:
            for reason, where in course.unmeasured().items():
                found.setdefault(reason, []).extend(where)
        return found

    @classmethod
    def rows(cls, figures: dict[str, Any]) -> list[dict[str, str | float | None]]:
        """Return one row: how the method is counted, whether that is the source's, energies and zeros."""
        scaled = {name: figures[name] / 1e6 for name in ("total", *STAGES, "compute")}
        shares = {name: None if figures[name] is None else 100 * figures[name] for name in ("dram_share", "ss", "sdu", "sdf")}
        ratios = {name: figures[name] for name in ("gain_compute", "gain_total", "ann_ratio", "ann_ratio_compute")}
        target = figures["energy_to_target"]
        found = {**scaled, **ratios, **shares, "to_target": None if target is None else target / 1e9}
        return [{"family": figures["family"], "status": figures["status"], **{name: found[name] for name in cls.headings if name in found}}]
