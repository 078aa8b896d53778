"""``ConversionMethod``: train a ReLU network, then turn it into integrate-and-fire neurons and simulate it for T steps.

A conversion plugin says where the norm factor of each layer comes from, in ``norm_factors``; the rest is here: phase "ann" trains
and validates the ReLU twin in one pass, then batch normalisation is folded, factors are installed, and ``predict`` simulates T
steps with the image as constant input current. Answer: mean input current of the read-out. Source: Rueckauer et al., Frontiers in
Neuroscience 2017; see ``methods.nn.conversion``.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from harness.method import Phase, Prediction, Update
from harness.plugin import UnfitError
from harness.task import Batch, Task
from methods.base import SpikingMethod
from methods.nn import calibration, conversion
from methods.nn.neuron import ReLU
from methods.nn.norm import BatchNorm
from methods.nn.rate_networks import LEAST, rate_network
from methods.nn.sealed import counted
from methods.nn.stepping import stepping
from methods.nn.wiring import Connection, Site, open_shortcuts, trace

SOURCE_ANN = {"optimizer": "sgd", "lr": 0.1, "momentum": 0.9, "weight_decay": 5e-4, "schedule": "cosine"}  # how it is trained (QCFS)
SIMULATED = 64  # validation images that are simulated once for the figures of a report


class ConversionMethod(SpikingMethod):
    """A method that converts a trained ReLU network; subclasses say the norm factors."""

    cannot = {
        "events": "rates need a constant input over many steps; events change at every step",
        "sequences": "rates need a constant input over many steps; a sequence changes at every step",
    }
    heads = ("classify", "detect", "segment")
    simulated_steps: ClassVar[int] = 64  # T unless asked otherwise
    chunk = 8  # steps simulated at once, so that memory does not grow with T
    form: conversion.Form = "weights"
    reset: Literal["soft", "hard"] = "soft"
    v_init: float = 0.0  # as a fraction of the threshold
    data_factor: Tensor = conversion.ONE  # what ``encode`` divides the data by; ``norm_factors`` may set it

    def __init__(self, task: Task, *args: Any, **kwargs: Any) -> None:
        """Bind to a task; raise UnfitError for a network (option ``net``) that its images are too small for."""
        super().__init__(task, *args, **kwargs)
        self.figures: dict[str, Any] = {}
        self.training_images_read: int | None = None  # by the conversion; for the probe ``leakage``
        name, size = getattr(self.options, "net", "task"), task.input_shape[1:]
        if name in LEAST and min(size) < LEAST[name]:
            raise UnfitError(
                f"{self.card.name}: net = {name!r} needs images of {LEAST[name]} pixels each way, not {list(size)}; use net = 'task'"
            )

    @classmethod
    def supports(cls, task: Task) -> str | None:
        """Return why conversion cannot do ``task``: as any method, and where an encoding makes the input change with time."""
        coding = getattr(getattr(task, "options", None), "encoding", "direct")
        if coding in ("latency", "phase"):
            return f"rates need a constant input over many steps (or spikes at a constant rate); {coding} coding changes it"
        return super().supports(task)

    @abstractmethod
    def norm_factors(self, net: nn.Module, connections: list[Connection]) -> dict[Site, Tensor]:
        """Return the norm factor of every layer of the trained, folded ReLU network: scalars, or one value per channel."""

    def time_steps(self, task: Task, asked: int | None) -> int:
        """Return how long to simulate: as asked, else the method's own T (a task's T is meant for trained spikes)."""
        return asked or self.simulated_steps

    def backbone(self) -> nn.Module:
        """Return the network that the option ``net`` names, if the method has one, else the budget's."""
        shape = self.task.input_shape
        return rate_network(getattr(self.options, "net", "task"), self.task.budget.backbone, shape, self)

    def neuron(self, features: int) -> nn.Module:
        """Return ReLU; conversion replaces it."""
        return ReLU()

    def norm(self, features: int, scale: float = 1.0) -> nn.Module:
        """Return batch normalisation."""
        return BatchNorm(features)

    def spiking_neuron(self, threshold: float) -> nn.Module:
        """Return the neurons that replace the ReLU."""
        return conversion.integrate_and_fire(threshold, self.v_init, self.reset)

    # Training and conversion ----------------------------------------------------------------------------------------

    def phases(self, net: nn.Module) -> Iterator[Phase]:
        """Train the ReLU network, then convert it in place."""
        yield Phase("ann", predict=self.predict_ann, parameters=self.groups(net))
        with counted(self.task) as read:
            self.convert(net)
        self.training_images_read = len(read)

    def groups(self, net: nn.Module) -> list[Any] | None:
        """Return the parameter groups of the optimiser; default: one group of all."""
        return None

    def step(self, net: nn.Module, batch: Batch, update: Update) -> Tensor:
        """Train the ReLU network on one batch, in one pass."""
        loss = self.loss(net(self.task.encode(batch.inputs, 1))[0], batch.targets)
        update.minimise(loss)
        return loss

    @torch.no_grad()
    def convert(self, net: nn.Module) -> None:
        """Fold, find the factors, install spiking neurons; keep the figures for ``report``."""
        net.eval()
        images = next(self.task.batches("validation", SIMULATED, SIMULATED)).inputs
        sample = self.task.encode(images, 1)
        open_shortcuts(net)
        connections = trace(net, sample[:, :1])
        layers = list(dict.fromkeys(c.layer for c in connections if c.layer is not None))
        self.figures["ann_validation"] = self.final_validation(net, self.predict_ann)
        conversion.fold(net)
        factors = self.norm_factors(net, connections)
        activations = calibration.mean_outputs(net, layers, sample)
        conversion.install(connections, factors, self.spiking_neuron, self.form, self.data_factor)
        rates = calibration.mean_outputs(net, layers, self.encode(images))
        names = {module: name for name, module in net.named_modules()}
        self.figures["norm_factors"] = {names[layer]: factors[layer].flatten().tolist() for layer in layers}
        self.figures["rate_error"] = {names[la]: self._rate_error(activations[la], rates[la], factors[la]) for la in layers}

    def calibration_work(self, net: nn.Module) -> tuple[int, int]:
        """Return how many samples conversion simulates with spiking neurons, and for how many steps each: for the probe ``sata``."""
        return SIMULATED, self.steps

    def _rate_error(self, activation: Tensor, output: Tensor, factor: Tensor) -> float:
        """Return the mean of ``|rate - activation / factor|`` for mean outputs ``[B, C, ...]`` of one layer."""
        factor = factor.view(-1, *[1] * (activation.dim() - 2))
        rate = output if self.form == "weights" else output / factor
        return float((rate - activation / factor).abs().mean())

    # Answers --------------------------------------------------------------------------------------------------------

    def predict_ann(self, net: nn.Module, inputs: Tensor) -> Prediction:
        """Return the answers of the ReLU network, in one step."""
        return Prediction.at_every_step(self.task.answer(net(self.task.encode(inputs, 1))))

    def predict(self, net: nn.Module, inputs: Tensor) -> Prediction:
        """Simulate T steps, a few at a time, and read the mean current of the read-out."""
        sequence = self.encode(inputs)
        with stepping(net):
            outputs = [net(sequence[start : start + self.chunk]) for start in range(0, self.steps, self.chunk)]
        return Prediction.at_every_step(self.task.answer(torch.cat(outputs)))

    def _validation(self, net: nn.Module, predict: Callable[[nn.Module, Tensor], Prediction]) -> dict[int, float]:
        """Return the main metric on the validation split as of every step, from 1; of detection and segmentation at some steps only."""
        scorers: dict[int, Any] = {}
        for batch in self.task.batches("validation"):
            outputs = predict(net, batch.inputs).outputs
            scorers = scorers or {step: self.task.scorer() for step in self.scored_steps(len(outputs))}
            for step, scorer in scorers.items():
                scorer.update(outputs[step - 1].float().cpu(), batch.targets.cpu())
        return {step: scorer.compute()[self.task.metric] for step, scorer in scorers.items()}

    def final_validation(self, net: nn.Module, predict: Callable[[nn.Module, Tensor], Prediction]) -> float:
        """Return the main metric of the final answers on the validation split."""
        return list(self._validation(net, predict).values())[-1]

    def scored_steps(self, steps: int) -> list[int]:
        """Return the steps to look at: all, or powers of two and the last of detection and segmentation, where scoring is dear."""
        if self.task.head.kind == "classify":
            return list(range(1, steps + 1))
        return sorted({2**power for power in range(steps.bit_length())} | {steps})

    def steps_to_ann(self, curve: Mapping[int, float]) -> int | None:
        """Return the first step of ``curve`` (step -> main metric) that is within 1 point of the ANN; None if none is."""
        near = [step for step, found in curve.items() if found >= self.figures["ann_validation"] - 0.01]
        return near[0] if near else None

    @torch.no_grad()
    def report(self, net: nn.Module) -> dict[str, Any]:
        """Return the norm factors, the rate error of each layer and, on validation data, the first T within 1 point of the ANN.

        ``rate_error`` is the mean of ``|rate - activation / factor|`` on 64 validation images; ``ann_validation`` the metric of the ReLU
        network; ``steps_to_ann`` the first of the steps looked at (``scored_steps``) that is within 1 point of it, None if none is.
        """
        figures = {**super().report(net), **self.figures, "v_init": self.v_init, "reset": self.reset}
        if "ann_validation" in figures:
            figures["steps_to_ann"] = self.steps_to_ann(self._validation(net, self.predict))
        return figures
