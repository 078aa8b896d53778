"""DIET-SNN: train a ReLU network, convert it, then train weights, thresholds and leaks together, on analog pixels at every step.

Three stages::

    ann       ReLU network without bias and normalisation (so scaling a layer scales the answers), trained by back-propagation
    convert   threshold theta of each layer: largest over 100 steps of the 99.7-percentile of its currents, leak 1; times ``scaling``
    tune      u = lam u + W o_in,  o = 1[u > theta],  u = u - theta o;  W, theta, lam by BPTT, do/dz = 0.3 max(0, 1 - |z|), z = u/theta - 1

``methods/nn/diet.py`` has the neuron. After each step of tuning ``lam <= 1``, and ``theta >= 0.001`` (ours). The read-out is a membrane
without leak, threshold or reset: the logits after t steps are ``W_out`` times the sum of the last layer's spikes.

What the card asks to compare: ``learn=weights``, ``learn=weights+threshold`` and ``learn=all`` start from the same network (same seed);
``ann_share=1`` converts and does not tune, and its accuracy at every step, run with many steps, says what plain conversion needs.

Ours: the epochs of a run are split between both trainings by ``ann_share``; detection and segmentation, whose answers have a scale, read
the mean over time, through read-out weights that take up the thresholds, so that converted rates give the ReLU network's answers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from harness import plugin
from harness.method import Method, Phase, Prediction, Update
from harness.plugin import Card, Claim, UnfitError
from harness.task import Batch, Task, Training
from methods.base_conversion import ConversionMethod
from methods.nn.conversion import normalise
from methods.nn.diet import DietNeuron, ThresholdConv2d, balance_thresholds
from methods.nn.dropout import SequenceDropout
from methods.nn.layer import Layer
from methods.nn.neuron import ReLU
from methods.nn.synapse import Linear
from methods.nn.vgg import VGG16, Vgg
from methods.nn.wiring import Connection, trace

LEAST_THRESHOLD = 1e-3


class DietSnn(ConversionMethod):
    """Conversion, then training of weights, thresholds and leaks."""

    card = Card(
        name="diet_snn",
        title="DIET-SNN: A Low-Latency SNN With Direct Input Encoding and Leakage and Threshold Optimization",
        authors="Rathi, Roy",
        venue="IEEE TNNLS 34(6):3174-3182",
        year=2023,
        family="conversion",
        summary="Start from a converted ReLU network and train its weights, thresholds and leaks by surrogate gradients at very few steps.",
        compared_with=("stbp", "ann2snn", "ann"),
        baseline="diet_snn[learn=weights]",
        claims=(
            Claim("test_accuracy", "value", 0.69, "static/imagenet", "T=5; VGG or ResNet, which one is not said", "abstract"),
            Claim("energy", "ratio", 1 / 12, "static/imagenet", "12x less compute energy than an equal ANN", "abstract", "ann"),
            Claim(
                "steps_used",
                "property",
                None,
                "static/imagenet",
                "20 to 500 times fewer steps than other SNNs",
                "abstract",
                "ann2snn",
                unmeasured="time steps are set here, not found",
            ),
        ),
        reconstructed="split of the epochs, cosine over all of them, 64 images for thresholds in small budgets, VGG-16 with one hidden "
        "layer, where dropout sits, least threshold, detection and segmentation: ours",
    )

    class Options(plugin.Options):
        """Conversion and what is learnt after it."""

        learn: Literal["weights", "weights+threshold", "all"] = Field("all", description="what tuning learns; all: the leaks too")
        ann_share: float = Field(0.5, description="share of the epochs that train the ReLU network; 1: no tuning", ge=0, le=1)
        tune_lr: float = Field(1.0, description="learning rate of tuning, as a fraction of that of the ReLU network", gt=0)
        tune_batch: float = Field(1.0, description="batch size of tuning, as a fraction of that of the ReLU network", gt=0)
        amsgrad: bool = Field(False, description="with Adam: its AMSGrad form in tuning")
        percentile: float = Field(99.7, description="percentile of the currents that is the threshold, in percent", gt=0, le=100)
        scaling: float = Field(0.3, description="multiplies all thresholds (scaling_factor; README 0.2, default of the code 0.3)", gt=0)
        calibration: int | None = Field(
            None, description="training images, in one batch, that thresholds are taken from; None: 512 in the paper budget, else 64", ge=1
        )
        calibration_steps: int = Field(100, description="time steps simulated for the thresholds", ge=1)
        dropout: float = Field(0.0, description="dropout of ReLU and spikes; one mask for all steps of a batch", ge=0, lt=1)
        net: Literal["task", "vgg16"] = Field("task", description="the task's backbone, or the network of the paper")

    options: Options

    def __init__(self, task: Task, *args: Any, **kwargs: Any) -> None:
        """Bind to a task; raise UsageError for a backbone with residual sums, which thresholds cannot be balanced through."""
        super().__init__(task, *args, **kwargs)
        if self.options.net == "task" and task.budget.backbone.kind == "resnet":
            raise UnfitError(f"diet_snn: {task.name} has a residual backbone, whose sums have no threshold of their own; use net = 'vgg16'")
        self.answers_scale = task.head.kind != "classify"

    # Parts ----------------------------------------------------------------------------------------------------------

    def time_steps(self, task: Task, asked: int | None) -> int:
        """Return T: as asked, else the task's."""
        return Method.time_steps(self, task, asked)

    def neuron(self, features: int) -> nn.Module:
        """Return ReLU; conversion replaces it."""
        return self._dropped(ReLU())

    def spiking(self) -> nn.Module:
        """Return the neurons that replace ReLU: leak 1."""
        return self._dropped(DietNeuron())

    def _dropped(self, neuron: nn.Module) -> nn.Module:
        return nn.Sequential(neuron, SequenceDropout(self.options.dropout)) if self.options.dropout else neuron

    def norm(self, features: int, scale: float = 1.0) -> nn.Module:
        """Return nothing."""
        return nn.Identity()

    def conv(self, features_in: int, features_out: int, kernel: int, stride: int = 1, first: bool = False) -> nn.Module:
        """Return a convolution without bias that can take up a threshold."""
        return ThresholdConv2d(features_in, features_out, kernel, stride)

    def readout(self, features_in: int, features_out: int) -> nn.Module:
        """Return the read-out without bias, weights normal with standard deviation 0.01."""
        readout = Linear(features_in, features_out, bias=False)
        nn.init.normal_(readout.weight, std=0.01)
        return readout

    def backbone(self) -> nn.Module:
        """Return the task's reference backbone or VGG-16."""
        if self.options.net == "task":
            return super().backbone()
        return Vgg(self.task.input_shape, VGG16[:-1], self, hidden=4096)

    # Stages ---------------------------------------------------------------------------------------------------------

    def phases(self, net: nn.Module) -> Iterator[Phase]:
        """Train the ReLU network, convert it in place, tune it."""
        o, epochs = self.options, self.training.epochs
        ann = round(o.ann_share * epochs)
        yield Phase("ann", step=super().step, epochs=ann, predict=self.predict_ann)
        self.convert(net)
        yield Phase("tune", step=self.tune, epochs=epochs - ann, parameters=self.learnt(net), training=self.tuning())

    def tuning(self) -> Training:
        """Return the training settings of the last stage."""
        o, training = self.options, self.training
        return replace(training, lr=o.tune_lr * training.lr, batch_size=max(1, math.floor(o.tune_batch * training.batch_size)))

    @torch.no_grad()
    def convert(self, net: nn.Module) -> None:
        """Set thresholds and install spiking neurons; keep the figures for ``report``."""
        net.eval()
        connections = trace(net, self.task.encode(next(self.task.batches("train", 1, 1)).inputs, 1))
        if not self.answers_scale:
            self.figures["ann_validation"] = self.final_validation(net, self.predict_ann)
        thresholds = self.norm_factors(net, connections)
        if self.answers_scale:
            self._keep_scale(connections, thresholds)
        else:
            self.figures["converted_validation"] = self.final_validation(net, self.predict)

    def norm_factors(self, net: nn.Module, connections: list[Connection]) -> dict[Layer, Tensor]:
        """Balance the thresholds, layer by layer, scale them, and return them."""
        o, count = self.options, self.calibration_images
        image = self.task.encode(next(self.task.batches("train", count, count)).inputs, 1)
        layers = [c.layer for c in connections if c.layer is not None]
        found = balance_thresholds(net, layers, image, o.calibration_steps, o.percentile, self.spiking)
        for layer, threshold in found.items():
            layer.synapse.set_threshold(o.scaling * threshold)  # type: ignore[operator, union-attr]
        return {layer: torch.tensor(o.scaling * threshold) for layer, threshold in found.items()}

    def calibration_work(self, net: nn.Module) -> tuple[int, int]:
        """Return what conversion simulates: for each layer the network up to it, half of it on average."""
        layers = sum(isinstance(module, Layer) for module in net.modules())
        return self.calibration_images, self.options.calibration_steps * (layers + 1) // 2

    @property
    def calibration_images(self) -> int:
        """Training images that thresholds are taken from."""
        return self.options.calibration or (512 if self.task.budget_name == "paper" else 64)

    @staticmethod
    def _keep_scale(connections: list[Connection], thresholds: dict[Layer, Tensor]) -> None:
        """Multiply read-outs by the thresholds of all layers on their way: a rate times their product stands for an activation."""
        products: dict[Layer | None, Tensor] = {None: torch.ones(())}
        for c in connections:
            if c.layer is None:
                normalise(c.synapse, before=products[c.source])
            else:
                products[c.layer] = products[c.source] * thresholds[c.layer]

    def learnt(self, net: nn.Module) -> list[dict[str, Any]]:
        """Return what tuning learns, as one parameter group, and freeze the rest."""
        for module in net.modules():
            if isinstance(module, ThresholdConv2d) and module.threshold is not None:
                module.threshold.requires_grad_(self.options.learn != "weights")
            elif isinstance(module, DietNeuron):
                module.decay.requires_grad_(self.options.learn == "all")
        group: dict[str, Any] = {"params": [p for p in net.parameters() if p.requires_grad]}
        return [group | {"amsgrad": self.options.amsgrad}] if self.training.optimizer != "sgd" else [group]

    def tune(self, net: nn.Module, batch: Batch, update: Update) -> Tensor:
        """Train the spiking network on one batch through all time steps; keep leaks and thresholds in their range."""
        loss = self.loss(self.answers(net(self.encode(batch.inputs)))[-1], batch.targets)
        update.minimise(loss)
        with torch.no_grad():
            for module in net.modules():
                if isinstance(module, ThresholdConv2d) and module.threshold is not None:
                    module.threshold.clamp_(min=LEAST_THRESHOLD)
                elif isinstance(module, DietNeuron):
                    module.decay.clamp_(max=1.0)
        return loss

    def answers(self, outputs: Tensor) -> Tensor:
        """Return the answers as of every step ``[T, B, ...]``: the membrane of the read-out, or where answers have a scale its mean."""
        return self.task.answer(outputs) if self.answers_scale else outputs.cumsum(0)

    def predict(self, net: nn.Module, inputs: Tensor) -> Prediction:
        """Run all time steps and read the answer out at each."""
        return Prediction.at_every_step(self.answers(net(self.encode(inputs))))

    def recipe(self, task: Task) -> dict[str, Any]:
        """Return the README's settings: 300 epochs for each training, batches of 128 and 64; T_max 128 of its cosine is all epochs here."""
        fits = task.head.kind == "classify" and len(task.input_shape) == 3 and min(task.input_shape[1:]) >= 16
        settings = {"optimizer": "adam", "lr": 1e-3, "weight_decay": 0.0, "schedule": "cosine", "augment": True, "steps": 5}
        settings |= {"epochs": 600, "ann_share": 0.5, "tune_lr": 0.1, "batch_size": 128, "tune_batch": 0.5}
        return settings | {"amsgrad": True, "scaling": 0.2, "dropout": 0.2, "net": "vgg16" if fits else "task"}

    def report(self, net: nn.Module) -> dict[str, Any]:
        """Return thresholds and leaks by layer, validation accuracies before tuning, and the first T within 1 point of the ReLU network."""
        names = {name: module for name, module in net.named_modules() if isinstance(module, (ThresholdConv2d, DietNeuron))}
        return {
            **super().report(net),
            "thresholds": {n: m.threshold.item() for n, m in names.items() if isinstance(m, ThresholdConv2d) and m.threshold is not None},
            "leaks": {n: m.decay.item() for n, m in names.items() if isinstance(m, DietNeuron)},
        }
