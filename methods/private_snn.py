"""PrivateSNN: conversion without the training data, then spike-based fine-tuning that is to hide the classes in the weights.

Four stages; after the first the training data are under seal (``methods.nn.sealed``), and reading them raises::

    ann        ReLU network without bias and normalisation, on pixels x = 2 p - 1 in [-1, 1]
    synthesis  images from noise: descent of - sum_j y_j log softmax(z(x) / 20)_j on pixels, y ~ Dirichlet(a_c) (``methods.nn.impressions``)
    convert    theta_l = largest current W_l s_{l-1}(t) over synthetic images, T steps and neurons, layer after layer; leak 1
    encrypt    BPTT through T steps on the synthetic images: u = u + W s,  s = 1[u / theta > 1],  u = u - theta s
               ds/dz = 0.3 max(0, 1 - |z|),  z = u / theta - 1;  theta fixed;  reset not differentiated
               L = CE(o / T, argmax z) / 2 + tau^2 KL(softmax(z / tau) || softmax(o / (T tau))) / 2,  tau = 4

``z`` are the ReLU network's logits, ``o`` the potential of the read-out (no leak, threshold or reset) after T steps. Inputs are Poisson
spikes: -1 or 1 with probability |x| at each step. Neurons count potentials in units of theta, behind weights ``W / theta``
(``methods.nn.diet``), which is the same; the read-out's weights are multiplied by all thresholds (``keep_scale``, ours), so that ``o / T``
comes near ``z`` instead of ``z`` over their product. What networks leak is measured by the probe ``leakage``.

The gap that doing without data costs: ``calibration=real`` against ``synthetic``, and always against ``noise``; that of the encryption:
``encrypt=false``. Source: "PrivateSNN: Privacy-Preserving Spiking Neural Networks" (Kim, Venkatesha, Panda, AAAI 2022), official code for
the first three stages. The loss and the schedule of the last one are ours: no source for them was found.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from harness import plugin
from harness.meters.memory import SavedTensors
from harness.method import Phase, Prediction, Update
from harness.plugin import Card, Claim, UnfitError
from harness.task import Batch, Data, Task, Training
from methods.base_conversion import ConversionMethod
from methods.nn.diet import ThresholdConv2d, balance_thresholds
from methods.nn.distillation import distillation_loss
from methods.nn.dropout import SequenceDropout
from methods.nn.impressions import impressions, label_loss, soft_labels
from methods.nn.layer import Layer
from methods.nn.neuron import LIF
from methods.nn.noise import pixels
from methods.nn.sealed import sealed, with_training_data
from methods.nn.surrogate import Triangle
from methods.nn.synapse import Linear
from methods.nn.vgg import VGG16, Vgg
from methods.nn.wiring import Connection, trace

TAU = 4.0  # temperature of the distillation
NO_CLASS = "synthetic images are drawn for classes; boxes and masks are not"
# What the paper budget takes and what others take, unless the options say: images per class, iterations, rates, images for thresholds.
PAPER = {"images": 1000, "iterations": 2500, "image_lr": 1e-3, "calibration_images": 1024, "encrypt_lr": 1e-4}
SMALL = {"images": 20, "iterations": 200, "image_lr": 2e-2, "calibration_images": 128, "encrypt_lr": 1e-3}


class PrivateSnn(ConversionMethod):
    """Data-free conversion and temporal spike-based fine-tuning on synthetic images."""

    card = Card(
        name="private_snn",
        title="PrivateSNN: Privacy-Preserving Spiking Neural Networks",
        authors="Kim, Venkatesha, Panda",
        venue="AAAI",
        year=2022,
        family="conversion",
        summary="Convert a ReLU network by images that it dreams itself, then fine-tune the spiking weights on them to hide the classes.",
        compared_with=("ann", "ann2snn", "stbp"),
        baseline="private_snn[encrypt=false]",
        claims=(
            *(
                Claim("test_accuracy", "difference", -0.02, task, "encrypted, VGG16 family; a drop below about 2 points", "abstract", "ann")
                for task in ("static/cifar10", "static/cifar100", "static/tiny-imagenet")
            ),
            Claim("energy", "ratio", 1 / 55, "static/cifar10", "VGG16 family, about 55x less", "abstract", "ann"),
            Claim(
                "test_accuracy",
                "property",
                None,
                "any",
                "no data leak: thresholds from synthetic images only",
                "abstract",
                "ann2snn",
                figure="report.training_images_read",
                expect="equal 0",
                tested="tests/methods/test_private_snn.py::test_no_training_image_is_read_after_the_first_stage",
            ),
            Claim(
                "test_accuracy",
                "property",
                None,
                "any",
                "no class leak: the encrypted weights tell no class features",
                "abstract",
                against="private_snn[encrypt=false]",
                figure="probes.leakage.A2.recognised_leak",
                expect="lower",
            ),
        ),
        reconstructed="the encryption's loss, its schedule (from settings that the code declares and never uses) and dropout; pixels as "
        "2p - 1; least concentration 0.001; augmentation of the ANN; small budgets' numbers; scale of the read-out: ours",
    )
    heads: ClassVar[tuple[str, ...]] = ("classify",)
    cannot = {**ConversionMethod.cannot, "detection": NO_CLASS}
    simulated_steps = 32

    class Options(plugin.Options):
        """Synthesis, thresholds and encryption."""

        calibration: Literal["synthetic", "real", "noise"] = Field(
            "synthetic", description="images that thresholds are taken from: the network's own, training images (a leak), or uniform noise"
        )
        encrypt: bool = Field(True, description="fine-tune the spiking network on the synthetic images")
        images: int | None = Field(None, description="synthetic images per class; None: 1000 in the paper budget, else 20", ge=1)
        iterations: int | None = Field(None, description="updates of each image; None: 2500 in the paper budget, else 200", ge=1)
        image_lr: float | None = Field(None, description="Adam's rate on pixels; None: 0.001 in the paper budget, else 0.02", gt=0)
        calibration_images: int | None = Field(None, description="images for thresholds; None: 1024 in the paper budget, else 128", ge=1)
        scaling: float = Field(1.0, description="multiplies all thresholds", gt=0)
        input: Literal["poisson", "analog"] = Field("poisson", description="random spikes of both signs, or the pixels as constant current")
        encrypt_share: float = Field(0.5, description="epochs of the encryption, as a multiple of those of the ReLU network", ge=0)
        encrypt_lr: float | None = Field(None, description="Adam's rate in the encryption; None: 1e-4 in the paper budget, else 1e-3", gt=0)
        keep_scale: bool = Field(True, description="the read-out takes up the thresholds: the encryption starts at the ANN's logits")
        dropout: float = Field(0.0, description="dropout in the encryption after layers that no pooling follows (0.3 declared)", ge=0, lt=1)
        hidden_dropout: float = Field(0.5, description="network=vgg16: dropout of the fully connected layer, in both trainings", ge=0, lt=1)
        network: Literal["task", "vgg16"] = Field("task", description="the task's backbone, or the network of the paper")

    options: Options

    def __init__(self, task: Task, *args: Any, **kwargs: Any) -> None:
        """Bind to a task; raise UnfitError for a backbone with residual sums, which thresholds cannot be balanced through."""
        super().__init__(task, *args, **kwargs)
        if self.options.network == "task" and task.budget.backbone.kind == "resnet":
            raise UnfitError(f"private_snn: {task.name} has a residual backbone, whose sums have no threshold; use network=vgg16")
        self.real = task  # ``self.task`` has no training data after the first stage
        self.training_images_read = 0  # after the first stage; for the probe ``leakage``
        sizes = PAPER if task.budget_name == "paper" else SMALL
        self.sizes = {name: size if (given := getattr(self.options, name)) is None else given for name, size in sizes.items()}

    # Parts ----------------------------------------------------------------------------------------------------------

    def norm(self, features: int, scale: float = 1.0) -> nn.Module:
        """Return nothing."""
        return nn.Identity()

    def conv(self, features_in: int, features_out: int, kernel: int, stride: int = 1, first: bool = False) -> nn.Module:
        """Return a convolution without bias that can take up a threshold, weights Kaiming normal."""
        conv = ThresholdConv2d(features_in, features_out, kernel, stride)
        nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
        return conv

    def readout(self, features_in: int, features_out: int) -> nn.Module:
        """Return the read-out without bias, so that scaling a layer scales the answers."""
        readout = Linear(features_in, features_out, bias=False)
        nn.init.kaiming_normal_(readout.weight, nonlinearity="linear")
        return readout

    def backbone(self) -> nn.Module:
        """Return the task's reference backbone or VGG-16."""
        if self.options.network == "task":
            return super().backbone()
        vgg = Vgg(self.task.input_shape, VGG16, self, hidden=4096)
        self._drop(vgg.stages[-1][-1], self.options.hidden_dropout)
        return vgg

    def spiking(self) -> nn.Module:
        """Return integrate-and-fire neurons in units of their threshold."""
        return LIF(1.0, 1.0, "soft", surrogate=Triangle(1.0, 0.3), strict=True)

    @staticmethod
    def _drop(layer: Layer, p: float) -> None:
        if p:
            layer.neuron = nn.Sequential(layer.neuron, SequenceDropout(p))

    def rates(self, inputs: Tensor) -> Tensor:
        """Return what ``encode`` gives on average: prepared images ``[B, C, H, W]`` as ``2 p - 1``, p the pixels in [0, 1]."""
        return 2 * pixels(self.task, inputs) - 1

    def encode(self, inputs: Tensor) -> Tensor:
        """Return the sequence ``[T, B, C, H, W]`` that the spiking network sees."""
        return self.drawn(self.rates(inputs), self.steps)

    def drawn(self, rates: Tensor, steps: int) -> Tensor:
        """Return ``steps`` steps of input of the given ``rates [B, ...]``: these themselves, or spikes -1, 0, 1 drawn anew."""
        sequence = rates.expand(steps, *rates.shape)
        if self.options.input == "analog":
            return sequence
        return rates.sign() * (torch.rand(sequence.shape, dtype=rates.dtype, device=rates.device) < rates.abs())

    def predict_ann(self, net: nn.Module, inputs: Tensor) -> Prediction:
        """Return the answers of the ReLU network, in one step."""
        return Prediction.at_every_step(net(self.rates(inputs)[None]))

    def step(self, net: nn.Module, batch: Batch, update: Update) -> Tensor:
        """Train the ReLU network on one batch."""
        loss = self.loss(net(self.rates(batch.inputs)[None])[0], batch.targets)
        update.minimise(loss)
        return loss

    # Stages ---------------------------------------------------------------------------------------------------------

    def phases(self, net: nn.Module) -> Iterator[Phase]:
        """Train the ReLU network; put the training data under seal; synthesise, convert, encrypt; give the data back to who evaluates."""
        self.task, self.training_images_read = self.real, 0
        yield Phase("ann", predict=self.predict_ann)
        net.eval()
        self.task = sealed(self.real)
        try:
            o = self.options
            images, teacher = self.synthesise(net) if o.encrypt or o.calibration == "synthetic" else (None, None)
            self.figures["ann_validation"] = self.final_validation(net, self.predict_ann)
            self.convert(net, images)
            self.figures["converted_validation"] = self.final_validation(net, self.predict)
            if images is not None and teacher is not None and o.encrypt:
                self.task = with_training_data(self.real, Data(images, teacher.argmax(1).cpu()))
                yield from self._encryption(net, teacher)
        finally:
            self.task = self.real

    def synthesise(self, net: nn.Module) -> tuple[Tensor, Tensor]:
        """Return the synthetic images in bytes ``[N, C, H, W]``, class by class, on the CPU, and the ReLU network's logits of them."""
        s, device, begun = self.sizes, self.task.device, time.perf_counter()
        classes = torch.arange(self.task.head.classes, device=device).repeat_interleave(int(s["images"]))
        labels = soft_labels(net.head.readout.weight, classes)  # type: ignore[union-attr, arg-type]
        answer = partial(self._logits, net)
        images = impressions(answer, labels, self.task.input_shape, int(s["iterations"]), s["image_lr"])
        with SavedTensors(net) as saved:
            label_loss(answer(torch.rand(len(labels[:256]), *self.task.input_shape, device=device, requires_grad=True)), labels[:256], 20.0)
        with torch.no_grad():
            teacher = torch.cat([answer(part.float() / 255) for part in images.split(256)])
        self.figures |= {
            "synthetic_images": len(images),
            "synthetic_as_class": (teacher.argmax(1) == classes).double().mean().item(),
            "synthetic_as_label": (teacher.argmax(1) == labels.argmax(1)).double().mean().item(),
            "synthesis_seconds": time.perf_counter() - begun,
            "synthesis_saved_bytes": saved.peak,
        }
        return images.cpu(), teacher

    def _logits(self, net: nn.Module, images: Tensor) -> Tensor:
        """Return the ReLU network's logits ``[B, classes]`` of pixels in [0, 1]."""
        return self.predict_ann(net, self.task.prepare(images)).outputs[0]

    @torch.no_grad()
    def convert(self, net: nn.Module, images: Tensor | None = None) -> None:
        """Set the thresholds by the images that the options ask for (``images`` are the synthetic ones) and install spiking neurons."""
        self.shown = self._calibration(images)
        factors = self.norm_factors(net, trace(net, self.shown[None, :1]))
        if self.options.keep_scale:
            readout: Tensor = net.head.readout.weight  # type: ignore[union-attr, assignment]
            readout.mul_(torch.stack(list(factors.values())).prod().to(readout))
        self._place_dropout(net)

    def _calibration(self, images: Tensor | None) -> Tensor:
        """Return the images, as rates ``[B, C, H, W]``."""
        count, task = int(self.sizes["calibration_images"]), self.task
        if self.options.calibration == "real":
            inputs = next(self.real.batches("train", count, count)).inputs
            self.training_images_read += len(inputs)
            return self.rates(inputs)
        if self.options.calibration == "noise":
            return self.rates(task.prepare(torch.rand(count, *task.input_shape, device=task.device)))
        assert images is not None
        chosen = images[torch.randperm(len(images))[:count]].to(task.device)
        return self.rates(task.prepare(chosen.float() / 255))

    def norm_factors(self, net: nn.Module, connections: list[Connection]) -> dict[Layer, Tensor]:
        """Balance the thresholds, layer by layer on the images shown, scale them, fix them, and return them."""
        layers = [c.layer for c in connections if c.layer is not None]
        found = balance_thresholds(net, layers, partial(self.drawn, self.shown), self.steps, 100.0, self.spiking)
        for layer, threshold in found.items():
            layer.synapse.set_threshold(self.options.scaling * threshold)  # type: ignore[operator, union-attr]
            layer.synapse.threshold.requires_grad_(False)  # type: ignore[union-attr]
        return {layer: torch.tensor(self.options.scaling * threshold) for layer, threshold in found.items()}

    def _place_dropout(self, net: nn.Module) -> None:
        """Put dropout after spiking layers, as the encryption wants it."""
        for stage in [module for module in net.modules() if isinstance(module, nn.Sequential)]:
            for module, after in zip(stage, [*list(stage)[1:], None], strict=True):
                if isinstance(module, Layer) and (after is None or isinstance(after, Layer)):
                    hidden = self.options.network == "vgg16" and after is None
                    self._drop(module, self.options.hidden_dropout if hidden else self.options.dropout)

    def _encryption(self, net: nn.Module, teacher: Tensor) -> Iterator[Phase]:
        weights = [parameter for parameter in net.parameters() if parameter.requires_grad]
        before = [weight.detach().clone() for weight in weights]
        settings: dict[str, Any] = {"optimizer": "adam", "lr": self.sizes["encrypt_lr"], "weight_decay": 5e-4, "augment": False}
        settings |= {"schedule": "drops", "milestones": (0.6, 0.8, 0.9), "lr_factor": 0.1, "warm_up": 0}
        training: Training = replace(self.training, **settings)
        groups = [{"params": weights, "amsgrad": True}]
        epochs = round(self.options.encrypt_share * self.training.epochs)
        yield Phase("encrypt", step=partial(self.encrypt, teacher=teacher), epochs=epochs, parameters=groups, training=training)
        pairs = zip(weights, before, strict=True)
        self.figures["weights_moved"] = [((now.detach() - then).norm() / then.norm()).item() for now, then in pairs]

    def encrypt(self, net: nn.Module, batch: Batch, update: Update, teacher: Tensor) -> Tensor:
        """Train the spiking network on a batch of synthetic images through all time steps; ``teacher [N, classes]``: the ANN's logits."""
        loss = distillation_loss(net(self.encode(batch.inputs)).mean(0), teacher[batch.index.to(teacher.device)], batch.targets, TAU)
        update.minimise(loss)
        return loss

    def recipe(self, task: Task) -> dict[str, Any]:
        """Return the README's settings, and for the encryption those that the official code declares (60 epochs to the ANN's 90)."""
        fits = task.head.kind == "classify" and len(task.input_shape) == 3 and min(task.input_shape[1:]) >= 32
        settings = {"optimizer": "sgd", "lr": 1e-2, "momentum": 0.9, "weight_decay": 5e-4, "epochs": 90, "batch_size": 256, "augment": True}
        settings |= {"schedule": "drops", "milestones": (0.4, 0.6, 0.8), "lr_factor": 0.1, "steps": 100}
        return settings | {"encrypt_share": 2 / 3, "encrypt_lr": 1e-4, "dropout": 0.3, "network": "vgg16" if fits else "task"}

    def report(self, net: nn.Module) -> dict[str, Any]:
        """Return thresholds by layer and what stages found: validation accuracies, figures of the synthesis, weights moved, images read.

        ``synthetic_as_class``, ``synthetic_as_label``: share of the images that the ReLU network takes for the class they were drawn for,
        and for the largest entry of their label. ``weights_moved``: ``|W' - W| / |W|`` of the encryption, layer by layer.
        ``training_images_read``: by anything after the first stage.
        """
        thresholds = {n: m.threshold.item() for n, m in net.named_modules() if isinstance(m, ThresholdConv2d) and m.threshold is not None}
        read = {"training_images_read": self.training_images_read, "calibration": self.options.calibration}
        return {**super().report(net), "thresholds": thresholds, **read}
