"""Rate conversion of a trained ReLU network: data-based normalisation and threshold balancing. The baseline of all conversion methods.

Train a ReLU network, fold batch normalisation, find for each layer the norm factor ``lam_l`` on training images, rescale
``W_l lam_{l-1} / lam_l`` and ``b_l / lam_l``, replace ReLU by integrate-and-fire neurons with threshold 1, simulate T steps with the
image as constant current. A neuron with constant current ``z`` then fires ``clip(floor((T z + v0) / theta), 0, T)`` times. Sources:
Diehl et al., IJCNN 2015; Rueckauer et al., Frontiers in Neuroscience 2017; Sengupta et al., 2019 (threshold balancing); error
theory: Bu et al., ICLR 2022. Parts: ``methods.nn.conversion``, ``methods.nn.calibration``.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from harness import plugin
from harness.plugin import Card, Claim
from harness.task import Task
from methods.base_conversion import SOURCE_ANN, ConversionMethod
from methods.nn import calibration
from methods.nn.neuron import LIF
from methods.nn.rate_networks import Name, published_net
from methods.nn.wiring import Connection, Site


class Ann2Snn(ConversionMethod):
    """ANN-to-SNN rate conversion with factors from calibration data."""

    card = Card(
        name="ann2snn",
        title="Fast-classifying, high-accuracy spiking deep networks through weight and threshold balancing; "
        "Conversion of continuous-valued deep networks to efficient event-driven networks for image classification; "
        "Going deeper in spiking neural networks: VGG and residual architectures",
        authors="Diehl et al.; Rueckauer et al.; Sengupta et al.",
        venue="IJCNN 2015; Frontiers in Neuroscience 2017; Frontiers in Neuroscience 2019",
        year=2017,
        family="conversion",
        summary="Replace each ReLU of a trained network by integrate-and-fire neurons whose rate, times a norm factor, stands for it.",
        compared_with=("ann", "stbp"),
        baseline="ann",
        claims=(
            Claim("test_accuracy", "value", 0.912, "static/cifar10", "VGG-9, T=1000", "figure caption of the BNTT paper"),
            Claim(
                "steps_used",
                "value",
                2500,
                "static/cifar10",
                "Spike-Norm (threshold balancing)",
                "third-party literature table",
                variant="ann2snn[factors=spikes]",
            ),
            Claim(
                "test_accuracy",
                "property",
                None,
                "any",
                "close to that of the ANN, but only for large T",
                "direction of all sources",
                "ann",
                expect="not lower",
            ),
        ),
        reconstructed="calibration on 1024 images, T of 64, time and biases of threshold balancing, signed Poisson spikes: ours",
    )

    class Options(plugin.Options):
        """Norm factors, neurons and form of the converted network."""

        net: Name = Field("task", description="the task's backbone, a residual one of its widths, or a published one")
        factors: Literal["percentile", "max", "spikes"] = Field(
            "percentile", description="norm factors: percentile or maximum of activations, or threshold balancing on spikes, layer by layer"
        )
        percentile: float = Field(99.9, description="percentile of the non-zero activations, in percent", gt=0, le=100)
        calibration: int = Field(1024, description="training images that factors are taken from", gt=0)
        balancing_images: int = Field(512, description="factors=spikes: training images used", gt=0)
        balancing_steps: int = Field(100, description="factors=spikes: time steps simulated per layer (published: 1000 to 2500)", gt=0)
        scale: float = Field(1.0, description="multiplies all norm factors (0.7 is published for threshold balancing at short T)", gt=0)
        form: Literal["weights", "thresholds"] = Field(
            "weights", description="rescale weights (threshold 1, spikes 0/1), or keep them (threshold and height of spikes are the factor)"
        )
        input: Literal["analog", "poisson"] = Field(
            "analog", description="the image as constant current, or random spikes of both signs with the image as rate"
        )
        reset: Literal["soft", "hard"] = Field("soft", description="what a spike does to the potential")
        v_init: float = Field(
            0.0, description="initial potential as a fraction of the threshold; 0.5 halves the quantisation error", ge=0, lt=1
        )

    options: Options

    def __init__(self, task: Task, *args: Any, **kwargs: Any) -> None:
        """Bind to a task."""
        super().__init__(task, *args, **kwargs)
        self.form, self.reset, self.v_init = self.options.form, self.options.reset, self.options.v_init

    def norm_factors(self, net: nn.Module, connections: list[Connection]) -> dict[Site, Tensor]:
        """Return the factors that the options ask for, from training images as they are (not augmented)."""
        o, task = self.options, self.task
        if o.input == "poisson":
            peaks = [batch.inputs.abs().max() for batch in task.batches("train", limit=o.calibration)]
            self.data_factor = torch.stack(peaks).max()
        if o.factors == "spikes":
            images = [task.encode(batch.inputs, 1) for batch in task.batches("train", limit=o.balancing_images)]
            found = calibration.spike_factors(net, images, o.balancing_steps, self.spiking_neuron)
        else:
            sequences = (task.encode(batch.inputs, 1) for batch in task.batches("train", limit=o.calibration))
            layers = dict.fromkeys(c.layer for c in connections if c.layer is not None)
            percent = 100.0 if o.factors == "max" else o.percentile
            found = calibration.activation_factors(net, layers, sequences, min(o.calibration, len(task.split("train"))), percent)
        return {layer: factor * o.scale for layer, factor in found.items()}

    def calibration_work(self, net: nn.Module) -> tuple[int, int]:
        """Return what conversion simulates; threshold balancing runs the whole network once for each of its layers."""
        if self.options.factors != "spikes":
            return super().calibration_work(net)
        layers = sum(isinstance(module, LIF) for module in net.modules())
        return self.options.balancing_images, self.options.balancing_steps * layers

    def encode(self, inputs: Tensor) -> Tensor:
        """Return the image at every step, or spikes -1, 0, 1 that stand for it on average.

        Random spikes are the same at every call, so that two evaluations agree. A pixel beyond the largest of the calibration images
        spikes at every step.
        """
        sequence = super().encode(inputs)
        if self.options.input == "analog":
            return sequence
        rate = inputs / self.data_factor.to(inputs)
        noise = torch.rand(sequence.shape, generator=torch.Generator(inputs.device).manual_seed(0), dtype=rate.dtype, device=inputs.device)
        return rate.sign() * (noise < rate.abs())

    def recipe(self, task: Task) -> dict[str, Any]:
        """Return the source ANN's settings (the card's, ours) and the end of its sweep over T."""
        return SOURCE_ANN | {"steps": 256, "net": published_net(task.input_shape)}
