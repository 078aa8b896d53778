"""asv's deterministic tracks: figures that no noise touches, so that any change between two commits is a change of the code.

Short smoke runs (few samples, two epochs, seed 0, each in its own process) give the test error, the bytes saved for backward, spikes and
synaptic operations; one training step under a counter gives the number of operations that PyTorch dispatches, which is what a step costs
before any kernel runs. All are better when lower.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode

from harness.engines.local import LocalEngine
from harness.matrix import Selection, plans, specs
from harness.registry import Registries
from harness.store import Store
from suites.regression.one_step import OneStep

PAIRS = (
    "static/digits: ann",
    "static/digits: stbp",
    "static/digits: bntt",
    "static/digits: glif",
    "static/digits: ms_resnet",
    "static/digits: ottt",
    "static/digits: psn",
    "static/digits: tcl",
    "events/digits-saccade: stbp",
    "detection/digit-scenes: stbp",
    "sequences/digits-pixels: stbp",
)
SAMPLES, EPOCHS = 256, 2

Figures = dict[str, dict[str, float]]


class _Operations(TorchDispatchMode):
    """Counts the operations that reach a kernel."""

    count = 0

    def __torch_dispatch__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        return func(*args, **(kwargs or {}))


def operations(method: str, task: str) -> int:
    """Return how many operations the second training step of a method dispatches."""
    ready = OneStep(method, task)
    ready.train()
    with _Operations() as counter:
        ready.train()
    return counter.count


def run_all(folder: Path) -> Figures:
    """Run every pair and return its figures; raise RuntimeError if a run fails."""
    registries = Registries()
    found: Figures = {}
    for pair in PAIRS:
        task, method = pair.split(": ")
        selection = Selection(methods=[method], tasks=[task], samples=SAMPLES, threads=1, settings={"epochs": str(EPOCHS)})
        (record,) = LocalEngine(Store(folder)).run(plans(specs(selection, registries), registries), lambda plan, event: None)
        if record.status != "ok":
            raise RuntimeError(f"{pair}: {record.status}; {record.failure}")
        accuracy, activity, memory = record.accuracy, record.activity, record.memory
        assert accuracy and activity and memory
        found[pair] = {
            "error": 1 - (accuracy.test or 0.0),
            "saved_bytes": memory.saved_bytes,
            "spikes": math.nan if activity.spikes_per_sample is None else activity.spikes_per_sample,  # asv: not applicable
            "synops": activity.synops_effective,
        }
    return found


class Tracks:
    """One figure per pair of task and method."""

    params = list(PAIRS)
    param_names = ["pair"]
    timeout = 600

    def setup_cache(self) -> Figures:
        """Run all pairs once per commit."""
        with tempfile.TemporaryDirectory() as folder:
            store = Store(Path(folder))
            store.prepare()
            return run_all(store.folder)

    setup_cache.timeout = 1800  # type: ignore[attr-defined]

    def track_error(self, figures: Figures, pair: str) -> float:
        """Return 1 - the main metric on test data."""
        return figures[pair]["error"]

    def track_saved_bytes(self, figures: Figures, pair: str) -> float:
        """Return the peak bytes that autograd holds."""
        return figures[pair]["saved_bytes"]

    def track_spikes(self, figures: Figures, pair: str) -> float:
        """Return spikes per sample."""
        return figures[pair]["spikes"]

    def track_synops(self, figures: Figures, pair: str) -> float:
        """Return effective synaptic operations per sample."""
        return figures[pair]["synops"]

    def track_operations(self, figures: Figures, pair: str) -> int:
        """Return the operations that a training step dispatches."""
        task, method = pair.split(": ")
        return operations(method, task)

    track_error.unit = "1"  # type: ignore[attr-defined]
    track_saved_bytes.unit = "B"  # type: ignore[attr-defined]
    track_spikes.unit = "spikes"  # type: ignore[attr-defined]
    track_synops.unit = "operations"  # type: ignore[attr-defined]
    track_operations.unit = "calls"  # type: ignore[attr-defined]
