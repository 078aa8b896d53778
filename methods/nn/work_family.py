"""Families of training rules, as the model of training energy sees them: what each counts, and whether the source says so.

The source counts back-propagation through time of a spiking network, and compares with an ANN. All other rows are extrapolated, and
labelled so beside every figure (mapping: ours, the card of SATA). ``rule`` is how ``methods.nn.training_energy`` counts a layer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Rule = Literal["bptt", "analog", "online", "spatial", "branch", "event"]
Family = Literal["bptt", "ann", "online", "spatial", "ann_branch", "conversion", "event", "block", "recomputed"]


@dataclass(frozen=True)
class Descriptor:
    """What a family counts; T steps, k of them differentiated, for w, o, i, E, H see ``methods.nn.training_energy``."""

    title: str
    rule: Rule
    forward: str
    backward: str
    update: str
    storage: str  # words of DRAM
    published: bool = False  # else extrapolated


FAMILIES: dict[Family, Descriptor] = {
    "bptt": Descriptor(
        "BPTT SNN", "bptt", "w E^2 T ac + o T lif", "w H^2 T mac + o T pgu", "w E^2 T ac, gated by spikes", "T(o + i/b)", published=True
    ),
    "ann": Descriptor("ANN", "analog", "w E^2 mac + o relu", "w H^2 mac", "w E^2 mac", "o + i", published=True),
    "online": Descriptor(
        "online with presynaptic traces",
        "online",
        "as BPTT",
        "k times the instantaneous gradient: w H^2 k mac + o k pgu without the temporal addition",
        "w E^2 k mac, zeros of the trace skipped; ac where there is no trace",
        "o + i, whatever T",
    ),
    "spatial": Descriptor(
        "gradients of k single steps", "spatial", "as BPTT", "w H^2 k mac + o k pgu", "w E^2 k ac, gated by spikes", "k(o + i/b)"
    ),
    "ann_branch": Descriptor(
        "ANN branch with shared weights", "branch", "SNN: w E^2 T ac + o T lif; ANN: w E^2 mac + o relu", "ANN", "ANN", "o + i"
    ),
    "conversion": Descriptor(
        "conversion", "analog", "ANN: w E^2 mac + o relu; SNN, for calibration samples only: w E^2 T ac + o T lif", "ANN", "ANN", "o + i"
    ),
    "event": Descriptor(
        "event based",
        "event",
        "2 mac per input spike and synapse that it reaches",
        "2 mac per spike and input spike before it",
        "as backward",
        "3 words per spike",
    ),
    "block": Descriptor(
        "block-wise",
        "bptt",
        "all blocks up to the one in training: w E^2 T ac + o T lif",
        "that block, as BPTT",
        "that block",
        "that block",
    ),
    "recomputed": Descriptor(
        "BPTT SNN, recomputed", "bptt", "as BPTT, once more in the backward pass: w E^2 T ac + o T lif", "as BPTT", "as BPTT", "k(o + i/b)"
    ),
}
