"""GLIF: gated leaky integrate-and-fire neurons. Each of leak, input and reset mixes two kinds by a learnt gate; all constants are learnt.

``methods/nn/glif.py`` has the equations. Only the neuron is of the method; besides, the learning rate of gates is a fraction of that of all
else, and gates and constants do not decay. Currents pass tdBN with a threshold that stays 0.5, whatever the neurons' ``vth`` becomes::

    tdBN(x) = weight * alpha * 0.5 * (x - mean) / std + bias      alpha = 1; 1/sqrt(2) on each of two branches that are added

``neuron``: glif; or what it is compared with in the same network, all with the same surrogate, threshold ``vth`` and no gradient kept out
of the reset: lif (hard reset, leak ``tau``), lif_soft (reset by subtraction), plif (the leak learnt per layer).

``net``: budget, the reference network of the task; 18 and 19, the ResNets for CIFAR (neurons after the sum, every shortcut normalised);
18ms and 34ms, those for ImageNet (neurons before each convolution of a branch, none after the sum); wide7b, for events (seven blocks whose
spikes are added, four average poolings). The conductance ``g`` has a value per time step: a network answers for the T it was made for only.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from harness import plugin
from harness.method import Phase
from harness.plugin import Card, Claim, UnfitError, UsageError
from harness.task import Task
from methods.base import SpikingMethod
from methods.nn.glif import GLIF, Backend, Start, Values, glifs, histograms
from methods.nn.layer import Layer
from methods.nn.membrane_block import MembraneBlock
from methods.nn.neuron import LIF
from methods.nn.residual import DEPTHS, ResidualBlock, ResNet, start_by_fan_out
from methods.nn.staged_resnet import Stage, StagedResNet, spiking_ends
from methods.nn.surrogate import Rectangle
from methods.nn.synapse import Linear

CIFAR = {
    "18": (Stage(64, 2), Stage(128, 2), Stage(256, 2, 2), Stage(512, 2, 2)),
    "19": (Stage(128, 3), Stage(256, 3, 2), Stage(512, 2, 2)),
}
IMAGENET = {
    f"{depth}ms": tuple(Stage(64 * 2**number, blocks, 2) for number, blocks in enumerate(DEPTHS[depth][0])) for depth in ("18", "34")
}
WIDE7B = (64,) * 4 + (128,) * 3
README = "README of the official code, best checkpoint"
SNAPSHOTS = 10  # at most, of the histograms in the report


class Glif(SpikingMethod):
    """Gated neurons, and plain ones in the same networks."""

    card = Card(
        name="glif",
        title="GLIF: A Unified Gated Leaky Integrate-and-Fire Neuron for Spiking Neural Networks",
        authors="Yao, Li, Mo, Cheng",
        venue="NeurIPS 2022",
        year=2022,
        family="neuron",
        summary="Gate between two kinds of leak, input and reset, and learn gates and all membrane constants per channel.",
        compared_with=("stbp",),  # and its own neuron=lif, lif_soft, plif
        baseline="glif[neuron=lif]",
        claims=(
            Claim("test_accuracy", "value", 0.7735, "static/cifar100", "ResNet-19, T=6", "abstract", networks=("net=19",)),
            Claim("test_accuracy", "value", 0.9514, "static/cifar10", "ResNet-19, T=6", README, networks=("net=19",)),
            Claim("test_accuracy", "value", 0.9509, "static/cifar10", "ResNet-18, T=6", README, networks=("net=18",)),
            Claim("test_accuracy", "value", 0.6810, "static/imagenet", "ResNet-18MS, T=6", README, networks=("net=18ms",)),
            Claim(
                "test_accuracy",
                "value",
                0.7810,
                "events/cifar10-dvs",
                "7B-wideNet, T=16; last epoch 0.767",
                f"{README}; log",
                networks=("net=wide7b",),
            ),
            Claim(
                "test_accuracy",
                "property",
                None,
                "static/cifar100",
                "higher than with LIF (neuron=lif) in the same net",
                "abstract",
                against="glif[neuron=lif]",
                expect="higher",
                networks=("net=19",),
            ),
            Claim(
                "test_accuracy",
                "property",
                None,
                "any",
                "training makes neurons differ (report: std > 0)",
                "analysis in the paper",
                tested="tests/methods/test_glif.py::test_training_makes_neurons_differ_and_the_report_says_how",
            ),
        ),
        reconstructed="paper body not read; equations are the code's, stem, strides and shortcuts of nets for ImageNet as in MS-ResNet, "
        "the shortcuts normalised as in those for CIFAR; layer-wise gates start as channel-wise ones (the code reverses their sign)",
    )

    threshold = 0.5  # V_th of tdBN

    class Options(plugin.Options):
        """Neuron, where it starts, how gates learn, and network."""

        granularity: Literal["channel", "layer"] = Field("channel", description="what has gates and constants of its own")
        hard: bool = Field(False, description="binarise the gates, with the gradient of soft ones (in the code, not studied)")
        random_gates: bool = Field(True, description="gates start within 0.475..0.525 at random, as in the published runs; else as below")
        alpha: float = Field(0.6, description="gate of the leak starts at 1/2 + (alpha - 1/2) / 2", ge=0, le=1)
        beta: float = Field(0.8, description="likewise the gate of the input", ge=0, le=1)
        gamma: float = Field(0.6, description="likewise the gate of the reset", ge=0, le=1)
        tau: float = Field(0.25, description="exponential leak at the start: what is kept of the potential", gt=0, lt=1)
        vth: float = Field(0.5, description="threshold, and what a spike subtracts, at the start", gt=0, lt=1)
        leak: float | Literal["auto"] = Field(0.0625, description="linear leak at the start; auto: vth / (2 T), proposed for many steps")
        conductance: float = Field(0.5, description="weight of the input at each step (g) at the start", gt=0, lt=1)
        gate_lr: float = Field(0.1, description="learning rate of the gates over that of everything else", ge=0)
        backend: Backend = Field("auto", description="how neurons run; auto: compiled for full training batches, else the loop")
        neuron: Literal["glif", "lif", "lif_soft", "plif"] = Field("glif", description="gated neurons, or those they are compared with")
        net: Literal["budget", "18", "19", "18ms", "34ms", "wide7b"] = Field("budget", description="the task's network, or a published one")
        hidden: int = Field(0, description="features of a linear layer before the read-out, no activation (CIFAR-10: 256); 0: none", ge=0)

    options: Options

    def __init__(self, task: Task, *args: Any, **kwargs: Any) -> None:
        """Bind to a task; raise UsageError where a published network or the linear leak does not fit."""
        super().__init__(task, *args, **kwargs)
        o = self.options
        if o.net != "budget" and len(task.input_shape) != 3:
            raise UnfitError(f"glif: net={o.net} is for images, {task.card.name} has samples {list(task.input_shape)}; allowed: budget")
        if o.net == "wide7b" and min(task.input_shape[1:]) < 16:
            raise UnfitError(f"glif: net=wide7b halves images 4 times, these are {list(task.input_shape[1:])}; use net=18 or budget")
        leak = o.vth / (2 * self.steps) if o.leak == "auto" else o.leak
        if not 0 < leak < 1:
            raise UsageError(f"glif: option leak = {leak} is not allowed; allowed: auto, or a number between 0 and 1, both excluded")
        gates = None if o.random_gates else (o.alpha, o.beta, o.gamma)
        self.start = Start(o.tau, o.vth, leak, o.conductance, gates)
        self._histograms: dict[str, dict[str, list[list[int]]]] = {}

    # Parts ----------------------------------------------------------------------------------------------------------

    def neuron(self, features: int) -> nn.Module:
        """Return GLIF neurons for the method's number of steps, or plain ones of the same constants."""
        o = self.options
        if o.neuron == "glif":
            return GLIF(self.steps, features if o.granularity == "channel" else None, self.start, o.hard, backend=o.backend)
        reset: Literal["soft", "hard"] = "soft" if o.neuron == "lif_soft" else "hard"
        return LIF(o.tau, o.vth, reset, False, Rectangle(), strict=True, learnable_leak=o.neuron == "plif")

    def readout(self, features_in: int, features_out: int) -> nn.Module:
        """Return the linear read-out; with ``hidden`` of two layers, and for the CIFAR nets, without bias."""
        o = self.options
        if o.hidden:
            return nn.Sequential(Linear(features_in, o.hidden, bias=False), Linear(o.hidden, features_out, bias=False))
        return Linear(features_in, features_out, bias=o.net not in CIFAR)

    def backbone(self) -> nn.Module:
        """Return the network that ``net`` names."""
        net, shape = self.options.net, self.task.input_shape
        if net == "budget":
            return super().backbone()
        if net == "wide7b":
            return ResNet(shape, WIDE7B, self, partial(ResidualBlock, parts=self, connect="add"), kernels=(1, 1), pooled=range(3, 7))
        preactivated = net in IMAGENET
        stages, (width, kernel, stride) = (IMAGENET[net], (64, 7, 2)) if preactivated else (CIFAR[net], (CIFAR[net][0].width, 3, 1))
        stem = Layer(
            self.conv(shape[0], width, kernel, stride, first=True),
            self.norm(width),
            nn.Identity() if preactivated else self.neuron(width),
        )
        block: Callable[..., nn.Module] = (
            partial(MembraneBlock, parts=self, zero_init=False, balanced=True)
            if preactivated
            else partial(ResidualBlock, parts=self, connect="vanilla", norm_identity=True)
        )
        end = spiking_ends(self.task.head.strides, self) if preactivated else None
        backbone = StagedResNet(shape, stem, width, stages, block, stride, end=end, average=True)
        start_by_fan_out(backbone)
        return backbone

    # Training -------------------------------------------------------------------------------------------------------

    def phases(self, net: nn.Module) -> Iterator[Phase]:
        """Yield one phase with the parameter groups; some epochs leave histograms of gates and constants for the report."""
        self._histograms = {}

        def look(epoch: int, epochs: int) -> None:
            if epoch % -(-epochs // SNAPSHOTS) == 0:
                self._histograms[str(epoch)] = histograms(net)

        yield Phase(parameters=self.parameter_groups(net), on_epoch=look)

    def parameter_groups(self, net: nn.Module) -> list[dict[str, Any]]:
        """Return weights; gates, which learn at ``gate_lr`` times the rate and do not decay; constants, which do not decay."""
        neurons = glifs(net)
        gates, constants = [n.gates for n in neurons], [p for n in neurons for p in (n.constants, n.conductance)]
        known = {id(p) for p in (*gates, *constants)}
        groups: list[dict[str, Any]] = [{"params": [p for p in net.parameters() if id(p) not in known]}]
        if neurons:
            groups.append({"params": gates, "lr": self.training.lr * self.options.gate_lr, "weight_decay": 0.0})
            groups.append({"params": constants, "weight_decay": 0.0})
        return groups

    def recipe(self, task: Task) -> dict[str, Any]:
        """Return the settings of the official code for classified images and events; for anything else none were published.

        Event data: the cosine of the code rises again after epoch 64, ours falls over all epochs; frames keep the task's size.
        """
        if task.head.kind != "classify" or len(task.input_shape) != 3:
            return {}
        common = {"optimizer": "sgd", "lr": 0.1, "momentum": 0.9, "schedule": "cosine", "augment": True, "random_gates": True}
        if task.temporal:
            start = {"tau": 0.5, "vth": 0.99999, "leak": 0.03125, "conductance": 0.9, "alpha": 0.8, "beta": 0.2, "gamma": 0.8}
            net = "wide7b" if min(task.input_shape[1:]) >= 16 else "budget"
            event = {"lr": 0.01, "weight_decay": 0.0, "epochs": 200, "batch_size": 32, "steps": 16, "gate_lr": 1.0}
            return common | start | event | {"net": net}
        common |= {"weight_decay": 4e-5, "steps": 6}
        if "imagenet" in task.card.name:
            return common | {"net": "18ms", "epochs": 150, "batch_size": 50, "gate_lr": 1.0}
        net = "19" if task.card.name.endswith("cifar100") else "18"
        return common | {"net": net, "hidden": 0 if net == "19" else 256, "epochs": 200, "batch_size": 64, "gate_lr": 0.1}

    # Report ---------------------------------------------------------------------------------------------------------

    def report(self, net: nn.Module) -> dict[str, Any]:
        """Return how gates and constants are spread, what they cost, and how often neurons fire.

        Per layer: ``mean`` and ``std`` over channels (``g``: and steps) of each, ``firing_rate`` on test samples. ``histograms``, before
        the epochs named and at the end: layers of counts in ten bins of 0..1. ``parameter_overhead``: the neurons' share of parameters.
        ``extra_multiplications``: per sample, the input gain; a neuron step of LIF has one (the leak), spikes only select factors.
        """
        neurons = glifs(net)
        sizes, rates = self._activity(net)
        found: dict[str, Any] = {**super().report(net), "firing_rate": rates}
        if not neurons:
            return found
        values = [neuron.values()._asdict() for neuron in neurons]
        own = sum(p.numel() for neuron in neurons for p in neuron.parameters())
        return {
            **found,
            "neuron_backends": dict(Counter(n.trained_with or n.used for n in neurons)),
            "mean": {name: [layer[name].mean().item() for layer in values] for name in Values._fields},
            "std": {name: [layer[name].std(correction=0).item() for layer in values] for name in Values._fields},
            "histograms": {**self._histograms, "end": histograms(net)},
            "neuron_parameters": own,
            "parameter_overhead": own / sum(p.numel() for p in net.parameters()),
            "extra_multiplications_per_neuron_step": 1,
            "extra_multiplications": self.steps * sum(sizes),
        }

    @torch.no_grad()
    def _activity(self, net: nn.Module) -> tuple[list[int], list[float]]:
        """Return how many neurons each layer has, and how often they fire on a batch of test samples."""
        sizes: list[int] = []
        rates: list[float] = []

        def look(module: nn.Module, args: tuple[Tensor, ...], spikes: Tensor) -> None:
            sizes.append(spikes[0, 0].numel())
            rates.append(spikes.mean().item())

        hooks = [module.register_forward_hook(look) for module in net.modules() if isinstance(module, (GLIF, LIF))]
        try:
            net.eval()(self.encode(next(self.task.batches("test", 64)).inputs))
        finally:
            for hook in hooks:
                hook.remove()
        return sizes, rates
