"""Class impressions: images that a trained network itself asks for, found by descent on their pixels.

An image ``x`` starts as uniform noise and follows the loss of the network's logits ``z(x)`` against a (soft) label ``y``, at temperature
``tau``, with Adam on the pixels alone::

    L = - sum_j y_j log softmax(z / tau)_j          dL/dz = (softmax(z / tau) - y) / tau

Soft labels look like the network's own confusions. With ``w_c`` the row of class c of the last linear layer and ``s_ij = cos(w_i, w_j)``,
row i of the similarities, shifted to a least value of 0 and divided by its largest, gives the concentrations ``a_i`` of class i, and
``y ~ Dirichlet(a_i)``. One-hot labels ask for the pure class.

Source: "PrivateSNN: Privacy-Preserving Spiking Neural Networks" (Kim, Venkatesha, Panda, AAAI 2022), official code; data impressions by
Dirichlet modelling of the soft labels: "Zero-Shot Knowledge Distillation in Deep Networks" (Nayak et al., ICML 2019).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

LEAST = 1e-3  # concentrations are positive; the least of each row, which is 0, becomes this (ours)


def concentrations(weight: Tensor) -> Tensor:
    """Return the concentrations ``[classes, classes]`` of read-out weights ``[classes, features]``: diagonal 1, least of each row 0.

    Of a single class, or of classes whose rows are all alike, nothing but the diagonal is left.
    """
    rows = F.normalize(weight.detach().double(), dim=1)
    similarity = (rows @ rows.T).fill_diagonal_(1.0)
    shifted = similarity - similarity.amin(1, keepdim=True)
    largest = shifted.amax(1, keepdim=True)
    return torch.where(largest > 0, shifted / largest, torch.eye(len(weight), dtype=shifted.dtype, device=shifted.device)).to(weight.dtype)


def soft_labels(weight: Tensor, classes: Tensor) -> Tensor:
    """Return a label ``[N, K]`` drawn for each of ``classes [N]``, from the Dirichlet law of its class (``weight [K, features]``)."""
    return torch.distributions.Dirichlet(concentrations(weight)[classes].clamp_min(LEAST)).sample()


def label_loss(logits: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """Return the cross-entropy of ``logits [N, K]`` to ``labels [N, K]`` at a temperature, summed over the images."""
    return -(labels * (logits / temperature).log_softmax(1)).sum()


def impressions(
    answer: Callable[[Tensor], Tensor],
    labels: Tensor,
    shape: tuple[int, ...],
    iterations: int,
    lr: float,
    temperature: float = 20.0,
    batch: int = 256,
) -> Tensor:
    """Return an image ``[N, *shape]`` in bytes for each of ``labels [N, K]``; at most ``batch`` are sought at once.

    ``answer`` maps pixels ``[B, *shape]`` in [0, 1] to logits ``[B, K]``, differentiably; gradients reach the pixels alone. What pixels
    have left [0, 1] by is cut off at the end, and the rest rounded to 8 bits. Noise is drawn by torch's own generator.
    """
    found = []
    for part in labels.split(batch):
        pixels = torch.rand(len(part), *shape, device=labels.device, requires_grad=True)
        optimizer = torch.optim.Adam([pixels], lr)
        for _ in range(iterations):
            with torch.enable_grad():
                loss = label_loss(answer(pixels), part, temperature)
            (pixels.grad,) = torch.autograd.grad(loss, [pixels])
            optimizer.step()
        found.append((pixels.detach().clamp(0, 1) * 255).round().to(torch.uint8))
    return torch.cat(found)
