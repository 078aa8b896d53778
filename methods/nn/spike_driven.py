"""Operations that spikes cause in a network of blocks, counted sample by sample.

::

    with SpikeDriven(net.blocks) as counter:
        net.course(x)                              # every sample passes every block
    counter.end_to_end(10)                         # [B]
    counter.block_wise([11, 4, 2], exits)          # [B], of samples that leave at blocks ``exits``

The first synapse, which sees the data, costs its multiply-accumulates, at every step; all others one addition per output that an input
other than 0 reaches, an average pooling's output too; a read-out of k numbers k additions per spike, at every step. Taps on padding cost
nothing, but in the first synapse.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from types import TracebackType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def additions(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """Return for each sample ``[B]`` how many additions an input ``x [T, B, C, H, W]`` asks of ``conv``."""
    count = (x != 0).to(x.dtype).flatten(0, 1).sum(1, keepdim=True)  # of all channels: each feeds as many outputs
    reached = F.conv2d(count, count.new_ones(1, 1, *conv.kernel_size), None, conv.stride, conv.padding, conv.dilation)
    return reached.double().sum((1, 2, 3)).view(x.shape[:2]).sum(0) * (conv.out_channels / conv.groups)


class SpikeDriven:
    """Context that counts what passes ``blocks``, ``[T, B, C, H, W]`` to the same; all samples must pass all blocks."""

    def __init__(self, blocks: nn.ModuleList) -> None:
        """Prepare for ``blocks``."""
        self._blocks = blocks
        self._synapses: list[list[Tensor]] = [[] for _ in blocks]  # operations of each batch [B]
        self._spikes: list[list[Tensor]] = [[] for _ in blocks]  # what leaves the block, other than 0 [B]
        self._pending: list[Tensor] = []  # operations of the synapses of the block that is running
        self._handles: list[Any] = []

    def __enter__(self) -> SpikeDriven:
        """Begin to count."""
        first = next(module for module in self._blocks.modules() if isinstance(module, nn.Conv2d))
        for depth, block in enumerate(self._blocks):
            for module in block.modules():
                if isinstance(module, nn.Conv2d):
                    self._handles.append(module.register_forward_hook(self._synapse_hook(module is first)))
            self._handles.append(block.register_forward_hook(self._block_hook(depth)))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Stop counting; what was counted stays."""
        while self._handles:
            self._handles.pop().remove()

    def _synapse_hook(self, first: bool) -> Callable[..., None]:
        def hook(conv: nn.Conv2d, args: tuple[Tensor], out: Tensor) -> None:
            macs = out[:, 0].numel() * prod(conv.weight.shape[1:])
            self._pending.append(out.new_full((out.shape[1],), macs, dtype=torch.float64) if first else additions(conv, args[0]))

        return hook

    def _block_hook(self, depth: int) -> Callable[..., None]:
        def hook(block: nn.Module, args: tuple[Tensor], out: Tensor) -> None:
            self._synapses[depth].append(torch.stack(self._pending).sum(0))
            self._spikes[depth].append((out != 0).double().flatten(2).sum((0, 2)))
            self._pending.clear()

        return hook

    def end_to_end(self, classes: int) -> Tensor:
        """Return the operations ``[B]`` of all blocks and one read-out of ``classes``."""
        return sum(torch.cat(each) for each in self._synapses) + classes * torch.cat(self._spikes[-1])

    def block_wise(self, outputs: Sequence[int], exits: Tensor) -> Tensor:
        """Return the operations ``[B]`` of samples that leave at blocks ``exits [B]`` (from 0), heads of ``outputs`` numbers per block."""
        total = torch.zeros(len(exits), dtype=torch.float64, device=exits.device)
        for depth, (synapses, spikes) in enumerate(zip(self._synapses, self._spikes, strict=True)):
            total += (exits >= depth) * (torch.cat(synapses) + outputs[depth] * torch.cat(spikes))
        return total
