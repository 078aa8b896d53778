"""SpiCalib: conversion of whole networks with burst spikes, lossless max pooling, spike calibration and a searched normalisation.

A ReLU network with max pooling is trained; then, in place, each stage a switch::

    quantile     batch normalisation is folded; a_l: the p-quantile of the outputs of ReLU layer l on one training batch
    burst        ReLU -> divide by a_l, neuron, calibrate, multiply by a_l;  m += x, s = clamp(floor(m), 0, gamma), m -= s
    pooling      max pooling of spikes: out[t] = maxpool(sum of x to t) - maxpool(sum of x before t)
    calibration  a neuron silent for longer than its habit and an allowance takes its spikes back by negative ones
    search       p in [0.95, 1] that brings the answers after T steps closest to those of the ReLU network

The form with divisions fits any graph. Where every synapse has one source the scales then move into the weights, so that spikes are whole
numbers; behind residual sums they stay. The image is fed at every step, as are biases; the answer is the mean of the read-out over T steps.

Sources: "Spike Calibration: Fast and Accurate Conversion of Spiking Neural Network for Object Detection and Segmentation" (Li et al.,
2022); "Efficient and Accurate Conversion of Spiking Neural Network with Burst Spikes" (Li and Zeng, IJCAI 2022); the authors' code bases.
Ours: the mode ``ledger``, the distance for detection and segmentation (mean squared error of the raw answers), expected improvement in the
search.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from harness import plugin
from harness.evaluate import evaluation_batch
from harness.plugin import Card, Claim
from harness.task import Batch, Task
from methods.base_conversion import ConversionMethod
from methods.nn import bayesian_search, conversion
from methods.nn.burst import BurstNeuron, absorb
from methods.nn.calibration import watching
from methods.nn.conversion_gap import ConversionGap, divergence, squared_error
from methods.nn.lateral_pool import LIPool2d, RateGate2d
from methods.nn.layer import Layer
from methods.nn.residual import MaxPool2d
from methods.nn.upper_tail import UpperTail
from methods.nn.wiring import Connection, trace

LOWEST, HIGHEST = 0.95, 1.0  # quantiles that are searched


class Spicalib(ConversionMethod):
    """Conversion with spike calibration."""

    card = Card(
        name="spicalib",
        title="Spike Calibration: Fast and Accurate Conversion of Spiking Neural Network for Object Detection and Segmentation",
        authors="Yang Li, Xiang He, Yiting Dong, Qingqun Kong, Yi Zeng",
        venue="arXiv 2207.02702; base: IJCAI 2022",
        year=2022,
        family="conversion",
        summary="Convert whole networks with burst spikes, lossless max pooling, negative spikes that undo early ones and searched scales.",
        compared_with=("ann2snn", "tcl", "ann"),
        baseline="ann2snn",
        claims=(
            Claim(
                "test_accuracy",
                "property",
                None,
                "any",
                "comparable on classification, detection, segmentation alike",
                "abstract",
                "ann",
                expect="not lower",
            ),
            Claim("test_accuracy", "value", 0.454, "detection/coco", "mAP@.5; 17.1 M parameters, T not said", "table of MSD"),
            Claim("test_accuracy", "value", 0.596, "detection/voc-segmentation", "mIoU, T=256", "table of Spike2Former"),
            Claim("latency", "ratio", 1 / 50, "detection/coco", "of previous spiking detection", "abstract", "ann2snn"),
            Claim("energy", "ratio", 0.492, "detection/voc-segmentation", "at the same performance", "abstract", "ann"),
            Claim(
                "steps_to_ann", "ratio", 0.1, "static/cifar10", "about, below 100 steps (base paper)", "abstract of IJCAI 2022", "ann2snn"
            ),
            Claim("energy", "ratio", 0.693, "static/cifar10", "of the typical method (base paper)", "abstract of IJCAI 2022", "ann2snn"),
        ),
        reconstructed="networks and data of detection and segmentation, which tasks the ratios are of; ours: mode ledger, MSE of raw "
        "answers, expected improvement, size of the search in small budgets, scale of a layer whose quantile is 0",
    )
    spikes = "graded"
    simulated_steps = 32

    class Options(plugin.Options):
        """The stages of the conversion."""

        search: Literal["bayes", "off"] = Field("bayes", description="find the quantile by Bayesian optimisation, or use `quantile`")
        search_images: int | None = Field(
            None,
            description="training images of the search; None: 1000 in the paper budget, else 64, or 16 for a detector or segmenter",
            ge=1,
        )
        search_random: int = Field(5, description="random points of the search", ge=1)
        search_points: int | None = Field(None, description="points that the search proposes; None: 30 in the paper budget, else 10", ge=0)
        quantile: float = Field(
            0.999, description="search=off: quantile of the outputs of a layer that is its scale; 1: maximum", gt=0, le=1
        )
        quantile_images: int | None = Field(
            None, description="training images, one batch, that quantiles are of; None: 256 in the paper budget, else 64", ge=1
        )
        per_channel: bool = Field(False, description="one scale per channel instead of one per layer")
        clip: Literal["none", "always", "burst", "divide"] = Field(
            "none", description="outputs before the quantile: clipped at gamma, likewise if gamma > 1, or above 1 divided by gamma"
        )
        gamma: int = Field(5, description="most spikes of a neuron in a step; 1: integrate-and-fire", ge=1)
        pooling: Literal["lateral", "gate"] = Field(
            "lateral", description="lossless max pooling, or the spike of the neuron of most spikes"
        )
        calibration: Literal["reference", "ledger", "off"] = Field("reference", description="how neurons keep account of their spikes")
        allowance: float = Field(0.5, description="silence that calibration allows beyond the mean gap, as a fraction of T", gt=0)
        net: Literal["task", "vgg16"] = Field("task", description="the task's backbone, or the network of the paper")

    options: Options

    def __init__(self, task: Task, *args: Any, **kwargs: Any) -> None:
        """Bind to a task."""
        super().__init__(task, *args, **kwargs)
        self.relu: nn.Module | None = None
        self.connections: list[Connection] | None = None

    # Parts ----------------------------------------------------------------------------------------------------------

    def pool(self, kernel: int) -> nn.Module:
        """Return max pooling; conversion replaces it."""
        return MaxPool2d(kernel)

    def spiking_neuron(self, threshold: float) -> nn.Module:
        """Return the neurons that replace a ReLU, with ``threshold`` as scale."""
        o = self.options
        if o.calibration == "off":
            return BurstNeuron(o.gamma, scale=threshold)
        return BurstNeuron(o.gamma, o.allowance * self.steps, o.calibration, threshold)

    # Conversion -----------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def convert(self, net: nn.Module) -> None:
        """Fold, take quantiles, install neurons and pooling, choose the quantile; keep the figures for ``report``."""
        net.eval()
        self.figures["ann_validation"] = self.final_validation(net, self.predict_ann)
        conversion.fold(net)
        self.relu = copy.deepcopy(net)
        try:
            self.connections = trace(net, self.task.encode(next(self.task.batches("validation", 1, 1)).inputs, 1))
        except ValueError:  # a sum of several layers has no scale of its own
            self.connections = None
        tails = self.tails(net)
        replace(net, nn.ReLU, lambda relu: self.spiking_neuron(1.0))
        replace(net, nn.MaxPool2d, LIPool2d if self.options.pooling == "lateral" else RateGate2d)
        self.set_quantile(net, tails, self.search_quantile(net, tails) if self.options.search == "bayes" else self.options.quantile)
        self.figures["scales"] = {name: m.scale.flatten().tolist() for name, m in net.named_modules() if isinstance(m, BurstNeuron)}
        self.figures["scales_in_weights"] = self.connections is not None
        if self.connections is not None:
            absorb(self.connections, self.norm_factors(net, self.connections))

    def norm_factors(self, net: nn.Module, connections: list[Connection]) -> dict[Layer, Tensor]:
        """Return the scales of the neurons of every layer."""
        return {c.layer: c.layer.neuron.scale for c in connections if c.layer is not None}  # type: ignore[misc]

    def tails(self, net: nn.Module) -> dict[str, UpperTail]:
        """Return the largest outputs of every ReLU of ``net``, by name, for quantiles."""
        o = self.options
        lowest = o.quantile if o.search == "off" else LOWEST
        relus = {module: name for name, module in net.named_modules() if isinstance(module, nn.ReLU)}
        images = min(o.quantile_images or (256 if self.task.budget_name == "paper" else 64), len(self.task.split("train")))
        found: dict[str, UpperTail] = {}

        def see(module: nn.Module, output: Tensor) -> None:
            values = output.clone()
            if o.clip == "always" or (o.clip == "burst" and o.gamma > 1):
                values.clamp_(max=o.gamma)
            elif o.clip == "divide":
                values = torch.where(values > 1, values / o.gamma, values)
            most = images * values[0, 0].numel() // (values.shape[2] if o.per_channel else 1)
            found.setdefault(relus[module], UpperTail(lowest, most, o.per_channel)).add(values)

        with watching(relus, see):
            for batch in self.task.batches("train", min(images, 16), images):
                net(self.task.encode(batch.inputs, 1))
        return found

    @staticmethod
    def set_quantile(net: nn.Module, tails: dict[str, UpperTail], quantile: float) -> None:
        """Give every layer its quantile as scale; where that is 0, the largest output, and 1 for a silent layer or channel."""
        modules = dict(net.named_modules())
        for name, tail in tails.items():
            scale, largest = tail.quantile(quantile), tail.quantile(1.0)
            scale = torch.where(scale > 0, scale, torch.where(largest > 0, largest, 1.0))
            modules[name].set_scale(scale)  # type: ignore[operator]

    def search_quantile(self, net: nn.Module, tails: dict[str, UpperTail]) -> float:
        """Return the quantile that brings the answers on one training batch closest to those of the ReLU network."""
        o, paper = self.options, self.task.budget_name == "paper"
        few = 64 if self.task.head.kind == "classify" else 16  # larger images
        images = o.search_images or (1000 if paper else few)
        points = o.search_points if o.search_points is not None else (30 if paper else 10)
        batches = list(self.task.batches("train", evaluation_batch(self), images))
        assert self.relu is not None
        wanted = torch.cat([self.predict_ann(self.relu, batch.inputs).final() for batch in batches])

        def closeness(quantile: float) -> float:
            self.set_quantile(net, tails, quantile)
            found = torch.cat([self.predict(net, batch.inputs).final() for batch in batches])
            return -float(self.distance(wanted, found))

        best = bayesian_search.maximise(closeness, LOWEST, HIGHEST, o.search_random, points)
        self.figures["search"] = {"quantile": best.best, "distance": -best.value, "seconds": best.seconds, "evaluations": best.evaluations}
        return best.best

    def distance(self, wanted: Tensor, found: Tensor) -> Tensor:
        """Return how far answers ``found [B, ...]`` are from ``wanted``: KL of logits, or squared error of a detector's or segmenter's."""
        return (divergence if self.task.head.kind == "classify" else squared_error)(wanted, found)

    # Figures --------------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def report(self, net: nn.Module) -> dict[str, Any]:
        """Return scales, search, and on validation data: the main metric and the distance of the answers by T, SIN, spikes, work.

        ``ann_validation`` is the metric of the ReLU network, ``steps_to_ann`` the first of the times looked at that is within 1 point of
        it: every step, or for detection and segmentation, where scoring is dear, powers of two and T.
        """
        if self.relu is None:
            return dict(self.figures)
        powers = sorted({2**i for i in range(self.steps.bit_length())} | {self.steps})
        scorers, distances = {t: self.task.scorer() for t in self.scored_steps(self.steps)}, dict.fromkeys(powers, 0.0)
        gap, seen = ConversionGap(self.relu, net, self.connections), 0
        for batch, outputs, wanted in self._answers(net, gap):
            for t, scorer in scorers.items():
                scorer.update(outputs[t - 1].float().cpu(), batch.targets.cpu())
            for t in powers:
                distances[t] += float(self.distance(wanted, outputs[t - 1])) * len(wanted)
            seen += len(wanted)
        curve = {t: scorer.compute()[self.task.metric] for t, scorer in scorers.items()}
        return {
            **self.figures,
            **gap.figures(),
            "validation_by_steps": {str(t): curve[t] for t in powers},
            "steps_to_ann": self.steps_to_ann(curve),
            "output_distance": {str(t): total / seen for t, total in distances.items()},
        }

    def _answers(self, net: nn.Module, gap: ConversionGap) -> Iterator[tuple[Batch, Tensor, Tensor]]:
        """Yield validation batches with the answers at every step and those of the ReLU network; tell ``gap`` of the first 64 samples."""
        assert self.relu is not None
        seen = 0
        for batch in self.task.batches("validation", min(64, evaluation_batch(self))):
            found: list[Tensor] = []

            def run(inputs: Tensor = batch.inputs, found: list[Tensor] = found) -> None:
                found.append(self.predict(net, inputs).outputs)

            if seen < 64:
                gap.add(self.task.encode(batch.inputs, 1), run)
            else:
                run()
            seen += len(batch.inputs)
            yield batch, found[0], self.predict_ann(self.relu, batch.inputs).final()

    def recipe(self, task: Task) -> dict[str, Any]:
        """Return the settings of the base paper for CIFAR; the task's augmentation stands in for AutoAugment and Cutout."""
        fits = task.head.kind == "classify" and min(task.input_shape[1:]) >= 32
        settings = {"optimizer": "sgd", "momentum": 0.9, "lr": 0.1 if task.head.classes >= 100 else 0.05, "weight_decay": 5e-4}
        settings |= {
            "schedule": "cosine",
            "epochs": 300,
            "batch_size": 128,
            "augment": True,
            "steps": 256,
            "net": "vgg16" if fits else "task",
        }
        return settings | ({"label_smoothing": 0.1} if task.head.kind == "classify" else {})


def replace(net: nn.Module, kind: type[nn.Module], make: Callable[[Any], nn.Module]) -> None:
    """Replace every module of a ``kind`` in ``net`` by what ``make`` returns for it."""
    for parent in list(net.modules()):
        for name, child in parent.named_children():
            if isinstance(child, kind):
                setattr(parent, name, make(child).to(next(net.parameters()).device))
