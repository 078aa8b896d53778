"""Memory and operations of training and running a network block by block, as counted from its shapes.

Per block b, for one sample: ``P_b`` parameters, ``P_cls_b`` and ``P_hcd_b`` of its heads, ``a_b`` saved numbers per step, ``s_b`` numbers
of its output per step, ``C_b`` operations over all steps, heads included. With batch N, T steps and m copies in the optimiser::

    M_e2e = 4 [ (2 + m) sum_b P_b + N T sum_b a_b ]
    M_b   = 4 [ (2 + m) (P_b + P_cls_b + P_hcd_b) + sum_{j<b} P_j + N T a_b + N T s_{b-1} ]
    overhead = sum_b (P_b + P_cls_b + P_hcd_b) / P_e2e              compute efficiency = C_e2e / sum_b r_b C_b

in bytes of single precision; ``r_b`` is the fraction of samples that reach block b. The end-to-end network is the blocks and one read-out,
which counts in ``P_e2e`` and ``C_e2e`` (and as parameters in ``M_e2e``). What is saved per neuron and step: the synapse's current (for the
normalisation), the potential (for the surrogate), the spike (for the next synapse); a pooling saves its output (for the next synapse).
Operations are dense multiply-accumulates, every step counted, read-outs once, on the mean over time (``methods.nn.spike_driven`` counts
those that spikes cause). The model is ours, as the paper (BlocTrain, Srinivasan and Roy 2021) could not be read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor, nn

from methods.nn.norm import BatchNorm

BYTES = 4


@dataclass(frozen=True)
class BlockCost:
    """What one block costs per sample; see the module's docstring for the symbols."""

    parameters: int  # P_b
    classifier: int  # P_cls_b
    detector: int  # P_hcd_b
    saved: int  # a_b, numbers per step
    inputs: int  # s_{b-1}, numbers per step
    operations: int  # C_b, over all steps, heads included


@dataclass(frozen=True)
class EndToEndCost:
    """What the same blocks cost with one read-out at the end."""

    parameters: int  # P_e2e
    saved: int  # sum of a_b
    operations: int  # C_e2e


def count(module: nn.Module) -> int:
    """Return the number of parameters."""
    return sum(p.numel() for p in module.parameters())


def trace(block: nn.Module, sample: Tensor) -> tuple[Tensor, int, int]:
    """Return the output, the saved numbers per step and the operations per step of ``block`` on one step of one sample ``[1, 1, ...]``."""
    saved = operations = 0

    def keeper(numbers: int) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Tensor], out: Tensor) -> None:
            nonlocal saved
            saved += numbers * out.numel()

        return hook

    def synapse_hook(synapse: nn.Conv2d, args: tuple[Tensor], out: Tensor) -> None:
        nonlocal operations
        operations += out.numel() * prod(synapse.weight.shape[1:])

    hooks = []
    for module in block.modules():
        if hasattr(module, "spike_kind"):
            hooks.append(module.register_forward_hook(keeper(2)))  # potential, spike
        elif isinstance(module, BatchNorm | nn.AvgPool2d | nn.MaxPool2d):
            hooks.append(module.register_forward_hook(keeper(1)))
        elif isinstance(module, nn.Conv2d):
            hooks.append(module.register_forward_hook(synapse_hook))
    try:
        with torch.no_grad():
            out = block(sample)
    finally:
        for hook in hooks:
            hook.remove()
    return out, saved, operations


def measure(
    blocks: nn.ModuleList, classifiers: nn.ModuleList, detectors: nn.ModuleList, shape: tuple[int, ...], steps: int, classes: int
) -> tuple[list[BlockCost], EndToEndCost]:
    """Return the costs of every block and of the end-to-end network of the same blocks with a read-out of ``classes``.

    ``shape`` is that of an input at one step. The network must be in eval mode. A block without detector has an ``nn.Identity`` or none.
    """
    like = next(blocks.parameters())
    x = torch.zeros(1, 1, *shape, device=like.device, dtype=like.dtype)
    found = []
    operations = 0
    for depth, block in enumerate(blocks):
        inputs = x.numel()
        x, saved, per_step = trace(block, x)
        heads = [count(head[depth]) if depth < len(head) else 0 for head in (classifiers, detectors)]
        width = x.numel()
        outputs = sum(parameters // (width + 1) for parameters in heads)  # a head has a weight per feature and a bias
        found.append(BlockCost(count(block), heads[0], heads[1], saved, inputs, steps * per_step + width * outputs))
        operations += steps * per_step
    readout = x.numel() * classes
    total = EndToEndCost(sum(b.parameters for b in found) + readout + classes, sum(b.saved for b in found), operations + readout)
    return found, total


def end_to_end_memory(total: EndToEndCost, batch: int, steps: int, copies: int) -> int:
    """Return ``M_e2e`` in bytes; ``copies`` is m."""
    return BYTES * ((2 + copies) * total.parameters + batch * steps * total.saved)


def block_memory(blocks: list[BlockCost], depth: int, batch: int, steps: int, copies: int) -> int:
    """Return ``M_b`` in bytes of block ``depth`` (from 0)."""
    own, before = blocks[depth], sum(b.parameters for b in blocks[:depth])
    trained = own.parameters + own.classifier + own.detector
    return BYTES * ((2 + copies) * trained + before + batch * steps * (own.saved + own.inputs))


def memory_overhead(blocks: list[BlockCost], total: EndToEndCost) -> float:
    """Return the parameters of all blocks and heads over those of the end-to-end network."""
    return sum(b.parameters + b.classifier + b.detector for b in blocks) / total.parameters


def reached(exits: Tensor, blocks: int) -> list[float]:
    """Return ``r_b``: the fraction of samples that reach each block, given the blocks ``exits [B]`` (from 0) at which they left."""
    return [int((exits >= b).sum()) / len(exits) for b in range(blocks)]


def compute_efficiency(blocks: list[BlockCost], total: EndToEndCost, fractions: list[float]) -> float:
    """Return ``C_e2e / sum_b r_b C_b`` for the fractions ``r_b``."""
    return total.operations / sum(r * b.operations for r, b in zip(fractions, blocks, strict=True))


def saved_bytes(costs: BlockCost | EndToEndCost, batch: int, steps: int) -> int:
    """Return the part of ``M_b`` or ``M_e2e`` that is saved for the backward pass: activations, potentials, and a block's inputs."""
    inputs = costs.inputs if isinstance(costs, BlockCost) else 0
    return BYTES * batch * steps * (costs.saved + inputs)


def summary(
    blocks: list[BlockCost], total: EndToEndCost, exits: Tensor, batch: int, steps: int, copies: int
) -> dict[str, float | Sequence[float]]:
    """Return all figures of the model for samples that left at blocks ``exits [B]`` (from 0); efficiency is end-to-end over block-wise."""
    whole = end_to_end_memory(total, batch, steps, copies)
    memory = [block_memory(blocks, depth, batch, steps, copies) for depth in range(len(blocks))]
    fractions = reached(exits, len(blocks))
    return {
        "reached": fractions,
        "compute_efficiency_dense": compute_efficiency(blocks, total, fractions),
        "memory_end_to_end": whole,
        "memory_block": [float(m) for m in memory],
        "memory_efficiency_block": [whole / m for m in memory],
        "memory_efficiency": whole / max(memory),
        "saved_model_end_to_end": saved_bytes(total, batch, steps),
        "saved_model_block": [saved_bytes(block, batch, steps) for block in blocks],
        "memory_overhead": memory_overhead(blocks, total),
    }
