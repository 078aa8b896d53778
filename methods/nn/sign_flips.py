"""Binary weight optimisation (BWO) of ALBSNN: flip stored signs that the loss of the whole training set would rather have flipped.

A round, with the signs ``b`` of each binarised layer, its weight ``alpha b``, and ``g = dL/db`` summed over one pass of the data::

    predicted gain of a flip = 2 b g               a flip changes the weight by -2 alpha b
    flip the ``share`` of a layer's signs with the largest gain, if positive; the latent weight W of a flipped sign becomes -W
    accept if the loss of the next pass is lower, else undo

Alpha is the mean of |W| and stays. Ours: the formulas (the journal version of the paper, Frontiers in Neuroscience 17:1225871, was read as
abstract only); at least one sign per layer; after a rejected round half as many signs are tried, since the same ones would be rejected
again; the end when a single sign per layer is rejected; the limit of the rounds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from methods.nn.local_binary import LocalBinary, scales, weights_in_use

Losses = Callable[[], Iterable[tuple[Tensor, int]]]  # a pass over the data: of each batch its mean loss, with its graph, and its samples


@dataclass
class Flips:
    """What came of some rounds."""

    accepted: int = 0  # rounds
    rejected: int = 0
    signs: int = 0  # that were flipped and stayed so
    losses: list[float] = field(default_factory=list)  # of the whole pass: before, and after each accepted round


def optimise_signs(layers: Sequence[LocalBinary], losses: Losses, share: float = 1e-3, patience: int = 5, rounds: int = 20) -> Flips:
    """Flip signs of ``layers`` (binarised, not stored) until ``patience`` rounds were rejected, or for so many ``rounds``."""
    found = Flips()
    if not layers:
        return found
    loss, gradients = _whole_pass(layers, losses)
    found.losses.append(loss)
    halvings = 0
    for _ in range(rounds):
        counts = [max(1, round(share * layer.weight.numel()) >> halvings) for layer in layers]
        masks = [best_flips(layer, gradient, count) for layer, gradient, count in zip(layers, gradients, counts, strict=True)]
        flipped = sum(int(mask.sum()) for mask in masks)
        if flipped == 0:
            break
        _flip(layers, masks)
        loss, after = _whole_pass(layers, losses)
        if loss < found.losses[-1]:
            found.losses.append(loss)
            found.accepted, found.signs, gradients, halvings = found.accepted + 1, found.signs + flipped, after, 0
            continue
        _flip(layers, masks)
        found.rejected, halvings = found.rejected + 1, halvings + 1
        if found.rejected == patience or max(counts) == 1:
            break
    return found


@torch.no_grad()
def best_flips(layer: LocalBinary, gradient: Tensor, count: int) -> Tensor:
    """Return a mask of the ``count`` signs whose flip gains most, fewer if there are no more that gain.

    ``gradient``: dL/dB at the weight in use. A latent weight of exactly 0 has no other sign and is left out.
    """
    weight = layer.weight
    b = torch.where(weight >= 0, 1.0, -1.0).to(weight.dtype)
    gain = (2 * b * scales(weight) * gradient).masked_fill_(weight == 0, 0).flatten()
    best = gain.topk(min(count, gain.numel()))
    mask = torch.zeros_like(gain, dtype=torch.bool)
    mask[best.indices] = best.values > 0
    return mask.view(weight.shape)


@torch.no_grad()
def _flip(layers: Sequence[LocalBinary], masks: Sequence[Tensor]) -> None:
    for layer, mask in zip(layers, masks, strict=True):
        layer.weight.copy_(torch.where(mask, -layer.weight, layer.weight))


def _whole_pass(layers: Sequence[LocalBinary], losses: Losses) -> tuple[float, list[Tensor]]:
    """Return the mean loss over all samples and its gradients at the binary weights."""
    total, samples, sums = 0.0, 0, [torch.zeros_like(layer.weight) for layer in layers]
    with torch.enable_grad():
        for loss, count, used in _batches(layers, losses):
            for part, gradient in zip(sums, torch.autograd.grad(loss, used), strict=True):
                part.add_(gradient, alpha=count)
            total, samples = total + loss.item() * count, samples + count
    return total / samples, [part.div_(samples).detach() for part in sums]


def _batches(layers: Sequence[LocalBinary], losses: Losses) -> Iterator[tuple[Tensor, int, list[Tensor]]]:
    with weights_in_use(layers) as used:
        for loss, count in losses():
            yield loss, count, [used[layer] for layer in layers]
