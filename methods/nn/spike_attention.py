"""Self-attention between spikes: two ways to join query, key and value spikes ``q, k, v [T, B, D, H, W]`` of N = H * W tokens.

``SpikeDrivenAttention`` (SDSA), linear in tokens and in channels, without a product of matrices::

    m = SN( sum over tokens of k * v )      a binary mask per channel, [T, B, D, 1, 1]
    out = q * m                             binary

Every operation is per channel, so splitting the channels into heads changes nothing. With ``erode`` (event data) k, v, k * v and q * m pass
a 3x3 max pooling of stride 1 over space each.

``SpikingSelfAttention`` (SSA), what SDSA is compared with: matrix products per head of d = D / heads channels, then neurons::

    out = SN( scale * q (k^T v) )           quadratic in d; the same numbers as (q k^T) v, which is quadratic in N

Both report their sums of activations as ``synops_other``; products of two spikes are masks and not counted.
Source: "Spike-driven Transformer" (Yao et al., NeurIPS 2023) for SDSA; "Spikformer" (Zhou et al., ICLR 2023) for SSA.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from methods.nn.residual import MaxPool2d


class SpikeDrivenAttention(nn.Module):
    """SDSA: ``(q, k, v) -> q * mask``, all ``[T, B, D, H, W]``; ``neuron`` (threshold 0.5 in the paper) turns column sums into the mask."""

    def __init__(self, neuron: nn.Module, erode: bool = False) -> None:
        """Make the attention of any number of channels and tokens."""
        super().__init__()
        self.mask = neuron
        self.erode: nn.Module = MaxPool2d(3, 1, 1) if erode else nn.Identity()

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Return the queries of the channels whose mask is 1."""
        mask = self.mask(self.matches(k, v).sum((3, 4), keepdim=True))
        return self.erode(q * mask)

    def matches(self, k: Tensor, v: Tensor) -> Tensor:
        """Return where key and value spike together ``[T, B, D, H, W]``: what the column sum adds up."""
        return self.erode(self.erode(k) * self.erode(v))

    def synops_other(self, inputs: tuple[Tensor, ...], output: Any) -> Tensor:
        """Return the additions of the column sum: the ones of k * v (the card's T * N * D times their rate)."""
        _, k, v = (x.detach() for x in inputs)
        return self.matches(k, v).sum()


class SpikingSelfAttention(nn.Module):
    """SSA: ``(q, k, v) -> SN(scale * q (k^T v))``, all ``[T, B, D, H, W]``.

    Raises ValueError for channels that cannot be split into ``heads``.
    """

    def __init__(self, neuron: nn.Module, features: int, heads: int = 8, scale: float = 0.125) -> None:
        """Make the attention of ``features`` channels (D)."""
        super().__init__()
        if features % heads:
            raise ValueError(f"{features} channels cannot be split into {heads} heads")
        self.neuron, self.heads, self.scale = neuron, heads, scale

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Return the spikes of all heads."""
        queries, keys, values = (self._split(x) for x in (q, k, v))
        found = (keys @ values.transpose(-1, -2)).transpose(-1, -2) @ queries  # [T, B, heads, d, N]
        return self.neuron(self.scale * found.reshape(q.shape))

    def synops_other(self, inputs: tuple[Tensor, ...], output: Any) -> Tensor:
        """Return the accumulates of both products: pairs of spikes of a token, and entries of ``k^T v`` that are not 0 for each query."""
        q, k, v = (self._split(x.detach()) for x in inputs)
        pairs = (k.sum(3) * v.sum(3)).sum()
        entries = (k @ v.transpose(-1, -2)).count_nonzero(dim=-1)  # [T, B, heads, d]
        return pairs + (q.sum(4) * entries).sum()

    def _split(self, x: Tensor) -> Tensor:
        """Return ``[T, B, heads, d, N]``."""
        return x.flatten(3).unflatten(2, (self.heads, -1))

    def extra_repr(self) -> str:
        """Return the settings for printing."""
        return f"heads={self.heads}, scale={self.scale:g}"
