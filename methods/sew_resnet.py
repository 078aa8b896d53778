"""SEW ResNet: residual blocks that join two spike tensors element by element, so that a block can be an exact identity.

In a Spiking ResNet the sum of branch and shortcut passes one more layer of neurons: the shortcut's gradient is multiplied by a surrogate
derivative in every block. Here the last neurons sit inside the branch, ``O = g(A, S)``, with g = ADD ``A + S``, AND ``A * S`` or IAND
``(1 - A) * S``; ``connect="vanilla"`` (Spiking ResNet) and ``"plain"`` (no shortcut) are the baselines. See ``methods/nn/residual.py``.

Neurons (arctan surrogate, alpha 2; threshold 1; hard reset, detached; they fire at threshold)::

    if    u = v + I                      static images
    lif   u = v + (I - v) / tau, tau 2
    plif  the same, 1/tau = sigmoid(w) learnt per layer   data with a time axis

Every neuron emits 0 or 1 (``spikes = "binary"``); a block's output under ADD is a whole number of up to one more per block, so inputs
of later convolutions are not binary: an input of 3 costs 3 accumulations. ``report`` gives that fraction. Matched track (ours): a stage per
width of the budget (3x3 stem or 1x1 change of channels, blocks, 2x2 average pooling). Recipe track: the nets of the paper.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from harness import plugin
from harness.plugin import Card, Claim, UsageError
from harness.task import Task
from methods.base import SpikingMethod
from methods.nn.neuron import LIF
from methods.nn.norm import BatchNorm
from methods.nn.residual import DEPTHS, Connect, DeepResNet, MaxPool2d, ResidualBlock, ResNet, fraction_not_binary
from methods.nn.surrogate import Arctan
from methods.nn.synapse import Conv2d

EVENT_NETS = {"7b": (32,) * 7, "wide7b": (64,) * 4 + (128,) * 3}  # channels of the stages, one block each
LOGS = "training logs in the official repository, best epoch"


class SewResnet(SpikingMethod):
    """Spike-element-wise residual networks and their baselines."""

    card = Card(
        name="sew_resnet",
        title="Deep Residual Learning in Spiking Neural Networks",
        authors="Fang, Yu, Chen, Huang, Masquelier, Tian",
        venue="NeurIPS 2021",
        year=2021,
        family="architecture",
        summary="Residual blocks that join spikes element-wise (ADD, AND, IAND) instead of passing the sum through neurons.",
        compared_with=("stbp",),  # and its own connect=vanilla, connect=plain
        claims=(
            Claim("test_accuracy", "value", 0.6704, "static/imagenet", "SEW ResNet-34, ADD, T=4 (Spiking ResNet: 0.6186)", LOGS),
            Claim("test_accuracy", "value", 0.6926, "static/imagenet", "SEW ResNet-152, ADD, T=4 (Spiking ResNet: 0.1003)", LOGS),
            Claim("test_accuracy", "value", 0.9792, "events/dvs_gesture", "7B-Net, ADD, T=16 (Spiking ResNet: 0.9097)", LOGS),
            Claim("test_accuracy", "value", 0.744, "events/cifar10dvs", "Wide-7B-Net, ADD, T=16", LOGS),
            Claim(
                "test_accuracy",
                "property",
                None,
                "any",
                "does not fall with depth (gradients neither vanish nor explode); vanilla does",
                LOGS,
            ),
        ),
        reconstructed="the matched network (stages of the budget's widths, average pooling); paper body not read, equations are the code's",
    )
    cannot = {"sequences": "a residual network of 2-d convolutions for images and event frames; a sequence has no space"}

    class Options(plugin.Options):
        """Architecture, initialisation and neuron."""

        connect: Connect = Field("add", description="how a block joins branch and shortcut (g); vanilla and plain are baselines")
        blocks: int = Field(1, description="blocks per stage (net = budget)", ge=1)
        block: Literal["basic", "bottleneck"] = Field("basic", description="kind of block (net = budget)")
        zero_init: bool = Field(False, description="start every block as an identity: last normalisation weight 0")
        neuron: Literal["auto", "if", "lif", "plif"] = Field("auto", description="neuron; auto: if for static images, plif for events")
        net: Literal["budget", "7b", "wide7b", "18", "34", "50", "101", "152"] = Field(
            "budget", description="the budget's widths, an event net of the paper, or its ImageNet net of that depth"
        )

    options: Options

    def __init__(self, task: Task, *args: Any, **kwargs: Any) -> None:
        """Bind to a task; raise UsageError where ``zero_init`` cannot give an identity."""
        super().__init__(task, *args, **kwargs)
        o = self.options
        self.kind = o.neuron if o.neuron != "auto" else ("plif" if task.temporal else "if")
        if o.zero_init and o.connect == "plain":
            raise UsageError("sew_resnet: zero_init silences connect=plain; allowed: add, and, iand, vanilla")
        if o.zero_init and o.connect == "and" and self.kind != "if":
            raise UsageError(
                f"sew_resnet: zero_init with connect=and needs neuron=if, not {self.kind}: A = 1 asks for a spike at every step"
            )

    def neuron(self, features: int) -> nn.Module:
        """Return IF, LIF (tau 2) or PLIF neurons; the leak is ``1 - 1/tau``."""
        if self.kind == "if":
            return LIF(1.0, self.threshold, surrogate=Arctan(2.0))
        return LIF(0.5, self.threshold, surrogate=Arctan(2.0), scale_input=True, learnable_leak=self.kind == "plif")

    def norm(self, features: int, scale: float = 1.0) -> nn.Module:
        """Return ordinary batch normalisation, on added branches too (the paper's baseline has no other)."""
        return BatchNorm(features)

    def pool(self, kernel: int) -> nn.Module:
        """Return average pooling (matched), or max pooling (the event nets of the paper)."""
        return MaxPool2d(kernel) if self.options.net in EVENT_NETS else super().pool(kernel)

    def backbone(self) -> nn.Module:
        """Return the residual network that ``net`` names."""
        o, shape = self.options, self.task.input_shape
        if o.net in DEPTHS:
            depths, bottleneck = DEPTHS[o.net]
            block = partial(ResidualBlock, parts=self, connect=o.connect, bottleneck=bottleneck, zero_init=o.zero_init)
            return DeepResNet(shape, depths, self, block, 4 if bottleneck else 1)
        block = partial(ResidualBlock, parts=self, connect=o.connect, bottleneck=o.block == "bottleneck", zero_init=o.zero_init)
        if o.net in EVENT_NETS:
            return ResNet(shape, EVENT_NETS[o.net], self, block, 1, kernels=(1, 1))
        return ResNet(shape, self.task.budget.backbone.widths, self, block, o.blocks * self.task.budget.backbone.depth)

    def recipe(self, task: Task) -> dict[str, Any]:
        """Return the settings of the logs; DVS Gesture's step schedule (x0.1 every 64) becomes a cosine, its random frames all frames."""
        common = {"optimizer": "sgd", "momentum": 0.9, "weight_decay": 0.0, "schedule": "cosine"}
        if "gesture" in task.card.name:
            return common | {"net": "7b", "zero_init": True, "lr": 0.001, "epochs": 192, "batch_size": 16, "steps": 16}
        if task.temporal:
            return common | {"net": "wide7b", "lr": 0.01, "epochs": 64, "batch_size": 16, "steps": 16}
        return common | {"net": "18", "lr": 0.1, "epochs": 320, "batch_size": 256, "augment": True, "steps": 4}

    def report(self, net: nn.Module) -> dict[str, Any]:
        """Return per block, on a test batch: largest, histogram and mean of outputs, gradient norm; per convolution: non-binary inputs."""
        batch = next(self.task.batches("test", batch_size=64))
        blocks = [module for module in net.modules() if isinstance(module, ResidualBlock)]
        outputs: list[Tensor] = []
        impure: list[float] = []  # per convolution after the first, which sees the data
        hooks = [block.register_forward_hook(lambda module, args, out: outputs.append(out)) for block in blocks]
        inner = [module for module in net.modules() if isinstance(module, Conv2d)][1:]
        hooks += [m.register_forward_pre_hook(lambda module, args: impure.append(fraction_not_binary(args[0].detach()))) for m in inner]
        net.eval()
        try:
            with torch.enable_grad():
                loss = self.loss(self.task.final(net(self.encode(batch.inputs))), batch.targets)
        finally:
            for hook in hooks:
                hook.remove()
        grads = [torch.autograd.grad(loss, list(block.branch.parameters()), retain_graph=True) for block in blocks]
        found = [out.detach() for out in outputs]
        return {
            **super().report(net),
            "block_max": [out.max().item() for out in found],
            "block_histogram": [torch.bincount(out.flatten().round().long().clamp_min(0)).tolist() for out in found],
            "block_rate": [out.mean().item() for out in found],
            "block_gradient_norm": [sum(g.square().sum().item() for g in part) ** 0.5 for part in grads],
            "non_binary_inputs": impure,
        }
