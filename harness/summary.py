"""From what loop and meters found to the parts of a record: arithmetic, no measuring."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from harness.energy import joules
from harness.evaluate import Evaluation
from harness.loop import EpochTrace, Trained
from harness.meters.contention import Contention
from harness.meters.spikes import SpikeCount
from harness.meters.synops import SynopsCount
from harness.metrics import Metric, as_task_metric, metric
from harness.record import Accuracy, Activity, Layer, PhaseTime, Time, encode_bits

WARM_UP_STEPS = 3  # timed steps at the start of each phase that the medians leave out
FEWEST_STEPS = 20  # of a phase, for a word on how steady they were


def accuracy_part(name: str, test: Evaluation, validation: Evaluation, extrapolated: dict[str, Any]) -> Accuracy:
    """Return the accuracy part; ``name`` is the task's main metric."""
    return Accuracy(
        metric=name,
        test=test.metrics[name],
        validation=validation.metrics[name],
        extrapolation=extrapolated,
        test_metrics=test.metrics,
        validation_metrics=validation.metrics,
        curve_steps=test.curve_steps,
        test_curve=test.curve,
        validation_curve=validation.curve,
        steps_used=test.steps_used,
        test_samples=test.samples,
        items=len(test.correct),
        correct=encode_bits(test.correct),
        extra=test.extra,
        counts=test.counts,
    )


def activity_part(spikes: SpikeCount, operations: SynopsCount, counted_on: int, state_bytes: float | None) -> Activity:
    """Return the activity part; a network without spiking modules has no spike figures."""
    layers = [
        Layer(
            name=name,
            spikes_per_sample=layer.spikes_per_sample,
            neurons=layer.neurons,
            rate=layer.rate,
            rates=None if layer.rates is None else [round(rate, 6) for rate in layer.rates],
        )
        for name, layer in spikes.layers.items()
    ]
    return Activity(
        spikes_per_sample=spikes.spikes_per_sample if layers else None,
        spikes_per_neuron=spikes.spikes_per_neuron if layers else None,
        firing_rate=spikes.firing_rate if layers else None,
        layers=layers,
        synops_effective=operations.effective,
        synops_dense=operations.dense,
        synops_ac=operations.ac,
        synops_mac=operations.mac,
        synops_other=operations.other,
        macs_nominal=operations.nominal,
        energy=joules(operations.ac, operations.mac),
        membrane_updates=spikes.updates_per_sample if layers else None,
        activation_sparsity=spikes.activation_sparsity,
        connection_sparsity=operations.connection_sparsity,
        synops_samples=counted_on,
        spikes_curve=spikes.curve if layers else None,
        synops_curve=operations.curve,
        state_bytes=state_bytes,
    )


def time_part(
    trained: Trained, target: float | None, metric_name: str, total: float, measuring: float, contention: Contention, yardstick: list[float]
) -> Time:
    """Return the time part; ``target`` is the value of the main metric that is waited for, ``measuring`` what meters took after training.

    Medians are over the steps of all phases after the warm-up of each.
    """
    samples = [(name, clock.samples()) for name, clock in trained.clocks]
    kept: dict[str, list[float]] = {"total": [], "forward": [], "backward": [], "optimizer": []}
    for _, found in samples:
        drop = WARM_UP_STEPS if len(found["total"]) > WARM_UP_STEPS else 0
        for name, values in kept.items():
            values += found[name][drop:]

    def quantile(name: str, q: float) -> float | None:
        return float(np.quantile(kept[name], q)) if kept[name] else None

    seen, training, loading = (sum(getattr(trace, name) for trace in trained.traces) for name in ("samples", "seconds", "loading"))
    return Time(
        step_median=quantile("total", 0.5),
        step_p10=quantile("total", 0.1),
        step_p90=quantile("total", 0.9),
        forward_median=quantile("forward", 0.5),
        backward_median=quantile("backward", 0.5),
        optimizer_median=quantile("optimizer", 0.5),
        epoch_mean=float(np.mean([trace.seconds for trace in trained.traces])) if trained.traces else 0.0,
        training=training,
        to_target=seconds_to_target(trained.traces, target, as_task_metric(metric("validation_accuracy"), metric_name)),
        loading=loading,
        loader_throughput=seen / loading if loading else None,
        training_throughput=seen / training if training else None,
        between_phases=trained.between,
        measuring=measuring + sum(trace.measuring for trace in trained.traces),
        unsteadiness=unsteadiness([found["total"][WARM_UP_STEPS:] for _, found in samples]),
        core_wait=contention.core_wait,
        yardstick=yardstick,
        other_cores=contention.other_cores,
        total=total,
        warm_up_steps=WARM_UP_STEPS,
        phases=[PhaseTime(phase=name, **{part: [round(s * 1e6) for s in found[part]] for part in kept}) for name, found in samples],
    )


def unsteadiness(phases: Sequence[Sequence[float]]) -> float | None:
    """Return the 90th percentile of step times over their median, largest of the phases of ``FEWEST_STEPS``; None without any."""
    found = [float(np.quantile(steps, 0.9) / np.median(steps)) for steps in phases if len(steps) >= FEWEST_STEPS]
    return max(found, default=None)


def seconds_to_target(traces: list[EpochTrace], target: float | None, by: Metric) -> float | None:
    """Return the training seconds until the validation metric first reached ``target``: infinite if it never did, None without one."""
    if target is None:
        return None
    spent = 0.0
    for trace in traces:
        spent += trace.seconds
        if trace.validation == target or by.better(trace.validation, target):
            return spent
    return math.inf
