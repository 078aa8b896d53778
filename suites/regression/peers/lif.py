"""LIF against other libraries': the layer alone, and the training step of a small net.

Layer: 32 x 4096 neurons, forward and backward. Net: two 3x3 convolutions of 32 and 64 channels, each with LIF and 2x2 average pooling, and
a linear map, on 32 images of 3 x 32 x 32 at every step; its training step includes the optimiser's; with ReLU it is the non-spiking net on
the same T * B images. Spikes and gradients of the layer are compared with the reference before anything is timed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from methods.nn.layout import channels_last
from methods.nn.neuron import LIF
from methods.nn.surrogate import Arctan
from methods.nn.synapse import AvgPool2d
from suites.regression.peers.contenders import ALPHA, LEAK, Contender
from suites.regression.peers.timing import agree, interleave, seconds

LAYER, IMAGES = (32, 4096), (32, 3, 32, 32)


class Net(nn.Module):
    """The small convolutional net: ``[T, B, 3, 32, 32] -> [B, 10]``, averaged over time.

    ``parts``: made of this project's parts around the neuron too (pooling that keeps nothing, channels-last on the CPU), as its networks
    are; otherwise of PyTorch's own, as the libraries' examples are.
    """

    def __init__(self, make: Callable[[], nn.Module], parts: bool = False) -> None:
        """Make it with neurons from ``make``, with the same weights whatever the neuron."""
        super().__init__()
        self.parts = parts
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.convolutions = nn.ModuleList([nn.Conv2d(3, 32, 3, padding=1), nn.Conv2d(32, 64, 3, padding=1)])
            self.readout = nn.Linear(64 * 8 * 8, 10)
        self.neurons = nn.ModuleList([make(), make()])
        self.pool = AvgPool2d(2) if parts else None
        if parts:
            self.to(memory_format=torch.channels_last)

    def forward(self, images: Tensor) -> Tensor:
        """Return the mean answer."""
        if self.parts and images.device.type == "cpu":
            images = channels_last(images)
        steps, x = images.shape[:2], images.flatten(0, 1)
        for convolution, neuron in zip(self.convolutions, self.neurons, strict=True):
            x = neuron(convolution(x).unflatten(0, steps))
            x = nn.functional.avg_pool2d(x.flatten(0, 1), 2) if self.pool is None else self.pool(x).flatten(0, 1)
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
    net = Net(contender.make, contender.parts).to(images.device)
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-3, momentum=0.9)

    def run() -> None:
        loss = nn.functional.cross_entropy(net(images), labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    return run


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
        if what == "layer" and contender.comparable:
            agree(contender.name, run(), expected)
    return first, interleave(runs, rounds, device)
