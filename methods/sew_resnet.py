"""SEW ResNet: residual blocks that join two spike tensors element by element, so that a block can be an exact identity.

In a Spiking ResNet the sum of branch and shortcut passes one more layer of neurons: the shortcut's gradient is multiplied by a surrogate
derivative in every block. Here the last neurons sit inside the branch, ``O = g(A, S)``, with g = ADD ``A + S``, AND ``A * S`` or IAND
``(1 - A) * S``; ``connect="vanilla"`` (Spiking ResNet) and ``"plain"`` (no shortcut) are the baselines. See ``methods/nn/residual.py``.

Neurons (arctan surrogate, alpha 2; threshold 1; hard reset, detached; they fire at threshold)::

    if    u = v + I                      static images
    lif   u = v + (I - v) / tau, tau 2
    plif  the same, 1/tau = sigmoid(w) learnt per layer   data with a time axis

Every neuron emits 0 or 1 (``spikes = "binary"``); a block's output under ADD is a whole number of up to one more per block, so inputs
of later convolutions are not binary: an input of 3 costs 3 accumulations. ``report`` gives that fraction and that cost. Matched track
(ours): a stage per width of the budget (3x3 stem or 1x1 change of channels, blocks, 2x2 average pooling, as in the reference network;
with ``pool="max"`` whole numbers stay whole). Recipe track: the nets of the paper.

Depth study: ``sew_resnet[connect=C,blocks=N,neuron=lif]`` over N and C; ``report`` has the accuracy on training data (``metric_train``),
since what fails in deep vanilla networks is the optimisation, and the gradient norm of every block.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from harness import plugin
from harness.method import Update
from harness.plugin import Card, Claim, UnfitError, UsageError
from harness.task import Batch, Task
from methods.base import SpikingMethod
from methods.nn.block_figures import block_figures
from methods.nn.neuron import LIF
from methods.nn.norm import BatchNorm
from methods.nn.residual import DEPTHS, Connect, DeepResNet, MaxPool2d, ResidualBlock, ResNet
from methods.nn.scoring import score
from methods.nn.surrogate import Arctan

EVENT_NETS = {"7b": (32,) * 7, "wide7b": (64,) * 4 + (128,) * 3}  # channels of the stages, one block each
LOGS = "training logs in the official repository, best epoch"
NOTE = "reading note of a third party that quotes the paper"
BASELINE = "spiking_resnet"
IMAGENET = {  # depth: best and last epoch of SEW with ADD, best of Spiking ResNet
    "18": (0.6318, 0.6281, 0.6232),
    "34": (0.6704, 0.6666, 0.6186),
    "50": (0.6778, 0.6737, 0.5766),
    "101": (0.6876, 0.6840, 0.3179),
    "152": (0.6926, 0.6899, 0.1003),
}
TRAIN_SAMPLES, REPORT_SAMPLES = 1000, 32  # of the reports


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
        compared_with=("stbp", BASELINE),  # and its own connect=vanilla, connect=plain
        baseline="spiking_resnet",
        claims=(
            *(
                Claim(
                    "test_accuracy",
                    "value",
                    best,
                    "static/imagenet",
                    f"SEW ResNet-{depth}, ADD, T=4 (last epoch: {last})",
                    LOGS,
                    networks=(f"net={depth}",),
                )
                for depth, (best, last, _) in IMAGENET.items()
            ),
            *(
                Claim(
                    "test_accuracy",
                    "difference",
                    round(best - base, 4),
                    "static/imagenet",
                    f"{depth} layers, T=4",
                    LOGS,
                    BASELINE,
                    networks=(f"net={depth}",),
                )
                for depth, (best, _, base) in IMAGENET.items()
            ),
            Claim(
                "test_accuracy", "value", 0.9792, "events/dvs-gesture", "7B-Net, ADD, T=16 (last epoch: 0.9688)", LOGS, networks=("net=7b",)
            ),
            Claim(
                "test_accuracy",
                "value",
                0.9549,
                "events/dvs-gesture",
                "7B-Net, IAND, T=16",
                NOTE,
                variant="sew_resnet[connect=iand]",
                networks=("net=7b",),
            ),
            Claim(
                "test_accuracy",
                "value",
                0.7049,
                "events/dvs-gesture",
                "7B-Net, AND, T=16",
                NOTE,
                variant="sew_resnet[connect=and]",
                networks=("net=7b",),
            ),
            Claim("test_accuracy", "difference", 0.0695, "events/dvs-gesture", "7B-Net, ADD, T=16", NOTE, BASELINE, networks=("net=7b",)),
            Claim(
                "test_accuracy",
                "value",
                0.744,
                "events/cifar10-dvs",
                "Wide-7B-Net, ADD, T=16 (last epoch: 0.728)",
                LOGS,
                networks=("net=wide7b",),
            ),
            Claim("test_accuracy", "value", 0.702, "events/cifar10-dvs", "Wide-7B-Net, ADD, T=8", NOTE, networks=("net=wide7b",)),
            Claim("parameters", "value", 0.13e6, "events/dvs-gesture", "7B-Net", NOTE, networks=("net=7b",)),
            Claim(
                "firing_rate",
                "value",
                0.053,
                "events/dvs-gesture",
                "7B-Net, ADD, T=16",
                "Attention Spiking Neural Networks",
                networks=("net=7b",),
            ),
            Claim(
                "test_accuracy",
                "property",
                None,
                "any",
                "does not fall with depth (gradients neither vanish nor explode); vanilla does",
                LOGS,
                expect="does not fall over blocks",
            ),
        ),
        reconstructed="the matched network (stages of the budget's widths, average pooling); event nets on fewer pixels than 128x128 "
        "leave out the last poolings; the optimiser begins anew at each drop of the rate; paper body not read, equations are the code's",
    )
    cannot = {"sequences": "a residual network of 2-d convolutions for images and event frames; a sequence has no space"}

    class Options(plugin.Options):
        """Architecture, initialisation and neuron."""

        connect: Connect = Field("add", description="how a block joins branch and shortcut (g); vanilla and plain are baselines")
        blocks: int = Field(1, description="blocks per stage (net = budget)", ge=1)
        block: Literal["basic", "bottleneck"] = Field("basic", description="kind of block (net = budget)")
        pool: Literal["auto", "avg", "max"] = Field(
            "auto", description="pooling after a stage (not of ImageNet nets); auto: max in event nets, else avg"
        )
        train_frames: int | None = Field(
            None, description="steps of each training batch, drawn at random and kept in order, of data with a time axis; None: all", ge=1
        )
        zero_init: bool = Field(False, description="start every block as an identity: last normalisation weight 0")
        neuron: Literal["auto", "if", "lif", "plif"] = Field("auto", description="neuron; auto: if for static images, plif for events")
        net: Literal["budget", "7b", "wide7b", "18", "34", "50", "101", "152"] = Field(
            "budget", description="the budget's widths, an event net of the paper, or its ImageNet net of that depth"
        )

    options: Options

    @classmethod
    def supports(cls, task: Task) -> str | None:
        """Return why not: events of sensors without pixels have no space either."""
        reason = super().supports(task)
        try:
            flat = len(task.input_shape) != 3
        except UsageError:  # the shape is that of files which are missing
            flat = False
        return reason or (f"{cls.cannot['sequences']}: {list(task.input_shape)}" if flat else None)

    def __init__(self, task: Task, options: Mapping[str, Any] | None = None, *args: Any, **kwargs: Any) -> None:
        """Bind to a task; raise UsageError where ``zero_init`` cannot give an identity or ``train_frames`` cannot be drawn."""
        super().__init__(task, options, *args, **kwargs)
        o = self.options
        if o.train_frames is not None and not (task.temporal and o.train_frames <= self.steps):
            has = f"{self.steps} steps" if task.temporal else "one image per sample"
            raise UnfitError(f"sew_resnet: train_frames = {o.train_frames} are drawn of as many steps or more; {task.name} has {has}")
        self.kind = o.neuron if o.neuron != "auto" else ("plif" if task.temporal else "if")
        if o.zero_init and o.connect == "plain":
            raise UsageError("sew_resnet: zero_init silences connect=plain; allowed: add, and, iand, vanilla")
        if o.zero_init and o.connect == "and" and self.kind != "if":
            raise UnfitError(
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
        """Return average or max pooling."""
        largest = self.options.pool == "max" or (self.options.pool == "auto" and self.options.net in EVENT_NETS)
        return MaxPool2d(kernel) if largest else super().pool(kernel)

    def backbone(self) -> nn.Module:
        """Return the residual network that ``net`` names."""
        o, shape = self.options, self.task.input_shape
        if o.net in DEPTHS:
            depths, bottleneck = DEPTHS[o.net]
            block = partial(ResidualBlock, parts=self, connect=o.connect, bottleneck=bottleneck, zero_init=o.zero_init)
            return DeepResNet(shape, depths, self, block, 4 if bottleneck else 1)
        block = partial(ResidualBlock, parts=self, connect=o.connect, bottleneck=o.block == "bottleneck", zero_init=o.zero_init)
        if o.net in EVENT_NETS:
            widths = EVENT_NETS[o.net]
            return ResNet(shape, widths, self, block, 1, kernels=(1, 1), pooled=range(min(len(widths), min(shape[1:]).bit_length() - 1)))
        return ResNet(shape, self.task.budget.backbone.widths, self, block, o.blocks * self.task.budget.backbone.depth)

    def step(self, net: nn.Module, batch: Batch, update: Update) -> Tensor:
        """Back-propagate through all time steps, or through those that are drawn."""
        frames = self.options.train_frames
        if frames is None:
            return super().step(net, batch, update)
        x = self.encode(batch.inputs)
        drawn = torch.randperm(len(x))[:frames].sort().values
        loss = self.loss(self.task.final(net(x[drawn.to(x.device)])), batch.targets)
        update.minimise(loss)
        return loss

    def recipe(self, task: Task) -> dict[str, Any]:
        """Return the settings of the logs.

        DVS Gesture: zero_init where it can be an identity, three quarters of the steps drawn, the rate to a tenth after each third of the
        epochs. Other events: as CIFAR10-DVS. Images: as ImageNet with depth 18, with zero_init for the baseline only; small
        ones, and answers at other places than its strides, keep the budget's network.
        """
        common = {"optimizer": "sgd", "momentum": 0.9, "weight_decay": 0.0, "schedule": "cosine"}
        if "gesture" in task.card.name:
            drawn = {"train_frames": max(1, task.steps * 3 // 4), "schedule": "drops", "milestones": (1 / 3, 2 / 3)}
            identity = self.given.get("connect", "add") in ("add", "iand")
            return common | drawn | {"net": "7b", "zero_init": identity, "lr": 0.001, "epochs": 192, "batch_size": 16, "steps": 16}
        if task.temporal:
            return common | {"net": "wide7b", "lr": 0.01, "epochs": 64, "batch_size": 16, "steps": 16}
        fits = min(task.input_shape[1:]) >= 32 and set(task.head.strides) <= {4, 8, 16, 32}
        vanilla = self.given.get("connect") == "vanilla" and self.given.get("neuron", "auto") in ("auto", "if")
        image = {"net": "18" if fits else "budget", "zero_init": vanilla, "lr": 0.1, "epochs": 320, "batch_size": 256}
        return common | image | {"augment": True, "steps": 4}

    def report(self, net: nn.Module) -> dict[str, Any]:
        """Return the metric on (at most 1000) training samples, and what blocks and convolutions do with test samples."""
        batch = next(self.task.batches("test", batch_size=REPORT_SAMPLES))
        net.eval()

        def loss() -> Tensor:
            return self.loss(self.task.final(net(self.encode(batch.inputs))), batch.targets)

        train, _ = score(self.task, "train", partial(self.predict, net), TRAIN_SAMPLES)
        return {**super().report(net), "metric_train": train, **block_figures(net, loss, len(batch.inputs))}
