"""RevSNN: reversible spiking networks, whose training memory does not grow with depth.

A block splits its currents into two streams and adds to each a function of the other, so its input follows from its output, whatever the
functions are; they see whole sequences ``[T, B, C, H, W]`` and begin and end at rest::

    y1 = x1 + f(x2)        x2 = y2 - g(y1)
    y2 = x2 + g(y1)        x1 = y1 - f(x2)

Training keeps the output of the last block of a stage; the backward pass finds the input of one block at a time and runs its functions
again (``methods/nn/reversible.py``). The gradient is exact; the price is one more forward pass, block after block. The saving is over
depth: one function is still unrolled over all T steps. ``reversible=false`` is the same network with plain autograd::

    spikebench scale -t static/digits -m "rev_snn,rev_snn[reversible=false]" --over depth --values 1,2,4

Networks: ``revsresnet`` (``methods/nn/reversible_resnet.py``), stages of the budget's widths with ``blocks * depth`` blocks, or of 21, 37
and 109 layers for CIFAR, 24 for events; ``revsformer`` (``methods/nn/reversible_transformer.py``), ``blocks * depth`` blocks of the
budget's last width, or those of the paper (blocks-width). Neurons of threshold 1 with hard, detached reset::

    if    u = v + I                    arctan surrogate, alpha 2     residual networks, images
    lif   u = v + (I - v) / tau        sigmoid surrogate, alpha 4    tau 1.5: residual networks, events; tau 2: transformers
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field
from torch import nn

from harness import plugin
from harness.plugin import Card, Claim, UnfitError, UsageError
from harness.task import Task
from methods.base import SpikingMethod
from methods.nn.layer import Layer
from methods.nn.neuron import LIF
from methods.nn.norm import BatchNorm
from methods.nn.recomputation import recomputation
from methods.nn.reversible_resnet import RevSResNet
from methods.nn.reversible_transformer import RevSFormer
from methods.nn.spike_attention import SpikingSelfAttention
from methods.nn.surrogate import Arctan, Sigmoid
from methods.nn.synapse import AvgPool2d

CIFAR_WIDTHS = (128, 256, 512, 896)
RESNETS: dict[str, tuple[tuple[int, int], ...]] = {  # channels and blocks of the stages
    **{
        layers: tuple(zip(CIFAR_WIDTHS, blocks, strict=True))
        for layers, blocks in (("21", (1, 1, 1, 1)), ("37", (1, 2, 3, 2)), ("109", (2, 4, 16, 4)))
    },
    "24": ((32, 1), (64, 2), (128, 2)),
}
FORMERS = {"2-384": "0011", "4-384": "0011", "2-256": "1111"}  # stages of the patch splitting that pool
PAPER = "abstract"
TABLE = "table of the paper"
REPORTED = 64  # training samples that the run backwards is looked at with


class RevSnn(SpikingMethod):
    """Reversible residual networks and transformers."""

    card = Card(
        name="rev_snn",
        title="Memory-Efficient Reversible Spiking Neural Networks",
        authors="Zhang, Zhang",
        venue="AAAI 2024",
        year=2024,
        family="architecture",
        summary="Blocks whose input follows from their output: activations are computed again, so memory does not grow with depth.",
        compared_with=("stbp", "ms_resnet"),  # and its own reversible=false
        baseline="rev_snn[reversible=false]",
        claims=(
            Claim(
                "cuda_bytes",
                "ratio",
                1 / 3.79,
                "static/cifar10",
                "RevSResNet37, T=4, per image",
                PAPER,
                against="ms_resnet",
                networks=("size=37", "blocks=3,net=cifar,width=144"),
            ),
            Claim(
                "cuda_bytes",
                "property",
                None,
                "static/cifar10",
                "RevSFormer-4-384, T=4: 3.00x lower than Spikingformer's",
                PAPER,
                unmeasured="Spikingformer is no plugin; over its own twin with plain autograd: docs/scaling.md",
            ),
            Claim(
                "saved_bytes",
                "property",
                None,
                "any",
                "does not grow with depth; linear with reversible=false",
                PAPER,
                expect="constant over depth",
            ),
            Claim(
                "step_time",
                "property",
                None,
                "any",
                "longer by the recomputation, which is strictly sequential",
                "a later paper",
                against="rev_snn[reversible=false]",
                expect="higher",
            ),
            *(
                Claim("test_accuracy", "value", top, task, net, TABLE, networks=(given,))
                for top, task, net, given in (
                    (0.9453, "static/cifar10", "RevSResNet21, T=4", "size=21"),
                    (0.9477, "static/cifar10", "RevSResNet37, T=4", "size=37"),
                    (0.9529, "static/cifar10", "RevSFormer-2-384, T=4", "network=revsformer,size=2-384"),
                    (0.9534, "static/cifar10", "RevSFormer-4-384, T=4", "network=revsformer,size=4-384"),
                    (0.7546, "static/cifar100", "RevSResNet21, T=4", "size=21"),
                    (0.7634, "static/cifar100", "RevSResNet37, T=4", "size=37"),
                    (0.7804, "static/cifar100", "RevSFormer-2-384, T=4", "network=revsformer,size=2-384"),
                    (0.7904, "static/cifar100", "RevSFormer-4-384, T=4", "network=revsformer,size=4-384"),
                    (0.7640, "events/cifar10-dvs", "RevSResNet24, T=16", "size=24"),
                    (0.8220, "events/cifar10-dvs", "RevSFormer-2-256, T=16", "network=revsformer,size=2-256"),
                    (0.9653, "events/dvs-gesture", "RevSResNet24, T=16", "size=24"),
                    (0.9757, "events/dvs-gesture", "RevSFormer-2-256, T=16", "network=revsformer,size=2-256"),
                )
            ),
        ),
        reconstructed="nets of the budget, levels for detection and segmentation, channels and blocks of size 24 (from its 24 layers), the "
        "patch splitting (Spike-driven Transformer's; sizes agree) and its pooling for events, heads of width 256; statistics move once"
        " and random state is replayed (the code's move twice); mixup, RandAugment, erasing, least learning rate are not there",
    )
    cannot = {"sequences": "a network of 2-d convolutions for images and event frames; a sequence has no space"}

    class Options(plugin.Options):
        """Network and how it is differentiated."""

        reversible: bool = Field(True, description="run blocks again in the backward pass; false: the same network with plain autograd")
        network: Literal["revsresnet", "revsformer"] = Field("revsresnet", description="residual network or transformer")
        size: Literal["budget", "21", "37", "109", "24", "2-384", "4-384", "2-256"] = Field(
            "budget", description="by the budget, or of the paper: layers of revsresnet (24: events), blocks-width of revsformer"
        )
        blocks: int = Field(1, description="reversible blocks per stage, times the budget's depth (size = budget)", ge=1)
        neuron: Literal["auto", "if", "lif"] = Field("auto", description="auto: if for images in a revsresnet, else lif")

    options: Options

    def __init__(self, task: Task, *args: Any, **kwargs: Any) -> None:
        """Bind to a task; raise UsageError for a size of the other network, or places asked of a net that has them not."""
        super().__init__(task, *args, **kwargs)
        o = self.options
        sizes = ["budget", *(RESNETS if o.network == "revsresnet" else FORMERS)]
        if o.size not in sizes:
            raise UsageError(f"rev_snn: size = {o.size!r} is not one of {o.network}; allowed: {', '.join(sizes)}")
        if o.size in RESNETS and task.head.strides:
            raise UnfitError(f"rev_snn: size = {o.size!r} has no features at the strides of {task.name}; allowed: 'budget'")
        self.leaky = o.neuron == "lif" or (o.neuron == "auto" and (task.temporal or o.network == "revsformer"))

    @classmethod
    def supports(cls, task: Task) -> str | None:
        """Return why it cannot do ``task``: events of sensors without pixels have no space either."""
        if task.budget.backbone.kind == "sequence":
            return cls.cannot["sequences"]
        return super().supports(task)

    # Parts ----------------------------------------------------------------------------------------------------------

    def neuron(self, features: int, threshold: float = 1.0) -> nn.Module:
        """Return IF or LIF neurons."""
        if not self.leaky:
            return LIF(1.0, threshold, surrogate=Arctan(2.0))
        tau = 1.5 if self.options.network == "revsresnet" else 2.0
        return LIF(1 - 1 / tau, threshold, surrogate=Sigmoid(4.0), scale_input=True)

    def norm(self, features: int, scale: float = 1.0) -> nn.Module:
        """Return ordinary batch normalisation."""
        return BatchNorm(features)

    def attention(self, features: int) -> nn.Module:
        """Return self-attention of spikes: threshold 1/2, a scale fixed at 0.125, heads of 32 channels where these fit."""
        heads = 1 if features % 32 else features // 32  # 12 for a width of 384
        return SpikingSelfAttention(self.neuron(features, threshold=0.5), features, heads, scale=0.125)

    # Architecture ---------------------------------------------------------------------------------------------------

    def backbone(self) -> nn.Module:
        """Return the network that ``network`` and ``size`` name."""
        return self.resnet() if self.options.network == "revsresnet" else self.former()

    def resnet(self) -> RevSResNet:
        """Return the residual network: a 3x3 stem, for the paper's event net of stride 2 and followed by a pooling."""
        o, spec, shape = self.options, self.task.budget.backbone, self.task.input_shape
        budget = o.size == "budget"
        stages = tuple((width, o.blocks * spec.depth) for width in spec.widths) if budget else RESNETS[o.size]
        width, small = stages[0][0], o.size == "24"
        stem: nn.Module = Layer(self.conv(shape[0], width, 3, 2 if small else 1, first=True), self.norm(width), nn.Identity())
        stem = nn.Sequential(stem, AvgPool2d(3, 2, 1)) if small else stem
        return RevSResNet(shape, stem, width, 4 if small else 1, stages, self, average=not budget, reversible=o.reversible)

    def former(self) -> RevSFormer:
        """Return the transformer: by the budget a pooling per stage of its reference network, in the last of at least four stages."""
        o, spec = self.options, self.task.budget.backbone
        pooled = self.task.head.kind not in ("detect", "segment")
        if o.size == "budget":
            blocks, pooling = o.blocks * spec.depth, ("1" * len(spec.widths)).rjust(4, "0")
            unit = 2 ** (len(pooling) - 1)
            width = max(-(-spec.widths[-1] // unit), 4) * unit
        else:
            blocks, width = (int(part) for part in o.size.split("-"))
            pooling = FORMERS[o.size]
        return RevSFormer(self.task.input_shape, width, blocks, pooling, self, self.attention, pooled, o.reversible)

    def recipe(self, task: Task) -> dict[str, Any]:
        """Return the settings of the official code.

        Small images, and answers at places, which the paper has not, keep the budget's network.
        """
        former, fits = self.given.get("network") == "revsformer", not task.head.strides and min(task.input_shape[1:]) >= 32
        if task.temporal:
            size = {"size": "2-256" if former else "24"} if fits else {}
            common = {"optimizer": "adamw", "lr": 1e-3, "schedule": "cosine", "warm_up": 10, "epochs": 106, "batch_size": 16, "steps": 16}
            return common | size | {"weight_decay": 0.06 if former else 0.0}
        if former:
            size = {"size": "4-384"} if fits else {}
            smoothing = {"label_smoothing": 0.1} if task.head.kind == "classify" else {}
            common = {"optimizer": "adamw", "lr": 5e-4, "weight_decay": 0.06, "schedule": "cosine", "warm_up": 20}
            return common | size | smoothing | {"epochs": 310, "batch_size": 64, "augment": True, "steps": 4}
        common = {"optimizer": "sgd", "lr": 0.1, "momentum": 0.9, "weight_decay": 1e-4, "schedule": "drops", "milestones": (0.5, 0.75)}
        size = {"size": "37"} if fits else {}
        return common | size | {"lr_factor": 0.1, "epochs": 200, "batch_size": 32, "augment": True, "steps": 4}

    def report(self, net: nn.Module) -> dict[str, Any]:
        """Return, per reversible sequence and in training mode, the error of the run backwards and the rate of spikes that it flips."""
        batch = next(self.task.batches("train", batch_size=REPORTED))
        return {**super().report(net), **recomputation(net, lambda copy: copy(self.encode(batch.inputs)))}
