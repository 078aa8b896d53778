"""What the harness costs: a ``stbp`` epoch through it against the same loop written by hand, in one run, as a ratio.

Both train copies of one network on the same batches with the same optimiser; epochs alternate, so a noisy machine disturbs both
alike. Evaluation is left out on both sides. ``python -m suites.regression.overhead`` prints the ratio of the medians.
"""

from __future__ import annotations

import copy
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn

from harness.loop import train
from harness.method import Method, Phase
from harness.registry import Registries
from harness.task import Batch

TASK, METHOD = "static/digits", "stbp"


@dataclass(frozen=True)
class Overhead:
    """Seconds per epoch, sample by sample."""

    harness: list[float]
    by_hand: list[float]

    @property
    def ratio(self) -> float:
        """Median over epochs of the time through the harness over the time by hand just before it."""
        return statistics.median(a / b for a, b in zip(self.harness, self.by_hand, strict=True))


def _make() -> Method:
    registries = Registries()
    return registries.methods.load(METHOD)(registries.tasks.load(TASK)("smoke"))


def _by_hand(method: Method, net: nn.Module, epochs: int) -> Iterator[float]:
    """Train as one would without a harness; yield the seconds of each epoch."""
    task, training = method.task, method.training
    data = task.split("train")
    optimizer = torch.optim.Adam(net.parameters(), training.lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    order, noise = torch.Generator().manual_seed(0), torch.Generator().manual_seed(1)
    for _ in range(epochs):
        net.train()
        started = time.perf_counter()
        for index in torch.randperm(len(data), generator=order).split(training.batch_size):
            inputs, targets, _ = task.augment(Batch(data.inputs[index], data.targets[index], index), noise)
            output = net(inputs.expand(method.steps, *inputs.shape)).mean(0)
            loss = nn.functional.cross_entropy(output, targets)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            loss.item()
        yield time.perf_counter() - started
        schedule.step()
        net.eval()


class _Alternating:
    """Lets the epoch by hand run between two epochs of the harness."""

    def __init__(self, method: Method, hand: Iterator[float]) -> None:
        self.method, self.hand, self.seconds = method, hand, []

    def phases(self, net: nn.Module) -> Iterator[Phase]:
        yield Phase(on_epoch=lambda epoch, epochs: self.seconds.append(next(self.hand)))


def measure(epochs: int = 8, threads: int = 1) -> Overhead:
    """Return the seconds of ``epochs`` epochs each way; the first of each is warm-up and left out."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    method = _make()
    net = method.build()
    alternating = _Alternating(method, _by_hand(method, copy.deepcopy(net), epochs))
    method.phases = alternating.phases  # type: ignore[method-assign]
    method.training = type(method.training)(**{**method.training.__dict__, "epochs": epochs})
    traces = train(method, net, seed=0).traces
    return Overhead([trace.seconds for trace in traces][1:], alternating.seconds[1:])


if __name__ == "__main__":
    found = measure(int(sys.argv[1]) if len(sys.argv) > 1 else 12)
    print(f"through the harness {statistics.median(found.harness) * 1e3:.1f} ms per epoch")
    print(f"by hand             {statistics.median(found.by_hand) * 1e3:.1f} ms per epoch")
    print(f"ratio               {found.ratio:.3f}")
