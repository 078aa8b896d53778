"""Spike-driven Transformer: attention by masks and additions, between layers that read nothing but 0 and 1.

Residual sums are taken on membrane inputs, before the neurons; attention has no product of matrices, no softmax and no scale::

    m = SN_{1/2}( sum over tokens of k * v ),  out = q * m          SDSA; q, k, v = SN(BN(W SN(x)))

See ``methods/nn/spike_attention.py`` and ``methods/nn/spike_transformer.py``. Neurons (threshold 1; the mask's 0.5; they fire at threshold;
reset detached; surrogate ``sigmoid`` of slope 4)::

    h = v + (I - v) / 2,  s = H(h - threshold),  v = h * (1 - s)    tau = 2

Head: mean over tokens, SN, linear, mean over time. Options: the nets of the paper (``net``, blocks-width), ``pooling`` of the four
stages of the patch splitting, ``erode`` for events, the ``tet`` loss, ``drop_path``, and ``attention=ssa``, Spikformer's product of
matrices in the same network as a baseline. Trained by back-propagation through time.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from harness import plugin
from harness.method import Update
from harness.plugin import Card, Claim, UnfitError, UsageError
from harness.task import Batch, Task
from methods.base import SpikingMethod
from methods.nn.neuron import LIF
from methods.nn.norm import BatchNorm
from methods.nn.rate_energy import RateEnergy
from methods.nn.spike_attention import SpikeDrivenAttention, SpikingSelfAttention
from methods.nn.spike_transformer import SelfAttention, SpikeTransformer
from methods.nn.surrogate import Sigmoid
from methods.nn.tet import tet

PAPER = "abstract and README of the official repository"
QUOTED = "table of a later paper"
RECALLED = "paper, from memory"
TET_SHARE, TET_TARGET = 1e-3, 1.0  # weight and target of the squared error that goes with TET
REPORTED = 1024  # test samples that the report's rates are averaged over


class SpikeDrivenTransformer(SpikingMethod):
    """A spiking transformer of masks and additions."""

    card = Card(
        name="spike_driven_transformer",
        title="Spike-driven Transformer",
        authors="Yao, Hu, Zhou, Yuan, Tian, Xu, Li",
        venue="NeurIPS 2023",
        year=2023,
        family="architecture",
        summary="A transformer whose attention masks channels by spikes, with shortcuts between membranes: additions only.",
        compared_with=("stbp", "sew_resnet"),  # and its own attention=ssa
        baseline="spike_driven_transformer[attention=ssa]",
        claims=(
            Claim("test_accuracy", "value", 0.7707, "static/imagenet", "8 blocks of width 768, T=4", PAPER, networks=("net=8-768",)),
            Claim("test_accuracy", "value", 0.7457, "static/imagenet", "8 blocks of width 512, T=4", PAPER, networks=("net=8-512",)),
            Claim(
                "energy",
                "value",
                4.5e-3,
                "static/imagenet",
                "8 blocks of width 512, T=4, by firing rates (rate_energy)",
                PAPER,
                networks=("net=8-512",),
            ),
            Claim("test_accuracy", "value", 0.9551, "static/cifar10", "2 blocks of width 512, T=4", QUOTED, networks=("net=2-512",)),
            Claim("test_accuracy", "value", 0.7843, "static/cifar100", "2 blocks of width 512, T=4", QUOTED, networks=("net=2-512",)),
            Claim("test_accuracy", "value", 0.993, "events/dvs-gesture", "2 blocks of width 256, T=16", RECALLED, networks=("net=2-256",)),
            Claim("test_accuracy", "value", 0.8, "events/cifar10-dvs", "2 blocks of width 256, T=16", RECALLED, networks=("net=2-256",)),
            Claim(
                "other",
                "property",
                None,
                "static/imagenet",
                "energy of attention down to 1/87.2 of a transformer's",
                PAPER,
                unmeasured="of attention alone, against a transformer of numbers, which is no plugin",
            ),
            Claim(
                "other",
                "property",
                None,
                "any",
                "attention is linear in tokens and in channels (attention=ssa is not)",
                "ours, exact",
                unmeasured="no records of several numbers of tokens",
            ),
            Claim(
                "ac",
                "property",
                None,
                "any",
                "only accumulates after the first convolution",
                "ours, exact",
                tested="tests/methods/test_spike_driven_transformer.py::test_only_the_first_convolution_multiplies_and_every_synapse_and_attention_works",
            ),
        ),
        reconstructed="matched net (width of the budget's last stage, a pooling per stage), levels for detection and segmentation, where "
        "erode pools, drop_path, the first convolution counted at every step, and attention=ssa (Spikformer's) are ours; Lamb, mixup, "
        "RandAugment and the least learning rate of the recipe are not there",
    )

    class Options(plugin.Options):
        """Size, variant and loss."""

        net: Literal["budget", "2-256", "2-512", "8-384", "6-512", "8-512", "10-512", "8-768"] = Field(
            "budget", description="blocks and width: a net of the paper, or the width of the budget's last stage"
        )
        blocks: int = Field(2, description="blocks (net = budget)", ge=1)
        pooling: str = Field(
            "auto",
            description="max pooling in the stages of the patch splitting, 0 or 1 for each; auto: by the budget",
            pattern="^(auto|[01]+)$",
        )
        attention: Literal["sdsa", "ssa"] = Field("sdsa", description="masks of channels, or Spikformer's product of matrices (baseline)")
        erode: Literal["auto", "on", "off"] = Field("auto", description="3x3 max pooling inside SDSA; auto: for data with a time axis")
        tet: bool = Field(False, description="train on the mean of the losses at each step, not on the loss of the mean")
        drop_path: float = Field(0.0, description="probability to leave a branch out for a sample (in the code without effect)", ge=0, lt=1)

    options: Options

    def __init__(self, task: Task, *args: Any, **kwargs: Any) -> None:
        """Bind to a task; raise UsageError for options that contradict each other or the task."""
        super().__init__(task, *args, **kwargs)
        o, name = self.options, self.card.name
        if o.attention == "ssa" and o.erode == "on":
            raise UsageError(f"{name}: erode=on is a part of attention=sdsa, not of ssa; allowed: auto, off")
        if o.tet and (task.head.kind != "classify" or task.readout != "mean"):
            raise UnfitError(f"{name}: tet asks for one class per sample and the mean over time; {task.card.name} wants {task.head.kind}")
        self.erode = o.attention == "sdsa" and (o.erode == "on" or (o.erode == "auto" and task.temporal))

    @classmethod
    def supports(cls, task: Task) -> str | None:
        """Return why it cannot do ``task``: inputs without space besides the ordinary reasons."""
        if task.budget.backbone.kind == "sequence":
            return "attention is between the places of an image or event frame; a sequence has no space"
        return super().supports(task)

    def neuron(self, features: int, threshold: float = 1.0) -> nn.Module:
        """Return LIF neurons with tau = 2: leak 1/2, input halved."""
        return LIF(0.5, threshold, surrogate=Sigmoid(4.0), scale_input=True)

    def norm(self, features: int, scale: float = 1.0) -> nn.Module:
        """Return ordinary batch normalisation."""
        return BatchNorm(features)

    def attention(self, features: int) -> nn.Module:
        """Return what joins the queries, keys and values of a block."""
        gate = self.neuron(features, threshold=0.5)
        return SpikeDrivenAttention(gate, self.erode) if self.options.attention == "sdsa" else SpikingSelfAttention(gate, features)

    def size(self) -> tuple[int, int, str]:
        """Return blocks, width and pooling.

        By the budget: a pooling per stage of its reference network, in the last of at least four stages, so that levels have its strides;
        its last width, rounded up so that it can be halved in each stage, the first having 4 channels at least.
        """
        o, widths = self.options, self.task.budget.backbone.widths
        pooling = o.pooling if o.pooling != "auto" else ("1" * len(widths)).rjust(4, "0")
        if o.net != "budget":
            blocks, width = (int(part) for part in o.net.split("-"))
            return blocks, width, pooling
        unit = 2 ** max(len(pooling) - 1, 3)
        return o.blocks, max(-(-widths[-1] // unit), 4) * unit, pooling

    def backbone(self) -> nn.Module:
        """Return the transformer, with a pooled level for classes and numbers, and one per stride for places."""
        blocks, width, pooling = self.size()
        pooled = self.task.head.kind not in ("detect", "segment")
        shape, drop_path = self.task.input_shape, self.options.drop_path
        return SpikeTransformer(shape, width, blocks, pooling, self, self.attention, drop_path, pooled)

    def step(self, net: nn.Module, batch: Batch, update: Update) -> Tensor:
        """Back-propagate the loss of the mean over time, or with ``tet`` the mean over time of the losses, and update."""
        if not self.options.tet:
            return super().step(net, batch, update)
        loss = tet(net(self.encode(batch.inputs)), batch.targets, self.loss, TET_SHARE, TET_TARGET)
        update.minimise(loss)
        return loss

    def recipe(self, task: Task) -> dict[str, Any]:
        """Return the settings of the official configurations for classes; AdamW stands in for Lamb.

        That is on ImageNet, where the batch size is that of one GPU, and on Gesture. For detection and segmentation, which the paper has
        not, those of CIFAR on the budget's net.
        """
        common = {"optimizer": "adamw", "schedule": "cosine", "warm_up": 10 if task.temporal else 20, "augment": True}
        name = task.card.name
        if "gesture" in name:
            net = {"net": "2-256", "pooling": "0111"}
            return common | net | {"lr": 3e-4, "weight_decay": 0.06, "epochs": 200, "batch_size": 16, "steps": 16}
        if task.temporal:
            net = {"net": "2-256", "pooling": "0011", "tet": task.head.kind == "classify"}
            return common | net | {"lr": 7.5e-3, "weight_decay": 1e-4, "epochs": 200, "batch_size": 32, "steps": 10}
        if "imagenet" in name and "tiny" not in name:
            net = {"net": "8-512", "pooling": "1111"}
            return common | net | {"lr": 1.5e-3, "weight_decay": 0.01, "epochs": 300, "batch_size": 48, "steps": 4}
        net = {"net": "2-512", "pooling": "0011"} if task.head.kind == "classify" else {}
        smoothing = {"label_smoothing": 0.1} if task.head.kind == "classify" else {}
        return common | net | smoothing | {"lr": 3e-4, "weight_decay": 0.06, "epochs": 300, "batch_size": 64, "steps": 4}

    @torch.no_grad()
    def report(self, net: nn.Module) -> dict[str, Any]:
        """Return on test samples: the input rate of every synapse, energy by these rates, rates inside attention, and its additions.

        Rates of q, k, v and mask are lists with one number per block: a dead one is a block without attention.
        """
        branches = [module for module in net.modules() if isinstance(module, SelfAttention)]
        rates: dict[str, list[float]] = {f"{part}_rate": [0.0] * len(branches) for part in ("query", "key", "value", "attention")}
        seen = 0

        def listen(number: int) -> Any:
            def add(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
                for found, x in zip(rates.values(), (*args, output), strict=True):
                    found[number] += x.mean().item() * x.shape[1]

            return add

        handles = [branch.attention.register_forward_hook(listen(number)) for number, branch in enumerate(branches)]
        net.eval()
        try:
            with RateEnergy(net) as meter:
                for batch in self.task.batches("test", limit=REPORTED):
                    net(self.encode(batch.inputs))
                    seen += len(batch.inputs)
        finally:
            for handle in handles:
                handle.remove()
        return {
            **super().report(net),
            **{name: [total / seen for total in totals] for name, totals in rates.items()},
            "input_rates": meter.rates(),
            "rate_energy": meter.energy(seen),
            "attention_additions": meter.additions(seen),
        }
