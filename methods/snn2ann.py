"""SNN2ANN: an ANN branch that shares all weights with the spiking network is trained on its spike counts.

Per layer, T steps, folded weights ``W'``, bias ``b'/T`` (``methods.nn.paired_synapse``), a threshold ``Vth`` per neuron::

    spiking branch   u = m + W' s[t] + b'/T     s = 1[u > Vth]     m = Dropout_0.5(u (1 - s))        N = sum_t s[t]
    ANN branch       z = BN(W x + b)            x = N (stsu), or N * 1[z > 0] (resu)                 dL/dz = dL/dx * 1[z > 0]
    thresholds       e = mean(1[z <= 0] * 1[N > 0])      Vth <- Vth + 0.01 for the whole layer where e > 0.1

The ANN sees the image once, the spiking branch at every step (a mismatch of a factor T in the first layer that the official code has;
``input_scale=mean`` removes it), and the classifier ``fc(N/T)``. The loss is that of the ANN branch. Thresholds adapt after each batch and
never fall (adaptive threshold adjustment): spikes where the ANN says "off" are noise to its gradient.

The published networks pool currents before neurons (``pool=max``; of ``average`` spikes are averaged and fire again); the task's networks
pool spikes. ``skip`` says what an unchanged shortcut of the ResNet-17 brings to the spiking branch: the spikes of the block before, or the
current that caused them, as the official code has it (the ANN always gets their count).
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from harness import plugin
from harness.plugin import Card, Claim, UnfitError
from harness.task import Task
from methods.base_coupled import CoupledMethod
from methods.nn.adapted_if import AdaptedIF
from methods.nn.backbones import Level
from methods.nn.layer import Layer
from methods.nn.pair import Both, BranchDropout, Pair
from methods.nn.paired_neuron import PairedNeuron
from methods.nn.residual import MaxPool2d, start_by_fan_out
from methods.nn.row import Row
from methods.nn.sized import Sized, settle
from methods.nn.staged_resnet import Stage, StagedResNet, spiking_ends
from methods.nn.synapse import AvgPool2d

BLOCKS = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))  # VGG-13: channels and layers
SETTING = "VGG-13 (4 steps) and ResNet-17 (5 steps), against a spike-based BP model of comparable accuracy"
ABSTRACT = "abstract"


class MappingUnit(PairedNeuron):
    """Neurons of both branches whose thresholds rise by ``scale * (1 - momentum)`` when more than ``tolerance`` of them are noisy."""

    scale, tolerance, momentum = 0.1, 0.1, 0.9

    def __init__(self, neuron: nn.Module, rectified: bool, adapt: bool) -> None:
        """Join neurons (or a place for them) with the unit; ``rectified``: ReSU, else STSU."""
        super().__init__(neuron, rectified)
        self.adapt = adapt
        self.register_buffer("noisy", torch.zeros(()))

    def compare(self, z: Tensor, count: Tensor) -> None:
        """In training mode note the share of noisy neurons of the batch, and raise the thresholds if it is too large."""
        if not self.training:
            return
        self.noisy.copy_(((z <= 0) & (count > 0)).count_nonzero() / z.numel())
        if self.adapt:
            self.neuron.raise_thresholds((self.noisy > self.tolerance) * (self.scale * (1 - self.momentum)))  # type: ignore[operator]


class MappedBlock(nn.Module):
    """A residual block between currents: ``h = IF(x); y = BN(conv(SMU(BN(conv(h))))) + shortcut``; neurons follow in the next block.

    The shortcut is a 1x1 layer of h where the shape changes, else h, or for ``skip`` "current" x itself in the spiking branch.
    """

    def __init__(self, features_in: int, features_out: int, stride: int, parts: Snn2Ann, dropout: float, skip: str) -> None:
        """Make branch and shortcut; ``dropout`` of the ANN branch after the first normalisation."""
        super().__init__()
        self.skip = skip
        self.neuron = parts.neuron(features_in)
        first = Layer(parts.conv(features_in, features_out, 3, stride), BranchDropout(dropout), parts.neuron(features_out))
        self.branch = nn.Sequential(first, parts.conv(features_out, features_out, 3))
        changes = stride != 1 or features_in != features_out
        self.shortcut = parts.conv(features_in, features_out, 1, stride) if changes else None

    def forward(self, x: Tensor | Pair) -> Tensor | Pair:
        """Return the current behind the block."""
        h = self.neuron(x)
        if self.shortcut is not None:
            return self.branch(h) + self.shortcut(h)
        same = h if self.skip == "spikes" else Pair(x.spikes, h.counts) if isinstance(x, Pair) else x
        return self.branch(h) + same


class Snn2Ann(CoupledMethod):
    """Weight-sharing branches with a spiking mapping unit and adaptive thresholds."""

    card = Card(
        name="snn2ann",
        title="SNN2ANN: a fast and memory-efficient training framework for spiking neural networks",
        authors="Tang, Lai, Xie, Yang, Zheng",
        venue="arXiv 2206.09449",
        year=2022,
        family="ANN-coupled",
        summary="Replace each activation of a weight-sharing ANN by the layer's spike count, back-propagate through the ANN, and raise "
        "thresholds that let noise pass.",
        compared_with=("stbp", "proxy"),
        baseline="stbp",
        claims=(
            Claim("steps_used", "ratio", 0.625, "static/cifar10", f"our reading: 5 against 8 steps; {SETTING}", ABSTRACT, "stbp"),
            Claim("step_time", "ratio", 0.377, "static/cifar10", f"training time; {SETTING}", ABSTRACT, "stbp", networks=("net=vgg13", "")),
            Claim("cuda_bytes", "ratio", 0.27, "static/cifar10", f"GPU memory; {SETTING}", ABSTRACT, "stbp", networks=("net=vgg13", "")),
            Claim("spikes", "ratio", 0.33, "static/cifar10", f"spike activity; {SETTING}", ABSTRACT, "stbp", networks=("net=vgg13", "")),
            Claim(
                "saved_bytes",
                "property",
                None,
                "any",
                "the same at every T",
                "ours, exact",
                expect="constant over steps",
                tested="tests/methods/test_snn2ann.py::test_what_is_saved_for_the_backward_pass_does_not_depend_on_t",
            ),
        ),
        reconstructed="read from the code and a summary, not from equations of the paper; names of the units (straight-through, rectified "
        "spiking unit), spikes in unchanged shortcuts, events (the ANN sees their mean frame), detection and segmentation are ours",
    )

    class Options(plugin.Options):
        """Mapping unit, thresholds and network."""

        unit: Literal["resu", "stsu"] = Field("resu", description="counts where the ANN is on (ReSU), or all counts (STSU)")
        adapt: bool = Field(True, description="adaptive threshold adjustment")
        membrane_dropout: bool = Field(True, description="drop out half of the potentials after every step of training")
        input_scale: Literal["image", "mean"] = Field("image", description="image at every step, or 1/T of it: the ANN sees its sum")
        net: Literal["task", "vgg13", "resnet17"] = Field("task", description="the task's backbone, or one of the official code")
        pool: Literal["max", "average"] = Field("max", description="pooling of vgg13: of currents, or of spikes with neurons behind it")
        skip: Literal["spikes", "current"] = Field("spikes", description="what unchanged shortcuts of resnet17 bring to the spiking branch")

    options: Options

    def __init__(self, task: Task, *args: Any, **kwargs: Any) -> None:
        """Bind to a task; raise UsageError for a published network where the task has no use for it."""
        super().__init__(task, *args, **kwargs)
        net, image = self.options.net, task.input_shape
        if net != "task" and (task.head.kind != "classify" or len(image) != 3 or min(image[1:]) < 8):
            given = f"{task.name} ({task.head.kind}) of {list(image)}"
            raise UnfitError(f"snn2ann: net = {net!r} classifies images of at least 8 pixels a side, not {given}; use net = 'task'")

    # Parts ----------------------------------------------------------------------------------------------------------

    @property
    def count_gain(self) -> float:
        """The classifier sees rates."""
        return 1 / self.steps

    def spiking(self, features: int) -> nn.Module:
        """Return a place for neurons, whose number is not known yet."""
        return Sized(lambda shape: AdaptedIF(shape, self.options.membrane_dropout))

    def neuron(self, features: int) -> nn.Module:
        """Return neurons of both branches."""
        return MappingUnit(self.spiking(features), self.options.unit == "resu", self.options.adapt)

    def first_count(self, sequence: Tensor) -> Tensor:
        """Return what the ANN sees: the image, or the mean of the frames."""
        once = sequence[:1] if sequence.stride(0) == 0 else sequence.mean(0, keepdim=True)
        return once * len(sequence) if self.options.input_scale == "mean" else once

    def encode(self, inputs: Tensor) -> Tensor:
        """Return the sequence ``[T, B, ...]``, scaled by the option."""
        return super().encode(inputs / self.steps if self.options.input_scale == "mean" else inputs)

    def backbone(self) -> nn.Module:
        """Return the task's backbone, VGG-13 or ResNet-17."""
        if self.options.net == "task":
            return super().backbone()
        return self._vgg13() if self.options.net == "vgg13" else self._resnet17()

    def _vgg13(self) -> nn.Module:
        """Return 13 layers; blocks 3, 4 and 5 pool, for images of 64 pixels and more block 2 too; dropout 0.25 in blocks 1 and 2."""
        large, channels, stride, layers = min(self.task.input_shape[1:]) >= 64, self.task.input_shape[0], 1, []
        for number, (width, count) in enumerate(BLOCKS, 1):
            for position in range(1, count + 1):
                between: list[nn.Module] = []
                after: list[nn.Module] = []
                if position == count and (number > 2 or (large and number == 2)):
                    stride *= 2
                    if self.options.pool == "max":
                        between = [Both(MaxPool2d(2))]
                    else:
                        after = [Both(AvgPool2d(2)), self.neuron(width)]
                between += [BranchDropout(0.25)] if number < 3 else []
                layers += [Layer(self.conv(channels, width, 3), nn.Sequential(*between), self.neuron(width)), *after]
                channels = width
        size = tuple(side // stride for side in self.task.input_shape[1:])
        return Row(layers, Level(channels, size, stride))

    def _resnet17(self) -> nn.Module:
        """Return stem and eight blocks, strides 1, 1, 2, 2, for images of 64 pixels and more 1, 2, 2, 2; dropout 0.2."""
        large = min(self.task.input_shape[1:]) >= 64
        stages = Stage(64, 2), Stage(128, 2, 2 if large else 1), Stage(256, 2, 2), Stage(512, 2, 2)
        stem = nn.Sequential(self.conv(self.task.input_shape[0], 64, 3, first=True), BranchDropout(0.2))

        def block(features_in: int, features_out: int, stride: int) -> nn.Module:
            return MappedBlock(features_in, features_out, stride, self, 0.2, self.options.skip)

        net = StagedResNet(self.task.input_shape, stem, 64, stages, block, end=spiking_ends((), self))
        start_by_fan_out(net)
        return net

    def build(self) -> nn.Module:
        """Return the network, with a threshold for every neuron at this size of the data."""
        net = super().build()
        settle(net, torch.zeros(1, 1, *self.task.input_shape))
        return net

    # Record ---------------------------------------------------------------------------------------------------------

    def report(self, net: nn.Module) -> dict[str, Any]:
        """Return both branches' validation metrics; per layer the share of noisy neurons (last training batch) and the mean threshold."""
        units = [module for module in net.modules() if isinstance(module, MappingUnit)]
        noisy, thresholds = ([float(t) for t in part] for part in ([u.noisy for u in units], [u.neuron.threshold.mean() for u in units]))
        return {**super().report(net), "noisy_fraction": noisy, "threshold_mean": thresholds}

    def recipe(self, task: Task) -> dict[str, Any]:
        """Return the settings of the official code: VGG-13 at T=4, or with ``net=resnet17`` T=5; where the images do not allow, theirs."""
        fits = task.head.kind == "classify" and len(task.input_shape) == 3 and min(task.input_shape[1:]) >= 16
        net = self.given.get("net", "vgg13" if fits else "task")
        training = {"optimizer": "adam", "lr": 1e-3, "weight_decay": 5e-4, "schedule": "drops", "milestones": (0.5, 0.75, 0.875)}
        training |= {"epochs": 200, "batch_size": 512, "augment": True, "steps": 5 if net == "resnet17" else 4}
        return training | {"net": net}
