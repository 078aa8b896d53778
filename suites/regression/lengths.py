"""How the time of parallel neurons grows with the length of a sequence: ``python -m suites.regression.lengths``.

Forward and backward pass of a layer of 128 neurons, one sequence, contenders in turns in one process. A PSN multiplies by a matrix of T x T
(1 GiB at T = 16k, its gradient as much again), a sliding PSN by a band, and dynamic decay neurons and LIF neurons walk through time once.
``--steps`` names other lengths, ``--rounds`` how often each is timed, ``--without psn`` leaves contenders out.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence

import torch
from tabulate import tabulate
from torch import nn

from harness.allocator import keep_memory, use_huge_pages
from methods.nn.dynamic_decay import DynamicDecay
from methods.nn.neuron import LIF
from methods.nn.psn import PSN, SlidingPSN
from suites.regression.peers.timing import interleave

NEURONS = 128
LENGTHS = (1024, 2048, 4096, 8192, 16384)
BASE = "psn"

MAKERS: dict[str, Callable[[int], nn.Module]] = {
    BASE: PSN,
    "sliding psn, k=32, gemm": lambda steps: SlidingPSN(32, "gemm"),
    "sliding psn, k=32, conv": lambda steps: SlidingPSN(32, "conv"),
    "dynamic decay": lambda steps: DynamicDecay(NEURONS),
    "dynamic decay, no compiler": lambda steps: DynamicDecay(NEURONS, backend="log_depth"),
    "dynamic decay, full gate": lambda steps: DynamicDecay(NEURONS, gate="full"),
    "lif": lambda steps: LIF(),
}


def both_ways(neuron: nn.Module, steps: int) -> Callable[[], None]:
    """Return a call that goes forward and backward once."""
    current = torch.randn(steps, 1, NEURONS, generator=torch.Generator().manual_seed(0), requires_grad=True)
    learnt = [current, *(p for p in neuron.parameters() if p.requires_grad)]

    def run() -> None:
        spikes = neuron(current)
        torch.autograd.grad(spikes, learnt, torch.ones_like(spikes))

    return run


def measure(names: Sequence[str], steps: int, rounds: int) -> list[float]:
    """Return the median seconds of each contender."""
    torch.manual_seed(0)
    return interleave([both_ways(MAKERS[name](steps), steps) for name in names], rounds, "cpu")


def main(arguments: Sequence[str] | None = None) -> None:
    """Print milliseconds, and how many times as fast as PSN."""
    parser = argparse.ArgumentParser(prog="python -m suites.regression.lengths", description="Time of parallel neurons against length.")
    parser.add_argument("--steps", type=int, nargs="+", default=LENGTHS)
    parser.add_argument("--rounds", type=int, default=7, help="timed calls at the shortest length; fewer at longer ones, but three")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--without", nargs="+", default=[], choices=list(MAKERS), metavar="NAME")
    given = parser.parse_args(arguments)
    torch.set_num_threads(given.threads)
    use_huge_pages()
    keep_memory()
    names = [name for name in MAKERS if name not in given.without]
    columns = {n: measure(names, n, max(3, given.rounds * min(given.steps) // n)) for n in given.steps}
    rows = []
    for i, name in enumerate(names):
        base = BASE in names and name != BASE
        faster = [f" ({found[names.index(BASE)] / found[i]:.3g}x)" if base else "" for found in columns.values()]
        rows.append([name, *(f"{found[i] * 1e3:.4g}{text}" for found, text in zip(columns.values(), faster, strict=True))])
    print(tabulate(rows, ["ms (times as fast as psn)", *(f"T = {n}" for n in given.steps)], tablefmt="github", disable_numparse=True))


if __name__ == "__main__":
    main()
