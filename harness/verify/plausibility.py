"""Whether the figures of a record are likely beside those of reference records of the task, and beside what machines can do.

Bounds are wide: a finding here asks for a look, and says the figures. What no machine can do is an error.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence

from harness.metrics import as_task_metric, metric
from harness.plugin import UsageError
from harness.record import Accuracy, Record
from harness.registry import Registries
from harness.spec import parse_variant
from harness.task import Task
from harness.verify.candidate import Finding, error, warning

ABOVE = 0.1  # share of right answers by which a record may surpass the best reference record
FEWER, LUCK = 1 / 3, 1e-6  # wrong answers over those of the best, and the p value of as few by chance, from which on it is noted
BELOW = 0.75  # of the best reference figure, where less is better
CHANCE = 1e-2  # p value up to which a record is better than chance
MEMORY = (1e-3, 30.0)  # saved bytes over those of the reference method
SPEED = 1 / 50  # step time over that of the reference method, on the same device
CPU_RATE, LOW_PRECISION, GPU_RATE = 5e11, 8.0, 1e16  # operations per second: of a thread, times this in 16 bits, of a GPU


def check(record: Record, reference: Sequence[Record], registries: Registries) -> Iterator[Finding]:
    """Yield what is unlikely; ``reference`` are other records than this one."""
    alike = [
        other
        for other in reference
        if (other.spec.task, other.spec.budget, other.spec.track) == (record.spec.task, record.spec.budget, record.spec.track)
        and other.status == "ok"
        and other.accuracy is not None
    ]
    if record.spec.samples is None:  # what was cut down to measure costs says nothing of accuracy
        yield from _beside_the_best(record, [other for other in alike if other.spec.samples is None])
        yield from _beside_chance(record, registries)
    yield from _beside_the_baseline(record, alike, registries)
    yield from _beside_machines(record)


def _beside_the_best(record: Record, alike: Sequence[Record]) -> Iterator[Finding]:
    a = record.accuracy
    values = [(other.accuracy.test, other.label) for other in alike if other.accuracy and a and other.accuracy.metric == a.metric]
    if a is None or not values:
        return
    shown = as_task_metric(metric("test_accuracy"), a.metric)
    if shown.direction == "higher":
        best, label = max(values)
        if a.test > best + ABOVE or _too_few_wrong(a, best):
            yield warning("plausible", f"{shown.title} {a.test:.4g}; the best of {len(values)} reference records is {best:.4g} ({label})")
    else:
        best, label = min(values)
        if a.test < best * BELOW:
            yield warning("plausible", f"{shown.title} {a.test:.4g}; the best of {len(values)} reference records is {best:.4g} ({label})")


def _too_few_wrong(a: Accuracy, best: float) -> bool:
    """Return whether the items answered wrongly are far fewer than those of the best, and not by luck of the draw."""
    if a.metric != "accuracy" or not 0 < best < 1 or 1 - a.test >= FEWER * (1 - best):
        return False
    from scipy.stats import binom  # takes a while to import

    return bool(binom.cdf(round((1 - a.test) * a.items), a.items, 1 - best) < LUCK)


def _beside_chance(record: Record, registries: Registries) -> Iterator[Finding]:
    a = record.accuracy
    if a is None:
        return
    if a.metric == "rrse" and a.test > 1:
        yield warning("plausible", f"error {a.test:.4g} times that of answering the mean")
    task = _task(record, registries)
    if a.metric != "accuracy" or task is None or task.head.kind != "classify" or a.items < 1:
        return
    from scipy.stats import binom  # takes a while to import

    right, classes = round(a.test * a.items), task.head.classes
    if binom.sf(right - 1, a.items, 1 / classes) > CHANCE:
        yield warning("plausible", f"{right} of {a.items} items right: not better than guessing among {classes} classes")


def _task(record: Record, registries: Registries) -> Task | None:
    try:
        return registries.task(record.spec.task, record.spec.budget)
    except UsageError:
        return None


def _baseline(record: Record, registries: Registries) -> str:
    """Return the label of what the method's card is measured against, else ``stbp``."""
    try:
        return registries.methods.load(record.spec.method).card.baseline or "stbp"
    except UsageError:
        return "stbp"


def _beside_the_baseline(record: Record, alike: Sequence[Record], registries: Registries) -> Iterator[Finding]:
    """Compare memory and time with the reference method, where neither's size was set by hand."""

    def plain(each: Record) -> bool:
        return each.spec.samples is None and each.spec.depth is None and not each.spec.training

    if not plain(record) or record.memory is None:
        return
    for label in dict.fromkeys([_baseline(record, registries), "stbp"]):
        bases = [other for other in alike if other.spec.method == parse_variant(label)[0] and plain(other) and other.memory is not None]
        if bases:
            break
    else:
        return
    name = bases[0].spec.method
    usual = statistics.median(other.memory.saved_bytes for other in bases if other.memory)
    if usual and not MEMORY[0] <= record.memory.saved_bytes / usual <= MEMORY[1]:
        ratio = record.memory.saved_bytes / usual
        yield warning("plausible", f"{record.memory.saved_bytes} bytes saved for backward, {ratio:.3g} times those of {name} ({usual:.0f})")
    mine = record.time.step_median if record.time else None
    times = [
        other.time.step_median
        for other in bases
        if other.time and other.time.step_median and other.environment and record.environment
        if (other.environment.device, other.spec.threads) == (record.environment.device, record.spec.threads)
    ]
    if mine is not None and times and mine < SPEED * statistics.median(times):
        usual = statistics.median(times)
        yield warning("plausible", f"step time {1e3 * mine:.4g} ms; {name} takes {1e3 * usual:.4g} ms on this device")


def _beside_machines(record: Record) -> Iterator[Finding]:
    """Compare speeds with what the device can compute: answers need their effective operations, steps at least one pass."""
    if record.activity is None or record.environment is None:
        return
    limit = GPU_RATE if record.environment.device_kind == "cuda" else CPU_RATE * record.spec.threads
    if record.environment.device_kind == "cpu" and record.spec.precision != "fp32":
        limit *= LOW_PRECISION
    where = f"{record.spec.threads} thread(s)" if record.environment.device_kind == "cpu" else "a GPU"
    if record.inference is not None and record.activity.synops_effective:
        rate = record.inference.throughput * record.activity.synops_effective
        if rate > limit:
            text = f"{record.inference.throughput:.4g} samples per second are {rate:.2g} operations per second, too many for {where}"
            yield error("plausible", text)
        least = 1 / record.inference.throughput if record.inference.throughput > 0 else 0.0
        if record.inference.latency_median < least / 10:
            yield warning("plausible", f"a sample alone takes {record.inference.latency_median:.2g} s, and among others {least:.2g} s")
    macs, batches = record.activity.macs_nominal, sum(epoch.batches for epoch in record.trace)
    samples = [epoch.samples for epoch in record.trace]
    if record.time is not None and record.time.step_median is not None and macs and batches and None not in samples:
        work = macs / max(1, record.settings.steps) * sum(samples) / batches  # type: ignore[arg-type]
        if work > limit * max(record.time.step_median, 1e-9):
            text = f"{work:.2g} operations in a step of {1e3 * record.time.step_median:.3g} ms are too many for {where}"
            yield error("plausible", text)
