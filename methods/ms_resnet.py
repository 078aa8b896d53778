"""MS-ResNet: the residual stream carries real-valued membrane currents; every block begins with neurons and ends with a normalisation.

No neuron stands on the shortcut, so identity and gradient pass it unchanged, while 3x3 convolutions see spikes only
(``methods/nn/membrane_block.py`` has the block)::

    u[t] = 0.25 * u[t-1] * (1 - s[t-1]) + x[t]     s[t] = 1[u[t] > 0.5]     ds/du = 1[|u - 0.5| < 0.5], no gradient through the reset
    tdBN: batch normalisation over time, batch and space, its learnt weight starting at the threshold 0.5; 0 at the end of a block

Why depth is harmless (ours): let ``a`` be the second moment of the stream and ``w`` the gain of the branch's last normalisation. A block
adds ``w^2`` and has the squared gain ``1 + w^2 / a``; over L blocks the product is ``1 + L w^2 / a_0``, linear in depth, and 1 at w = 0.

``connect`` puts a Spiking ResNet block (vanilla), SEW's ADD or no shortcut (plain) in the place of the membrane shortcut, all else equal::

    spikebench run -t static/digits -m "ms_resnet[blocks=16],ms_resnet[blocks=16,connect=vanilla],ms_resnet[blocks=16,connect=add]"

Measured on static/digits (``net=cifar,width=8``, 4 epochs of Adam at 0.01, two seeds), validation accuracy at 8 and at 32 layers: membrane
0.93, 0.95 and 0.95, 0.96; vanilla 0.89, 0.92 and 0.32, 0.50; add 0.92, 0.92 and 0.87, 0.87.

Networks: the budget's widths (ours: 3x3 stem, blocks and a pooling of the stream per width), ``cifar`` of ``6 * blocks + 2`` layers (ours;
482 layers are ``blocks=80``), and those for ImageNet. Heads see the (pooled) spikes of one more layer of neurons. Energy is the harness's,
which books the 1x1 convolutions of shortcuts as multiply-accumulates since their inputs are real; public figures often leave them out.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

import torch
from pydantic import Field
from torch import nn

from harness import plugin
from harness.plugin import Card, Claim
from harness.task import Task
from methods.base import SpikingMethod
from methods.nn.layer import Layer
from methods.nn.membrane_block import MembraneBlock, isometry
from methods.nn.neuron import LIF
from methods.nn.norm import BatchNorm
from methods.nn.residual import DEPTHS, ResidualBlock, fraction_not_binary
from methods.nn.staged_resnet import Stage, StagedResNet, cifar_stages, spiking_ends
from methods.nn.surrogate import Rectangle
from methods.nn.synapse import Conv2d
from methods.nn.watch import Watch

IMAGENET = {"18": DEPTHS["18"][0], "34": DEPTHS["34"][0], "104": (3, 8, 32, 8)}  # blocks of the stages, of widths 64 to 512
SPIKINGFORMER = "difference stated in the paper of Spikingformer"


class MsResnet(SpikingMethod):
    """Membrane-shortcut residual networks."""

    card = Card(
        name="ms_resnet",
        title="Advancing Spiking Neural Networks toward Deep Residual Learning",
        authors="Hu, Deng, Wu, Yao, Li",
        venue="IEEE TNNLS 2024",
        year=2024,
        family="architecture",
        summary="Residual blocks that add membrane currents, not spikes: no neuron on the shortcut, so very deep networks train.",
        compared_with=("stbp", "spiking_resnet", "sew_resnet"),
        baseline="spiking_resnet",
        claims=(
            Claim(
                "test_accuracy", "value", 0.7602, "static/imagenet", "MS-ResNet-104, T=6 (of the code)", "abstract", networks=("net=104",)
            ),
            Claim("test_accuracy", "value", 0.9190, "static/cifar10", "482 layers", SPIKINGFORMER, networks=("blocks=80,net=cifar",)),
            Claim("test_accuracy", "value", 0.6683, "static/cifar100", "depth not named", SPIKINGFORMER),
            Claim(
                "test_accuracy",
                "property",
                None,
                "static/cifar10",
                "does not fall with depth up to 482 layers (ImageNet: 104); Spiking ResNet's does",
                "abstract",
                against="spiking_resnet",
                expect="does not fall over blocks",
            ),
            Claim(
                "firing_rate",
                "value",
                1 / 6,
                "static/imagenet",
                "about one spike per neuron and sample; T=6 is the code's",
                "abstract",
                networks=("net=104",),
            ),
        ),
        reconstructed="paper body not read; networks for CIFAR and of the budgets, their settings, isometry and its derivation are ours",
    )
    cannot = {"sequences": "a residual network of 2-d convolutions for images and event frames; a sequence has no space"}
    threshold = 0.5

    class Options(plugin.Options):
        """Architecture, initialisation and neuron."""

        connect: Literal["membrane", "add", "vanilla", "plain"] = Field(
            "membrane", description="how a block joins branch and shortcut; add (SEW), vanilla (Spiking ResNet), plain are baselines"
        )
        net: Literal["budget", "cifar", "18", "34", "104"] = Field("budget", description="the budget's widths, 6n+2 layers, or ImageNet's")
        blocks: int = Field(1, description="blocks per stage (net = budget, cifar)", ge=1)
        width: int = Field(16, description="channels of the first stage (net = cifar)", ge=1)
        zero_init: bool = Field(
            True, description="start membrane blocks as identities (with these neurons others would be dead, they never do)"
        )
        leak: float = Field(0.25, description="fraction of the membrane potential kept per step", ge=0, le=1)
        dropout: float | None = Field(None, description="of what the read-out sees; None: 0.2 with net = 104, else 0", ge=0, lt=1)

    options: Options

    # Parts ----------------------------------------------------------------------------------------------------------

    def neuron(self, features: int) -> nn.Module:
        """Return LIF neurons with hard, detached reset and a box of height and width 1 as surrogate."""
        return LIF(self.options.leak, self.threshold, surrogate=Rectangle(1.0), strict=True)

    def norm(self, features: int, scale: float = 1.0) -> nn.Module:
        """Return tdBN in the form of the code: the learnt weight itself starts at the threshold."""
        norm = BatchNorm(features)
        nn.init.constant_(norm.weight, scale * self.threshold)
        return norm

    def readout(self, features_in: int, features_out: int) -> nn.Module:
        """Return the read-out, behind dropout if there is any."""
        o, linear = self.options, super().readout(features_in, features_out)
        p = (0.2 if o.net == "104" else 0.0) if o.dropout is None else o.dropout
        return nn.Sequential(nn.Dropout(p), linear) if p else linear

    # Architecture ---------------------------------------------------------------------------------------------------

    def block(self, features_in: int, features_out: int, stride: int) -> nn.Module:
        """Return a block of the kind that ``connect`` names."""
        o = self.options
        if o.connect == "membrane":
            return MembraneBlock(features_in, features_out, stride, self, o.zero_init, pooled=o.net == "104")
        return ResidualBlock(features_in, features_out, stride, self, o.connect)

    def stem(self, width: int) -> nn.Module:
        """Return normalised convolutions of the data: currents for membrane blocks, spikes for the others."""
        channels, end = self.task.input_shape[0], nn.Identity() if self.options.connect == "membrane" else self.neuron(width)
        if self.options.net == "104":
            convs = [Conv2d(channels if i == 0 else width, width, 3, stride=2 if i == 0 else 1, padding=1) for i in range(3)]
            return Layer(nn.Sequential(*convs), self.norm(width), end)
        kernel, stride = (7, 2) if self.options.net in IMAGENET else (3, 1)
        return Layer(self.conv(channels, width, kernel, stride, first=True), self.norm(width), end)

    def backbone(self) -> nn.Module:
        """Return the network that ``net`` names."""
        o, spec = self.options, self.task.budget.backbone
        end = spiking_ends(self.task.head.strides, self) if o.connect == "membrane" else None
        make = partial(StagedResNet, self.task.input_shape, block=self.block, end=end)
        if o.net == "budget":
            stages = tuple(Stage(width, o.blocks * spec.depth) for width in spec.widths)
            return make(self.stem(spec.widths[0]), spec.widths[0], stages, pool=self.pool)
        if o.net == "cifar":
            return make(self.stem(o.width), o.width, cifar_stages(o.blocks, o.width), average=True)
        stages = tuple(Stage(64 * 2**number, count, 2) for number, count in enumerate(IMAGENET[o.net]))
        return make(self.stem(64), 64, stages, stride=2, average=True)

    def recipe(self, task: Task) -> dict[str, Any]:
        """Return the settings of the code for ImageNet, on other data with networks that fit (ours): 482 layers for CIFAR-10, else 110.

        Weight decay is that of the code, 1e-5 (the paper's is 1e-4); inputs of ImageNet are those of the task.
        """
        common = {"optimizer": "sgd", "momentum": 0.9, "lr": 0.1, "schedule": "cosine", "weight_decay": 1e-5, "label_smoothing": 0.1}
        common |= {"epochs": 125, "batch_size": 256, "augment": True, "steps": 6}
        if task.head.strides:
            return common  # heads at chosen strides: the budget's network has them
        if task.card.name == "static/imagenet":
            return common | {"net": "104"}
        if min(task.input_shape[1:]) >= 64:
            return common | {"net": "18"}
        return common | {"net": "cifar", "blocks": 80 if task.card.name == "static/cifar10" else 18}

    # Analysis -------------------------------------------------------------------------------------------------------

    def report(self, net: nn.Module) -> dict[str, Any]:
        """Return, on a test batch, how activity, the stream and its gradients go with depth.

        ``spikes_per_neuron``: per sample, over all steps. Per convolution after the stem: ``non_binary_inputs``, the fraction of its inputs
        that are neither 0 nor 1. Per block: ``block_rate``, of its neurons; ``stream_second_moment`` and ``stream_gradient_norm`` (of the
        loss) of its output; ``block_isometry``, the mean squared singular value of its Jacobian (``methods.nn.membrane_block.isometry``).
        """
        batch = next(self.task.batches("test", batch_size=16))
        stem = set(net.backbone.stem.modules())  # type: ignore[union-attr, arg-type, operator]
        neurons = [m for m in net.modules() if isinstance(m, LIF)]
        blocks = [m for m in net.modules() if isinstance(m, MembraneBlock | ResidualBlock)]
        convs = [m for m in net.modules() if isinstance(m, Conv2d) and m not in stem]
        net.eval()
        with torch.enable_grad(), Watch(neurons) as spikes, Watch(blocks) as stream, Watch(convs) as synapses:
            loss = self.loss(self.task.final(net(self.encode(batch.inputs))), batch.targets)
        rates = {module: out.detach().mean().item() for module, out in zip(spikes.modules, spikes.outputs, strict=True)}
        emitted = sum(out.detach().sum().item() for out in spikes.outputs)
        inside = [[rates[m] for m in block.modules() if m in rates] for block in blocks]
        gradients = torch.autograd.grad(loss, stream.outputs)
        return {
            **super().report(net),
            "spikes_per_neuron": emitted / sum(out[0].numel() for out in spikes.outputs),
            "non_binary_inputs": [fraction_not_binary(x.detach()) for x in synapses.inputs],
            "block_rate": [sum(part) / len(part) for part in inside],
            "stream_second_moment": [out.detach().square().mean().item() for out in stream.outputs],
            "stream_gradient_norm": [g.norm().item() for g in gradients],
            "block_isometry": [isometry(block, x) for block, x in zip(stream.modules, stream.inputs, strict=True)],
        }
