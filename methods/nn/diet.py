"""Parts of DIET-SNN: synapses that give currents in units of a learnt threshold, neurons with a learnt leak, thresholds by percentile.

With analog or binary inputs ``o_in``, weights ``W``, one threshold ``theta`` and one leak ``lam`` (lambda) per layer::

    u[t] = lam * (u[t-1] - theta * o[t-1]) + W o_in[t]       o[t] = 1[u[t] > theta]
    do/dz = 0.3 max(0, 1 - |z|),  z = u / theta - 1           o in the reset is not differentiated, theta in it is

Divided by ``theta``, with ``v = u / theta``, the same reads::

    v[t] = lam * (v[t-1] - o[t-1]) + (W / theta) o_in[t]     o[t] = 1[v[t] > 1]        z = v - 1

which is a LIF of threshold 1 with a triangular surrogate, behind weights ``W / theta``: gradients of ``W``, ``theta`` and ``lam`` are those
of the first form, by the chain rule, and ``theta`` costs a division per weight instead of one per neuron and step (form: ours).

Source: "DIET-SNN: A Low-Latency SNN With Direct Input Encoding and Leakage and Threshold Optimization" (Rathi and Roy, IEEE TNNLS 34(6),
2023) and its official code.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from methods.nn.calibration import watching
from methods.nn.layer import Layer
from methods.nn.neuron import LIF
from methods.nn.stepping import stepping
from methods.nn.surrogate import Triangle
from methods.nn.synapse import Conv2d

CHUNK = 4  # time steps simulated at once when thresholds are sought


class ThresholdConv2d(Conv2d):
    """A convolution of weights ``W / threshold`` on ``[T, B, C, H, W]``; ``threshold`` is that of the neurons it feeds.

    The threshold is a scalar parameter, or None (the start), where weights act as they are: the synapse of a ReLU network.
    """

    def __init__(self, features_in: int, features_out: int, kernel: int, stride: int = 1) -> None:
        """Make a convolution without bias that keeps the size at stride 1; weights from a normal law, variance ``2 / (k^2 C_out)``."""
        super().__init__(features_in, features_out, kernel, stride=stride, padding=kernel // 2, bias=False)
        self.register_parameter("threshold", None)
        nn.init.normal_(self.weight, std=(2 / (kernel**2 * features_out)) ** 0.5)

    @property
    def effective_weight(self) -> Tensor:
        """The weight that the input meets, ``[out, in, k, k]``."""
        return self.weight if self.threshold is None else self.weight / self.threshold

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return super()._conv_forward(input, self.effective_weight, bias)

    def set_threshold(self, threshold: float | Tensor) -> None:
        """Make ``threshold`` the (new) parameter, of the weights' type and device."""
        self.threshold = nn.Parameter(torch.as_tensor(threshold, dtype=self.weight.dtype, device=self.weight.device).clone())


class DietNeuron(LIF):
    """The neuron in units of its threshold: fires above 1, soft reset; ``decay``, a scalar that starts at ``leak``, is the leak ``lam``."""

    def __init__(self, leak: float = 1.0) -> None:
        """Make a layer of neurons of any shape."""
        super().__init__(leak, 1.0, "soft", surrogate=Triangle(1.0, 0.3), strict=True)
        self.decay = nn.Parameter(torch.tensor(float(leak)))

    @property
    def leak(self) -> Tensor:
        """Fraction of the membrane potential that is left after a step: the parameter itself."""
        return self.decay


def kth_percentile(values: Tensor, percent: float) -> Tensor:
    """Return the k-th smallest of ``values [N, ...]`` for each N, with ``k = 1 + round(percent / 100 * (n - 1))`` of n values."""
    flat = values.flatten(1)
    above = flat.shape[1] - 1 - round(0.01 * percent * (flat.shape[1] - 1))
    # Of a high percentile a few values lie above: 4 times as fast on a CPU as ``kthvalue`` (4 rows of 800,000, 99.7 %).
    return flat.topk(above + 1, dim=1, sorted=False).values.amin(1)


class _ReachedError(Exception):
    """Ends a forward pass at the layer whose current was wanted."""


@torch.no_grad()
def balance_thresholds(
    net: nn.Module,
    layers: Sequence[Layer],
    image: Tensor | Callable[[int], Tensor],
    steps: int,
    percent: float,
    neuron: Callable[[], nn.Module] = DietNeuron,
) -> dict[Layer, float]:
    """Turn the ReLU network ``net`` into a spiking one, layer by layer in the order of ``layers``, and return the thresholds set.

    ``image [1, B, ...]`` is the input at every step, or a function that draws the next so many steps ``[n, B, ...]``. The threshold of a
    layer is the largest, over ``steps`` time steps, of the percentile over batch and neurons of the currents that the layers before cause,
    which fire at their own thresholds already. A layer without positive currents gets 1. The synapse of each layer must be a
    ``ThresholdConv2d``.
    """
    found: dict[Layer, float] = {}
    for layer in layers:
        peaks: list[Tensor] = []

        def see(_: nn.Module, current: Tensor, peaks: list[Tensor] = peaks) -> None:
            constant = len(current) > 1 and current.stride(0) == 0
            peaks.append(kth_percentile(current[:1] if constant else current, percent).max())
            raise _ReachedError

        with watching([layer.norm], see), stepping(net):
            for start in range(0, steps, CHUNK):
                try:
                    count = min(CHUNK, steps - start)
                    net(image.expand(count, *image.shape[1:]) if isinstance(image, Tensor) else image(count))
                except _ReachedError:
                    continue
        peak = float(torch.stack(peaks).max())
        found[layer] = peak if peak > 0 else 1.0
        layer.synapse.set_threshold(found[layer])  # type: ignore[operator, union-attr]
        layer.neuron = neuron().to(layer.synapse.weight.device)  # type: ignore[arg-type, union-attr]
    return found
