"""How far the gradients of an approximating rule are from those of back-propagation through all time steps, weight by weight.

On one batch and the same weights, the method's own step is carried out on a copy of the network with an update that only adds up what
would have been applied, and the loss that the rule stands for (``Method.exact_loss``) is differentiated in full on another copy::

    cosine = <g, e> / (|g| |e|)       ratio = |g| / |e|          g: the rule's gradient of a weight, e: the exact one

Source of the comparison: "Towards Memory- and Time-Efficient Backpropagation for Training Spiking Neural Networks" (Meng et al., ICCV
2023).
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from harness.method import Method
from harness.task import Batch


@dataclass(frozen=True)
class Agreement:
    """The comparison for one parameter; None where the exact gradient, or for the cosine either, is zero or missing."""

    name: str
    cosine: float | None
    ratio: float | None


class _Collector:
    """An update that changes nothing and adds up the gradients that would have been applied."""

    def __init__(self, net: nn.Module) -> None:
        self.net = net
        self.total: dict[str, Tensor] = {}

    def zero_grad(self) -> None:
        self.net.zero_grad(set_to_none=True)

    def backward(self, loss: Tensor) -> None:
        loss.backward()

    def apply(self) -> None:
        for name, parameter in self.net.named_parameters():
            if parameter.grad is not None:
                self.total[name] = self.total.get(name, 0) + parameter.grad.detach().clone()

    def minimise(self, loss: Tensor) -> None:
        self.zero_grad()
        self.backward(loss)
        self.apply()


def agreement(method: Method, net: nn.Module, batch: Batch) -> list[Agreement]:
    """Return the comparison for every parameter that has an exact gradient; none for a method whose rule is exact.

    ``net`` is left as it is; noise (dropout) is the same for both.
    """
    exact, rule = copy.deepcopy(net).train(), copy.deepcopy(net).train()
    with _same_noise(), torch.enable_grad():
        loss = method.exact_loss(exact, batch)
        if loss is None:
            return []
        loss.backward()
    collector = _Collector(rule)
    with _same_noise(), torch.enable_grad():
        method.step(rule, batch, collector)
    wanted = {name: p.grad for name, p in exact.named_parameters() if p.grad is not None}
    return [compare(name, collector.total.get(name), gradient) for name, gradient in wanted.items()]


def compare(name: str, found: Tensor | None, exact: Tensor) -> Agreement:
    """Return cosine and ratio of two gradients of one shape; a missing gradient is none at all."""
    e = exact.detach().double().flatten()
    g = torch.zeros_like(e) if found is None else found.double().flatten()
    size, norm = g.norm().item(), e.norm().item()
    if norm == 0:
        return Agreement(name, None, None)
    return Agreement(name, float(g @ e) / (size * norm) if size else None, size / norm)


@contextmanager
def _same_noise() -> Iterator[None]:
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(0)
        yield
