"""Hoyer-regularised one-time-step networks: T = 1, thresholds that follow the activation map, a penalty that clears their neighbourhood.

At T = 1 a spiking layer is a binary step. It fires where its potential ``z`` (after batch normalisation) reaches ``|v| * E``: ``v`` is
learnt, one number per layer, and ``E <= 1`` is the Hoyer extremum of the potentials clipped to ``[0, |v|]``, so the threshold lies between
the mean of the clipped map and ``|v|`` (``methods/nn/hoyer.py`` has the equations, and what is ours in them). Trained by::

    L = task loss + lam * sum over layers of H(clamp(z, 0, |v|)),   H(x) = sum(x)^2 / sum(x^2) over the whole batch

Since H does not change with the scale of x, it is about as large as the map has active entries: rescale ``lam`` with batch and image.

The baselines are options: ``extremum=none,window=wide`` is a threshold that is learnt plainly, with ``learn=false`` a fixed one (``v=1``,
``v=0.5``). With the window "unit" a threshold of ``|v|`` lies at the end of the surrogate: neurons that fire get no gradient. On data with
a time axis, or with T > 1 asked for, neurons keep their potential from step to step (``leak``, ``reset``): the multi-step variant of the
official code, which none of the claims needs.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from harness import plugin
from harness.method import Phase, Update
from harness.plugin import Card, Claim, UnfitError
from harness.task import Batch, Task
from methods.base import SpikingMethod
from methods.nn.hoyer import Extremum, HoyerThreshold, Penalty, Reset, Start, Window, penalties
from methods.nn.input_noise import noisy
from methods.nn.pool_first_vgg import PLAN, PoolFirstVgg
from methods.nn.scoring import score
from methods.nn.spike_first_resnet import DEPTHS, DEPTHS_SMALL, LARGE, SpikeFirstResNet
from methods.nn.stepping import stepping

LOG = "log line of the official repository (test.sh)"
NEAR = 0.1  # distance from the threshold that counts as near, in units of the potential
NOISE = (0.0, 0.1, 0.2, 0.4)  # standard deviations, in units of the potential


class Hoyer(SpikingMethod):
    """One-step networks with Hoyer thresholds and penalty."""

    card = Card(
        name="hoyer",
        title="Hoyer Regularizer Is All You Need for Ultra Low-Latency Spiking Neural Networks",
        authors="Datta, Liu, Beerel",
        venue="arXiv 2212.10170; revised at ICLR 2024",
        year=2022,
        family="direct",
        summary="Train at one time step, with thresholds at the Hoyer extremum of each map and a penalty that clears their surroundings.",
        compared_with=("stbp", "ann"),  # and its own extremum=none,window=wide, fixed and learnt
        baseline="hoyer[extremum=none,window=wide]",
        claims=(
            Claim("steps_used", "property", None, "any", "one time step, trained from scratch", "abstract", expect="equal 1"),
            Claim("test_accuracy", "value", 0.6602, "static/imagenet", "Hoyer ResNet-50, T=1", LOG, networks=("net=resnet50",)),
            Claim("firing_rate", "value", 0.239, "static/imagenet", "Hoyer ResNet-50, T=1", LOG, networks=("net=resnet50",)),
            Claim(
                "test_accuracy",
                "value",
                0.9392,
                "static/cifar10",
                "VGG-16, T=1; the best of six checkpoints (0.9315 to 0.9392), not all of the final method",
                "comment in the official repository",
                networks=("net=vgg16",),
            ),
            Claim(
                "synops",
                "property",
                None,
                "static/cifar10",
                "better accuracy per operation than SNNs, BNNs, AdderNets",
                "abstract",
                unmeasured="against binary and AdderNet networks, which are no plugins",
            ),
            Claim(
                "firing_rate",
                "property",
                None,
                "any",
                "higher than with a fixed or plainly learnt threshold",
                "abstract",
                against="hoyer[extremum=none,window=wide]",
                expect="higher",
                tested="tests/methods/test_hoyer.py::test_more_neurons_fire_than_with_a_fixed_threshold_of_one",
            ),
            Claim(
                "test_accuracy",
                "property",
                None,
                "any",
                "falls less with noise on the potentials than without the penalty",
                "abstract",
                against="hoyer[lam=0.0]",
                expect="higher",
                figure='report.metric_at_noise."0.4"',
            ),
            Claim(
                "test_accuracy",
                "property",
                None,
                "detection/coco",
                "works as backbone of a detector",
                "abstract",
                tested="tests/methods/test_hoyer.py::test_a_detector_reads_the_spikes_of_a_published_net",
                unmeasured="no figure is stated",
            ),
        ),
        reconstructed="paper body not read, equations are the code's. Ours: statistics, penalty and detached reset of the multi-step "
        "variant; normalised hidden layers and the fifth pooling of the VGG for large images; channels, shortcut pooling of the ResNets; "
        "detection trained from scratch, with spikes in the head's tower; no warm-up over the first 1000 steps of ImageNet",
    )

    class Options(plugin.Options):
        """Threshold, penalty, network and schedule."""

        extremum: Extremum = Field("channel", description="threshold |v|*E, E per channel or of the whole tensor; none: |v|, the baseline")
        v: float = Field(1.0, description="clip value |v| at the start", gt=0)
        learn: bool = Field(True, description="learn the clip value")
        scale: float = Field(1.0, description="fraction of the extremum that neurons fire at (x_thr_scale)", gt=0)
        window: Window = Field("unit", description="where gradients pass: 0 < z/|v| < 1, as published runs had it, or wide, up to 2")
        lam: float = Field(1e-8, description="weight of the Hoyer penalty (lambda)", ge=0)
        penalty: Penalty = Field("clipped", description="penalty of clamp(z, 0, |v|), |v| held fixed, or normalised by |v|, which trains v")
        start: Start = Field("zero", description="running extremum: from 0 as in the code, corrected for that, or from the first batch")
        leak: float = Field(0.5, description="several steps: fraction of the potential kept", ge=0, le=1)
        reset: Reset = Field("soft", description="several steps: what a spike does to the potential")
        net: Literal["task", "vgg16", "resnet18", "resnet34", "resnet50"] = Field("task", description="the task's or a published network")
        dropout: float = Field(0.1, description="share of spikes silenced in training (net = vgg16)", ge=0, lt=1)
        decay: Literal["all", "weights"] = Field("all", description="weight decay on all parameters, or on weights of synapses only")
        amsgrad: bool = Field(False, description="AMSGrad variant of Adam")

    options: Options

    def __init__(self, task: Task, *args: Any, **kwargs: Any) -> None:
        """Bind to a task; raise UsageError for a published net on data that are no images."""
        super().__init__(task, *args, **kwargs)
        self.history: list[list[float]] = []  # before each epoch, the mean threshold of every layer
        if self.options.net != "task" and len(task.input_shape) != 3:
            given = f"{task.card.name} has inputs of shape {list(task.input_shape)}"
            raise UnfitError(f"hoyer: net = {self.options.net!r} is for images; {given}, use net = 'task'")

    def time_steps(self, task: Task, asked: int | None) -> int:
        """Return the data's own T, or for static data 1 unless more are asked for."""
        return task.steps if task.temporal else (asked or 1)

    # Parts ----------------------------------------------------------------------------------------------------------

    def neuron(self, features: int) -> nn.Module:
        """Return neurons with a Hoyer threshold, or a plain one."""
        o = self.options
        return HoyerThreshold(features, o.extremum, o.v, o.learn, o.scale, o.window, o.penalty, o.start, o.leak, o.reset)

    def backbone(self) -> nn.Module:
        """Return the network that ``net`` names; hidden layers and the spikes of the mean are for tasks without places."""
        o, shape = self.options, self.task.input_shape
        if o.net == "task":
            return super().backbone()
        places, large = self.task.head.kind in ("detect", "segment"), min(shape[1:]) >= LARGE
        if o.net == "vgg16":
            return PoolFirstVgg(shape, (*PLAN, "P") if large else PLAN, self, () if places else (4096, 4096), o.dropout)
        depths, bottleneck = (DEPTHS if large else DEPTHS_SMALL)[o.net]
        return SpikeFirstResNet(shape, depths, self, bottleneck, pyramid=places)

    # Training -------------------------------------------------------------------------------------------------------

    def step(self, net: nn.Module, batch: Batch, update: Update) -> Tensor:
        """Minimise the task's loss plus the penalty of all layers."""
        if self.options.lam == 0:
            return super().step(net, batch, update)
        with penalties(net) as found:
            loss = self.loss(self.task.final(net(self.encode(batch.inputs))), batch.targets)
        loss = loss + self.options.lam * torch.stack(found).sum()
        update.minimise(loss)
        return loss

    def phases(self, net: nn.Module) -> Iterator[Phase]:
        """Yield one phase; the thresholds are noted before every epoch."""
        self.history = []
        yield Phase(parameters=self.groups(net), on_epoch=lambda *_: self._note(net))

    def groups(self, net: nn.Module) -> list[dict[str, Any]]:
        """Return the parameters; with ``decay="weights"`` clip values, normalisation and biases are a group without weight decay."""
        learnt = [p for p in net.parameters() if p.requires_grad]
        extra = {"amsgrad": True} if self.options.amsgrad else {}
        if self.options.decay == "all":
            return [{"params": learnt, **extra}]
        plain = {"params": [p for p in learnt if p.dim() < 2], "weight_decay": 0.0}
        return [{"params": [p for p in learnt if p.dim() > 1], **extra}, {**plain, **extra}]

    def recipe(self, task: Task) -> dict[str, Any]:
        """Return the settings of the VGG-16 for CIFAR-10, or for ImageNet; their net where the images allow.

        With ``net=resnet18`` those of that net for CIFAR-10, without the penalty, which its code never adds.
        """
        images = len(task.input_shape) == 3 and not task.temporal and task.head.kind == "classify"
        large = images and min(task.input_shape[1:]) >= LARGE
        drops = {"schedule": "drops", "milestones": (0.6, 0.8, 0.9), "lr_factor": 0.2, "augment": True}
        if self.given.get("net") == "resnet18":
            sgd = {"optimizer": "sgd", "lr": 0.1, "momentum": 0.9, "weight_decay": 1e-4, "decay": "weights", "lam": 0.0}
            return drops | sgd | {"epochs": 600, "batch_size": 128}
        return drops | {
            "net": "vgg16" if images and min(task.input_shape[1:]) >= 16 else "task",
            "lam": 1e-8,
            "amsgrad": True,
            "optimizer": "adam",
            "lr": 1e-4,
            "weight_decay": 5e-4 if large else 1e-4,
            "epochs": 150 if large else 400,
            "batch_size": 512 if large else 128,
        }

    # Figures --------------------------------------------------------------------------------------------------------

    def report(self, net: nn.Module) -> dict[str, Any]:
        """Return per layer ``|v|``, mean threshold (also before each epoch), rate and share of potentials near the threshold; noise.

        ``metric_at_noise``: main metric on up to 256 test samples with Gaussian noise of so large a standard deviation on what enters the
        neurons, which at T = 1 are the potentials.
        """
        net.eval()
        neurons = thresholds(net)
        rates, near = self._activity(net)
        return {
            **super().report(net),
            "clip_value": [neuron.v.detach().abs().item() for neuron in neurons],
            "threshold": [neuron.threshold().mean().item() for neuron in neurons],
            "threshold_by_epoch": self.history,
            "rate": rates,
            "near_threshold": near,
            "metric_at_noise": {f"{sigma:g}": self._score(net, sigma) for sigma in NOISE},
        }

    def _note(self, net: nn.Module) -> None:
        self.history.append([neuron.threshold().mean().item() for neuron in thresholds(net)])

    @torch.no_grad()
    def _activity(self, net: nn.Module) -> tuple[list[float], list[float]]:
        """Return for each layer the share of potentials that fire and of those near the threshold, on some test samples."""
        neurons = thresholds(net)
        found = {neuron: torch.zeros(3, dtype=torch.float64, device=neuron.v.device) for neuron in neurons}

        def look(neuron: HoyerThreshold, args: tuple[Tensor, ...]) -> None:
            m, carried = args[0][0], neuron.carried()
            if carried:
                m = m + neuron.leak * carried[0]
            d = m - neuron.threshold().view(-1, *[1] * (m.dim() - 2))
            found[neuron] += torch.stack([(d >= 0).sum(), (d.abs() < NEAR).sum(), torch.tensor(d.numel(), device=d.device)])

        handles = [neuron.register_forward_pre_hook(look) for neuron in neurons]
        try:
            with stepping(net):
                for now in self.encode(next(self.task.batches("test", 64)).inputs).split(1):
                    net(now)
        finally:
            for handle in handles:
                handle.remove()
        shares = [(counts[:2] / counts[2]).tolist() for counts in found.values()]
        return [fired for fired, _ in shares], [close for _, close in shares]

    def _score(self, net: nn.Module, sigma: float) -> float:
        with noisy(thresholds(net), sigma):
            return score(self.task, "test", partial(self.predict, net), 256)[0]


def thresholds(net: nn.Module) -> list[HoyerThreshold]:
    """Return the spiking layers of a network."""
    return [module for module in net.modules() if isinstance(module, HoyerThreshold)]
