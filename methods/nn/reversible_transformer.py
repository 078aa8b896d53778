"""RevSFormer: a spiking transformer whose blocks are one reversible sequence.

The tokens ``x`` that the patch splitting gives are both streams ``[x, x]``; in a block ``y1 = x1 + f(x2)``, ``y2 = x2 + g(y1)`` f is the
branch of self-attention and g the perceptron of ``methods.nn.spike_transformer``. The features are both streams, twice as wide.
Source: "Memory-Efficient Reversible Spiking Neural Networks" (Zhang, Zhang, AAAI 2024); the patch splitting is that of "Spike-driven
Transformer" (Yao et al., NeurIPS 2023), which gives the published numbers of parameters.
"""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor, nn

from methods.nn.parts import Parts
from methods.nn.reversible import ReversibleBlock, ReversibleSequence, joined
from methods.nn.spike_transformer import Attention, SpikeTransformer, TransformerBlock


class RevSFormer(SpikeTransformer):
    """Patch splitting and reversible blocks: ``[T, B, C, H, W]`` to levels.

    For a classifier (``pooled``) the only level is the mean of both streams over the tokens, currents ``[T, B, 2D, 1, 1]``; for answers at
    places spikes of the pooled stages of the splitting and of both streams.
    """

    def __init__(
        self,
        input_shape: tuple[int, ...],
        width: int,
        blocks: int,
        pooling: str,
        parts: Parts,
        attention: Attention,
        pooled: bool = True,
        reversible: bool = True,
    ) -> None:
        """Make the network of ``width`` channels per stream (D)."""
        super().__init__(input_shape, width, blocks, pooling, parts, attention, pooled=pooled)
        pairs = [ReversibleBlock(block.attention, block.perceptron) for block in self.blocks if isinstance(block, TransformerBlock)]
        self.blocks = nn.Sequential(_Doubled(ReversibleSequence(pairs, reversible)))
        self.neuron = nn.Identity() if pooled else parts.neuron(2 * width)
        self.levels[-1] = replace(self.levels[-1], channels=2 * width)


class _Doubled(nn.Module):
    """A reversible sequence that begins with one tensor as both streams and ends with both as channels of one."""

    def __init__(self, blocks: ReversibleSequence) -> None:
        super().__init__()
        self.blocks = blocks

    def forward(self, x: Tensor) -> Tensor:
        return joined(*self.blocks(x, x))
