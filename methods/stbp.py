"""STBP: back-propagation through time with surrogate gradients, and tdBN. The denominator of every training-cost ratio.

The network is unrolled over T steps; the derivative of the spike is replaced by a surrogate; tdBN normalises currents over batch,
space and time, scaled to the threshold. Read-out (ours, as in later work): mean over time of a linear, non-spiking layer, and
cross-entropy. Suite defaults (ours): threshold 1, leak 0.5, triangular surrogate, hard reset kept out of the gradient.

STBP's own read-out is ``readout="rate"``: firing rates of output neurons, mean squared error to one-hot classes; its input, one Bernoulli
draw per pixel and step, is the encoding ``rate`` of static tasks: ``static/mnist[encoding=rate]``. In its code the learning rate falls to a
tenth every 40 of 100 epochs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from pydantic import Field
from torch import Tensor, nn

from harness import plugin
from harness.plugin import Card, Claim, UnfitError
from harness.task import Task
from methods.base import SpikingMethod
from methods.nn import normaliser_free, surrogate
from methods.nn.neuron import LIF
from methods.nn.norm import BatchNorm
from methods.nn.one_hot import one_hot_error
from methods.nn.surrogate import SURROGATES, Surrogate
from methods.nn.synapse import Conv2d, DelayLine
from methods.nn.vgg import Plan, Vgg

CNN: Plan = (32, "P", 32, "P")  # 3x3 convolutions; 128 fully connected neurons follow
SHAPES: dict[str, Callable[[float], Surrogate]] = {  # by the width ``a`` of the card
    "rectangle": surrogate.Rectangle,
    "triangle": surrogate.Triangle,
    "polynomial": surrogate.Polynomial,
    "sigmoid": lambda a: surrogate.Sigmoid(1 / a),
    "gauss": surrogate.Gauss,
    "arctan": surrogate.Arctan,
    "fast_sigmoid": surrogate.FastSigmoid,
    "piecewise_quadratic": surrogate.piecewise_quadratic,
}


class Stbp(SpikingMethod):
    """Surrogate-gradient BPTT with tdBN."""

    card = Card(
        name="stbp",
        title="Spatio-temporal backpropagation for training high-performance spiking neural networks; "
        "Going deeper with directly-trained larger spiking neural networks (tdBN)",
        authors="Wu, Deng, Li, Zhu, Shi; Zheng, Wu, Deng, Hu, Li",
        venue="Frontiers in Neuroscience 12:331; AAAI 2021",
        year=2018,
        family="direct",
        summary="Unroll a LIF network over T steps and back-propagate through space and time with a surrogate derivative.",
        compared_with=("ann",),
        claims=(
            Claim(
                "test_accuracy",
                "value",
                0.994,
                "static/mnist",
                "32C3-AP2-32C3-AP2-128-10, T=20, 100 epochs (STBP)",
                "README of the official code",
            ),
            Claim("test_accuracy", "value", 0.9292, "static/cifar10", "ResNet-19, tdBN, T=4", "comparison tables of two later papers"),
            Claim("test_accuracy", "value", 0.7086, "static/cifar100", "ResNet-19, tdBN, T=4", "comparison tables of two later papers"),
            Claim("test_accuracy", "value", 0.6372, "static/imagenet", "spiking ResNet-34, tdBN, T=6", "comparison table of Spikformer"),
            Claim(
                "saved_bytes",
                "property",
                None,
                "any",
                "linear in T: the graph of every step is kept",
                "ours, exact",
                expect="linear over steps",
            ),
            Claim("step_time", "property", None, "any", "linear in T", "ours, exact", expect="linear over steps"),
        ),
        reconstructed="read-out, threshold, leak, surrogate and reset defaults are the suite's; the papers' own are options",
    )

    class Options(plugin.Options):
        """Neuron and normalisation."""

        leak: float = Field(0.5, description="fraction of the membrane potential kept per step (lambda)", ge=0, le=1)
        threshold: float = Field(1.0, description="firing threshold (theta)", gt=0)
        surrogate: Literal["rectangle", "triangle", "polynomial", "sigmoid", "gauss", "arctan", "fast_sigmoid", "piecewise_quadratic"] = (
            Field("triangle", description="derivative that stands in for that of the spike")
        )
        surrogate_width: float | None = Field(None, description="a of the surrogate's formula; None: the suite's, 1 for most", gt=0)
        reset: Literal["hard", "soft", "none"] = Field("hard", description="what a spike does to the potential")
        detach_reset: bool = Field(True, description="keep gradients out of the reset")
        norm: Literal["tdbn", "bn", "none", "sws"] = Field(
            "tdbn", description="normalisation of currents; sws: standardised weights instead, the network of the online methods"
        )
        readout: Literal["mean", "rate"] = Field("mean", description="mean linear answers, task's loss; or firing rates, squared error")
        network: Literal["task", "cnn"] = Field("task", description="the task's backbone, or STBP's 32C3-AP2-32C3-AP2-128")

    options: Options

    def __init__(self, task: Task, *args: Any, **kwargs: Any) -> None:
        """Bind to a task; raise UsageError for a read-out by rates or a network of images where the task has no use for them."""
        super().__init__(task, *args, **kwargs)
        self.threshold = self.options.threshold
        if self.options.readout == "rate" and (task.head.kind != "classify" or task.readout != "mean"):
            raise UnfitError(f"stbp: readout = 'rate' is for classes answered over all steps, not for {task.name}; allowed: 'mean'")
        if self.options.network == "cnn" and len(task.input_shape) != 3:
            raise UnfitError(f"stbp: network = 'cnn' is for images, not for {task.name} of {list(task.input_shape)}; allowed: 'task'")

    def neuron(self, features: int) -> nn.Module:
        """Return LIF neurons; they fire strictly above threshold, as STBP's do."""
        o = self.options
        shape = SURROGATES[o.surrogate] if o.surrogate_width is None else SHAPES[o.surrogate](o.surrogate_width)
        return LIF(o.leak, o.threshold, o.reset, o.detach_reset, shape, strict=True)

    def norm(self, features: int, scale: float = 1.0) -> nn.Module:
        """Return tdBN, ordinary batch normalisation, or nothing."""
        if self.options.norm == "tdbn":
            return super().norm(features, scale)
        return BatchNorm(features) if self.options.norm == "bn" else nn.Identity()

    def conv(self, features_in: int, features_out: int, kernel: int, stride: int = 1, first: bool = False) -> nn.Module:
        """Return a convolution, with a bias when nothing normalises after it."""
        if self.options.norm == "sws":
            return normaliser_free.conv(features_in, features_out, kernel, stride, first)
        bias = self.options.norm == "none"
        return Conv2d(features_in, features_out, kernel, stride=stride, padding=kernel // 2, bias=bias)

    def delay_line(self, features_in: int, features_out: int, taps: int, dilation: int, first: bool = False) -> nn.Module:
        """Return a synapse with delays, with a bias when nothing normalises after it."""
        if self.options.norm == "sws":
            return normaliser_free.delay_line(features_in, features_out, taps, dilation, first)
        return DelayLine(features_in, features_out, taps, dilation, bias=self.options.norm == "none")

    def readout(self, features_in: int, features_out: int) -> nn.Module:
        """Return the linear read-out of a classifier, with neurons where rates are read."""
        sws = self.options.norm == "sws"
        linear = normaliser_free.readout(features_in, features_out) if sws else super().readout(features_in, features_out)
        return nn.Sequential(linear, self.neuron(features_out)) if self.options.readout == "rate" else linear

    def readout_conv(self, features_in: int, features_out: int) -> nn.Module:
        """Return the read-out of a detector."""
        if self.options.norm == "sws":
            return normaliser_free.readout_conv(features_in, features_out)
        return super().readout_conv(features_in, features_out)

    def backbone(self) -> nn.Module:
        """Return the task's reference backbone or the network of STBP's code."""
        return Vgg(self.task.input_shape, CNN, self, hidden=128) if self.options.network == "cnn" else super().backbone()

    def loss(self, output: Tensor, targets: Tensor) -> Tensor:
        """Return the task's loss of answers ``[B, ...]``, or the mean squared error of rates ``[B, classes]`` to one-hot classes."""
        if self.options.readout == "mean":
            return super().loss(output, targets)
        return one_hot_error(output, targets)

    def recipe(self, task: Task) -> dict[str, Any]:
        """Return the settings of STBP's code for MNIST, else those of tdBN that could be read."""
        if task.card.name == "static/mnist":
            neuron = {"leak": 0.2, "threshold": 0.5, "surrogate": "rectangle", "detach_reset": False, "norm": "none"}
            training = {"optimizer": "adam", "lr": 1e-3, "schedule": "drops", "milestones": (0.4, 0.8), "epochs": 100, "batch_size": 100}
            return neuron | training | {"readout": "rate", "network": "cnn", "steps": 20}
        return {
            "leak": 0.25,
            "threshold": 0.5,
            "surrogate": "rectangle",
            "detach_reset": False,
            "optimizer": "sgd",
            "lr": 0.1,
            "momentum": 0.9,
            "schedule": "cosine",
        }
