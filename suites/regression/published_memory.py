"""Memory ratios of the papers, measured again on their networks and input sizes: ``python -m suites.regression.published_memory``.

A training step on random pixels of the published shape, of the method and of what its paper compares it with, both counted by the
meters of the harness: bytes saved for the backward pass, and the peak of all bytes that the step makes (``harness.meters.memory``). No
data set is needed, as the bytes do not depend on values. The papers' figures are what a GPU's allocator or ``nvidia-smi`` showed for a
whole process: parameters, optimiser, work space and what the allocator keeps are in them, the same on both sides, which pulls their
ratios towards 1. ``--only NAME`` measures a part, ``--batch N`` another
batch size than 16 of small images and 2 of large ones.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from tabulate import tabulate
from torch import Tensor, nn

from harness.loop import Updater, make_optimizer
from harness.meters.clock import StepClock
from harness.meters.memory import SavedTensors, TransientPeak
from harness.method import Method
from harness.registry import Registries
from harness.spec import parse_variant
from harness.task import Batch

MIB = 2**20
SMALL = 32  # pixels a side
REVSFORMER = "rev_snn[network=revsformer,size=4-384]"
BPTT = "BPTT"  # in place of a method: the same network and loss, differentiated through all time steps


@dataclass(frozen=True)
class Pair:
    """A published comparison: ``ratio`` is the memory of ``base`` over that of ``method``."""

    task: str
    method: str
    base: str
    steps: int | None  # None: the data's own
    ratio: float | None  # None: the paper states a property
    stated: str


PAIRS = (
    Pair("static/cifar10", "sltt[network=resnet18]", BPTT, 6, 3.00 / 1.09, "3.00 to 1.09 GB"),
    Pair("static/imagenet", "sltt[network=nf_resnet34,norm=sws]", BPTT, 6, 28.41 / 8.47, "28.41 to 8.47 GB"),
    Pair("events/cifar10-dvs", "sltt[network=vgg11]", BPTT, None, 3.70 / 1.07, "3.70 to 1.07 GB"),
    Pair("events/dvs-gesture", "sltt[network=vgg11]", BPTT, None, 5.82 / 1.07, "5.82 to 1.07 GB"),
    Pair("static/cifar10", "ottt[network=vgg]", BPTT, 6, None, "constant in T"),
    Pair("static/cifar10", "rev_snn[size=37]", "rev_snn[reversible=false,size=37]", 4, None, "flat in depth"),
    Pair("static/cifar10", "rev_snn[size=37]", "ms_resnet[net=18]", 4, 3.79, "3.79x, MS-ResNet of that size"),
    Pair("static/cifar10", REVSFORMER, REVSFORMER.replace("]", ",reversible=false]"), 4, 3.0, "3.00x, Spikingformer of that size"),
    Pair("static/imagenet", "t_revsnn[net=small]", "spike_driven_transformer[net=8-512]", 4, 8.6, "8.6x"),
    Pair("static/imagenet", "t_revsnn[net=small]", "t_revsnn[net=small,reversible=false]", 4, None, "constant in T"),
)


def make(name: str, task: str, steps: int | None, registries: Registries) -> Method:
    """Return the method with these options on the task at the paper budget, which is not loaded."""
    method, options = parse_variant(name)
    return registries.methods.load(method)(registries.task(task, "paper"), options, steps=steps)


def measure(method: Method, through_time: bool, batch: Batch) -> tuple[float, float]:
    """Return the peak bytes of a training step that are saved for backward, and that it makes, per sample."""
    torch.manual_seed(0)
    net = method.build().train()
    phase = next(iter(method.phases(net)))
    device, optimizer = method.task.device, make_optimizer([p for p in net.parameters() if p.requires_grad], method.training)
    update = Updater(optimizer, StepClock(device), "fp32", device, 0.0)

    def exact(net: nn.Module, batch: Batch, update: Updater) -> Tensor:
        loss = method.exact_loss(net, batch)
        assert loss is not None
        update.minimise(loss)
        return loss

    step: Callable[..., Tensor] = exact if through_time else (phase.step or method.step)
    with SavedTensors(net) as saved:
        step(net, batch, update)
    with TransientPeak() as made:
        step(net, batch, update)
    return saved.peak / len(batch.targets), made.peak / len(batch.targets)


def compare(pair: Pair, asked: int | None, registries: Registries) -> list[str]:
    """Return the row of a pair, of ``asked`` samples."""
    method = make(pair.method, pair.task, pair.steps, registries)
    other = method if pair.base == BPTT else make(pair.base, pair.task, pair.steps, registries)
    task = method.task
    size = asked or (16 if task.input_shape[-1] <= SMALL and not task.temporal else 2)
    shape = (size, method.steps, *task.input_shape) if task.temporal else (size, *task.input_shape)
    index = torch.arange(size)
    batch = Batch(torch.rand(shape, generator=torch.Generator().manual_seed(0)), index % task.head.classes, index)
    mine, base = measure(method, False, batch), measure(other, pair.base == BPTT, batch)
    measured = [f"{base[i] / MIB:.1f} to {mine[i] / MIB:.1f} MiB, {base[i] / mine[i]:.2f}x" for i in range(2)]
    stated = pair.stated if pair.ratio is None or "x" in pair.stated else f"{pair.stated}, {pair.ratio:.2f}x"
    return [pair.method, pair.base, f"{pair.task}, T={method.steps}", stated, *measured]


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m suites.regression.published_memory", description="The papers' memory ratios again.")
    parser.add_argument("--only", default="", help="methods whose name begins like this")
    parser.add_argument("--batch", type=int, help="samples of the step")
    given = parser.parse_args(arguments)
    chosen = [pair for pair in PAIRS if pair.method.startswith(given.only)]
    if not chosen:
        parser.error(f"no method begins with {given.only!r}; there are {', '.join(dict.fromkeys(pair.method for pair in PAIRS))}")
    registries = Registries()
    rows = [compare(pair, given.batch, registries) for pair in chosen]
    heads = ["method", "against", "network's input", "paper", "saved for backward, per sample", "all that a step makes, per sample"]
    print(tabulate(rows, heads, tablefmt="github", disable_numparse=True))


if __name__ == "__main__":
    main()
