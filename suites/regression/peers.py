"""Our neuron against the libraries people use: layer alone and the training step of a small net, in one process and interleaved.

``python -m suites.regression.peers [--long] [--threads N] [--rounds N]`` prints milliseconds (medians) and how many times longer than the
backend that "auto" picks each contender takes. Contenders: ours by backend, a plain PyTorch loop, SpikingJelly, snnTorch, norse (the
extra ``peers``; what is not installed is left out with a line) and ReLU. Layer: 32 x 4096 neurons, forward and backward. Net: two 3x3
convolutions of 32 and 64 channels, each with LIF and 2x2 average pooling, and a linear map, on 32 images of 3 x 32 x 32 at every step; its
training step includes the optimiser's; with ReLU it is the non-spiking net on the same T * B images.

All have leak 0.5, threshold 1, hard reset, detached from gradients, and the arctan surrogate (alpha 2): spikes and gradients are compared
with the reference before anything is timed. Norse scales its input by 1 - leak and has no such surrogate, so it is not compared. What a
contender does at its first call (compiling) is printed apart. SpikingJelly chooses its CUDA kernels when it is imported, so one run times
one of them: ``SJ_LIF_CUDA_IMPLEMENTATION`` is auto, cuda, triton or torch.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from tabulate import tabulate
from torch import Tensor, nn

from methods.nn.neuron import LIF
from methods.nn.surrogate import Arctan, spike

LEAK, ALPHA = 0.5, 2.0
LAYER, IMAGES = (32, 4096), (32, 3, 32, 32)


@dataclass(frozen=True)
class Contender:
    """One neuron: ``make()`` returns a module on ``[T, B, ...]`` that starts from rest at each call."""

    name: str
    make: Callable[[], nn.Module]
    comparable: bool = True  # whether spikes and gradients are those of the reference by definition


class PlainLoop(nn.Module):
    """What one writes by hand: an index per step."""

    def forward(self, current: Tensor) -> Tensor:
        """Return the spikes."""
        v, spikes = torch.zeros_like(current[0]), []
        for t in range(len(current)):
            u = LEAK * v + current[t]
            s = spike(u - 1, Arctan(ALPHA))
            v = u * (1 - s.detach())
            spikes.append(s)
        return torch.stack(spikes)


def ours(device: str) -> Iterator[Contender]:
    """Yield our backends, "auto" first: the others are measured against it."""
    for backend in ("auto", "reference", "compiled", "native" if device == "cpu" else "triton"):
        yield Contender(f"ours, {backend}", lambda backend=backend: LIF(LEAK, surrogate=Arctan(ALPHA), backend=backend))
    yield Contender("plain PyTorch loop", PlainLoop)
    yield Contender("ReLU", nn.ReLU, comparable=False)


def spikingjelly(device: str) -> Iterator[Contender]:
    """Yield SpikingJelly 2.x: on the CPU its PyTorch operations, on CUDA the kernels that it or its environment variable chooses."""
    from spikingjelly.activation_based import neuron, surrogate

    class Fresh(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = neuron.LIFNode(1 / (1 - LEAK), False, 1.0, 0.0, surrogate.ATan(ALPHA), True, "m")

        def forward(self, current: Tensor) -> Tensor:
            self.inner.reset()
            return self.inner(current)

    yield Contender("SpikingJelly", Fresh)


def snntorch(device: str) -> Iterator[Contender]:
    """Yield snnTorch; its reset acts before the next step, which is the same for a reset to zero."""
    from snntorch import Leaky, surrogate

    class Loop(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Leaky(LEAK, 1.0, surrogate.atan(ALPHA), reset_mechanism="zero")

        def forward(self, current: Tensor) -> Tensor:
            potential, spikes = torch.zeros_like(current[0]), []
            for now in current.unbind(0):
                s, potential = self.inner(now, potential)
                spikes.append(s)
            return torch.stack(spikes)

    yield Contender("snnTorch", Loop)


def norse(device: str) -> Iterator[Contender]:
    """Yield norse's LIFBox, whose time step is a thousandth of a second."""
    from norse.torch import LIFBoxCell, LIFBoxParameters

    class Loop(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = LIFBoxCell(LIFBoxParameters(tau_mem_inv=torch.tensor((1 - LEAK) * 1000, device=device)))

        def forward(self, current: Tensor) -> Tensor:
            state, spikes = None, []
            for now in current.unbind(0):
                s, state = self.inner(now, state)
                spikes.append(s)
            return torch.stack(spikes)

    yield Contender("norse", Loop, comparable=False)


LIBRARIES = (spikingjelly, snntorch, norse)


def contenders(device: str) -> tuple[list[Contender], list[str]]:
    """Return who takes part, and a line for each library that cannot."""
    found, missing = list(ours(device)), []
    for library in LIBRARIES:
        try:
            found += library(device)
        except ImportError as error:
            missing.append(f"{library.__name__} is left out: {error}; pip install 'spikebench[peers]'")
    return found, missing


class Net(nn.Module):
    """The small convolutional net: ``[T, B, 3, 32, 32] -> [B, 10]``, averaged over time."""

    def __init__(self, make: Callable[[], nn.Module]) -> None:
        """Make it with neurons from ``make``, with the same weights whatever the neuron."""
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.convolutions = nn.ModuleList([nn.Conv2d(3, 32, 3, padding=1), nn.Conv2d(32, 64, 3, padding=1)])
            self.readout = nn.Linear(64 * 8 * 8, 10)
        self.neurons = nn.ModuleList([make(), make()])

    def forward(self, images: Tensor) -> Tensor:
        """Return the mean answer."""
        steps, x = images.shape[:2], images.flatten(0, 1)
        for convolution, neuron in zip(self.convolutions, self.neurons, strict=True):
            x = neuron(convolution(x).unflatten(0, steps)).flatten(0, 1)
            x = nn.functional.avg_pool2d(x, 2)
        return self.readout(x.flatten(1)).unflatten(0, steps).mean(0)


def layer_pass(contender: Contender, current: Tensor, g: Tensor) -> Callable[[], tuple[Tensor, Tensor]]:
    """Return the forward and backward pass of a layer: spikes and gradient of the current."""
    neuron = contender.make().to(current.device)

    def run() -> tuple[Tensor, Tensor]:
        leaf = current.detach().requires_grad_()
        spikes = neuron(leaf)
        return spikes.detach(), torch.autograd.grad(spikes, leaf, g)[0]

    return run


def training_step(contender: Contender, images: Tensor, labels: Tensor) -> Callable[[], None]:
    """Return a training step of the net."""
    net = Net(contender.make).to(images.device)
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-3, momentum=0.9)

    def run() -> None:
        loss = nn.functional.cross_entropy(net(images), labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    return run


def seconds(run: Callable[[], Any], device: str) -> float:
    """Return how long one call takes, until the device has finished."""
    if device == "cuda":
        torch.cuda.synchronize()
    started = time.perf_counter()
    run()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def agree(contender: Contender, found: tuple[Tensor, Tensor], expected: tuple[Tensor, Tensor]) -> None:
    """Raise RuntimeError unless spikes are the same and gradients within a hundred-thousandth of the largest.

    A library that leaves products and sums to a compiler may differ at a potential within a rounding error of the threshold: one in a
    hundred thousand spikes may.
    """
    if not contender.comparable:
        return
    same = found[0] == expected[0]
    trains = same.all(0)  # one such spike changes the rest of its train
    apart = 1 - same.double().mean().item()
    error = ((found[1] - expected[1]).abs() * trains).max().item() / expected[1].abs().max().item()
    if apart > 1e-5 or error > 1e-5:
        raise RuntimeError(f"{contender.name} differs from the reference: {apart:.1e} of the spikes, gradients by {error:.1e}")


def interleave(runs: Sequence[Callable[[], Any]], rounds: int, device: str) -> list[float]:
    """Return the median seconds of each, which take turns so that a noisy machine disturbs all alike."""
    taken: list[list[float]] = [[] for _ in runs]
    for _ in range(rounds):
        for times, run in zip(taken, runs, strict=True):
            times.append(seconds(run, device))
    return [statistics.median(times) for times in taken]


def compare(who: list[Contender], what: str, steps: int, rounds: int, device: str, size: float = 1.0) -> tuple[list[float], list[float]]:
    """Return, for each contender, the seconds of its first call and the median of ``rounds`` others.

    ``what`` is "layer" or "net"; ``size`` is the fraction of the batch that is used. Raises RuntimeError when spikes or gradients differ.
    """
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.randn(steps, max(1, int(shape[0] * size)), *shape[1:], generator=generator).to(device)

    if what == "layer":
        current, g = random(*LAYER), random(*LAYER)
        runs: list[Callable[[], Any]] = [layer_pass(contender, current, g) for contender in who]
        expected = layer_pass(Contender("", lambda: LIF(LEAK, surrogate=Arctan(ALPHA), backend="reference")), current, g)()
    else:
        images = random(*IMAGES)
        labels = torch.randint(10, images.shape[1:2], generator=generator).to(device)
        runs = [training_step(contender, images, labels) for contender in who]
    first = []
    for contender, run in zip(who, runs, strict=True):
        first.append(seconds(run, device))
        if what == "layer":
            agree(contender, run(), expected)
    return first, interleave(runs, rounds, device)


def table(who: list[Contender], columns: dict[str, tuple[list[float], list[float]]]) -> str:
    """Return the medians in ms, each with its ratio to the first contender's, and the longest first call."""
    rows = []
    for i, contender in enumerate(who):
        cells = [f"{medians[i] * 1e3:.2f} ({medians[i] / medians[0]:.2f}x)" for _, medians in columns.values()]
        rows.append([contender.name, *cells, f"{max(first[i] for first, _ in columns.values()):.2f}"])
    return tabulate(rows, ["ms (times ours, auto)", *columns, "first call, s"], disable_numparse=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(prog="python -m suites.regression.peers", description="Our neuron against other libraries'.")
    parser.add_argument("--long", action="store_true", help="the layer at 256 steps too")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=9, help="timed calls of each contender")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--steps", type=int, nargs="+", help="numbers of time steps, instead of 4, 16, 64")
    parser.add_argument("--size", type=float, default=1.0, help="fraction of the batch")
    given = parser.parse_args(arguments)
    torch.set_num_threads(given.threads)
    who, missing = contenders(given.device)
    for line in missing:
        print(line)
    layer = given.steps or [4, 16, 64, *([256] if given.long else [])]
    for what, lengths in (("layer", layer), ("net", given.steps or [4, 16])):
        columns = {f"{what}, T={steps}": compare(who, what, steps, given.rounds, given.device, given.size) for steps in lengths}
        print(f"\n{table(who, columns)}")


if __name__ == "__main__":
    main()
