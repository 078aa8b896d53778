"""S-ResNet: a study of the parts of residual spiking networks, as one network in which each part can be exchanged.

A ResNet of ``6n + 2`` layers for CIFAR; layer i, with its own normalisation at every step t (BNTT, with shift)::

    u[t] = leak * v[t-1] + BN_t(conv(o))     s[t] = 1[u[t] > 1]     v[t] = u[t] - s[t], no gradient through the reset
    ds/du = 0.3 * max(0, 1 - |u - 1|)        leak = 0.8744
    end of a block: o = s + skip             skip: the block's input; where the shape changes BN_t(conv1x1(input)), without neurons
    answer: mean over t of FC(mean over space of o), without leak, threshold and bias

So inputs of a block are spikes added to spikes: whole numbers before the first change of shape, real ones after it (``report`` gives the
fractions). The image is seen directly at every step. Each part has an option, the default being the paper's; ``ABLATION`` lists one change
at a time, for a table of differences::

    spikebench run -t static/digits -m "s_resnet,s_resnet[residual=membrane],s_resnet[residual=none],s_resnet[norm=bn]"

Measured so on static/digits (``net=cifar,blocks=2,width=8``, 4 epochs of Adam at 0.01, T = 4), mean validation accuracy of two seeds:
default 0.93; residual membrane 0.40, none 0.17; norm bn 0.88; no shift 0.89; reset to zero 0.87; input poisson 0.70; spike count 0.63;
boosting 0.91.

``boosting`` averages ten votes per class (``methods/nn/votes.py``): no new functions, only another optimisation. Networks: the budget's
widths (ours: blocks and a pooling per width, the first block of a stage changes the channels), or ``cifar``.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from harness import plugin
from harness.plugin import Card, Claim, UnfitError
from harness.task import Task
from methods.base import SpikingMethod
from methods.bntt import signed_poisson
from methods.nn.bntt import BatchNormThroughTime
from methods.nn.layer import Layer
from methods.nn.neuron import LIF
from methods.nn.norm import BatchNorm
from methods.nn.residual import Connect, ResidualBlock, fraction_not_binary
from methods.nn.staged_resnet import Stage, StagedResNet, cifar_stages
from methods.nn.surrogate import Triangle
from methods.nn.synapse import Conv2d, Linear
from methods.nn.votes import Votes
from methods.nn.watch import Watch

CONNECT: dict[str, Connect] = {"spikes": "add", "membrane": "vanilla", "none": "plain"}
ABLATION: tuple[str, ...] = ("residual=membrane", "residual=none", "norm=bn", "bntt_bias=false", "reset=zero", "input=poisson")
ABLATION += ("answer=spike_count", "boosting=true")  # one change at a time from the default


class Resize(nn.Module):
    """Bilinear resizing of ``[T, B, C, H, W]`` to ``size``."""

    def __init__(self, size: tuple[int, int]) -> None:
        """Keep the size."""
        super().__init__()
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        """Return ``[T, B, C, *size]``."""
        return F.interpolate(x.flatten(0, 1), size=self.size, mode="bilinear", align_corners=False).unflatten(0, x.shape[:2])


class SResnet(SpikingMethod):
    """The S-ResNet with exchangeable parts."""

    card = Card(
        name="s_resnet",
        title="Keys to Accurate Feature Extraction Using Residual Spiking Neural Networks",
        authors="Vicente-Sola, Manna, Kirkland, Di Caterina, Bihl",
        venue="Neuromorphic Computing and Engineering 2(4)",
        year=2022,
        family="architecture",
        summary="A study of residual placement, normalisation, reset, input and answer in one spiking ResNet, and the best combination.",
        compared_with=("stbp", "bntt", "sew_resnet", "spiking_resnet"),
        baseline="s_resnet[norm=bn]",
        claims=(
            Claim("test_accuracy", "value", 0.941, "static/cifar10", "38 layers, 32 channels, T=50", "abstract"),
            Claim("test_accuracy", "value", 0.745, "static/cifar100", "38 layers, 32 channels, T=50", "abstract"),
            Claim("test_accuracy", "value", 0.713, "events/cifar10-dvs", "38 layers, 50 frames", "abstract"),
            Claim(
                "parameters",
                "property",
                None,
                "static/cifar10",
                "fewer than those of the best spiking network before",
                "abstract",
                unmeasured="the network it is compared with is no plugin",
            ),
        ),
        reconstructed="paper body not read, so its ablation tables are not here; choices other than the default, the matched network, the "
        "resizing of frames (bilinear) and their size below 64 are ours",
    )
    cannot = {"sequences": "a residual network of 2-d convolutions for images and event frames; a sequence has no space"}

    class Options(plugin.Options):
        """The parts of the study."""

        residual: Literal["spikes", "membrane", "none"] = Field(
            "spikes", description="what a shortcut joins: spikes, currents before the neurons, or there is none"
        )
        norm: Literal["bntt", "bn", "tdbn"] = Field(
            "bntt", description="normalisation per time step, or over time too; tdbn is bn but for residual=membrane, as the threshold is 1"
        )
        bntt_bias: bool = Field(True, description="let BNTT shift as well, as the published networks do")
        reset: Literal["subtract", "zero"] = Field("subtract", description="what a spike does to the potential")
        input: Literal["direct", "poisson"] = Field("direct", description="the task's encoding, or random signed spikes of static data")
        answer: Literal["potential", "spike_count"] = Field(
            "potential", description="logits: potentials of read-outs without leak, or numbers of spikes of read-out neurons"
        )
        boosting: bool = Field(False, description="average ten votes per class")
        net: Literal["budget", "cifar"] = Field("budget", description="the budget's widths, or the 6n+2 layers of the paper")
        blocks: int = Field(1, description="blocks per stage (n)", ge=1)
        width: int = Field(32, description="channels of the first stage (f; net = cifar)", ge=1)
        leak: float = Field(0.8744, description="fraction of the membrane potential kept per step", ge=0, le=1)

    options: Options

    def __init__(self, task: Task, *args: Any, **kwargs: Any) -> None:
        """Bind to a task; raise UsageError for options that the task has no use for."""
        super().__init__(task, *args, **kwargs)
        o, kind = self.options, task.head.kind
        if o.input == "poisson" and task.temporal:
            raise UnfitError(f"s_resnet: input = 'poisson' is for static data; {task.card.name} has a time axis, use input = 'direct'")
        if o.answer == "spike_count" and kind != "classify":
            raise UnfitError(f"s_resnet: answer = 'spike_count' counts votes for classes; {task.card.name} asks to {kind}: use 'potential'")
        if o.boosting and task.head.strides:
            raise UnfitError(
                f"s_resnet: boosting averages votes of one linear read-out; {task.card.name} asks to {kind}: use boosting = false"
            )

    # Parts ----------------------------------------------------------------------------------------------------------

    def neuron(self, features: int) -> nn.Module:
        """Return LIF neurons with detached reset."""
        reset: Literal["soft", "hard"] = "soft" if self.options.reset == "subtract" else "hard"
        return LIF(self.options.leak, self.threshold, reset, surrogate=Triangle(scale=0.3), strict=True)

    def norm(self, features: int, scale: float = 1.0) -> nn.Module:
        """Return BNTT, batch normalisation over time, or tdBN, which alone heeds ``scale``."""
        o = self.options
        if o.norm == "bntt":
            return BatchNormThroughTime(features, self.steps, bias=o.bntt_bias)
        return BatchNorm(features, scale * self.threshold if o.norm == "tdbn" else 1.0, eps=1e-4)

    def readout(self, features_in: int, features_out: int) -> nn.Module:
        """Return the read-out without bias: one linear map or its votes, and neurons whose spikes are counted if asked for."""
        votes = Votes(features_in, features_out, votes=10) if self.options.boosting else Linear(features_in, features_out, bias=False)
        return nn.Sequential(votes, self.neuron(features_out)) if self.options.answer == "spike_count" else votes

    def loss(self, output: Tensor, targets: Tensor) -> Tensor:
        """Return the task's loss; logits are numbers of spikes, not rates, where these are the answer."""
        return super().loss(output * self.steps if self.options.answer == "spike_count" else output, targets)

    # Network --------------------------------------------------------------------------------------------------------

    def block(self, features_in: int, features_out: int, stride: int) -> nn.Module:
        """Return a block; a shortcut that changes the shape is real-valued."""
        return ResidualBlock(features_in, features_out, stride, self, CONNECT[self.options.residual], spiking_shortcut=False)

    def backbone(self) -> nn.Module:
        """Return the network that ``net`` names; that of the paper halves event frames, after resizing those larger than 64x64 to it."""
        o, shape, spec = self.options, self.task.input_shape, self.task.budget.backbone
        paper, events = o.net == "cifar", self.task.temporal
        width, stride = (o.width, 2 if events else 1) if paper else (spec.widths[0], 1)
        stem: nn.Module = Layer(self.conv(shape[0], width, 3, stride, first=True), self.norm(width), self.neuron(width))
        resized = (64, 64) if paper and events and min(shape[1:]) > 64 else None
        if resized:
            stem = nn.Sequential(Resize(resized), stem)
        make = partial(StagedResNet, shape, stem, width, block=self.block, stride=stride)
        if paper:
            return make(cifar_stages(o.blocks, width), average=True, resized=resized)
        return make(tuple(Stage(features, o.blocks * spec.depth) for features in spec.widths), pool=self.pool)

    def build(self) -> nn.Module:
        """Return the network, its weights Xavier uniform with gain 2."""
        net = super().build()
        for module in net.modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                nn.init.xavier_uniform_(module.weight, gain=2)
        return net

    def encode(self, inputs: Tensor) -> Tensor:
        """Return the sequence ``[T, B, ...]``: the inputs as the task gives them, or random signed spikes."""
        return signed_poisson(inputs, self.steps) if self.options.input == "poisson" else super().encode(inputs)

    # Recipe and analysis ---------------------------------------------------------------------------------------------------

    def recipe(self, task: Task) -> dict[str, Any]:
        """Return the settings of the official code; detection and segmentation keep the budget's network, which has their strides."""
        training = {"optimizer": "sgd", "lr": 0.026844, "momentum": 0.9, "weight_decay": 1e-4}
        training |= {"schedule": "drops", "milestones": (0.7, 0.8, 0.9)}
        net = {"blocks": 6, "net": "budget" if task.head.strides else "cifar"}
        return {**training, **net, "epochs": 70, "batch_size": 21, "steps": 50, "augment": not task.temporal}

    def report(self, net: nn.Module) -> dict[str, Any]:
        """Return, on a test batch: firing rates per layer; per convolution after the first, fractions of inputs that are not 0 or 1
        (``non_binary_inputs``) and not whole (``real_inputs``); and ``norm_parameters``, which BNTT multiplies by T.
        """  # noqa: D205
        batch = next(self.task.batches("test", batch_size=16))
        neurons = [m for m in net.modules() if isinstance(m, LIF)]
        convs = [m for m in net.modules() if isinstance(m, Conv2d)]
        net.eval()
        with torch.no_grad(), Watch(neurons) as spikes, Watch(convs) as synapses:
            net(self.encode(batch.inputs))
        norms = [m for m in net.modules() if isinstance(m, BatchNorm | BatchNormThroughTime)]
        return {
            **super().report(net),
            "layer_rate": [out.mean().item() for out in spikes.outputs],
            "non_binary_inputs": [fraction_not_binary(x) for x in synapses.inputs[1:]],
            "real_inputs": [(x != x.round()).double().mean().item() for x in synapses.inputs[1:]],
            "norm_parameters": sum(p.numel() for norm in norms for p in norm.parameters()),
        }
