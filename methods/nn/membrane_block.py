"""The membrane-shortcut block: a residual stream of real-valued membrane currents that no neuron interrupts.

For a stream ``x``, spiking neurons ``SN`` and normalisations ``N``::

    F(x) = N_0(conv3x3(SN(N(conv3x3_stride(SN(x))))))
    y    = F(x) + S(x)        S: the identity; where the shape changes N(conv1x1_stride(x)) or N(conv1x1(avgpool(x)))

Neurons stand before the convolutions, inside the branch: 3x3 convolutions see spikes only, and identity and gradient pass the shortcut
unchanged. With the weight of ``N_0`` 0 a block that keeps the shape is exactly the identity. The 1x1 convolution of a shortcut sees reals.
Source: "Advancing Spiking Neural Networks toward Deep Residual Learning" (Hu et al., IEEE TNNLS 2024), by its official code.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from methods.nn.layer import Layer
from methods.nn.parts import Parts
from methods.nn.synapse import AvgPool2d


class MembraneBlock(nn.Module):
    """``F(x) + S(x)`` on ``[T, B, C, H, W]``; see the module's docstring.

    ``zero_init`` starts the weight of the branch's last normalisation at 0; ``pooled`` makes a shortcut average before it convolves.
    ``balanced`` scales both normalisations before the sum by 1/sqrt(2), and normalises the shortcut also where it is the identity, so that
    the sum of uncorrelated currents varies as each layer's do (GLIF's networks). Raises ValueError for ``zero_init`` with a normalisation
    that has no weight.
    """

    def __init__(
        self,
        features_in: int,
        features_out: int,
        stride: int,
        parts: Parts,
        zero_init: bool = True,
        pooled: bool = False,
        balanced: bool = False,
    ) -> None:
        """Make branch and shortcut."""
        super().__init__()
        scale = 2**-0.5 if balanced else 1.0
        self.branch = nn.Sequential(
            parts.neuron(features_in),
            Layer(parts.conv(features_in, features_out, 3, stride), parts.norm(features_out), parts.neuron(features_out)),
            Layer(parts.conv(features_out, features_out, 3), parts.norm(features_out, scale), nn.Identity()),
        )
        self.shortcut: nn.Module = parts.norm(features_out, scale) if balanced else nn.Identity()
        if stride != 1 or features_in != features_out:
            halved = pooled and stride != 1
            conv = parts.conv(features_in, features_out, 1, 1 if halved else stride)
            change = Layer(conv, parts.norm(features_out, scale), nn.Identity())
            self.shortcut = nn.Sequential(AvgPool2d(stride, ceil_mode=True), change) if halved else change
        if zero_init:
            weight = getattr(self.branch[-1].norm, "weight", None)
            if not isinstance(weight, Tensor):
                raise ValueError(f"zero_init needs a normalisation with a weight, not {type(self.branch[-1].norm).__name__}")
            nn.init.zeros_(weight)

    def forward(self, x: Tensor) -> Tensor:
        """Return the stream after the block ``[T, B, C', H', W']``."""
        return self.branch(x) + self.shortcut(x)


def isometry(block: nn.Module, x: Tensor, probes: int = 4) -> float:
    """Return an estimate of ``tr(J J^T) / m`` of a block at its input ``x``, J its Jacobian by surrogates, m the size of its output.

    It is the mean squared singular value of J, and 1 for an identity; block dynamical isometry asks for values near 1 in every block.
    Hutchinson's estimator: the mean of ``|J^T v|^2 / |v|^2`` over ``probes`` normal vectors v, the same in every call.
    """
    generator = torch.Generator().manual_seed(0)
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        y = block(x)
        gain = 0.0
        for _ in range(probes):
            v = torch.randn(y.shape, generator=generator, dtype=y.dtype).to(y.device)
            (back,) = torch.autograd.grad(y, x, v, retain_graph=True)
            gain += (back.square().sum() / v.square().sum()).item()
    return gain / probes
