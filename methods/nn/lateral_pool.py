"""Max pooling of spikes: without loss, by lateral inhibition, and as earlier conversions did it, by a gate.

``LIPool2d``. The neurons of a window inhibit each other: each keeps ``z``, its input less what the window has emitted::

    z += x[t];   out[t] = max of z over the window;   z -= out[t]

Then ``z`` is the summed input less the summed output, so ``out[t] = maxpool(sum of x up to t) - maxpool(sum of x before t)``, which is what
is computed here, and ``sum of out = maxpool(sum of x)`` after every step, for any real x. Windows of any size, stride, padding and ceil
mode; padding never wins (minus infinity), also where all inputs are negative. Outputs may be above 1, and negative if inputs are.

``RateGate2d`` passes the spike of the neuron with the highest count so far (the first of several), and loses the others.

Sources: "Efficient and Accurate Conversion of Spiking Neural Network with Burst Spikes" (Li and Zeng, IJCAI 2022), "Spike Calibration" (Li
et al., 2022; general windows); the gate: Rueckauer et al., Frontiers in Neuroscience 2017. The form with sums is ours.
"""

from __future__ import annotations

from itertools import accumulate, islice

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from methods.nn.layout import like
from methods.nn.stepping import Stateful


class _SpikePool(Stateful):
    """What both have: the geometry of an ``nn.MaxPool2d``, and the summed input of every neuron."""

    def __init__(self, pool: nn.MaxPool2d) -> None:
        """Take the window, stride, padding and ceil mode of ``pool``."""
        super().__init__()
        self.window = (pool.kernel_size, pool.stride, pool.padding, pool.dilation, pool.ceil_mode)

    def _sums(self, x: Tensor, before: Tensor | None) -> Tensor:
        """Return the sums ``[T, B, C, H, W]`` of x up to every step."""
        if x.requires_grad:
            totals = accumulate(x.unbind(0)) if before is None else islice(accumulate(x.unbind(0), initial=before), 1, None)
            return torch.stack(list(totals))
        sums = like(x)
        for now, total in zip(x.unbind(0), sums.unbind(0), strict=True):
            if before is None:
                total.copy_(now)
            else:
                torch.add(before, now, out=total)
            before = total
        return sums

    def extra_repr(self) -> str:
        """Return the window for printing."""
        return "kernel_size={}, stride={}, padding={}, dilation={}, ceil_mode={}".format(*self.window)


class LIPool2d(_SpikePool):
    """Lossless max pooling of spikes ``[T, B, C, H, W] -> [T, B, C, H', W']``, for inference."""

    def forward(self, x: Tensor) -> Tensor:
        """Return what the windows emit."""
        carried = self.carried()
        sums = self._sums(x, carried[0] if carried else None)
        pooled = F.max_pool2d(sums.flatten(0, 1), *self.window).unflatten(0, x.shape[:2])
        self.carry(sums[-1], pooled[-1])
        emitted = pooled.clone()
        emitted[1:] -= pooled[:-1]
        if carried:
            emitted[0] -= carried[1]
        return emitted


class RateGate2d(_SpikePool):
    """The spike of the neuron with the highest count in the window: ``[T, B, C, H, W] -> [T, B, C, H', W']``, for inference."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the spikes that pass."""
        carried = self.carried()
        sums = self._sums(x, carried[0] if carried else None)
        self.carry(sums[-1])
        _, chosen = F.max_pool2d(sums.flatten(0, 1), *self.window, return_indices=True)
        passed = x.flatten(0, 1).flatten(2).gather(2, chosen.flatten(2)).view(chosen.shape)
        return passed.unflatten(0, x.shape[:2])
