"""A phase of training as it was looked at: at its beginning, in its middle and at its end, with what is found from that."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from statistics import fmean
from typing import Any

from methods.nn.rehearsal import Rehearsal
from methods.nn.training_energy import LEVELS, Machine, Work, training_energy
from methods.nn.work_family import FAMILIES, Family
from methods.nn.work_watch import WorkWatch, ZerosKind

MEASURED = ("ss", "sdu", "sdf")
WHY_MISSING = {
    "ss": "no spikes step by step at the input: spike times, whose events are counted instead, or counts that an ANN branch sees",
    "sdu": "no gradient reached neurons behind the layer, so none is skipped (taken as 0)",
    "sdf": "no neurons with a firing derivative behind the layer (taken as 0)",
}
DENSE = "an ANN is counted without use of zeros"
AVERAGED = (*MEASURED, "source_sdf", "events_in", "events_out", "reach", "causal")

Shares = dict[str, float | None]


@dataclass
class Look:
    """How far a phase was, and what its steps did then."""

    share: float
    seen: WorkWatch

    @classmethod
    def at(cls, rehearsal: Rehearsal, batches: int, share: float) -> Look:
        """Look at so many steps of a rehearsal."""
        seen = WorkWatch(rehearsal.net)
        for batch in rehearsal.batches(batches):
            with seen:
                rehearsal.step(batch)
            seen.samples += len(batch.targets)
            seen.slopes()
        seen.forget()
        return cls(share, seen)


@dataclass
class Course:
    """A phase; ``samples`` of an epoch."""

    name: str
    family: Family = "bptt"
    looks: list[Look] = field(default_factory=list)
    epochs: int = 0
    samples: int = 0

    @property
    def trained_on(self) -> int:
        """Samples that were trained on, each epoch anew."""
        return self.epochs * self.samples

    @property
    def spiking(self) -> bool:
        """Whether zeros are made use of."""
        return FAMILIES[self.family].rule != "analog"

    def layers(self, skip_output: bool = False) -> list[str]:
        """Return the layers that count, in the order in which they ran."""
        seen = self.looks[-1].seen
        return [name for name in seen.layers() if not (skip_output and seen.readout(name))]

    def works(self, skip_output: bool = False, zeros: ZerosKind = "exact") -> list[Work]:
        """Return the work of the layers, zeros averaged over the looks."""
        found = []
        for name in self.layers(skip_output):
            each = [look.seen.work(name, zeros) for look in self.looks if name in look.seen.layers()]
            means: dict[str, Any] = {part: fmean(getattr(work, part) for work in each) for part in AVERAGED}
            traces = [work.trace for work in each if work.trace is not None]
            found.append(replace(each[-1], **means, trace=fmean(traces) if traces else None, real=any(work.real for work in each)))
        return found

    def sparsities(self) -> dict[str, Shares]:
        """Return the zeros of every layer, mean over the looks; None for what was not measured."""
        found: dict[str, Shares] = {}
        kinds: tuple[tuple[ZerosKind, str], ...] = ("exact", ""), ("quantised", "_quantised")
        for name in self.layers():
            found[name] = {}
            for kind, suffix in kinds:
                rows = [look.seen.sparsities(name, kind) for look in self.looks if name in look.seen.layers()]
                found[name] |= {part + suffix: mean for part, mean in means_of(rows, (*MEASURED, "trace")).items()}
        return found

    def unmeasured(self) -> dict[str, list[str]]:
        """Return for each reason the layers, or the phase, of which something was taken as 0."""
        if not self.spiking:
            return {DENSE: [self.name]}
        branch = FAMILIES[self.family].rule == "branch"
        found: dict[str, list[str]] = {DENSE: [f"{self.name}: gradients of the ANN branch"]} if branch else {}
        for name, shares in self.sparsities().items():
            for share, reason in WHY_MISSING.items():
                if shares[share] is None and not (branch and share != "ss"):
                    found.setdefault(f"{share}: {reason}", []).append(f"{self.name}: {name}")
        return found

    def shown(self, zeros: ZerosKind) -> list[dict[str, Any]]:
        """Return of each look the mean over layers of each kind of zeros."""
        found = []
        for look in self.looks:
            rows = [look.seen.sparsities(name, zeros) for name in look.seen.layers()]
            found.append({"phase": self.name, "share": look.share, "samples": look.seen.samples, **means_of(rows)})
        return found

    def described(self, works: list[Work], machine: Machine) -> dict[str, Any]:
        """Return the descriptor of the family and the energy of a sample, by stage and level."""
        energy, descriptor = training_energy(works, self.family, machine), FAMILIES[self.family]
        return {
            "phase": self.name,
            **asdict(descriptor),
            "status": "as published" if descriptor.published else "extrapolated",
            "samples": self.trained_on,
            "steps": max(work.steps for work in works),
            "differentiated_steps": max(work.back for work in works),
            "energy": energy.parts,
            "total": energy.total,
            "levels": {level: energy.level(level) for level in LEVELS},
        }


def means_of(rows: Iterable[Shares], names: tuple[str, ...] = MEASURED) -> Shares:
    """Return the mean of what is known of each name; None where nothing is."""
    rows = list(rows)
    known = {name: [value for row in rows if (value := row[name]) is not None] for name in names}
    return {name: fmean(values) if values else None for name, values in known.items()}
