"""Memory ratios of the papers, measured again on their networks and input sizes: ``python -m suites.regression.published_memory``.

A training step on random pixels of the published shape, of the method and of what its paper compares it with, both counted by the meters of
the harness (``harness.meters.memory``): bytes saved for the backward pass, and the peak of all bytes that the step makes, gradients
included. No data set is needed, as bytes do not depend on values. Steps of N and of 2 N samples tell what one sample more takes from what a
step takes whatever its batch (gradients, standardised weights). At the batch size of the paper, with parameters and the momentum of the
optimiser, this gives what the tensors of the whole process take::

    GiB = parameters + momentum + fixed + batch * per sample

The papers' figures are what a GPU's allocator or ``nvidia-smi`` showed: of half precision where they trained in it, and with work space and
what the allocator keeps. ``--only NAME`` measures a part.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from tabulate import tabulate
from torch import Tensor, nn

from harness.loop import Updater
from harness.meters.clock import StepClock
from harness.meters.memory import SavedTensors, TransientPeak, parameter_bytes
from harness.method import Method, Update
from harness.registry import Registries
from harness.spec import parse_variant
from harness.task import Batch

MIB, GIB = 2**20, 2**30
REVSFORMER = "rev_snn[network=revsformer,size=4-384]"
BPTT = "BPTT"  # in place of a method: the same network and loss, differentiated through all time steps


@dataclass(frozen=True)
class Pair:
    """A published comparison of the memory of ``base`` with that of ``method``."""

    task: str
    method: str
    base: str
    steps: int | None  # None: the data's own
    batch: int  # samples of a step in the paper
    stated: str


PAIRS = (
    Pair("static/cifar10", "sltt[network=resnet18]", BPTT, 6, 128, "3.00 to 1.09 GB, 2.75x"),
    Pair("static/imagenet", "sltt[network=nf_resnet34,norm=sws]", BPTT, 6, 256, "28.41 to 8.47 GB, 3.35x"),
    Pair("events/cifar10-dvs", "sltt[network=vgg11]", BPTT, None, 128, "3.70 to 1.07 GB, 3.46x (48x48)"),
    Pair("events/dvs-gesture[steps=20]", "sltt[network=vgg11]", BPTT, None, 16, "5.82 to 1.07 GB, 5.44x (larger frames)"),
    Pair("static/cifar10", "ottt[network=vgg]", BPTT, 6, 128, "constant in T"),
    Pair("static/cifar10", "rev_snn[size=37]", "rev_snn[reversible=false,size=37]", 4, 32, "flat in depth"),
    Pair("static/cifar10", "rev_snn[size=37]", "ms_resnet[blocks=3,net=cifar,width=144]", 4, 32, "3.79x per image, MS-ResNet of that size"),
    Pair("static/cifar10", REVSFORMER, REVSFORMER.replace("]", ",reversible=false]"), 4, 64, "3.00x per image, Spikingformer of that size"),
    Pair("static/imagenet", "t_revsnn[net=small]", "spike_driven_transformer[net=8-512]", 4, 512, "8.6x per image"),
    Pair("static/imagenet", "t_revsnn[net=small]", "t_revsnn[net=small,reversible=false]", 4, 512, "constant in T"),
)


def make(name: str, task: str, steps: int | None, registries: Registries) -> Method:
    """Return the method with these options on the task, whose data are not loaded, at the paper budget if it has one."""
    method, options = parse_variant(name)
    budget = "paper" if "paper" in registries.tasks.load(parse_variant(task, "task")[0]).budgets else None
    return registries.methods.load(method)(registries.task(task, budget), options, steps=steps)


@dataclass(frozen=True)
class Step:
    """What a training step takes, in bytes: resident, in a step whatever its batch, and for each sample."""

    resident: int
    fixed: float
    made: float
    saved: float

    def whole(self, batch: int) -> float:
        """Return all bytes at a batch size."""
        return self.resident + self.fixed + batch * self.made


def measure(method: Method, through_time: bool, size: int) -> Step:
    """Return what a step takes, from two of ``size`` and ``2 * size`` samples."""
    torch.manual_seed(0)
    net = method.build().train()
    phase = next(iter(method.phases(net)))

    def exact(net: nn.Module, batch: Batch, update: Update) -> Tensor:
        loss = method.exact_loss(net, batch)
        assert loss is not None
        update.minimise(loss)
        return loss

    step = exact if through_time else (phase.step or method.step)
    optimizer = torch.optim.SGD(net.parameters(), 1e-3)
    update = Updater(optimizer, StepClock(method.task.device), "fp32", method.task.device, 0.0)
    saved, made = [], []
    for count in (size, 2 * size):
        batch = samples(method, count)
        with SavedTensors(net) as held:
            step(net, batch, update)
        optimizer.zero_grad()
        with TransientPeak() as peak:
            step(net, batch, update)
        optimizer.zero_grad()
        saved.append(held.peak)
        made.append(peak.peak)
    each = (made[1] - made[0]) / size
    return Step(2 * parameter_bytes(net), made[0] - size * each, each, (saved[1] - saved[0]) / size)


def samples(method: Method, count: int) -> Batch:
    """Return random pixels of the task's shape."""
    task = method.task
    shape = (count, method.steps, *task.input_shape) if task.temporal else (count, *task.input_shape)
    index = torch.arange(count)
    return Batch(torch.rand(shape, generator=torch.Generator().manual_seed(0)), index % task.head.classes, index)


def compare(pair: Pair, size: int, registries: Registries) -> list[str]:
    """Return the row of a pair, from steps of ``size`` and ``2 * size`` samples."""
    method = make(pair.method, pair.task, pair.steps, registries)
    other = method if pair.base == BPTT else make(pair.base, pair.task, pair.steps, registries)
    mine, base = measure(method, False, size), measure(other, pair.base == BPTT, size)

    def row(of: Callable[[Step], float], unit: float, name: str) -> str:
        return f"{of(base) / unit:.3g} to {of(mine) / unit:.3g} {name}, {of(base) / of(mine):.2f}x"

    measured = [
        row(lambda step: step.saved, MIB, "MiB"),
        row(lambda step: step.made, MIB, "MiB"),
        row(lambda step: step.whole(pair.batch), GIB, "GiB") + f" (N = {pair.batch})",
    ]
    return [f"`{pair.method}`", f"`{pair.base}`" if pair.base != BPTT else BPTT, f"`{pair.task}`, T={method.steps}", pair.stated, *measured]


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m suites.regression.published_memory", description="The papers' memory ratios again.")
    parser.add_argument("--only", default="", help="methods whose name begins like this")
    parser.add_argument("--samples", type=int, default=2, help="samples of the smaller of two steps")
    given = parser.parse_args(arguments)
    chosen = [pair for pair in PAIRS if pair.method.startswith(given.only)]
    if not chosen:
        parser.error(f"no method begins with {given.only!r}; there are {', '.join(dict.fromkeys(pair.method for pair in PAIRS))}")
    registries = Registries()
    rows = [compare(pair, given.samples, registries) for pair in chosen]
    heads = ["method", "against", "input", "paper", "saved, a sample", "made in a step, a sample", "at the paper's batch, fp32"]
    print(tabulate(rows, heads, tablefmt="github", disable_numparse=True))


if __name__ == "__main__":
    main()
