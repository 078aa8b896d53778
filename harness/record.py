"""The record of one run: typed, versioned, immutable, one JSON file. Every field says what it means and when it is absent.

Times are in seconds (step samples in microseconds), memory in bytes. ``None`` means "not measured", never zero.
Paths inside a record, such as ``memory.saved_bytes``, are what the metric registry (``harness/metrics.py``) refers to.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from harness.plugin import UsageError
from harness.spec import RunSpec

SCHEMA_VERSION: Literal[1] = 1

STATUSES: dict[str, str] = {
    "ok": "finished and measured",
    "error": "an exception, or an exit for another reason",
    "diverged": "the loss was not a finite number",
    "out_of_memory": "host or device memory did not suffice",
    "timeout": "the time limit ran out",
    "killed": "the process was ended by a signal",
}


class Part(BaseModel):
    """Base of the parts of a record. Figures that are not finite are written as texts ("NaN"), since JSON has no word for them."""

    model_config = ConfigDict(extra="forbid", ser_json_inf_nan="strings")


class Settings(Part):
    """Everything that decides the outcome, as resolved."""

    options: dict[str, Any] = Field(description="all options of the method")
    training: dict[str, Any] = Field(description="all training settings")
    steps: int = Field(description="time steps T")
    backbone: dict[str, Any] = Field(description="reference network of the budget")
    train_samples: int | None = Field(description="size the training split is cut to; None for all")
    time_limit: float = Field(description="seconds after which the run is ended")
    task_version: int = Field(description="version of the task's data and split rule")
    data_checksum: str = Field(description="hash of the data")
    code_hash: str = Field(description="hash of the source of plugin, task, the parts they use, and the runner")
    plugin_file: str | None = Field(None, description="name of the --plugin file, if the method or task came from one")


class Accuracy(Part):
    """How well the trained network answers."""

    metric: str = Field(description="main metric of the task: accuracy, map_50...")
    test: float = Field(description="main metric on the test split, final answers")
    validation: float = Field(description="main metric on the validation split")
    test_metrics: dict[str, float] = Field(description="all metrics on the test split")
    validation_metrics: dict[str, float] = Field(description="all metrics on the validation split")
    test_curve: list[float] = Field(description="main metric on test of the answer as of the steps curve_steps")
    validation_curve: list[float] = Field(description="the same on validation")
    curve_steps: list[int] | None = Field(None, description="steps of the curves, the first is 0; None for all steps")
    extrapolation: dict[str, float | str] = Field({}, description="main metric on other settings than trained on, or why there is none")
    steps_used: float = Field(description="mean time steps per test sample; below T with early exit")
    test_samples: int = Field(description="number of test samples")
    items: int = Field(description="number of items with a correctness bit (samples; objects in detection)")
    correct: str = Field(description="correctness of each test item in data order, bits as hexadecimal, first item first, padded with 0")
    extra: dict[str, float] = Field({}, description="means of the method's own per-sample figures on test")
    counts: dict[str, dict[str, int]] = Field({}, description="the whole-numbered among them: value -> number of samples")


class Layer(Part):
    """Activity of one layer of neurons on the test split."""

    name: str = Field(description="name of the module")
    spikes_per_sample: float
    neurons: float = Field(description="neurons that were run, per sample and step; 0 if never run")
    rate: float | None = Field(description="spikes per neuron and step; None if the layer never ran")
    rates: list[float] | None = Field(None, description="the same at each step; None for sequences of more than 256 steps")


class Activity(Part):
    """Spikes and synaptic operations of inference."""

    spikes_per_sample: float | None = Field(None, description="mean over the test split; None for networks without spikes")
    spikes_per_neuron: float | None = Field(None, description="per sample, over all its steps")
    firing_rate: float | None = Field(None, description="spikes per neuron and step")
    layers: list[Layer] = Field([], description="layer by layer")
    synops_effective: float | None = Field(None, description="non-zero input times non-zero weight, per sample")
    synops_dense: float | None = Field(None, description="all inputs times all weights, per sample")
    synops_ac: float | None = Field(None, description="effective operations whose inputs are all in {-1, 0, 1}: accumulations")
    synops_mac: float | None = Field(None, description="the other effective operations: multiply-accumulations")
    synops_other: float | None = Field(None, description="operations of attention and transposed convolutions, per sample")
    macs_nominal: float | None = Field(None, description="all inputs times all weights with the taps on padding, per sample")
    energy: float | None = Field(None, description="estimated joules per sample of the effective operations (harness/energy.py)")
    membrane_updates: float | None = Field(None, description="neurons times steps that ran, per sample")
    activation_sparsity: float | None = Field(None, description="share of zeros in what all activations returned")
    connection_sparsity: float | None = Field(None, description="share of weights that are zero")
    synops_samples: int = Field(0, description="test samples that the operations were counted on")
    spikes_curve: list[float] | None = Field(None, description="spikes per sample at each step; None for more than 256 steps")
    synops_curve: list[float] | None = Field(
        None,
        description="effective operations per sample at each step; None for over 256 steps, or where a layer hides its steps",
    )
    state_bytes: float | None = Field(
        None,
        description="what a sample leaves from one step to the next (potentials...); None where steps cannot be taken singly",
    )


class PhaseMemory(Part):
    """Memory of the first steps of one phase."""

    phase: str
    saved_bytes: int = Field(description="distinct storages held for backward, peak over a step")
    transient_bytes: int | None = Field(
        description="tensors alive at once during a step, above what was resident; None if the phase had one step"
    )
    optimizer_bytes: int = Field(description="state of the optimiser")
    trained_bytes: int = Field(description="parameters that the phase trains")
    rss_growth_bytes: int | None = Field(
        None, description="CPU: peak resident memory of a step minus that without training; None on CUDA, or if the phase had too few steps"
    )


class Memory(Part):
    """Training memory in parts. Headline figures are the largest over phases."""

    parameter_count: int
    parameter_bytes: int = Field(description="parameters and buffers of the network as trained")
    footprint_bytes: int | None = Field(None, description="parameters and buffers of the network as built, before anything ran")
    optimizer_bytes: int
    saved_bytes: int
    transient_bytes: int | None
    peak_rss_growth_bytes: int | None = Field(description="CPU: peak resident memory of a step minus that without training; None on CUDA")
    cuda_peak_bytes: int | None = Field(description="CUDA: allocator peak minus what was resident; None on CPU")
    phases: list[PhaseMemory]


class PhaseTime(Part):
    """All step times of one phase, in microseconds; steps in which memory was measured or something was compiled are left out."""

    phase: str
    total: list[int]
    forward: list[int]
    backward: list[int]
    optimizer: list[int]


class Time(Part):
    """Wall time. Step figures are medians over all phases' steps after the warm-up, weighted by steps."""

    step_median: float | None
    step_p10: float | None
    step_p90: float | None
    forward_median: float | None
    backward_median: float | None
    optimizer_median: float | None
    epoch_mean: float = Field(description="mean over epochs of all phases, evaluation, measuring and compiling off the clock")
    training: float = Field(description="sum over epochs, evaluation, measuring and compiling off the clock")
    to_target: float | None = Field(
        description="training seconds until validation reached the budget's target; infinite if missed, None without a target"
    )
    loading: float | None = Field(None, description="of the training seconds, those in which training waited for its batches")
    loader_throughput: float | None = Field(None, description="samples per second of waiting for batches")
    training_throughput: float | None = Field(None, description="samples per second of training")
    between_phases: float = Field(description="time of the method's own work between phases: conversion, calibration")
    total: float = Field(description="from process start to the end of measuring")
    measuring: float | None = Field(
        None, description="of the total, what meters took: measured steps beyond ordinary ones, counting, timing"
    )
    core_wait: float | None = Field(
        None,
        description="share of training that threads waited for a core, added up over threads; None outside Linux",
    )
    other_cores: float | None = Field(None, description="cores that other processes used during training, on average; None outside Linux")
    unsteadiness: float | None = Field(
        None, description="90th percentile of step times over their median, the largest of phases with 20 steps"
    )
    yardstick: list[float] | None = Field(None, description="a fixed piece of arithmetic, before and after training: the machine's speed")
    compile: float | None = Field(None, description="time that torch.compile took, anywhere in the run; None in records without it")
    warm_up_steps: int = Field(description="steps per phase left out of the medians")
    phases: list[PhaseTime]


class Gradient(Part):
    """How a weight's gradient by an approximating rule compares with that of back-propagation through all steps."""

    name: str
    cosine: float | None = Field(description="cosine of the two; None where one of them is zero")
    ratio: float | None = Field(description="norm of the rule's over that of the exact one; None where that is zero")


class Gradients(Part):
    """Agreement of an approximating rule with back-propagation through all steps, on the trained network."""

    mean_cosine: float | None = Field(description="mean over parameters that have one")
    samples: int = Field(description="training samples of the batch that was used")
    parameters: list[Gradient]


class Inference(Part):
    """Speed of the trained network."""

    latency_median: float = Field(description="seconds per batch of one sample")
    latency_samples: list[float]
    throughput: float = Field(description="samples per second when validation data were answered, at the batch size below")
    throughput_batch: int


class Epoch(Part):
    """One epoch of the trace."""

    phase: str
    epoch: int
    loss: float = Field(description="mean over the samples")
    seconds: float = Field(description="training only; steps in which memory was measured or something compiled count as the others do")
    validation: float = Field(description="main metric on validation")
    batches: int
    samples: int | None = None
    loading: float | None = Field(None, description="of these seconds, those in which training waited for its batches")
    measuring: float | None = Field(None, description="seconds besides, which steps took because something was measured in them")


class Environment(Part):
    """Where the run took place. No host name, no user name, no path."""

    git_commit: str | None = Field(description="commit of the spikebench checkout; None outside one")
    git_dirty: bool | None = Field(description="whether tracked files differed from it")
    versions: dict[str, str] = Field(description="python and the packages that matter")
    system: str = Field(description="operating system and architecture")
    cpu: str = Field(description="CPU model")
    cores: int = Field(description="logical CPU cores of the machine")
    device: str = Field(description="model of the device the run used: the CPU's or the GPU's")
    device_kind: str = Field(description="cpu or cuda")
    cuda: str | None = Field(description="CUDA version; None on CPU")
    threads: int
    deterministic: bool = Field(description="whether torch was asked for deterministic algorithms")
    load_average: float | None = Field(description="one-minute load average at the start; None where unknown")


class Failure(Part):
    """Why a run has no results."""

    message: str = Field(description="one line")
    traceback: str = Field("", description="tail of the traceback or of the log")
    exit_code: int | None = Field(None, description="exit status of the process; None if it was ended by a signal")
    signal: str | None = Field(None, description="name of the signal that ended it")


class Record(Part):
    """The result of one run."""

    schema_version: Literal[1] = Field(SCHEMA_VERSION, description="version of this schema")
    key: str = Field(description="run key: hash of everything that decides the outcome")
    status: str = Field(description="; ".join(f"{k}: {v}" for k, v in STATUSES.items()))
    label: str = Field(description="the method as tables show it, with the options that were set")
    spec: RunSpec = Field(description="what was asked for")
    settings: Settings = Field(description="what that resolved to")
    started: str = Field(description="UTC, ISO 8601")
    duration: float = Field(description="seconds from start to end of the process")
    environment: Environment | None = Field(None, description="None if the process died before it could say")
    accuracy: Accuracy | None = None
    activity: Activity | None = None
    memory: Memory | None = None
    time: Time | None = None
    inference: Inference | None = None
    gradients: Gradients | None = Field(None, description="None for a method whose gradients are exact")
    trace: list[Epoch] = Field([], description="one entry per epoch")
    report: dict[str, Any] = Field({}, description="further figures from the method")
    probes: dict[str, dict[str, Any]] = Field({}, description="figures of the probes, by name")
    warnings: list[str] = Field([], description="what a reader should know before trusting a figure")
    failure: Failure | None = Field(None, description="None if status is ok")


def encode_bits(bits: list[bool]) -> str:
    """Return bits as hexadecimal text, first bit first, padded with zeros to whole bytes."""
    padded = bits + [False] * (-len(bits) % 8)
    return bytes(sum(bit << (7 - i) for i, bit in enumerate(padded[n : n + 8])) for n in range(0, len(padded), 8)).hex()


def decode_bits(text: str, count: int) -> list[bool]:
    """Return the first ``count`` bits of what ``encode_bits`` wrote."""
    return [bool(byte >> (7 - i) & 1) for byte in bytes.fromhex(text) for i in range(8)][:count]


def read_record(path: Path) -> Record:
    """Return the record in a file; raise UsageError in one line if it is missing, truncated or of another schema."""
    try:
        return Record.model_validate_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read record {path.name}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UsageError(f"record {path.name} is not text") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "file"
        raise UsageError(f"record {path.name} cannot be read: {where}: {first['msg']}") from None
