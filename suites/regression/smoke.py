"""Fixed smoke runs, each in a process of its own: few samples and epochs, seed 0, one thread.

figures = smoke({"static/digits": ["stbp"]})
figures["static/digits", "stbp"]["error"]          # or the reason, as a text, why there is none
"""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from harness.engines.local import LocalEngine
from harness.matrix import Selection, plans, specs
from harness.plugin import UsageError
from harness.record import Record
from harness.registry import Registries
from harness.store import Store

SAMPLES, EPOCHS = 512, 8

Figures = dict[str, float] | str  # a text where there are none: what went wrong


def smoke(matrix: Mapping[str, Sequence[str]]) -> dict[tuple[str, str], Figures]:
    """Return the figures of every task and method of ``matrix`` (task -> methods)."""
    registries = Registries()
    found: dict[tuple[str, str], Figures] = {}
    planned = []
    for task, methods in matrix.items():
        for method in methods:
            selection = Selection(methods=[method], tasks=[task], samples=SAMPLES, threads=1, settings={"epochs": str(EPOCHS)})
            try:
                (plan,) = plans(specs(selection, registries), registries)
            except UsageError as error:  # a commit that does not have this method
                found[task, method] = str(error)
                continue
            if plan.skip:
                found[task, method] = plan.skip
            else:
                planned.append(plan)
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder))
        store.prepare()
        jobs = min(2, os.cpu_count() or 1)  # no figure here is a time
        for record in LocalEngine(store, jobs=jobs).run(planned, lambda plan, event: None):
            found[record.spec.task, record.spec.method] = _figures(record)
    return found


def _figures(record: Record) -> Figures:
    if record.status != "ok":
        return f"{record.status}: {record.failure}"
    accuracy, activity, memory = record.accuracy, record.activity, record.memory
    assert accuracy and activity and memory
    return {
        "error": 1 - (accuracy.test or 0.0),
        "saved_bytes": memory.saved_bytes,
        "spikes": math.nan if activity.spikes_per_sample is None else activity.spikes_per_sample,  # asv: not applicable
        "synops": activity.synops_effective,
    }
