"""TTFS with conversion-aware training (CAT): train the network with the values that spike times can tell, so that conversion loses nothing.

A neuron fires once at most, at step t of a window of T steps, and tells ``kappa(t) = 2^(-t/tau)`` (``methods.nn.time_code``,
``methods.nn.ttfs_neuron``). Stages::

    train      batch normalisation, then clip(u, 0, 1); from 70 % of the epochs on phi(u), the values of the code, also for the pixels
    convert    fold, copy; no threshold balancing, no weight normalisation
    tune       weights as 5-bit powers of sqrt(2) (``methods.nn.log_weights``), straight-through; the last 2.5 % of the epochs
    predict    the clocked network, window by window

``training=clip`` stays with the clip, ``training=relu`` is plain ReLU with weights rescaled by the 99.9 percentile of each layer: both meet
the code at conversion only. ``training=cat,clip_share=0`` is ``phi`` from scratch.

Time: L layers in a row take ``(L + 1) T`` steps, which is ``steps`` of this method, and it has so many ``Prediction.outputs``:
``outputs[g]`` is the membrane of the read-out after step g. Until the last layer fires, ``g < L T``, that is its bias, the same answer for
all samples (an accuracy of chance); then large values come first; it is complete with the very last step. There is no early exit: all
samples use all steps. ``--steps N`` gives every window ``N // (L + 1)`` of them, at least 1, so that methods can be compared at equal
latency; ``levels`` sets T.

Pixels are scaled to [0, 1] by the range of 1024 training images; their spikes are counted too. Biases are not quantised. Behind average
pooling a spike counts as a multiplication, since a synapse gets a fraction of it; with ``pool=max`` all operations only add.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.utils import parametrize

from harness import plugin
from harness.meters.spikes import SpikeMeter
from harness.method import Phase, Prediction
from harness.plugin import Card, Claim, UnfitError, UsageError
from harness.task import Task
from methods.base_conversion import ConversionMethod
from methods.nn import calibration, conversion, ttfs_conversion
from methods.nn.dropout import SequenceDropout
from methods.nn.earliest_pool import EarliestPool2d
from methods.nn.layer import Layer
from methods.nn.log_weights import LogWeights
from methods.nn.scoring import score
from methods.nn.sealed import counted
from methods.nn.stepping import stepping
from methods.nn.time_code import TimeCode
from methods.nn.ttfs_neuron import Mode, PixelCode, TtfsNeuron, set_mode
from methods.nn.ttfs_readout import TtfsReadout
from methods.nn.vgg import VGG16, Vgg
from methods.nn.wiring import Connection, trace

OCTAVES = 6  # T / tau unless asked otherwise
CALIBRATION = 1024  # training images for the range of pixels, and for percentiles
CHIP = "VGG-16, 5-bit logarithmic weights, processor in 28 nm CMOS (the suite's energy is an estimate for 45 nm)"


class TtfsCat(ConversionMethod):
    """Conversion-aware training for time-to-first-spike coding."""

    card = Card(
        name="ttfs_cat",
        title="A Time-to-first-spike Coding and Conversion Aware Training "
        "for Energy-Efficient Deep Spiking Neural Network Processor Design",
        authors="Lew, Lee, Park",
        venue="59th ACM/IEEE Design Automation Conference (DAC)",
        year=2022,
        family="conversion",
        summary="Train with the values that a single spike's time can tell, so that conversion to one spike per neuron loses nothing.",
        compared_with=("ann2snn", "ann", "stbp"),
        baseline="ttfs_cat[training=relu]",
        claims=(
            Claim(
                "test_accuracy", "value", 0.917, "static/cifar10", "VGG-16, 5-bit logarithmic weights", "abstract", networks=("net=vgg16",)
            ),
            Claim(
                "test_accuracy", "value", 0.679, "static/cifar100", "VGG-16, 5-bit logarithmic weights", "abstract", networks=("net=vgg16",)
            ),
            Claim(
                "test_accuracy",
                "value",
                0.574,
                "static/tiny-imagenet",
                "VGG-16, 5-bit logarithmic weights",
                "abstract",
                networks=("net=vgg16",),
            ),
            Claim("energy", "value", 486.7e-6, "static/cifar10", CHIP, "abstract"),
            Claim("energy", "value", 503.6e-6, "static/cifar100", CHIP, "abstract"),
            Claim("energy", "value", 1426e-6, "static/tiny-imagenet", CHIP, "abstract"),
            Claim(
                "test_accuracy",
                "property",
                None,
                "any",
                "conversion loses less than that of a plain ReLU network to TTFS, without extra hardware",
                "abstract",
                "ttfs_cat[training=relu]",
                expect="lower",
                figure="report.conversion_loss",
                tested="tests/methods/test_ttfs_cat.py::test_conversion_of_aware_training_loses_nothing",
            ),
        ),
        reconstructed="read: the abstract, and the code of its ancestor T2FSNN. Ours: T, tau, schedule, step and peak of the logarithmic "
        "weights, fine-tuning of 2.5 % of the epochs, range of pixels, fully connected part of VGG-16, detection and segmentation",
    )

    class Options(plugin.Options):
        """Training, code, weights and network."""

        training: Literal["cat", "clip", "relu"] = Field(
            "cat", description="activation: clip, then the code's values; clip only; plain ReLU"
        )
        clip_share: float = Field(0.7, description="training=cat: share of the epochs that train with the clip", ge=0, lt=1)
        levels: int = Field(24, description="values of the code and time steps of a window (T)", ge=1)
        tau: float | None = Field(
            None, description="steps in which the kernel halves; None: levels / 6, so that values span 6 octaves", gt=0
        )
        weight_bits: int | None = Field(5, description="bits of the logarithmic weights; none: weights as trained", ge=2, le=16)
        tune_share: float = Field(0.025, description="share of the epochs, rounded up, that fine-tune logarithmic weights", ge=0, lt=1)
        tune_lr: float = Field(0.1, description="learning rate of fine-tuning, as a fraction of that of training", gt=0)
        percentile: float = Field(99.9, description="training=relu: percentile of positive activations that becomes 1", gt=0, le=100)
        pool: Literal["average", "max"] = Field("average", description="pooling; max: the earliest spike wins")
        dropout: float = Field(0.0, description="dropout of activations in training", ge=0, lt=1)
        net: Literal["task", "vgg16"] = Field("task", description="the task's backbone, or VGG-16")

    options: Options

    def __init__(self, task: Task, options: Any = None, track: Any = "matched", steps: int | None = None, training: Any = None) -> None:
        """Bind to a task; raise UsageError for a net that does not fit it, or levels that contradict the steps."""
        super().__init__(task, options, track, steps, training)
        o, shape = self.options, task.input_shape
        if o.training == "relu" and o.net == "task" and task.budget.backbone.kind == "resnet":
            raise UnfitError(f"ttfs_cat: training = 'relu' cannot rescale the residual sums of {task.name}'s backbone; use net = 'vgg16'")
        self.code = self.coded(o.levels)
        with torch.device("meta"):
            self.windows = ttfs_conversion.place(self.build().eval(), torch.empty(1, 1, *shape))
        if steps is not None:
            levels = max(1, steps // self.windows)
            if "levels" in self.given and levels != o.levels:
                meant = f"{self.windows} windows of levels = {o.levels} are {o.levels * self.windows} steps"
                raise UsageError(f"ttfs_cat: {meant}, not {steps}; leave one of the two out")
            self.code = self.coded(levels)
        self.steps = self.windows * self.code.levels

    def coded(self, levels: int) -> TimeCode:
        """Return the code of so many levels; raise UsageError where ``tau`` makes none of them."""
        try:
            return TimeCode(levels, self.options.tau or levels / OCTAVES)
        except ValueError as error:
            raise UsageError(f"ttfs_cat: {error}") from None

    @classmethod
    def supports(cls, task: Task) -> str | None:
        """Return why the method cannot do ``task``: as any conversion, and where an encoding has made spikes of the pixels already."""
        coding = getattr(getattr(task, "options", None), "encoding", "direct")
        return f"it codes pixels in spike times itself; {coding} coding has done so" if coding != "direct" else super().supports(task)

    # Parts ----------------------------------------------------------------------------------------------------------

    def neuron(self, features: int) -> nn.Module:
        """Return neurons that are an activation until they are told to spike."""
        neuron = TtfsNeuron(self.code)
        return nn.Sequential(neuron, SequenceDropout(self.options.dropout)) if self.options.dropout else neuron

    def pool(self, kernel: int) -> nn.Module:
        """Return average pooling, a part of the next linear map, or max pooling, where the earliest spike wins."""
        return EarliestPool2d(kernel, self.code) if self.options.pool == "max" else super().pool(kernel)

    def readout(self, features_in: int, features_out: int) -> nn.Module:
        """Return the read-out of a classifier."""
        return TtfsReadout(super().readout(features_in, features_out), self.code)

    def readout_conv(self, features_in: int, features_out: int) -> nn.Module:
        """Return the read-out at every location."""
        return TtfsReadout(super().readout_conv(features_in, features_out), self.code)

    def backbone(self) -> nn.Module:
        """Return the task's reference backbone or VGG-16."""
        if self.options.net == "task":
            return super().backbone()
        return Vgg(self.task.input_shape, VGG16, self, hidden=512 if self.task.head.kind == "classify" else 0)

    def build(self) -> nn.Module:
        """Return the code of the pixels, backbone and head, in the mode of the first epoch."""
        net = nn.Sequential(PixelCode(self.code, self.task.input_shape[0]), super().build())
        set_mode(net, self.mode(0, self.training.epochs))
        return net

    # Training and conversion ----------------------------------------------------------------------------------------

    def mode(self, epoch: int, epochs: int) -> Mode:
        """Return the activation of an epoch; the code has one epoch at least."""
        if self.options.training == "cat":
            return "clip" if epoch < min(round(self.options.clip_share * epochs), epochs - 1) else "code"
        return self.options.training

    def phases(self, net: nn.Module) -> Iterator[Phase]:
        """Train, convert, fine-tune logarithmic weights; from then on the network spikes."""
        epochs, o = self.training.epochs, self.options
        tuning = min(math.ceil(o.tune_share * epochs), epochs - 1) if o.weight_bits else 0
        pixels = [batch.inputs for batch in self.task.batches("train", limit=CALIBRATION)]
        net[0].measure(torch.cat(pixels))  # type: ignore[index, operator]
        yield Phase("train", epochs=epochs - tuning, predict=self.predict_ann, on_epoch=lambda *when: set_mode(net, self.mode(*when)))
        net.eval()
        with counted(self.task) as read:
            self.convert(net)
        self.training_images_read = len(read)
        if o.weight_bits:
            synapses = [module for module in net.modules() if isinstance(module, (nn.Conv2d, nn.Linear))]
            for synapse in synapses:
                parametrize.register_parametrization(synapse, "weight", LogWeights(o.weight_bits))
            self.figures["snn_validation_untuned"] = self.coded_validation(net)
            settings = replace(self.training, lr=o.tune_lr * self.training.lr)
            yield Phase("tune", epochs=tuning, predict=self.predict_ann, training=settings)
            for synapse in synapses:
                parametrize.remove_parametrizations(synapse, "weight")
            self.figures["distinct_weights"] = max(len(synapse.weight.unique()) for synapse in synapses)
            self.figures["silent_weights"] = float(torch.cat([synapse.weight.flatten() == 0 for synapse in synapses]).float().mean())
        set_mode(net, "spikes")

    @torch.no_grad()
    def convert(self, net: nn.Module) -> None:
        """Fold normalisations, for ReLU rescale, and place neurons and their biases; keep the figures of full precision."""
        data = self.task.encode(next(self.task.batches("validation", 1, 1)).inputs, 1)
        conversion.fold(net)
        if self.options.training == "relu":
            connections = trace(net, data)
            factors = self.norm_factors(net, connections)
            self.figures["norm_factors"] = [factor.item() for factor in factors.values()]
            for c in connections:
                before, after = (conversion.ONE if layer is None else factors[layer] for layer in (c.source, c.layer))
                conversion.normalise(c.synapse, before, after)
        ttfs_conversion.place(net, data)
        ttfs_conversion.gather_biases(net, data)
        self.figures["ann_validation"] = score(self.task, "validation", partial(self.predict_ann, net))[0]
        self.figures["snn_validation_full"] = self.coded_validation(net)
        self.figures["conversion_loss"] = self.figures["ann_validation"] - self.figures["snn_validation_full"]

    def norm_factors(self, net: nn.Module, connections: list[Connection]) -> dict[Layer, Tensor]:
        """Return the percentile of the positive activations of every layer (training=relu)."""
        sequences = (self.task.encode(batch.inputs, 1) for batch in self.task.batches("train", limit=CALIBRATION))
        layers = [c.layer for c in connections if c.layer is not None]
        samples = min(CALIBRATION, len(self.task.split("train")))
        return calibration.activation_factors(net, layers, sequences, samples, self.options.percentile)

    # Answers --------------------------------------------------------------------------------------------------------

    def predict(self, net: nn.Module, inputs: Tensor) -> Prediction:
        """Simulate all windows; a network that does not spike yet answers in one step."""
        if net[0].mode != "spikes":  # type: ignore[index]
            return self.predict_ann(net, inputs)
        windows = self.encode(inputs).split(self.code.levels)
        with stepping(net):
            return Prediction.at_every_step(torch.cat([net(window) for window in windows]))

    def coded_validation(self, net: nn.Module) -> float:
        """Return the main metric on validation data of the spiking network's closed form; the mode of ``net`` stays as it was."""
        before = net[0].mode  # type: ignore[index]
        set_mode(net, "code")
        found = score(self.task, "validation", partial(self.predict_ann, net))[0]
        set_mode(net, before)
        return found

    @torch.no_grad()
    def report(self, net: nn.Module) -> dict[str, Any]:
        """Return what conversion and logarithmic weights cost on validation data, and how sparse and slow the network is.

        Main metric on validation data: ``ann_validation`` with the activation of training, ``snn_validation_full`` of the spiking network
        with weights as trained, ``conversion_loss`` between them; ``snn_validation_untuned`` with logarithmic weights at first,
        ``snn_validation`` in the end, ``weight_loss`` from the full one to that. These are of the closed form, which the clocked network
        equals but for rounding: in single precision a potential at the very edge of a level may fall to either side.
        ``simulation_error`` is the largest difference of their final answers on 64 validation samples. ``spikes_per_neuron`` (at most 1) is
        by layer, pixels first, on the same; ``steps_to_ann`` the first step within 1 point of the ANN; synaptic additions are the record's
        ``synops_ac``. ``distinct_weights``: the most of a layer; ``silent_weights``: share of zeros.
        """
        if net[0].mode != "spikes":  # type: ignore[index]
            return {}
        inputs = next(self.task.batches("validation", 64, 64)).inputs
        with SpikeMeter(net) as meter:
            answers = self.predict(net, inputs).final()
        layers = meter.result(len(inputs)).layers.values()
        set_mode(net, "code")
        closed = self.predict_ann(net, inputs).final()
        set_mode(net, "spikes")
        found = self.coded_validation(net)
        return self.figures | {
            "snn_validation": found,
            "steps_to_ann": self.steps_to_ann(self._validation(net, self.predict)),
            "weight_loss": self.figures["snn_validation_full"] - found,
            "simulation_error": (answers - closed).abs().max().item(),
            "spikes_per_neuron": [layer.spikes_per_sample / layer.neurons for layer in layers],
            "levels": self.code.levels,
            "tau": self.code.tau,
            "windows": self.windows,
            "latency_steps": self.steps,
            "weight_bits": self.options.weight_bits or 32,
        }

    def recipe(self, task: Task) -> dict[str, Any]:
        """Return VGG-16 with max pooling, where images allow, and the card's schedule (ours; the published one was not found)."""
        fits = task.head.kind == "classify" and len(task.input_shape) == 3 and min(task.input_shape[1:]) >= 32
        training = {"optimizer": "sgd", "lr": 0.1, "momentum": 0.9, "weight_decay": 5e-4, "schedule": "cosine", "augment": True}
        return training | {"epochs": 200, "batch_size": 128, "net": "vgg16" if fits else "task", "pool": "max"}
