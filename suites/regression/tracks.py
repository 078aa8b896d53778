"""asv's deterministic tracks: figures that no noise touches, so that any change between two commits is a change of the code.

``Runs``: the error, the bytes saved for backward, spikes and synaptic operations of fixed smoke runs. ``Steps``: what one training step
costs at several T, counted (``counted.py``). ``Cores``: the same of layers of neurons alone, forward and backward, and their spikes. All
are better when lower, so the error is tracked and not the accuracy.

Each class measures once per commit, and its tracks look up. What a commit cannot do fails alone.
"""

from __future__ import annotations

from dataclasses import asdict

from harness.plugin import UnfitError, UsageError

from .cores import MAKERS, Core
from .counted import counted
from .one_step import OneStep
from .smoke import Figures, smoke

RUNS = {
    "static/digits": ("ann", "stbp", "bntt", "glif", "ms_resnet", "ottt", "psn", "tcl"),
    "events/digits-saccade": ("ann", "stbp"),
    "detection/digit-scenes": ("ann", "stbp"),
    "sequences/digits-pixels": ("ann", "stbp", "psn"),
}
METHODS = tuple(dict.fromkeys(method for methods in RUNS.values() for method in methods))
STEP_TASKS = ("static/digits", "detection/digit-scenes")  # those whose T is ours to choose
STEP_METHODS = ("stbp", "bntt", "ottt", "psn")
STEPS = (2, 4, 8)
CORE_STEPS = (4, 16, 64)


def step_figures(task: str, method: str, steps: int) -> Figures:
    """Return the cost of a training step, or why there is none."""
    try:
        ready = OneStep(method, task, steps)
    except (UnfitError, UsageError) as error:
        return str(error)
    return asdict(counted(ready.train, ready.net))


def core_figures(neuron: str, steps: int) -> Figures:
    """Return the cost of a layer of neurons forward and backward, and how many spikes it emits."""
    core = Core(neuron, steps)
    return {**asdict(counted(core.both_ways, core.neuron)), "spikes": core.spikes}


def _value(found: Figures, name: str) -> float:
    if isinstance(found, str):
        raise RuntimeError(found)
    return found[name]


class Runs:
    """Figures of fixed smoke runs."""

    params = (list(RUNS), list(METHODS))
    param_names = ("task", "method")
    timeout = 600

    def setup_cache(self) -> dict[tuple[str, str], Figures]:
        """Run all pairs once per commit."""
        return smoke(RUNS)

    setup_cache.timeout = 1800  # type: ignore[attr-defined]

    def setup(self, figures: dict[tuple[str, str], Figures], task: str, method: str) -> None:
        """Leave out what is not run."""
        if method not in RUNS[task]:
            raise NotImplementedError("not one of the runs")

    def track_error(self, figures: dict[tuple[str, str], Figures], task: str, method: str) -> float:
        """Return 1 - the main metric on test data."""
        return _value(figures[task, method], "error")

    def track_saved_bytes(self, figures: dict[tuple[str, str], Figures], task: str, method: str) -> float:
        """Return the peak bytes that autograd holds."""
        return _value(figures[task, method], "saved_bytes")

    def track_spikes(self, figures: dict[tuple[str, str], Figures], task: str, method: str) -> float:
        """Return spikes per sample."""
        return _value(figures[task, method], "spikes")

    def track_synops(self, figures: dict[tuple[str, str], Figures], task: str, method: str) -> float:
        """Return effective synaptic operations per sample."""
        return _value(figures[task, method], "synops")

    track_error.unit = "1"  # type: ignore[attr-defined]
    track_saved_bytes.unit = "B"  # type: ignore[attr-defined]
    track_spikes.unit = "spikes"  # type: ignore[attr-defined]
    track_synops.unit = "operations"  # type: ignore[attr-defined]


class Steps:
    """What a training step costs, counted."""

    params = (list(STEP_TASKS), list(STEP_METHODS), list(STEPS))
    param_names = ("task", "method", "T")
    timeout = 600

    def setup_cache(self) -> dict[tuple[str, str, int], Figures]:
        """Count the step of every method, task and T once per commit."""
        return {(a, b, c): step_figures(a, b, c) for a in STEP_TASKS for b in STEP_METHODS for c in STEPS}

    setup_cache.timeout = 1800  # type: ignore[attr-defined]

    def track_operators(self, figures: dict[tuple[str, str, int], Figures], task: str, method: str, steps: int) -> float:
        """Return how many operators run."""
        return _value(figures[task, method, steps], "operators")

    def track_allocated_bytes(self, figures: dict[tuple[str, str, int], Figures], task: str, method: str, steps: int) -> float:
        """Return the sum of the bytes that are allocated."""
        return _value(figures[task, method, steps], "allocated_bytes")

    def track_saved_bytes(self, figures: dict[tuple[str, str, int], Figures], task: str, method: str, steps: int) -> float:
        """Return the peak bytes that autograd holds."""
        return _value(figures[task, method, steps], "saved_bytes")

    def track_kept_bytes(self, figures: dict[tuple[str, str, int], Figures], task: str, method: str, steps: int) -> float:
        """Return the bytes that a step leaves behind; anything but 0 piles up."""
        return _value(figures[task, method, steps], "kept_bytes")

    track_operators.unit = "calls"  # type: ignore[attr-defined]
    track_allocated_bytes.unit = track_saved_bytes.unit = track_kept_bytes.unit = "B"  # type: ignore[attr-defined]


class Cores:
    """What layers of 4,096 neurons cost, forward and backward, counted."""

    params = (list(MAKERS), list(CORE_STEPS))
    param_names = ("neuron", "T")
    timeout = 600

    def setup_cache(self) -> dict[tuple[str, int], Figures]:
        """Count every layer and T once per commit."""
        return {(name, steps): core_figures(name, steps) for name in MAKERS for steps in CORE_STEPS}

    setup_cache.timeout = 1800  # type: ignore[attr-defined]

    def track_operators(self, figures: dict[tuple[str, int], Figures], neuron: str, steps: int) -> float:
        """Return how many operators run."""
        return _value(figures[neuron, steps], "operators")

    def track_allocated_bytes(self, figures: dict[tuple[str, int], Figures], neuron: str, steps: int) -> float:
        """Return the sum of the bytes that are allocated."""
        return _value(figures[neuron, steps], "allocated_bytes")

    def track_saved_bytes(self, figures: dict[tuple[str, int], Figures], neuron: str, steps: int) -> float:
        """Return the peak bytes that autograd holds."""
        return _value(figures[neuron, steps], "saved_bytes")

    def track_spikes(self, figures: dict[tuple[str, int], Figures], neuron: str, steps: int) -> float:
        """Return the spikes of all neurons for random currents; neither more nor fewer are better, but a change is one of the dynamics."""
        return _value(figures[neuron, steps], "spikes")

    track_operators.unit = "calls"  # type: ignore[attr-defined]
    track_allocated_bytes.unit = track_saved_bytes.unit = "B"  # type: ignore[attr-defined]
    track_spikes.unit = "spikes"  # type: ignore[attr-defined]
