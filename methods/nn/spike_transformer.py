"""A transformer whose synapses see spikes only: patch splitting by convolutions, then blocks with membrane shortcuts.

Sums of branch and shortcut are sums of membrane inputs (currents), taken before the neurons ``SN``; hence whatever a weight reads, the data
apart, is 0 or 1. With D the width, conv and BN of the method's parts, ``[MP]`` a 3x3 max pooling of stride 2 where ``pooling`` has a 1::

    splitting   conv(C -> D/8) BN SN [MP]  conv(-> D/4) BN SN [MP]  conv(-> D/2) BN SN [MP]  conv(-> D) BN [MP] =: u
                x = BN(conv3x3(SN(u))) + u                          position, relative
    block       q, k, v = SN(BN(W SN(x)))                           1x1, no bias
                x = x + BN(Wp attention(q, k, v))                   1x1
                x = x + BN(W2 SN(BN(W1 SN(x))))                     1x1, four times as wide inside

Max pooling of spikes gives spikes; the last one acts on membrane inputs. The three maps of a block are one convolution of 3D channels, as
they read the same spikes: the same numbers, fewer calls. A transformer with more or fewer stages halves the width as often.
Source: "Spike-driven Transformer" (Yao et al., NeurIPS 2023).
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from methods.nn.backbones import Level
from methods.nn.drop_path import DropPath
from methods.nn.layer import Layer
from methods.nn.parts import Parts
from methods.nn.residual import MaxPool2d
from methods.nn.synapse import Conv2d

Attention = Callable[[int], nn.Module]  # channels -> a module (q, k, v) -> binary spikes [T, B, D, H, W]


class PatchSplitting(nn.Module):
    """``[T, B, C, H, W]`` to the membrane inputs of tokens ``[T, B, D, H', W']``, and the spikes of the stages before.

    ``pooling`` has a "0" or "1" per stage. Raises ValueError for a width that cannot be halved that often.
    """

    def __init__(self, channels: int, width: int, pooling: str, parts: Parts) -> None:
        """Make the stages and the branch for the position."""
        super().__init__()
        halvings = len(pooling) - 1
        if width % 2**halvings:
            raise ValueError(f"{len(pooling)} stages need a width that is a multiple of {2**halvings}, not {width}")
        self.stages = nn.ModuleList()
        for number, pool in enumerate(pooling):
            features = width >> (halvings - number)
            neuron = nn.Identity() if number == halvings else parts.neuron(features)
            layer = Layer(parts.conv(channels, features, 3, first=number == 0), parts.norm(features), neuron)
            self.stages.append(nn.Sequential(layer, MaxPool2d(3, 2, 1)) if pool == "1" else layer)
            channels = features
        self.position = nn.Sequential(parts.neuron(width), parts.conv(width, width, 3), parts.norm(width))

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the spikes after each stage but the last, and the tokens."""
        found = []
        for stage in self.stages:
            x = stage(x)
            found.append(x)
        found[-1] = self.position(x) + x
        return found


class SelfAttention(nn.Module):
    """The branch of a block that mixes tokens: ``BN(Wp attention(q, k, v))`` of membrane inputs ``x [T, B, D, H, W]``."""

    def __init__(self, width: int, parts: Parts, attention: Attention) -> None:
        """Make neurons, maps and attention."""
        super().__init__()
        self.neuron = parts.neuron(width)
        self.qkv = Layer(parts.conv(width, 3 * width, 1), parts.norm(3 * width), parts.neuron(3 * width))
        self.attention = attention(width)
        self.projection = nn.Sequential(Conv2d(width, width, 1), parts.norm(width))

    def forward(self, x: Tensor) -> Tensor:
        """Return the currents to be added to ``x``."""
        q, k, v = self.qkv(self.neuron(x)).chunk(3, dim=2)
        return self.projection(self.attention(q, k, v))


class TransformerBlock(nn.Module):
    """Attention and a perceptron, each a branch with a membrane shortcut: ``[T, B, D, H, W]`` to the same."""

    def __init__(self, width: int, parts: Parts, attention: Attention, drop_path: float = 0.0, ratio: int = 4) -> None:
        """Make both branches; ``ratio`` is how much wider the perceptron is inside."""
        super().__init__()
        inner = ratio * width
        self.attention = SelfAttention(width, parts, attention)
        self.perceptron = nn.Sequential(
            *(parts.neuron(width), Conv2d(width, inner, 1), parts.norm(inner)),
            *(parts.neuron(inner), Conv2d(inner, width, 1), parts.norm(width)),
        )
        self.drop: nn.Module = DropPath(drop_path) if drop_path else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Return the membrane inputs of the next block."""
        x = x + self.drop(self.attention(x))
        return x + self.drop(self.perceptron(x))


class SpikeTransformer(nn.Module):
    """Patch splitting, ``blocks`` blocks, and neurons: ``[T, B, C, H, W]`` to levels of spikes.

    Levels: each pooled stage of the splitting but the last, and the spikes of the tokens; for a classifier (``pooled``) only
    ``SN(mean of x over the tokens)`` ``[T, B, D, 1, 1]``. Weights of convolutions start as a normal of deviation 0.02, cut at +-2.
    """

    def __init__(
        self,
        input_shape: tuple[int, ...],
        width: int,
        blocks: int,
        pooling: str,
        parts: Parts,
        attention: Attention,
        drop_path: float = 0.0,
        pooled: bool = True,
    ) -> None:
        """Make the network."""
        super().__init__()
        channels, *size = input_shape
        self.splitting = PatchSplitting(channels, width, pooling, parts)
        self.blocks = nn.Sequential(*[TransformerBlock(width, parts, attention, drop_path) for _ in range(blocks)])
        self.neuron = parts.neuron(width)
        self.pooled = pooled
        self.levels: list[Level] = []
        self.kept: list[int] = []  # stages whose spikes are levels
        stride = 1
        for number, pool in enumerate(pooling):
            if pool == "1":
                size, stride = [-(-side // 2) for side in size], 2 * stride
            if pool == "1" and number < len(pooling) - 1 and not pooled:
                self.kept.append(number)
                self.levels.append(Level(width >> (len(pooling) - 1 - number), tuple(size), stride))
        self.levels.append(Level(width, (1, 1), max(input_shape[1:])) if pooled else Level(width, tuple(size), stride))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.trunc_normal_(module.weight, std=0.02)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the spikes of every level."""
        *stages, x = self.splitting(x)
        x = self.blocks(x)
        if self.pooled:
            x = x.mean((3, 4), keepdim=True)
        return [*(stages[number] for number in self.kept), self.neuron(x)]
