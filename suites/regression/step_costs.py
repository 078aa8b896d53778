"""Time of a training step of methods over that of the first, and over the arithmetic that explains it, in one interleaved loop.

::

    python -m suites.regression.step_costs static/digits stbp glif spike_driven_transformer hoyer@T=4

Steps of all methods take turns on one batch, so that what else the machine does falls on all alike; medians are compared. *Operations* are
the dense synaptic operations of the network at its T (what its synapses compute), *updates* its neurons times steps: a method whose time
ratio exceeds both ratios does work that neither its synapses nor its neurons explain. Normalisation, attention and the optimiser are in
neither.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from tabulate import tabulate

from harness.loop import Updater, make_optimizer
from harness.meters.clock import StepClock
from harness.meters.spikes import SpikeMeter
from harness.meters.synops import SynopsMeter
from harness.registry import Registries
from harness.spec import parse_variant

WARM_UP, ROUNDS = 4, 30


@dataclass
class Contender:
    """A method with its first phase ready to train: ``step()`` takes one step; ``operations`` and ``updates`` are per sample."""

    label: str
    step: Callable[[], object]
    operations: float
    updates: float
    times: list[float] = field(default_factory=list)


def contender(text: str, task_name: str, registries: Registries) -> Contender:
    """Return the method that ``hoyer[start=zero]@T=4`` names, on the first training batch of a task in its smoke budget."""
    label, _, steps = text.partition("@T=")
    name, options = parse_variant(label)
    task = registries.task(task_name)
    torch.manual_seed(0)
    method = registries.methods.load(name)(task, options, steps=int(steps) if steps else None)
    net = method.build()
    phase = next(iter(method.phases(net)))
    training = phase.training or method.training
    batch = task.gather("train", torch.arange(training.batch_size))
    net.eval()
    with SynopsMeter(net) as synops, SpikeMeter(net) as spikes, torch.no_grad():
        synops.begin()
        method.predict(net, batch.inputs)
    operations, updates = synops.result(len(batch.inputs)).dense, spikes.result(len(batch.inputs)).updates_per_sample
    net.train()
    parameters = [p for p in net.parameters() if p.requires_grad] if phase.parameters is None else list(phase.parameters)
    update = Updater(make_optimizer(parameters, training), StepClock(task.device), "fp32", task.device, training.clip_norm)
    step = phase.step or method.step
    return Contender(text, lambda: step(net, batch, update), operations, updates)


def measure(contenders: Sequence[Contender], rounds: int) -> None:
    """Let the contenders take turns."""
    for each in contenders:
        for _ in range(WARM_UP):
            each.step()
    for _ in range(rounds):
        for each in contenders:
            begin = time.perf_counter()
            each.step()
            each.times.append(time.perf_counter() - begin)


def main(task: str, methods: Sequence[str]) -> None:
    """Print a table; ratios are to the first method."""
    torch.set_num_threads(1)
    registries = Registries()
    contenders = [contender(text, task, registries) for text in methods]
    measure(contenders, ROUNDS)
    first, rows = contenders[0], []
    for each in contenders:
        took = statistics.median(each.times)
        ratio = took / statistics.median(first.times)
        shares = (each.operations / first.operations, each.updates / first.updates)
        rows.append([each.label, f"{1e3 * took:.1f}", *(f"{value:.2f}" for value in (ratio, *shares, ratio / max(shares)))])
    heads = ["method", "step [ms]", "time", "operations", "updates", "time over the larger"]
    print(tabulate(rows, heads, tablefmt="github", disable_numparse=True))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
