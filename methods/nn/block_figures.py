"""What residual blocks do with a batch: sizes of their outputs, firing rates, gradients; and what whole numbers cost the convolutions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from methods.nn.residual import ResidualBlock, fraction_not_binary
from methods.nn.synapse import Conv2d


def accumulations(conv: nn.Conv2d, x: Tensor, multiplicity: bool = True) -> float:
    """Return how many additions of weights an input ``x [T, B, C, H, W]`` of whole numbers asks of ``conv``: n for an input of n.

    Inputs that are no whole numbers, of which an average makes some, count 1 each, and so do all but zeros without ``multiplicity``.
    Taps on padding count nothing.
    """
    cost = (x != 0).to(x.dtype)
    if multiplicity:
        cost = torch.where(x == x.round(), x.abs(), cost)
    each = cost.flatten(0, 1).sum(1, keepdim=True)  # of all channels: each feeds as many outputs
    taps = each.new_ones(1, 1, *conv.kernel_size)
    fan = F.conv2d(each, taps, None, conv.stride, conv.padding, conv.dilation)
    return fan.double().sum().item() * conv.out_channels / conv.groups


def block_figures(net: nn.Module, loss: Callable[[], Tensor], samples: int) -> dict[str, Any]:
    """Return figures of the ``ResidualBlock`` of ``net`` for a ``loss`` that runs it, in eval mode, on ``samples`` samples.

    Per block: ``block_max``, ``block_histogram`` (neuron-steps with an output of 0, 1, 2...) and ``block_mean`` of its outputs,
    ``block_rate`` (spikes per neuron and step inside it), ``block_gradient_norm`` (gradient of its branch's parameters). Per convolution
    after the first, which sees the data: ``non_binary_inputs``, the fraction that is neither 0 nor 1. Of these together, per sample:
    ``accumulations``, an input of n counted n times, and ``accumulations_if_binary``, counted once.
    """
    blocks = [module for module in net.modules() if isinstance(module, ResidualBlock)]
    outputs: list[Tensor] = []
    fired = {block: [0.0, 0] for block in blocks}
    impure: list[float] = []
    additions = [0.0, 0.0]

    def count(block: ResidualBlock) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, spikes: Tensor) -> None:
            fired[block][0] += (spikes.detach() != 0).sum().item()
            fired[block][1] += spikes.numel()

        return hook

    def look(module: nn.Module, args: Any) -> None:
        x = args[0].detach()
        impure.append(fraction_not_binary(x))
        for place, multiplicity in enumerate((True, False)):
            additions[place] += accumulations(module, x, multiplicity) / samples

    hooks = [block.register_forward_hook(lambda module, args, out: outputs.append(out)) for block in blocks]
    for block in blocks:
        hooks += [part.register_forward_hook(count(block)) for part in block.modules() if hasattr(part, "spike_kind")]
    hooks += [conv.register_forward_pre_hook(look) for conv in [module for module in net.modules() if isinstance(module, Conv2d)][1:]]
    net.eval()
    try:
        with torch.enable_grad():
            value = loss()
    finally:
        for handle in hooks:
            handle.remove()
    parameters = [list(block.branch.parameters()) for block in blocks]
    grads = iter(torch.autograd.grad(value, [p for part in parameters for p in part]))
    norms = [sum(next(grads).double().square().sum().item() for _ in part) ** 0.5 for part in parameters]
    found = [out.detach() for out in outputs]
    return {
        "block_max": [out.max().item() for out in found],
        "block_histogram": [torch.bincount(out.flatten().round().long().clamp_min(0)).tolist() for out in found],
        "block_mean": [out.mean().item() for out in found],
        "block_rate": [spikes / elements for spikes, elements in fired.values()],
        "block_gradient_norm": norms,
        "non_binary_inputs": impure,
        "accumulations": additions[0],
        "accumulations_if_binary": additions[1],
    }
