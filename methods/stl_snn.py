"""STL-SNN: the firing threshold of every neuron is a parameter, trained with the weights by the same back-propagation through time.

Neurons (one ``theta`` per channel and place; ``leak`` 0.5; hard reset, part of the gradient)::

    u[t] = leak * v[t-1] + I[t]     s[t] = 1[u[t] >= theta]     v[t] = (1 - s[t]) u[t]
    h(d) = 1 / (1 + (pi d)^2)       d = u - theta               theta = theta0 + 1e-4 * normal noise at the start

``mode``: "stl" trains both, "sl" the weights, "tl" the thresholds (all else frozen at its start): the two degenerate models that the paper
compares with. ``per`` shares thresholds over a channel or a layer, to show what one per neuron buys. Since thresholds are per neuron, a
network runs at the size it was built for only.

Read-out: the suite's linear one (``votes=0``), or ``votes`` spiking neurons per class (``methods/nn/votes.py``), whose mean over votes and
time is trained by squared error to the one-hot class. Of the joint decision framework of the paper no definition was found: equal weights
are the official demo's, learnt ones (``vote_weights``, ``step_weights``) are ours.

Matched track: the suite's backbone, tdBN scaled to 1 whatever ``theta0`` (else a wrong threshold would be undone), theta0 = 1. Recipe: the
demo network, Bernoulli coding, batch normalisation step by step, theta0 = 2. ``report`` follows thresholds and rates through training and
measures the accuracy under noise (protocol: ours).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from harness import plugin
from harness.method import Phase, Prediction, Update
from harness.plugin import Card, Claim, UnfitError, UsageError
from harness.task import Batch, Task
from methods.base import SpikingMethod
from methods.nn.demo_net import DemoNet
from methods.nn.neuron import LIF
from methods.nn.noise import event_noise, pixel_noise, pixels
from methods.nn.norm import BatchNorm
from methods.nn.one_hot import one_hot_error
from methods.nn.scoring import score
from methods.nn.sized import Sized, settle
from methods.nn.step_norm import StepBatchNorm
from methods.nn.surrogate import Arctan
from methods.nn.thresholds import ThresholdWatch
from methods.nn.votes import Votes

PIXEL_NOISE = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)  # standard deviation, of pixels in [0, 1]
EVENT_NOISE = (0.0, 0.01, 0.02, 0.03, 0.04, 0.05)  # share of the pixels with a random event, per step


class StlSnn(SpikingMethod):
    """Thresholds trained with the weights, one per neuron."""

    card = Card(
        name="stl_snn",
        title="A Synapse-Threshold Synergistic Learning Approach for Spiking Neural Networks",
        authors="Sun, Cai, Yang, Cui, Xia, Yao, Guo",
        venue="IEEE Transactions on Cognitive and Developmental Systems",
        year=2023,
        family="neuron",
        summary="Train the firing threshold of every neuron together with the weights.",
        compared_with=("stbp",),  # and its own mode=sl, mode=tl
        baseline="stl_snn[mode=sl]",
        claims=(
            Claim("test_accuracy", "value", 0.9242, "static/cifar10", "8 layers, T=8", "table of a later paper (DS-ATGO)"),
            Claim(
                "test_accuracy",
                "property",
                None,
                "any",
                "higher than mode=sl (weights only) and mode=tl",
                "abstract",
                against="stl_snn[mode=sl]",
                expect="higher",
            ),
            Claim(
                "test_accuracy",
                "property",
                None,
                "any",
                "robust to noise, compared with sl and tl",
                "abstract",
                against="stl_snn[mode=sl]",
                expect="higher",
                figure="report.noise_metric[5]",
            ),
            Claim(
                "firing_rate",
                "property",
                None,
                "any",
                "thresholds settle so that rates transmit signals stably",
                "abstract",
                unmeasured="says no figure; rates and thresholds by epoch are in the report of each record",
            ),
            Claim(
                "energy",
                "property",
                None,
                "any",
                "low in deep networks, compared with sl and tl",
                "abstract",
                against="stl_snn[mode=sl]",
                expect="lower",
            ),
        ),
        reconstructed="paper body not read, equations are the demo's; learnt vote and step weights, frozen normalisation in mode tl, noise "
        "protocol, sharing of thresholds, nets of other data sets than MNIST: ours",
    )

    class Options(plugin.Options):
        """What is trained, neurons, read-out, coding."""

        mode: Literal["stl", "sl", "tl"] = Field("stl", description="train weights and thresholds, weights only, thresholds only")
        theta0: float = Field(1.0, description="threshold at the start (published: 2)", gt=0)
        per: Literal["neuron", "channel", "layer"] = Field("neuron", description="what has a threshold of its own")
        leak: float = Field(0.5, description="fraction of the membrane potential kept per step (tau)", ge=0, le=1)
        floor: float | None = Field(None, description="smallest threshold, clamped after each step; None: none, as published", gt=0)
        threshold_decay: float | None = Field(None, description="weight decay of thresholds; None: that of all parameters", ge=0)
        norm: Literal["tdbn", "step"] = Field(
            "tdbn", description="batch normalisation over all steps together, or of each step (published)"
        )
        coding: Literal["task", "bernoulli"] = Field("task", description="the task's encoding, or a spike where pixel >= uniform noise")
        votes: int = Field(0, description="spiking neurons per class that vote; 0: the suite's linear read-out", ge=0)
        vote_weights: Literal["equal", "learnt"] = Field("equal", description="weights of the votes of a class; learnt: ours")
        step_weights: Literal["equal", "learnt"] = Field("equal", description="weights of the decisions of all steps; learnt: ours")
        net: Literal["task", "demo"] = Field("task", description="the task's backbone, or the official demo's network")
        noise_samples: int = Field(500, description="test samples per level of noise in the report; 0: no noise", ge=0)

    options: Options

    def __init__(self, task: Task, *args: Any, **kwargs: Any) -> None:
        """Bind to a task; raise UsageError for votes, weights or coding where they cannot be."""
        super().__init__(task, *args, **kwargs)
        o = self.options
        if o.votes and (task.head.kind != "classify" or task.readout != "mean"):
            raise UnfitError(f"stl_snn: votes are for classes read out as a mean over time, not for {task.name}; allowed: votes = 0")
        if not o.votes and "learnt" in (o.vote_weights, o.step_weights):
            raise UsageError("stl_snn: learnt weights need votes to weigh; set votes to 1 or more")
        if o.coding == "bernoulli" and (task.temporal or len(task.input_shape) != 3):
            raise UnfitError(f"stl_snn: coding = 'bernoulli' is for still images, not for {task.name}; use coding = 'task'")
        if o.net == "demo" and len(task.input_shape) != 3:
            raise UnfitError(f"stl_snn: net = 'demo' is for images, not for samples of shape {list(task.input_shape)}; use net = 'task'")
        self.watch = ThresholdWatch()

    # Parts ----------------------------------------------------------------------------------------------------------

    def neuron(self, features: int) -> nn.Module:
        """Return neurons with thresholds; where each has its own, a place for them, since the size is not known yet."""
        if self.options.per == "neuron":
            return Sized(self._neuron)
        return self._neuron(features if self.options.per == "channel" else None)

    def _neuron(self, channels: int | tuple[int, ...] | None) -> LIF:
        o = self.options
        lif = LIF(o.leak, o.theta0, "hard", detach_reset=False, surrogate=Arctan(2.0), learn=("threshold",), channels=channels)
        with torch.no_grad():
            lif.threshold.add_(1e-4 * torch.randn_like(lif.threshold))
        return lif

    def norm(self, features: int, scale: float = 1.0) -> nn.Module:
        """Return batch normalisation, over all steps or step by step; its scale does not follow the threshold."""
        return (StepBatchNorm if self.options.norm == "step" else BatchNorm)(features, scale=scale)

    def readout(self, features_in: int, features_out: int) -> nn.Module:
        """Return the suite's read-out, or voting neurons."""
        o = self.options
        if not o.votes:
            return super().readout(features_in, features_out)
        neuron = self.neuron(features_out * o.votes)
        learnt = {"learnt_votes": o.vote_weights == "learnt", "learnt_steps": o.step_weights == "learnt"}
        return Votes(features_in, features_out, o.votes, neuron, steps=self.steps, **learnt)

    def backbone(self) -> nn.Module:
        """Return the task's reference backbone or the demo's."""
        return DemoNet(self.task.input_shape, self) if self.options.net == "demo" else super().backbone()

    def build(self) -> nn.Module:
        """Return the network, sized for the task, with what ``mode`` does not train frozen."""
        net = super().build()
        settle(net, torch.zeros(1, 1, *self.task.input_shape))
        trained = {id(threshold) for threshold in self.watch.thresholds(net)}
        for parameter in net.parameters():
            parameter.requires_grad_({"stl": True, "tl": id(parameter) in trained, "sl": id(parameter) not in trained}[self.options.mode])
        return net

    # Training -------------------------------------------------------------------------------------------------------

    def encode(self, inputs: Tensor) -> Tensor:
        """Return the sequence ``[T, B, ...]``, by the coding of the options."""
        if self.options.coding == "task":
            return super().encode(inputs)
        rates = pixels(self.task, inputs).expand(self.steps, *inputs.shape)
        return (rates >= torch.rand_like(rates)).to(inputs.dtype)

    def phases(self, net: nn.Module) -> Iterator[Phase]:
        """Yield one phase; thresholds are a parameter group of their own, and watched before every epoch."""

        def look(epoch: int, epochs: int) -> None:
            self.watch.look(net, self._probe())

        yield Phase(parameters=self.groups(net), on_epoch=look)

    def _probe(self) -> Tensor:
        with torch.random.fork_rng():
            return self.encode(next(self.task.batches("validation", 64, 64)).inputs)

    def groups(self, net: nn.Module) -> list[dict[str, Any]]:
        """Return what is trained: thresholds with their decay, and all else."""
        thresholds = self.watch.thresholds(net)
        known = {id(threshold) for threshold in thresholds}
        decay = self.training.weight_decay if self.options.threshold_decay is None else self.options.threshold_decay
        groups = [
            {"params": [p for p in net.parameters() if id(p) not in known and p.requires_grad]},
            {"params": [p for p in thresholds if p.requires_grad], "weight_decay": decay},
        ]
        return [group for group in groups if group["params"]]

    def loss(self, output: Tensor, targets: Tensor) -> Tensor:
        """Return the task's loss, or of votes ``[B, classes]`` the squared error to the (smoothed) one-hot class."""
        if not self.options.votes:
            return super().loss(output, targets)
        return one_hot_error(output, targets, self.training.label_smoothing)

    def step(self, net: nn.Module, batch: Batch, update: Update) -> Tensor:
        """Train on one batch, and keep thresholds at or above the floor, if there is one."""
        loss = super().step(net, batch, update)
        if self.options.floor is not None:
            with torch.no_grad():
                for threshold in self.watch.thresholds(net):
                    threshold.clamp_(min=self.options.floor)
        return loss

    def recipe(self, task: Task) -> dict[str, Any]:
        """Return the settings of the demo (MNIST); for data with time steps or other answers, those that apply."""
        settings: dict[str, Any] = {"optimizer": "adam", "lr": 1e-3, "weight_decay": 1e-6, "epochs": 100}
        settings |= {"schedule": "exponential", "lr_factor": 0.93}
        settings |= {"batch_size": 50, "steps": 4, "theta0": 2.0, "norm": "step"}
        if task.head.kind != "classify" or task.readout != "mean":
            return settings
        still = not task.temporal and len(task.input_shape) == 3 and min(task.input_shape[1:]) >= 4
        return settings | {"votes": 10} | ({"coding": "bernoulli", "net": "demo"} if still else {})

    # Report ---------------------------------------------------------------------------------------------------------

    def report(self, net: nn.Module) -> dict[str, Any]:
        """Return thresholds and rates by layer and epoch, and of classifiers the main metric on test data at every level of noise.

        With Bernoulli coding also ``metric_draws``, that of three more draws.
        """
        net.eval()
        found = {**super().report(net), **self.watch.figures(net, self._probe())}
        suite = self.task.card.name.split("/")[0]
        if self.options.noise_samples and self.task.head.kind == "classify" and suite in ("static", "events"):
            levels = PIXEL_NOISE if suite == "static" else EVENT_NOISE
            found |= {"noise": list(levels), "noise_metric": [self._score(net, level, suite) for level in levels]}
        if self.options.coding == "bernoulli":
            found["metric_draws"] = [self._score(net, 0.0, suite, seed) for seed in range(1, 4)]
        return found

    def _score(self, net: nn.Module, level: float, suite: str, seed: int = 0) -> float:
        """Return the main metric on test data with noise; the same for the same seed."""

        def predict(inputs: Tensor) -> Prediction:
            noisy = pixel_noise(self.task, inputs, level) if suite == "static" else event_noise(inputs, level)
            return self.predict(net, noisy)

        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return score(self.task, "test", predict, self.options.noise_samples or None)[0]
