"""TCL: a clipping layer with a learnable bound after every ReLU, whose bound is the norm factor of the conversion.

Phase 1 trains ``y = min(ReLU(x), lam)`` with one bound per layer: ``dy/dx = 1`` for ``0 < x < lam``; ``dy/dlam = 1`` for ``x >=
lam``. The bound is decayed by an L2 term of its own, the knob between accuracy and latency. Phase 2 folds batch normalisation and
rescales ``W_l lam_{l-1} / lam_l``, ``b_l / lam_l``; clipping has been paid for in training, so no calibration data are needed.
Phase 3 simulates integrate-and-fire neurons, T steps. Source: "TCL: an ANN-to-SNN conversion with trainable clipping layers" (Ho
and Chang, DAC 2021). The equations are rebuilt from its abstract, introduction and conversion theory; reset, initial potential and
clamp of the bound are ours.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from harness import plugin
from harness.method import Update
from harness.plugin import Card, Claim
from harness.task import Batch, Task
from methods.base_conversion import SOURCE_ANN, ConversionMethod
from methods.nn.calibration import activation_factors
from methods.nn.neuron import ReLU
from methods.nn.rate_networks import Name, published_net
from methods.nn.wiring import Connection, Site

CALIBRATION, PERCENT = 1024, 99.9  # training images and percentile of the ablation, those of ann2snn


class ClippedReLU(nn.Module):
    """``min(ReLU(x), lam)`` on ``[T, B, C, ...]`` with a learnable bound ``lam``: a scalar, or one per channel ``[C]``.

    At a tie ``x = lam`` the whole gradient goes to the bound, as in ``lam - ReLU(lam - ReLU(x))``; unlike that form it equals ReLU
    to the bit below the bound.
    """

    spike_kind = "none"

    def __init__(self, bound: float, channels: int | None = None) -> None:
        """Start with the given ``bound``, for each of ``channels`` or for all."""
        super().__init__()
        self.bound = nn.Parameter(torch.full((channels,) if channels else (), float(bound)))

    def forward(self, x: Tensor) -> Tensor:
        """Return the clipped ``x``."""
        bound = self.bound.view(-1, *[1] * (x.dim() - 3)) if self.bound.dim() else self.bound
        return torch.where(x < bound, F.relu(x), bound.to(x.dtype))


class Tcl(ConversionMethod):
    """Conversion with trainable clipping layers."""

    card = Card(
        name="tcl",
        title="TCL: an ANN-to-SNN conversion with trainable clipping layers",
        authors="Nguyen-Dong Ho, Ik-Joon Chang",
        venue="58th ACM/IEEE Design Automation Conference (DAC), 793-798",
        year=2021,
        family="conversion",
        summary="Train the clipping bound of every ReLU with the weights and use it as the norm factor, so that few time steps suffice.",
        compared_with=("ann2snn", "ann", "stbp"),
        baseline="tcl[clip=false]",
        claims=(
            Claim("test_accuracy", "value", 0.7387, "static/imagenet", "VGG-16, T=250", "abstract"),
            Claim("test_accuracy", "value", 0.7037, "static/imagenet", "ResNet-34, T=250", "abstract"),
            Claim(
                "test_accuracy",
                "property",
                None,
                "any",
                "comparable to that of its own ANN at T=250",
                "public reading note of the paper",
                "ann",
                expect="not lower",
            ),
            Claim(
                "test_accuracy",
                "property",
                None,
                "any",
                "higher at very low T (here: after 4 steps) with a stronger decay of the bounds",
                "section 4.1 (reading note)",
                variant="tcl[lambda_decay=0.05]",
                against="tcl",
                expect="higher",
                figure="accuracy.test_curve[3]",
            ),
        ),
        reconstructed="equations rebuilt from abstract, introduction and conversion theory; soft reset, v(0) = 0, own parameter group, "
        "clamp of the bound and T of 32 are ours; the initial bound is recalled, not verified",
    )
    simulated_steps = 32

    class Options(plugin.Options):
        """The clipping layers and the neurons they become."""

        net: Name = Field("task", description="the task's backbone, a residual one of its widths, or a published one")
        clip: bool = Field(True, description="false: plain ReLU, whose factors are percentiles of activations as ann2snn's (the ablation)")
        bound: float = Field(2.0, description="initial clipping bound lambda (4.0 for ImageNet-like data)", gt=0)
        per_channel: bool = Field(False, description="one bound per channel instead of one per layer")
        lambda_decay: float = Field(5e-4, description="L2 coefficient of the bounds; 5e-2 buys low latency", ge=0)
        floor: float = Field(1e-2, description="smallest bound allowed; clamped after each step", gt=0)
        reset: Literal["soft", "hard"] = Field("soft", description="what a spike does to the potential")
        v_init: float = Field(0.0, description="initial potential as a fraction of the threshold", ge=0, lt=1)

    options: Options

    def __init__(self, task: Task, *args: Any, **kwargs: Any) -> None:
        """Bind to a task."""
        super().__init__(task, *args, **kwargs)
        self.reset, self.v_init = self.options.reset, self.options.v_init
        self.clamped = torch.zeros((), dtype=torch.long, device=task.device)  # on the device: counting must not wait for it

    def neuron(self, features: int) -> nn.Module:
        """Return ReLU with a trainable clipping layer, or without."""
        if not self.options.clip:
            return ReLU()
        return ClippedReLU(self.options.bound, features if self.options.per_channel else None)

    def groups(self, net: nn.Module) -> list[dict[str, Any]]:
        """Return two parameter groups: weights, and bounds with their own decay."""
        bounds = self.bounds(net)
        known = {id(bound) for bound in bounds}
        weights = [parameter for parameter in net.parameters() if id(parameter) not in known]
        return [{"params": weights}, {"params": bounds, "weight_decay": self.options.lambda_decay}]

    @staticmethod
    def bounds(net: nn.Module) -> list[nn.Parameter]:
        """Return the bounds of all clipping layers."""
        return [module.bound for module in net.modules() if isinstance(module, ClippedReLU)]

    def step(self, net: nn.Module, batch: Batch, update: Update) -> Tensor:
        """Train on one batch, and keep every bound at or above the floor."""
        loss = super().step(net, batch, update)
        with torch.no_grad():
            for bound in self.bounds(net):
                self.clamped += (bound < self.options.floor).sum()
                bound.clamp_(min=self.options.floor)
        return loss

    def norm_factors(self, net: nn.Module, connections: list[Connection]) -> dict[Site, Tensor]:
        """Return the trained bounds; without clipping, the 99.9 percentile of the positive activations of training images."""
        layers = dict.fromkeys(c.layer for c in connections if c.layer is not None)
        if not self.options.clip:
            sequences = (self.task.encode(batch.inputs, 1) for batch in self.task.batches("train", limit=CALIBRATION))
            return activation_factors(net, layers, sequences, min(CALIBRATION, len(self.task.split("train"))), PERCENT)
        return {layer: layer.neuron.bound.detach().clone() for layer in layers}

    def report(self, net: nn.Module) -> dict[str, Any]:
        """Return the figures of the conversion, and how often a bound was clamped."""
        return {**super().report(net), "clamped_bounds": int(self.clamped)}

    def recipe(self, task: Task) -> dict[str, Any]:
        """Return the recipe of the QCFS repository, whose TCL activation this follows; the paper's own was not found."""
        settings = {"epochs": 120, "batch_size": 128, "lambda_decay": 5e-4, "steps": 250, "net": published_net(task.input_shape)}
        return SOURCE_ANN | settings
