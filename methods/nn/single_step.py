"""A neuron that learns in one step, with noise for the potential that earlier steps would have left, and then runs for many.

Multi-step, for currents ``I[t]`` (threshold ``theta``, soft reset, ``v[0]`` the mean of the noise)::

    u[t] = leak * v[t-1] + I[t]      s[t] = 1[u[t] >= theta]      v[t] = u[t] - theta s[t]

For a constant current between 0 and theta and ``leak = 1`` the residual ``v`` visits [0, theta) evenly: mean ``theta / 2``, variance
``theta^2 / 12``. Single-step, with noise ``e`` of these moments, fresh for every neuron, sample and step::

    u = I + e      s = 1[u >= theta]

Under ``e ~ U[0, theta)`` the neuron fires with probability ``clip(I / theta, 0, 1)``, the rate of the multi-step neuron; the Gaussian of
the same moments, ``N(theta / 2, theta^2 / 12)``, is at most 0.057 away from that. Backward: a triangle at the noisy ``u``, of height
``1 / theta`` and half-width theta, or the exact derivative of the expected spike, the density of the noise at ``theta - I``.

Source: all equations are ours, a reconstruction from the abstract of "A noise based novel strategy for faster SNN training" (Jiang and
Zhang, 2023).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from methods.nn.layout import dense_step, like
from methods.nn.neuron import LIF
from methods.nn.stepping import stepping
from methods.nn.surrogate import Gauss, Rectangle, Surrogate, Triangle, spike

Noise = Literal["gauss", "uniform", "none"]
Run = Literal["residual", "injected"]
EVEN = 1 / math.sqrt(12)  # standard deviation of the uniform law on [0, 1)
LEAST_DEVIATION = 1e-3  # of fitted noise, over the threshold


class SingleStepNeuron(LIF):
    """The neuron of the module's docstring, ``[T, B, ...] -> [T, B, ...]``.

    In training mode every step is by itself and noisy. In eval mode ``run`` says which: "residual", the multi-step neuron, without noise;
    "injected", every step by itself and noisy. ``mean`` and ``deviation`` of the noise are in units of potential; without noise both count
    as 0. Raises ValueError for a gradient by density without noise.
    """

    def __init__(
        self,
        noise: Noise = "gauss",
        run: Run = "residual",
        grad: Literal["triangle", "density"] = "triangle",
        leak: float = 1.0,
        threshold: float = 1.0,
        mean: float = 0.5,
        deviation: float = EVEN,
    ) -> None:
        """Make a layer of neurons of any shape."""
        if noise == "none" and grad == "density":
            raise ValueError("without noise the expected spike is a step, which has no density; use grad='triangle'")
        super().__init__(leak, threshold, "soft", surrogate=Triangle(threshold))
        self.noise, self.run, self.grad = noise, run, grad
        self.fit(mean, deviation)

    def fit(self, mean: float, deviation: float) -> None:
        """Set the moments of the noise, and with them the initial potential: what is left of it after a leak is the mean."""
        self.mean, self.deviation = (0.0, 0.0) if self.noise == "none" else (mean, deviation)
        self.v_init = self.mean / self._leak

    def forward(self, current: Tensor) -> Tensor:
        """Return the spikes of currents ``[T, B, ...]``."""
        if self.training or self.run == "injected":
            return self.single(current)
        return super().forward(current)

    def single(self, current: Tensor) -> Tensor:
        """Return the spikes of steps that are each by itself."""
        if self.noise == "none":
            return spike(current - self.threshold, self.surrogate)
        above = self.draw(current).add_(current).sub_(self.threshold)
        if self.grad == "triangle":
            return spike(above, self.surrogate)
        return _ExpectedSpike.apply(current, above.detach(), self.density(), self.threshold - self.mean)

    def draw(self, current: Tensor) -> Tensor:
        """Return fresh noise for every element of ``current``."""
        noise = like(current) if dense_step(current) else torch.empty(current.shape, dtype=current.dtype, device=current.device)
        flat = noise.as_strided((noise.numel(),), (1,))  # in one row: other layouts are drawn one by one, 7 times as long
        if self.noise == "gauss":
            flat.normal_(self.mean, self.deviation)
        else:
            half = self.deviation / EVEN / 2
            flat.uniform_(self.mean - half, self.mean + half)
        return noise

    def density(self) -> Surrogate:
        """Return the density of the noise at ``theta - I`` as a function of ``I - (theta - mean)``, in which it is symmetric."""
        return Gauss(self.deviation**2) if self.noise == "gauss" else Rectangle(self.deviation / EVEN)

    def extra_repr(self) -> str:
        """Return the settings for printing."""
        return f"{super().extra_repr()}, noise={self.noise}, mean={self.mean:g}, deviation={self.deviation:g}, run={self.run}"


class _ExpectedSpike(torch.autograd.Function):
    """``1[above >= 0]``; the derivative by ``current`` is ``density(current - centre)``."""

    @staticmethod
    def forward(ctx: Any, current: Tensor, above: Tensor, density: Surrogate, centre: float) -> Tensor:
        ctx.save_for_backward(current)
        ctx.density, ctx.centre = density, centre
        return (above >= 0).to(current.dtype).masked_fill_(above.isnan(), math.nan)  # silence would hide a current that is not a number

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        (current,) = ctx.saved_tensors
        return grads[0] * ctx.density(current - ctx.centre), None, None, None


def neurons(net: nn.Module) -> dict[str, SingleStepNeuron]:
    """Return the layers of such neurons of ``net``, by name."""
    return {name: module for name, module in net.named_modules() if isinstance(module, SingleStepNeuron)}


@contextmanager
def running(net: nn.Module, run: Run) -> Iterator[None]:
    """Let the neurons of ``net`` run in this way in eval mode, inside the context."""
    layers = list(neurons(net).values())
    before = [layer.run for layer in layers]
    for layer in layers:
        layer.run = run
    try:
        yield
    finally:
        for layer, was in zip(layers, before, strict=True):
            layer.run = was


@torch.no_grad()
def fit_noise(net: nn.Module, sequence: Tensor) -> None:
    """Set the noise of every layer to mean and deviation of what is carried, ``leak * v``, in a residual run on ``sequence [T, B, ...]``.

    The first quarter of the steps does not count. Values are clipped to [0, theta), as a current beyond it has no stationary residual.
    ``net`` is in eval mode afterwards.
    """
    net.eval()
    layers = list(neurons(net).values())
    sums = {layer: torch.zeros(3, dtype=torch.float64, device=sequence.device) for layer in layers}
    with running(net, "residual"), stepping(net):
        for t, now in enumerate(sequence.split(1)):
            net(now)
            if 4 * t < len(sequence) - 3:
                continue
            for layer in layers:
                (v,) = layer.carried() or ()
                carried = (layer.leak * v).clamp(0, layer.threshold).double()
                sums[layer] += torch.stack([torch.ones_like(carried).sum(), carried.sum(), carried.square().sum()])
    for layer, total in sums.items():
        count, first, second = total.tolist()
        mean = first / count
        deviation = math.sqrt(max(second / count - mean**2, 0.0))
        layer.fit(mean, max(deviation, LEAST_DEVIATION * float(layer.threshold)))
