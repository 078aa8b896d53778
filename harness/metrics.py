"""The metrics: what each is called, its unit, which direction is better, where a record keeps it, and how it is written.

Tables, claims, Pareto fronts and the regression gate all follow from this registry::

    format_value(metric("test_accuracy"), 0.934, 0.004, n=5)  # '93.40 ± 0.40 % (n=5)'

A column of a table shares one unit: ``unit = scale_for(metric, values)``, then ``format_value(..., scale=unit)``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from harness.plugin import UsageError, did_you_mean

Direction = Literal["higher", "lower"]
MISSING = "-"


@dataclass(frozen=True)
class Metric:
    """One measured quantity of a record."""

    name: str
    title: str  # heading of a column
    unit: str  # "fraction", "B", "s", "J", "samples/s" or "" (a plain number); values in records are in this unit
    direction: Direction  # which values are better
    worst: float  # value that loses against every other: what a failed run counts as
    path: str  # where a record keeps it: keys of the nested JSON, joined by dots
    fmt: str  # format of the number after scaling
    description: str

    def better(self, a: float, b: float) -> bool:
        """Return whether ``a`` is better than ``b``; equal values are not, and NaN never is."""
        return a > b if self.direction == "higher" else a < b

    def read(self, record: Mapping[str, Any]) -> float | None:
        """Return the value in a record (nested mappings), or None if it was not measured."""
        value: Any = record
        for key in self.path.split("."):
            if not isinstance(value, Mapping):
                return None
            value = value.get(key)
        return None if value is None else float(value)


def _higher(name: str, title: str, unit: str, path: str, fmt: str, description: str) -> Metric:
    return Metric(name, title, unit, "higher", 0.0, path, fmt, description)


def _lower(name: str, title: str, unit: str, path: str, fmt: str, description: str) -> Metric:
    return Metric(name, title, unit, "lower", math.inf, path, fmt, description)


_ALL = (
    _higher(
        "test_accuracy",
        "test accuracy",
        "fraction",
        "accuracy.test",
        ".2f",
        "main metric of the task on its test split (mAP for detection)",
    ),
    _higher(
        "validation_accuracy", "validation accuracy", "fraction", "accuracy.validation", ".2f", "main metric of the task on validation data"
    ),
    _lower("steps_used", "time steps", "", "accuracy.steps_used", ".2f", "mean time steps per sample; below T with early exit"),
    _lower(
        "steps_to_ann",
        "steps to ANN",
        "",
        "report.steps_to_ann",
        ".4g",
        "of conversions: first time step that is within 1 point of the network's own ANN, on validation data",
    ),
    _lower("spikes", "spikes", "", "activity.spikes_per_sample", ".4g", "spikes per sample, all layers and steps"),
    _lower("firing_rate", "firing rate", "fraction", "activity.firing_rate", ".2f", "spikes per neuron and time step"),
    _lower("synops", "synaptic operations", "", "activity.synops_effective", ".4g", "effective synaptic operations per sample"),
    _lower("synops_dense", "dense operations", "", "activity.synops_dense", ".4g", "synaptic operations per sample if nothing were zero"),
    _lower("ac", "accumulates", "", "activity.synops_ac", ".4g", "effective operations per sample that only add (inputs in -1, 0, 1)"),
    _lower("mac", "multiply-accumulates", "", "activity.synops_mac", ".4g", "effective operations per sample that multiply and add"),
    _lower(
        "other", "other operations", "", "activity.synops_other", ".4g", "operations of attention and transposed convolutions per sample"
    ),
    _lower(
        "macs_nominal",
        "nominal MACs",
        "",
        "activity.macs_nominal",
        ".4g",
        "dense operations per sample with the taps on padding: what MAC counters say",
    ),
    _lower(
        "energy", "energy (45 nm)", "J", "activity.energy", ".4g", "estimate per sample: 0.9 pJ an accumulate, 4.6 pJ a multiply-accumulate"
    ),
    _lower("updates", "membrane updates", "", "activity.membrane_updates", ".4g", "neurons times time steps that ran, per sample"),
    _lower("state_bytes", "state", "B", "activity.state_bytes", ".4g", "what a sample leaves from one time step to the next, in inference"),
    _higher(
        "activation_sparsity",
        "activation sparsity",
        "fraction",
        "activity.activation_sparsity",
        ".2f",
        "zeros in what spiking layers or other activations return",
    ),
    _higher("connection_sparsity", "connection sparsity", "fraction", "activity.connection_sparsity", ".2f", "weights that are zero"),
    _lower(
        "saved_bytes",
        "saved for backward",
        "B",
        "memory.saved_bytes",
        ".4g",
        "peak bytes that autograd holds within a training step; exact",
    ),
    _lower("parameter_bytes", "parameters (bytes)", "B", "memory.parameter_bytes", ".4g", "bytes of parameters and buffers"),
    _lower(
        "storage_bits",
        "bits of weights",
        "",
        "report.storage_bits",
        ".4g",
        "of methods that quantise: bits that the weights of synapses take as the trained network stores them",
    ),
    _lower("footprint_bytes", "footprint", "B", "memory.footprint_bytes", ".4g", "bytes of parameters and buffers before anything ran"),
    _lower("optimizer_bytes", "optimiser state", "B", "memory.optimizer_bytes", ".4g", "bytes of the optimiser's state"),
    _lower("transient_bytes", "transient peak", "B", "memory.transient_bytes", ".4g", "peak bytes of tensors made within a training step"),
    _lower(
        "rss_bytes", "peak RSS growth", "B", "memory.peak_rss_growth_bytes", ".4g", "growth of the process's peak resident set in training"
    ),
    _lower(
        "cuda_bytes", "CUDA peak", "B", "memory.cuda_peak_bytes", ".4g", "peak of the CUDA allocator in training above what was resident"
    ),
    _higher(
        "gradient_cosine",
        "gradient cosine",
        "",
        "gradients.mean_cosine",
        ".4f",
        "mean over weights of the cosine to the gradient through all steps",
    ),
    _lower("step_time", "step time", "s", "time.step_median", ".4g", "median time of a training step"),
    _lower("forward_time", "forward time", "s", "time.forward_median", ".4g", "median time of a step outside backward pass and optimiser"),
    _lower("backward_time", "backward time", "s", "time.backward_median", ".4g", "median time of a step's backward passes"),
    _lower("optimizer_time", "optimiser time", "s", "time.optimizer_median", ".4g", "median time of a step's weight changes"),
    _lower("epoch_time", "epoch time", "s", "time.epoch_mean", ".4g", "mean time of a training epoch, evaluation left out"),
    _lower("target_time", "time to target", "s", "time.to_target", ".4g", "training time until validation reached the task's target"),
    _lower("loading_time", "loading time", "s", "time.loading", ".4g", "time in training epochs that was spent waiting for batches"),
    _lower("measuring_time", "measuring time", "s", "time.measuring", ".4g", "time of the whole run that meters took"),
    _lower("total_time", "total time", "s", "time.total", ".4g", "time of the whole run"),
    _lower("latency", "latency", "s", "inference.latency_median", ".4g", "median time to answer one sample"),
    _higher("throughput", "throughput", "samples/s", "inference.throughput", ".4g", "samples answered per second in a batch"),
    _lower("parameters", "parameters", "", "memory.parameter_count", ".4g", "numbers that are learned"),
)

# The main metrics of tasks: what "test_accuracy" and "validation_accuracy" stand for in the records of a task.
TASK_METRICS: dict[str, tuple[str, str, Direction, str]] = {  # name: title, unit, direction, description
    "accuracy": ("accuracy", "fraction", "higher", "samples whose best class is right (of forecasts of tokens: tokens)"),
    "map_50": ("mAP@.5", "fraction", "higher", "mean over classes of average precision at an overlap of 0.5"),
    "map": ("mAP@[.5:.95]", "fraction", "higher", "mean over classes and overlaps 0.5, 0.55 ... 0.95 of average precision"),
    "miou": ("mIoU", "fraction", "higher", "mean over classes of intersection over union of pixels"),
    "r2": ("R2", "", "higher", "share of the variance of the targets that is explained; 1 is perfect, 0 is their mean"),
    "rrse": ("RRSE", "", "lower", "root of the squared error over that of answering the mean of the targets"),
    "mse": ("MSE", "", "lower", "mean squared error"),
    "mae": ("MAE", "", "lower", "mean absolute error"),
    "perplexity": ("perplexity", "", "lower", "exponential of the mean cross-entropy per token"),
    "bits_per_character": ("bits per character", "", "lower", "mean cross-entropy per character, in bits"),
}


def as_task_metric(of: Metric, name: str) -> Metric:
    """Return "test_accuracy" or "validation_accuracy" as it reads for a task whose main metric is ``name``; other metrics as they are.

    A metric that is not in ``TASK_METRICS`` is taken for a fraction of which more is better.
    """
    if of.path not in ("accuracy.test", "accuracy.validation"):
        return of
    title, unit, direction, text = TASK_METRICS.get(name, (name.replace("_", " "), "fraction", "higher", "main metric of the task"))
    split = of.path.partition(".")[2]
    shown = title if split == "test" else f"{split} {title}"
    worst = 0.0 if direction == "higher" else math.inf
    fmt = ".2f" if unit == "fraction" else ".4g"
    return Metric(of.name, shown, unit, direction, worst, of.path, fmt, f"{text}, on {split} data")


METRICS: dict[str, Metric] = {each.name: each for each in _ALL}


def metric(name: str) -> Metric:
    """Return the metric called ``name``, of all tasks or of ``TASK_METRICS``; raise UsageError with the nearest name if there is none."""
    if name in TASK_METRICS:
        title, unit, direction, text = TASK_METRICS[name]
        worst = 0.0 if direction == "higher" else math.inf
        path = f"accuracy.test_metrics.{name}"
        return Metric(name, title, unit, direction, worst, path, ".2f" if unit == "fraction" else ".4g", f"{text}, on test data")
    if name not in METRICS:
        raise UsageError(f"there is no metric {name!r}{did_you_mean(name, [*METRICS, *TASK_METRICS])}")
    return METRICS[name]


@dataclass(frozen=True)
class Scale:
    """A unit to write values in: ``value / size``, followed by ``unit``."""

    size: float
    unit: str


_LADDERS = {
    "B": (Scale(1, "B"), Scale(2**10, "KiB"), Scale(2**20, "MiB"), Scale(2**30, "GiB")),
    "s": (Scale(1e-6, "µs"), Scale(1e-3, "ms"), Scale(1, "s")),
    "J": (Scale(1e-12, "pJ"), Scale(1e-9, "nJ"), Scale(1e-6, "µJ"), Scale(1e-3, "mJ"), Scale(1, "J")),
    "fraction": (Scale(0.01, "%"),),
    "": (Scale(1, ""), Scale(1e3, "k"), Scale(1e6, "M"), Scale(1e9, "G")),
}


def scale_for(metric: Metric, values: Iterable[float | None]) -> Scale:
    """Return one scale for all ``values``: the largest whose unit the largest finite value reaches."""
    ladder = _LADDERS.get(metric.unit, (Scale(1, metric.unit),))
    sizes = [abs(value) for value in values if value is not None and math.isfinite(value)]
    reached = [scale for scale in ladder if sizes and max(sizes) >= scale.size]
    return reached[-1] if reached else ladder[0]


def format_value(metric: Metric, mean: float | None, std: float | None = None, n: int | None = None, scale: Scale | None = None) -> str:
    """Return ``mean`` (with ``± std`` and the number of runs ``n``) as a person reads it, in a unit that fits or in ``scale``.

    A value that was not measured or is not a number is a dash; of a time that was never reached, ∞.
    """
    if metric.unit == "s" and mean == math.inf:
        return "∞"
    if mean is None or not math.isfinite(mean):
        return MISSING
    alone = scale is None  # in a column, numbers keep their places
    scale = scale or scale_for(metric, [mean])
    number = _number(metric, mean / scale.size, whole=alone and metric.unit in ("B", "") and not std)
    if std is not None and math.isfinite(std):
        places = len(number.partition(".")[2])
        number += f" ± {std / scale.size:.{places}f}"
    suffix = f" {scale.unit}" if scale.unit else ""
    return f"{number}{suffix}" + (f" (n={n})" if n is not None else "")


def _number(metric: Metric, value: float, whole: bool) -> str:
    if not metric.fmt.endswith("g"):
        return f"{value:{metric.fmt}}"
    # Significant digits, but never as 1.234e+04; a count that is whole, without a deviation, is written as one.
    digits = int(metric.fmt[1:-1])
    places = max(0, digits - 1 - math.floor(math.log10(abs(value)))) if value else 0
    text = f"{value:.{min(places, digits)}f}"
    return text.rstrip("0").rstrip(".") if whole and "." in text and float(value).is_integer() else text
