"""Who is compared: our LIF by backend, a plain PyTorch loop, SpikingJelly, snnTorch and norse; ReLU in the non-spiking net.

All have leak 0.5, threshold 1, hard reset, detached from gradients, and the arctan surrogate (alpha 2). Norse scales its input by 1 -
leak and has no such surrogate, so its numbers are not compared. SpikingJelly chooses its CUDA kernels when it is imported, so one run
times one of them: ``SJ_LIF_CUDA_IMPLEMENTATION`` is auto, cuda, triton or torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from methods.nn.neuron import LIF
from methods.nn.surrogate import Arctan, spike

LEAK, ALPHA = 0.5, 2.0


@dataclass(frozen=True)
class Contender:
    """One neuron: ``make()`` returns a module on ``[T, B, ...]`` that starts from rest at each call."""

    name: str
    make: Callable[[], nn.Module]
    parts: bool = False  # whether its net is made of this project's parts, as ours and the non-spiking one are
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
        yield Contender(f"ours, {backend}", lambda backend=backend: LIF(LEAK, surrogate=Arctan(ALPHA), backend=backend), parts=True)
    yield Contender("plain PyTorch loop", PlainLoop)
    yield Contender("ReLU", nn.ReLU, parts=True, comparable=False)


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
