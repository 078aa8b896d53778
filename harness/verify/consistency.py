"""Whether the figures of a record agree with each other: many are sums, means or shares of others, so a changed one stands out."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np

from harness.energy import joules
from harness.metrics import TASK_METRICS
from harness.record import Accuracy, Activity, Memory, Record, Time, decode_bits
from harness.verify.candidate import Finding, error, warning

STEADY = 20  # steps of a phase from which on a record says how steady they were
MICRO = 1.5e-6  # seconds: step times are kept in whole microseconds
CLOCKS = 0.05  # seconds that clocks of one run may disagree


def same(one: float | None, other: float | None, relative: float = 1e-6, absolute: float = 1e-9) -> bool:
    """Return whether two figures are equal but for rounding; None equals None only."""
    if one is None or other is None:
        return one is other
    return math.isclose(one, other, rel_tol=relative, abs_tol=absolute)


def check(record: Record, whole: bool | None = None) -> Iterator[Finding]:
    """Yield what contradicts itself in a record whose status is ok.

    ``whole``: whether the answer at the last step is the answer (not where each step has one of its own); None if that is not known.
    """
    if record.accuracy is not None:
        yield from _accuracy(record.accuracy, record.settings.steps, whole)
    if record.activity is not None:
        yield from _activity(record.activity, record.accuracy)
    if record.memory is not None:
        yield from _memory(record.memory)
    if record.time is not None:
        yield from _time(record.time, record)
        yield from _trace(record, record.time)
    speed = record.inference
    if speed is not None and speed.latency_samples:
        middle = float(np.median(speed.latency_samples))
        if not same(speed.latency_median, middle):
            yield error("figures", f"median latency {speed.latency_median:.4g} s, and its samples have {middle:.4g} s")


def _accuracy(a: Accuracy, steps: int, whole: bool | None) -> Iterator[Finding]:
    for split, value, found in (("test", a.test, a.test_metrics), ("validation", a.validation, a.validation_metrics)):
        if found.get(a.metric) != value:
            yield error("figures", f"{a.metric} on {split} data is {value} and, among all metrics, {found.get(a.metric)}")
        if TASK_METRICS.get(a.metric, ("", "fraction"))[1] == "fraction" and not 0 <= value <= 1:
            yield error("figures", f"{a.metric} on {split} data is {value}, not a share")
    yield from _bits(a)
    if not 0 < a.steps_used <= steps * (1 + 1e-9):
        yield error("figures", f"{a.steps_used} time steps used of {steps}")
    shown = a.curve_steps if a.curve_steps is not None else list(range(steps))
    if not len(shown) == len(a.test_curve) == len(a.validation_curve):
        yield error("figures", f"curves of {len(a.test_curve)} and {len(a.validation_curve)} points at {len(shown)} steps")
    elif shown and (shown[-1] + 1 != steps or any(after <= now for now, after in zip(shown, shown[1:], strict=False)) or shown[0] < 0):
        yield error("figures", f"the steps of the curves do not rise to the last of {steps}")
    elif shown and whole and same(a.steps_used, steps):
        for split, value, curve in (("test", a.test, a.test_curve), ("validation", a.validation, a.validation_curve)):
            if not same(curve[-1], value):
                yield error("figures", f"{a.metric} on {split} data is {value:.6g}, and its curve ends at {curve[-1]:.6g}")
    for name, counts in a.counts.items():
        if sum(counts.values()) != a.test_samples:
            yield error("figures", f"{name} is counted for {sum(counts.values())} of {a.test_samples} samples")


def _bits(a: Accuracy) -> Iterator[Finding]:
    try:
        size = len(bytes.fromhex(a.correct))
    except ValueError:
        yield error("figures", "the correctness bits are not hexadecimal")
        return
    if a.items < 0 or size != -(-a.items // 8) or any(decode_bits(a.correct, size * 8)[a.items :]):
        yield error("figures", f"{size} bytes of correctness bits for {a.items} items")
        return
    right = sum(decode_bits(a.correct, a.items))
    if a.metric == "accuracy" and a.items and not same(right / a.items, a.test):
        said = f"{right} of {a.items} right ({100 * right / a.items:.3f} %)"
        yield error("figures", f"accuracy {100 * a.test:.3f} %, and the correctness bits say {said}")


def _activity(a: Activity, accuracy: Accuracy | None) -> Iterator[Finding]:
    if a.spikes_per_sample is not None:
        layers = sum(layer.spikes_per_sample for layer in a.layers)
        if not same(layers, a.spikes_per_sample):
            yield error("figures", f"{a.spikes_per_sample:.6g} spikes per sample, and the layers have {layers:.6g}")
        if a.spikes_curve and not same(sum(a.spikes_curve), a.spikes_per_sample):
            yield error("figures", f"{a.spikes_per_sample:.6g} spikes per sample, and the steps have {sum(a.spikes_curve):.6g}")
        if a.membrane_updates is not None and a.spikes_per_sample > a.membrane_updates * (1 + 1e-9):
            yield error("figures", f"{a.spikes_per_sample:.6g} spikes of neurons that could emit {a.membrane_updates:.6g}")
        if None not in (a.firing_rate, a.membrane_updates):
            expected = (a.firing_rate or 0.0) * (a.membrane_updates or 0.0)
            if not same(expected, a.spikes_per_sample):
                yield error("figures", f"{a.spikes_per_sample:.6g} spikes per sample; firing rate and membrane updates give {expected:.6g}")
        neurons = sum(layer.neurons for layer in a.layers)
        if a.spikes_per_neuron is not None and not same(a.spikes_per_neuron * neurons, a.spikes_per_sample):
            yield error("figures", f"{a.spikes_per_neuron:.6g} spikes per neuron and {neurons:.6g} neurons do not give the spikes")
    counts = (a.synops_effective, a.synops_ac, a.synops_mac)
    if None not in counts and not same((a.synops_ac or 0) + (a.synops_mac or 0), a.synops_effective):
        yield error("figures", f"{a.synops_ac:.6g} accumulations and {a.synops_mac:.6g} others are not {a.synops_effective:.6g} operations")
    for small, large, what in ((a.synops_effective, a.synops_dense, "dense"), (a.synops_dense, a.macs_nominal, "nominal")):
        if small is not None and large is not None and small > large * (1 + 1e-9):
            yield error("figures", f"{small:.6g} operations of {large:.6g} that there are ({what})")
    if a.synops_curve and a.synops_effective is not None and not same(sum(a.synops_curve), a.synops_effective):
        yield error("figures", f"{a.synops_effective:.6g} operations, and the steps have {sum(a.synops_curve):.6g}")
    if a.energy is not None and a.synops_ac is not None and a.synops_mac is not None:
        expected = joules(a.synops_ac, a.synops_mac)
        if not same(a.energy, expected, absolute=0.0):
            yield error("figures", f"energy {a.energy:.6g} J; its operations take {expected:.6g} J")
    for name in ("activation_sparsity", "connection_sparsity", "firing_rate"):
        value = getattr(a, name)
        if value is not None and not 0 <= value <= 1:
            yield error("figures", f"{name.replace('_', ' ')} {value:.6g}, not a share")
    for name in ("spikes_per_sample", "synops_ac", "synops_mac", "synops_other", "energy", "membrane_updates", "state_bytes"):
        if (getattr(a, name) or 0) < 0:
            yield error("figures", f"{name.replace('_', ' ')} is negative")
    if accuracy is not None and a.synops_samples > accuracy.test_samples:
        yield error("figures", f"operations counted on {a.synops_samples} of {accuracy.test_samples} samples")


def _memory(m: Memory) -> Iterator[Finding]:
    parts = (("saved_bytes", "saved_bytes"), ("optimizer_bytes", "optimizer_bytes"), ("transient_bytes", "transient_bytes"))
    for whole, part in (*parts, ("peak_rss_growth_bytes", "rss_growth_bytes")):
        found = [value for phase in m.phases if (value := getattr(phase, part)) is not None]
        value = getattr(m, whole)
        if value != max(found, default=None if value is None else 0):
            yield error("figures", f"{whole.replace('_', ' ')} {value}, and the largest of the phases is {max(found, default=None)}")
    for name in ("parameter_count", "parameter_bytes", "optimizer_bytes", "saved_bytes", "transient_bytes", "cuda_peak_bytes"):
        if (getattr(m, name) or 0) < 0:
            yield error("figures", f"{name.replace('_', ' ')} is negative")
    if m.parameter_bytes < m.parameter_count:
        yield error("figures", f"{m.parameter_count} parameters in {m.parameter_bytes} bytes")


def _time(t: Time, record: Record) -> Iterator[Finding]:
    kept: list[int] = []
    for phase in t.phases:
        sizes = {len(phase.total), len(phase.forward), len(phase.backward), len(phase.optimizer)}
        if len(sizes) > 1:
            yield error("figures", f"phase {phase.phase!r} has unequal numbers of step times")
            continue
        parts = zip(phase.total, phase.forward, phase.backward, phase.optimizer, strict=True)
        if any(abs(total - sum(rest)) > 2 or total < 0 for total, *rest in parts):
            yield error("figures", f"step times of phase {phase.phase!r} are not the sums of their parts")
        kept += phase.total[t.warm_up_steps if len(phase.total) > t.warm_up_steps >= 0 else 0 :]
    if kept:
        for share, value in ((0.5, t.step_median), (0.1, t.step_p10), (0.9, t.step_p90)):
            found = float(np.quantile(kept, share)) * 1e-6
            if not same(value, found, absolute=MICRO):
                yield error("figures", f"step time {value} s (quantile {share:g}), and its samples have {found:.6g} s")
    steady = [_spread(phase.total[t.warm_up_steps :]) for phase in t.phases if len(phase.total) >= STEADY + t.warm_up_steps >= STEADY]
    if t.unsteadiness is not None and steady and not same(t.unsteadiness, max(steady), relative=0.02):
        yield error("figures", f"unsteadiness {t.unsteadiness:.3f}, and the step times have {max(steady):.3f}")
    spent = t.training + t.between_phases + (t.compile or 0.0)
    if t.total > record.duration + CLOCKS:
        yield error("figures", f"total time {t.total:.2f} s of a process that took {record.duration:.2f} s")
    if t.total < spent - CLOCKS:
        yield error("figures", f"total time {t.total:.2f} s is less than training and what lies between phases, {spent:.2f} s")
    for name in ("step_median", "epoch_mean", "training", "total", "between_phases", "loading", "measuring", "compile"):
        if (getattr(t, name) or 0) < 0:
            yield error("figures", f"{name.replace('_', ' ')} time is negative")


def _spread(values: Sequence[int]) -> float:
    return float(np.quantile(values, 0.9) / max(np.median(values), 1e-9))


def _trace(record: Record, t: Time) -> Iterator[Finding]:
    trace = record.trace
    if not trace:
        return
    seconds = [epoch.seconds for epoch in trace]
    if not same(t.training, sum(seconds)) or not same(t.epoch_mean, sum(seconds) / len(seconds)):
        yield error("figures", f"training took {t.training:.4g} s, {t.epoch_mean:.4g} s an epoch, and the epochs took {sum(seconds):.4g} s")
    if t.to_target is not None and math.isfinite(t.to_target) and not any(same(t.to_target, part) for part in np.cumsum(seconds)):
        yield error("figures", f"time to target {t.to_target:.4g} s is not the end of an epoch")
    loading = [epoch.loading for epoch in trace if epoch.loading is not None]
    if t.loading is not None and len(loading) == len(trace) and not same(t.loading, sum(loading)):
        yield error("figures", f"loading took {t.loading:.4g} s, and the epochs say {sum(loading):.4g} s")
    samples = [epoch.samples for epoch in trace if epoch.samples is not None]
    if t.training_throughput and len(samples) == len(trace):
        expected = sum(samples) / t.training if t.training else 0.0
        if not same(t.training_throughput, expected):
            yield error("figures", f"{t.training_throughput:.4g} samples per second in training, and the epochs say {expected:.4g}")
    spent: dict[str, float] = defaultdict(float)
    batches: dict[str, int] = defaultdict(int)
    for epoch in trace:
        spent[epoch.phase] += epoch.seconds
        batches[epoch.phase] += epoch.batches
    timed: dict[str, float] = defaultdict(float)
    steps: dict[str, int] = defaultdict(int)
    for phase in t.phases:
        timed[phase.phase] += sum(phase.total) * 1e-6
        steps[phase.phase] += len(phase.total)
    for name in spent:
        if steps[name] > batches[name]:
            yield error("figures", f"{steps[name]} step times in phase {name!r}, which had {batches[name]} steps")
        if spent[name] < timed[name] * 0.995 - MICRO * steps[name]:
            yield error("figures", f"phase {name!r} took {spent[name]:.4g} s, and its steps alone {timed[name]:.4g} s")
    asked = record.settings.training.get("epochs")
    if len(spent) == 1 and len(trace) != asked:
        yield warning("figures", f"{len(trace)} epochs were trained, and the settings say {asked}")
    phases = [phase.phase for phase in t.phases]
    if set(spent) - set(phases) or (record.memory and sorted(phases) != sorted(phase.phase for phase in record.memory.phases)):
        yield error("figures", "trace, step times and memory tell of different phases")
