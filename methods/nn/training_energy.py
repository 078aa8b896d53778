"""Energy of a training sample on a systolic array that skips zeros: operations and moved words, times unit energies. Pure functions.

Three stages (forward, backward, update) and four levels (compute, DRAM, global buffer GLB, scratchpad SPAD). Per layer: ``w`` weights;
``o, i`` outputs and inputs of a step, ``E^2, H^2`` their places; ``T`` steps, of which ``k`` are differentiated (all: BPTT); ``b`` bits;
``ss, sdu, sdf`` shares of zeros in the inputs, in dL/du and in the firing derivative::

    forward    lif o T                ac  (1 - ss)  w E^2 T
    backward   pgu o k                mac (1 - sdu) w H^2 k
    update                            ac  (1 - ss)  w E^2 k          mac instead of ac where inputs are not spikes

    words      forward                backward                       update
    DRAM       w + k(o + i/b)         k(o + i/16)                    2w
    GLB        2(w + T(o + i/b))      7 k o + 2 k i/16 + w           2(1 + k) w + k(o + i/16)
    SPAD       2(w + T i/b)           w + k o                        2(1 + k) w + k(o + i/16) + 2 k w

A spike is 1 bit of a word; an input that is no spike is a word (``real``; ours). Forward units scale by b/16, the others do not. Energies
are in units of one 16-bit multiply-accumulate: an estimate on a virtual machine, never a measurement. What other families of training
rules change is in ``methods.nn.work_family``. Normalisation, products of activations, optimiser state and residual sums are not modelled.

``strict`` reproduces the released code: the forward accumulations of a linear layer replace those of all layers before it, linear layers
ignore sparsity, and spikes cost i/b words in every stage. Source: "SATA: Sparsity-Aware Training Accelerator for Spiking Neural Networks"
(Yin et al., IEEE TCAD 42(6), 2023) and its official code; corrections, ``use_df`` and ``batch`` are ours.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from methods.nn.work_family import FAMILIES, Family, Rule

Stage = Literal["forward", "backward", "update"]
Level = Literal["compute", "dram", "glb", "spad"]
STAGES: tuple[Stage, ...] = ("forward", "backward", "update")
LEVELS: tuple[Level, ...] = ("compute", "dram", "glb", "spad")

MUL, ACC, ADD, AND, COMP, MUX, REG, SHIFT = 0.239, 0.0389, 0.00967, 0.000794, 0.00309, 0.00172, 0.0301, 0.00605  # 16 bit, 65 nm
WORD: dict[Level, float] = {"dram": 55.58, "glb": 1.95, "spad": 0.2779}
OPERATION = {
    "ac": ACC + AND,  # an accumulation that a spike lets through
    "mac": MUL + ACC,
    "lif": ADD + COMP + 2 * MUX + 3 * REG + SHIFT,  # a step of a neuron
    "pgu": MUL + 2 * ADD + MUX + 2 * SHIFT,  # a step of its membrane gradient
    "pgu_now": MUL + ADD + MUX + 2 * SHIFT,  # the same without what comes from the next step
    "relu": COMP + MUX + REG,
}
MAC = OPERATION["mac"]


@dataclass(frozen=True)
class Work:
    """What one layer does for one sample: a synapse and, unless it is a read-out, the neurons behind it."""

    weights: float
    inputs: float  # of a step
    outputs: float  # of a step, before pooling
    places_in: float = 1.0  # H^2
    places_out: float = 1.0  # E^2
    linear: bool = False
    fires: bool = True  # whether neurons follow
    learns: bool = True
    real: bool = False  # whether inputs are numbers rather than spikes
    steps: float = 1.0  # T
    back: float = 1.0  # differentiated steps, k; 0: the layer runs forward only
    passes: float = 0.0  # of an ANN branch with the same weights
    ss: float = 0.0
    sdu: float = 0.0
    sdf: float = 0.0
    source_sdf: float = 0.0  # of the neurons that feed the layer
    trace: float | None = None  # share of zeros in the presynaptic traces that stand for the inputs in the update; None: there are none
    events_in: float = 0.0  # event based: input spikes
    events_out: float = 0.0  # spikes of its neurons
    reach: float = 0.0  # input spikes times the neurons that each reaches
    causal: float = 0.0  # spikes of its neurons times the input spikes before each

    def dense(self) -> Work:
        """Return the same work without a zero anywhere."""
        return replace(self, ss=0.0, sdu=0.0, sdf=0.0, source_sdf=0.0, trace=None if self.trace is None else 0.0)


@dataclass(frozen=True)
class Machine:
    """Bits of weights and membrane in the forward pass, and how counts are made."""

    bits: int = 16
    strict: bool = False  # as the released code counts
    use_df: bool = False  # skip what a zero firing derivative kills
    batch: int = 1  # samples that share a pass over the weights and their update


@dataclass
class Counts:
    """Operations and words of a training sample."""

    operations: dict[tuple[Stage, str], float] = field(default_factory=lambda: defaultdict(float))
    words: dict[tuple[Stage, Level], float] = field(default_factory=lambda: defaultdict(float))

    def move(self, stage: Stage, dram: float, glb: float, spad: float) -> None:
        """Add words."""
        for level, words in (("dram", dram), ("glb", glb), ("spad", spad)):
            self.words[stage, level] += words  # type: ignore[index]


@dataclass(frozen=True)
class Energy:
    """Energy in 16-bit MACs by stage and level."""

    parts: dict[Stage, dict[Level, float]]

    @classmethod
    def none(cls) -> Energy:
        """Return no energy."""
        return cls({stage: dict.fromkeys(LEVELS, 0.0) for stage in STAGES})

    def __add__(self, other: Energy) -> Energy:
        return Energy({stage: {level: self.parts[stage][level] + other.parts[stage][level] for level in LEVELS} for stage in STAGES})

    def __mul__(self, factor: float) -> Energy:
        return Energy({stage: {level: factor * self.parts[stage][level] for level in LEVELS} for stage in STAGES})

    def stage(self, stage: Stage) -> float:
        """Return the energy of a stage."""
        return sum(self.parts[stage].values())

    def level(self, level: Level) -> float:
        """Return the energy of a level."""
        return sum(self.parts[stage][level] for stage in STAGES)

    @property
    def total(self) -> float:
        """All of it."""
        return sum(self.stage(stage) for stage in STAGES)

    @property
    def compute(self) -> float:
        """What operations take."""
        return self.level("compute")

    @property
    def memory(self) -> float:
        """What moving words takes."""
        return self.total - self.compute


def counts(layers: Iterable[Work], family: Family, machine: Machine = Machine()) -> Counts:
    """Return operations and words of a training sample of a network of ``layers``, in the order in which they run.

    ``family`` is a name of ``methods.nn.work_family.FAMILIES``.
    """
    found, rule = Counts(), FAMILIES[family].rule
    for layer in layers:
        if rule == "event":
            _event(found, layer, machine)
        elif rule == "analog":
            _analog(found, layer, layer.steps, machine)
        elif rule == "branch":
            _spiking(found, replace(layer, back=0.0), "bptt", machine)
            if layer.passes:
                _analog(found, layer, layer.passes, machine)
        else:
            _spiking(found, layer, rule, machine)
    return found


def training_energy(layers: Iterable[Work], family: Family, machine: Machine = Machine()) -> Energy:
    """Return the energy of a training sample, in 16-bit MACs."""
    found, energy = counts(layers, family, machine), Energy.none()
    scale: dict[str, float] = {"forward": machine.bits / 16}
    for (stage, operation), number in found.operations.items():
        energy.parts[stage]["compute"] += number * OPERATION[operation] * scale.get(stage, 1.0) / MAC
    for (stage, level), words in found.words.items():
        energy.parts[stage][level] += words * WORD[level] * scale.get(stage, 1.0) / MAC
    return energy


def ann_energy(layers: Iterable[Work], passes: float, machine: Machine = Machine()) -> Energy:
    """Return the energy of a training sample of the ANN of the same layers, each used in ``passes`` passes."""
    return training_energy([replace(layer, steps=passes) for layer in layers], "ann", machine)


def forward_energy(layers: Sequence[Work], machine: Machine = Machine()) -> Energy:
    """Return the energy of a forward pass of the spiking network that keeps nothing for a backward pass."""
    return training_energy([replace(layer, back=0.0) for layer in layers], "bptt", machine)


def _spiking(found: Counts, layer: Work, rule: Rule, machine: Machine) -> None:
    strict, w, o, i, steps, back = machine.strict, layer.weights, layer.outputs, layer.inputs, layer.steps, layer.back
    ss, sdu = (0.0, 0.0) if strict and layer.linear else (layer.ss, layer.sdu)
    traced = rule == "online" and layer.trace is not None
    shared = w / machine.batch
    packed = i if layer.real else i / machine.bits  # words of the forward pass, of b bits
    again = i if layer.real or traced else i / (machine.bits if strict else 16)  # words of the other stages, of 16 bits
    operations = found.operations
    if layer.fires:
        operations["forward", "lif"] += o * steps
    if strict and layer.linear:
        operations["forward", "ac"] = operations["forward", "mac"] = 0.0  # the release assigns where it should add
    operations["forward", "mac" if layer.real else "ac"] += (1 - ss) * w * layer.places_out * steps
    stored = 0.0
    if back:
        stored = o + (i if traced else packed) if rule == "online" else back * (o + packed)
    found.move("forward", shared + stored, 2 * (shared + steps * (o + packed)), 2 * (shared + steps * packed))
    if not back:
        return
    if layer.fires:
        operations["backward", "pgu_now" if rule == "online" else "pgu"] += o * back * (1 - layer.sdf if machine.use_df else 1)
    operations["backward", "mac"] += (1 - sdu) * w * layer.places_in * back * (1 - layer.source_sdf if machine.use_df else 1)
    read = o + again if rule == "online" else back * (o + again)
    found.move("backward", read, 7 * back * o + 2 * back * again + shared, shared + back * o)
    if not layer.learns:
        return
    met = (1 - layer.trace) if traced and layer.trace is not None else (1 - ss)
    operations["update", "mac" if traced or layer.real else "ac"] += met * w * layer.places_out * back
    _update(found, shared, w, back, back * (o + again))


def _analog(found: Counts, layer: Work, passes: float, machine: Machine) -> None:
    w, o, i = layer.weights, layer.outputs, layer.inputs
    shared = w / machine.batch
    operations = found.operations
    operations["forward", "mac"] += w * layer.places_out * passes
    if layer.fires:
        operations["forward", "relu"] += o * passes
    words = passes * (o + i)
    found.move("forward", shared + words, 2 * (shared + words), 2 * (shared + passes * i))
    operations["backward", "mac"] += w * layer.places_in * passes
    found.move("backward", words, 7 * passes * o + 2 * passes * i + shared, shared + passes * o)
    if layer.learns:
        operations["update", "mac"] += w * layer.places_out * passes
        _update(found, shared, w, passes, words)


def _event(found: Counts, layer: Work, machine: Machine) -> None:
    """Two exponentials per synapse and event, three words per spike, one pass."""
    w, o, i = layer.weights, 3 * layer.events_out, 3 * layer.events_in
    shared = w / machine.batch
    found.operations["forward", "mac"] += 2 * layer.reach
    found.move("forward", shared + o + i, 2 * (shared + o + i), 2 * (shared + i))
    found.operations["backward", "mac"] += 2 * layer.causal
    found.move("backward", o + i, 7 * o + 2 * i + shared, shared + o)
    found.operations["update", "mac"] += 2 * layer.causal
    _update(found, shared, w, 1.0, o + i)


def _update(found: Counts, shared: float, w: float, back: float, words: float) -> None:
    glb = 2 * shared + 2 * back * w + words
    found.move("update", 2 * shared, glb, glb + 2 * back * w)
