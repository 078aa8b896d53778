"""Judges figures that no noise touches: equal, better, worse, or other results with nothing worse.

A case is judged as a whole. Any figure that is worse by more than its threshold is a regression. Where results differ (losses, answers,
spikes; of a neuron core, any bit of spikes or gradients) and no figure is worse, the case is *better* if accuracy rose, and otherwise
*changed*: seeded runs repeat to the last digit, so something computes differently, and it was either meant or not.
"""

from __future__ import annotations

import math

from harness.metrics import as_task_metric
from harness.regress.figures import Figures
from harness.regress.finding import Finding
from harness.regress.settings import Settings, metric_of

RESULTS = "results"  # the line that tells whether all results are the same
ACCURACY = ("test_accuracy", "validation_accuracy")


def change(base: float, head: float, unit: str) -> float:
    """Return the relative change, of fractions the difference."""
    if base == head or (math.isnan(base) and math.isnan(head)):
        return 0.0
    if unit == "fraction":
        return head - base
    return (head - base) / abs(base) if base else math.copysign(math.inf, head)


def compare(case: str, base: Figures, head: Figures, settings: Settings) -> list[Finding]:
    """Return what came of a case."""
    if base.error is not None or head.error is not None:
        return [_failed(case, base, head)]
    found, passed, measured = [], False, [name for name in base.values if name in head.values]
    for name in measured:
        each = _figure(case, name, base, head, settings)
        passed |= each.status == "same" and each.change != 0
        found.append(each)
    lacking = sorted(set(base.values) ^ set(head.values))
    statuses = {each.status for each in found}
    status = "same"
    if base.digest != head.digest or lacking:
        gained = any(each.status == "better" for each in found if each.metric in ACCURACY)
        if "worse" not in statuses and not passed:
            status = "better" if gained and not lacking else "changed"
    note = f"measured on one side only: {', '.join(lacking)}" if lacking else ""
    found.append(Finding(case, RESULTS, "exact", status, base.digest, head.digest, n=head.seeds, note=note))
    return found


def _figure(case: str, name: str, base: Figures, head: Figures, settings: Settings) -> Finding:
    metric = as_task_metric(metric_of(name), base.measure) if base.measure else metric_of(name)
    before, after, threshold = base.values[name], head.values[name], settings.threshold(name)
    moved = change(before, after, metric.unit)
    found = Finding(case, name, "exact", "same", before, after, metric.unit, threshold, moved, n=head.seeds, direction=metric.direction)
    if math.isnan(moved):  # a number on one side, none on the other
        found.status = "worse" if math.isnan(after) else "better"
    elif found.worsening > threshold:
        found.status = "worse"
    elif found.worsening < 0:
        found.status = "better"
    return found


def _failed(case: str, base: Figures, head: Figures) -> Finding:
    if base.error is None:
        return Finding(case, RESULTS, "exact", "failed", "ok", None, note=head.error or "")
    if head.error is None:
        return Finding(case, RESULTS, "exact", "new", None, "ok", note=f"the base: {base.error}")
    return Finding(case, RESULTS, "exact", "unmeasured", None, None, note=f"neither side: {head.error}")
