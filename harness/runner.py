"""One run, from job to record, in a process of its own: ``python -m harness.runner``.

The job (spec, key, settings, plugin files, results folder) comes as one line of JSON on standard input, which must stay open: when it
closes, the parent is gone and the run ends itself. Events go to standard output in lines that begin with ``MARK``; all else there is log.

The recipe: build, train phase by phase, evaluate on validation and test at every step while counting spikes, count synaptic
operations on some samples, time inference, ask the method and the probes for their figures, write the record.
"""

from __future__ import annotations

import copy
import gc
import json
import math
import os
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from harness import environment, failure
from harness.allocator import use_huge_pages
from harness.evaluate import evaluate
from harness.identity import make
from harness.listener import Emit, Listener
from harness.loop import train
from harness.meters.agreement import agreement
from harness.meters.compiling import CompileMeter
from harness.meters.contention import Contention
from harness.meters.inference import latency, throughput
from harness.meters.spikes import SpikeMeter
from harness.meters.synops import SynopsMeter
from harness.meters.yardstick import yardstick
from harness.method import Method, Prediction
from harness.probe import Probe
from harness.record import Environment, Epoch, Gradient, Gradients, Inference, Record, Settings, Time
from harness.registry import Registries
from harness.spec import RunSpec, parse_variant
from harness.store import Store
from harness.summary import accuracy_part, activity_part, time_part

MARK = "\x1espikebench "
SYNOPS_SAMPLES = (8, 64)  # at least and at most: synaptic operations are costly to count, and vary little between samples
SYNOPS_SIZE = 1 << 17  # numbers in the encoded sequences of these samples
LATENCY_SHARE = 0.005  # of the time since the run began, what measuring latency may take
WAIT_ALLOWED = 0.03  # share of training that threads may wait for a core before times are called into question
OTHERS_ALLOWED = 0.05  # share of the cores that other processes may use meanwhile
CHANGED = 1.1  # ratio of the yardsticks before and after training
UNSTEADY = 1.15  # 90th percentile of step times over the median; on a quiet machine nine of ten runs stay below
AGREEMENT_BATCH = 32  # the exact gradient keeps all steps of it


def execute(method: Method, spec: RunSpec, registries: Registries, started: float, emit: Emit, keep: Path | None = None) -> dict[str, Any]:
    """Train, evaluate and measure; return the measured parts of the record. ``keep`` is where to save the trained network."""
    task, device = method.task, method.task.device
    emit({"event": "stage", "stage": "loading data"})
    for split in ("train", "validation", "test"):
        task.split(split)
    torch.manual_seed(spec.seed)
    net = method.build().to(device)
    probes = {name: _bind(name, registries) for name in spec.probes}
    refused = {name: reason for name, probe in probes.items() if (reason := probe.supports(method))}
    listener = Listener(method, net, [probe for name, probe in probes.items() if name not in refused], emit)
    gc.freeze()  # the meters collect garbage; that of the imports need not be looked through each time
    speed_before = yardstick(device)
    with Contention() as contention:
        trained = train(method, net, spec.seed, spec.precision, listener)
    speeds = [speed_before, yardstick(device)]
    gc.unfreeze()
    if keep is not None:
        keep.parent.mkdir(exist_ok=True)
        torch.save(net, keep)
    emit({"event": "stage", "stage": "testing"})
    net.eval()
    torch.manual_seed(spec.seed)  # noise in an encoding must not depend on how much of it training used
    validation = evaluate(method, net, "validation")
    with SpikeMeter(net) as spike_meter:
        test = evaluate(method, net, "test")
    spikes = spike_meter.result(test.samples)
    extrapolated = extrapolate(method, net) if spec.samples is None else {}  # of a run cut down to measure costs it says nothing
    emit({"event": "stage", "stage": "measuring"})
    begin = time.perf_counter()
    activity = activity_part(spikes, *count_operations(method, net), state_bytes(method, net))
    speed = time_inference(method, net, validation.batches, LATENCY_SHARE * (time.time() - started))
    gradients = compare_gradients(method, net)
    measuring = time.perf_counter() - begin + spike_meter.seconds
    report = method.report(net)
    took = time.time() - started - listener.probing
    probed: dict[str, dict[str, Any]] = {name: {"cannot": reason} for name, reason in refused.items()}
    for name, probe in probes.items():
        if name not in refused:
            emit({"event": "stage", "stage": name})
            try:
                probed[name] = probe.measure(method, net)
            except Exception as error:  # an analysis that fails is no reason to lose the run
                sys.stderr.write(traceback.format_exc())
                probed[name] = {"cannot": f"it failed: {type(error).__name__}: {failure.first_line(error)}"}
                task.warnings.append(f"the probe {name} failed: {type(error).__name__}: {failure.first_line(error)}")
    return {
        "accuracy": accuracy_part(task.metric, test, validation, extrapolated),
        "activity": activity,
        "memory": listener.result(),
        "time": time_part(trained, task.budget.target, task.metric, took, measuring, contention, speeds),
        "inference": speed,
        "trace": [Epoch(**asdict(trace)) for trace in trained.traces],
        "gradients": gradients,
        "report": report,
        "probes": probed,
        "warnings": list(dict.fromkeys(task.warnings))
        + [f"{name} promises 0/1 spikes and returned other values" for name in spikes.offenders],
    }


def _bind(text: str, registries: Registries) -> Probe:
    """Return the probe that ``crossbar[variation=0.1]`` names."""
    name, options = parse_variant(text, "probe")
    return registries.probes.load(name)(options)


def extrapolate(method: Method, net: nn.Module) -> dict[str, float | str]:
    """Return the main metric on the task's extrapolations, or why the trained network cannot do one."""
    found: dict[str, float | str] = {}
    for name, task in method.task.extrapolations().items():
        other = copy.copy(method)
        other.task, other.steps = task, other.time_steps(task, None)
        try:
            found[name] = evaluate(other, net, "test", partial(_whole, other), every_step=False).metrics[task.metric]
        except Exception as error:  # parts with weights per time step, for one, fit one length only
            found[name] = f"{type(error).__name__}: {failure.first_line(error)}"
    return found


def _whole(method: Method, net: nn.Module, inputs: Tensor) -> Prediction:
    """Return the answers to ``inputs``; raise ValueError if the network looked at some of the steps only."""
    prediction = method.predict(net, inputs)
    if len(prediction.outputs) != method.steps:
        raise ValueError(f"it answered after {len(prediction.outputs)} of {method.steps} steps, those that it was made for")
    return prediction


def compare_gradients(method: Method, net: nn.Module) -> Gradients | None:
    """Return how an approximating rule agrees with back-propagation through all steps on some training samples, or None."""
    if type(method).exact_loss is Method.exact_loss:  # its gradients are exact
        return None
    batch = next(method.task.batches("train", min(method.training.batch_size, AGREEMENT_BATCH)))
    found = agreement(method, net, batch)
    cosines = [each.cosine for each in found if each.cosine is not None]
    mean = sum(cosines) / len(cosines) if cosines else None
    return Gradients(mean_cosine=mean, samples=len(batch.inputs), parameters=[Gradient(**asdict(e)) for e in found]) if found else None


def count_operations(method: Method, net: nn.Module) -> tuple[Any, int]:
    """Return the synaptic operations of inference, and on how many test samples they were counted."""
    samples, size = 0, method.steps * math.prod(method.task.input_shape)
    limit = max(SYNOPS_SAMPLES[0], min(SYNOPS_SAMPLES[1], SYNOPS_SIZE // size))  # the same on every machine
    with SynopsMeter(net) as meter, torch.no_grad():
        for batch in method.task.batches("test", limit, limit=limit):
            meter.begin()
            method.predict(net, batch.inputs)
            samples += len(batch.inputs)
    return meter.result(samples), samples


@torch.no_grad()
def state_bytes(method: Method, net: nn.Module) -> float | None:
    """Return the bytes that one sample more adds to the state carried from step to step; None if steps cannot be taken singly."""
    inputs = next(method.task.batches("test", 2)).inputs
    if len(inputs) < 2:
        return None
    one, two = (method.state_bytes(net, inputs[:n]) for n in (1, 2))
    return None if one is None or two is None else two - one


def time_inference(method: Method, net: nn.Module, batches: Sequence[tuple[int, float]], seconds: float) -> Inference:
    """Return latency at batch size 1, for which there are ``seconds``, and throughput in ``batches`` that were answered before."""
    inputs = next(method.task.batches("test", 1)).inputs
    one, many = latency(partial(method.predict, net), inputs, repeats=10, warmup=1, seconds=seconds), throughput(batches)
    return Inference(
        latency_median=one.median,
        latency_samples=list(one.values),
        throughput=many.median,
        throughput_batch=max(samples for samples, _ in batches),
    )


def run_job(job: dict[str, Any], emit: Emit) -> Record:
    """Carry out a job and return its record, whatever happens short of the death of the process."""
    spec, settings = RunSpec.model_validate(job["spec"]), Settings.model_validate(job["settings"])
    use_huge_pages()
    torch.set_num_threads(spec.threads)
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # a debugging aid that costs a pass over every new tensor
    parts: dict[str, Any] = {}
    others = environment.gpu_processes() if spec.device.startswith("cuda") else None  # before this process uses one
    status, failed = "ok", None
    try:
        keep = Store(job["results"]).network_path(job["key"]) if job["keep_networks"] else None
        registries = Registries(job["plugin_files"])
        method = make(spec, registries)
        # Before training: the load average must not count this run.
        parts["environment"] = environment.describe(method.task.device, spec.threads)
        with CompileMeter() as compiling:
            parts |= execute(method, spec, registries, job["started"], emit, keep)
        parts["time"].compile = compiling.seconds
    except Exception as error:  # a record says what happened, and the matrix goes on
        status, failed = failure.describe(error)
        sys.stderr.write(failed.traceback)
    doubts = distrust(parts.get("environment"), parts.get("time"), others)
    if doubts:
        parts["warnings"] = [*parts.get("warnings", []), *(f"{doubt}: times are not to be trusted" for doubt in doubts)]
    return Record(
        key=job["key"],
        status=status,
        label=spec.label,
        spec=spec,
        settings=settings,
        started=datetime.fromtimestamp(job["started"], UTC).isoformat(timespec="seconds"),
        duration=time.time() - job["started"],
        failure=failed,
        **parts,
    )


def distrust(environment: Environment | None, measured: Time | None, others: int | None) -> list[str]:
    """Return what disturbed the times of a run: the load of the machine, waits for a core, ``others`` on the GPUs."""
    found = []
    if environment is not None and (environment.load_average or 0) > environment.cores:
        found.append(f"load average {environment.load_average:.1f} exceeded the {environment.cores} cores")
    if measured is not None and (measured.core_wait or 0) > WAIT_ALLOWED:
        found.append(f"threads of this run waited {measured.core_wait:.0%} of the training time for a core")
    if environment is not None and measured is not None and (measured.other_cores or 0) > OTHERS_ALLOWED * environment.cores:
        found.append(f"other processes used {measured.other_cores:.1f} of the {environment.cores} cores during training")
    if measured is not None and (measured.unsteadiness or 0) > UNSTEADY:
        found.append(f"step times were unsteady (the 90th percentile is {measured.unsteadiness:.2f} times the median)")
    if measured is not None and measured.yardstick and max(measured.yardstick) > CHANGED * min(measured.yardstick):
        found.append(f"the machine's speed changed by a factor of {max(measured.yardstick) / min(measured.yardstick):.2f} meanwhile")
    if others:
        found.append(f"{others} other process(es) computed on the GPUs")
    return found


def _end_with_parent() -> None:
    """End this process when standard input closes."""
    while os.read(0, 4096):
        pass
    os._exit(75)


def _emit(event: dict[str, Any]) -> None:
    sys.stdout.write(MARK + json.dumps(event) + "\n")
    sys.stdout.flush()


def main() -> None:
    """Read a job from standard input, run it, write its record."""
    line = b""
    while not line.endswith(b"\n"):  # unbuffered, so that the watching thread gets the rest
        read = os.read(0, 65536)
        if not read:
            return
        line += read
    job = json.loads(line)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    record = run_job(job, _emit)
    Store(job["results"]).write(record)
    _emit({"event": "record"})


if __name__ == "__main__":
    main()
