"""A convolution with scaled weight standardisation as ResNets without normalisation have it, that can be folded into a plain one.

With ``W`` the free weight of an output channel, ``N`` its fan-in and ``gain`` a learnt number per output channel::

    W_hat = gain * N^(-1/2) * (W - mean(W)) / sqrt(var(W) + eps)         eps = 1e-6, biased variance

Source: "Characterizing signal propagation to close the performance gap in unnormalized ResNets" (Brock et al., ICLR 2021), by its
implementation in timm; the weights of the official code of T-RevSNN. ``methods.nn.weight_standardisation`` has that of the online methods.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from methods.nn.weight_standardisation import StandardisedConv2d

EPS = 1e-6


class ScaledStdConv2d(StandardisedConv2d):
    """``[T, B, C, H, W] -> [T, B, C', H', W']`` with a bias; see the module's docstring.

    Weights start truncated normal of deviation 0.02, biases at 0. Raises ValueError when its fan-in is 1.
    """

    gain: nn.Parameter | None

    def __init__(self, features_in: int, features_out: int, kernel: int, stride: int = 1) -> None:
        """Make the synapse."""
        super().__init__(features_in, features_out, kernel, stride, input_scale=1.0)
        nn.init.trunc_normal_(self.weight, std=0.02)

    @property
    def effective_weight(self) -> Tensor:
        """The weight that the input meets, ``[out, in, k, k]``."""
        if self.gain is None:
            return self.weight
        rows = self.weight.reshape(1, len(self.weight), -1)
        scale = self.gain * rows.shape[2] ** -0.5
        return F.batch_norm(rows, None, None, scale, training=True, momentum=0.0, eps=EPS).view_as(self.weight)

    @torch.no_grad()
    def fold(self) -> None:
        """Make the effective weight the weight, and the gain go; a folded convolution stays as it is."""
        if self.gain is not None:
            self.weight.copy_(self.effective_weight)
            self.gain = None
