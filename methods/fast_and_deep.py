"""Fast & Deep: training by first-spike times, each neuron firing once at most, with closed-form derivatives.

Two ratios of the time constants have a closed form, ``taus="equal"`` (Lambert W) and ``taus="double"`` (logarithm): the equations are in
``methods/nn/first_spike.py``, inputs and evaluation in ``methods/event_exact.py``. Loss, on first spikes t of the output and the label y::

    L = log sum_i exp(-(t_i - t_y) / (xi tau_s)) + alpha exp(t_y / (beta tau_s))        100, without gradient, where y is silent

Dead neurons: where too many spikes of a layer are missing, weights are bumped instead of trained (``methods/nn/weight_bumping.py``).
Guard: a neuron that has a weight gradient of more than ``guard`` is not changed. Double precision, as in the code. All is in units of
``tau_s``, so the published settings, where it is 1, hold for any.

Weights start as ``N(mean, deviation)``. Matched track (ours): means that let neurons fire, deviations of .2 where the published .8 learns
more slowly than a few epochs allow (8x8 digits), the largest fraction of missing spikes of hidden layers as published for Yin-Yang.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from harness.method import Phase, Update
from harness.plugin import Card, Claim
from harness.task import Batch, Task
from methods.event_exact import REPORTED, EventExactMethod, EventOptions
from methods.nn.event_drive import Constants
from methods.nn.first_spike import FirstSpike
from methods.nn.first_spike_loss import first_spike_gap, first_spike_scores
from methods.nn.spike_times import first
from methods.nn.stored_floats import stored_floats_per_spike
from methods.nn.watch import Watch
from methods.nn.weight_bumping import WeightBumping

CHECKPOINT = "validation curve in the checkpoint of release v1.0.0, one seed"
RUNS: dict[str, dict[str, Any]] = {  # of release v1.0.0: network, start, noise and limits; rate, its drops, batch and epochs
    "mnist": {
        "options": {
            "hidden": (350,),
            "deviation": 0.8,
            "hidden_mean": 0.05,
            "last_mean": 0.15,
            "limit": 0.15,
            "last_limit": 0.05,
            "input_noise": 0.3,
        },
        "training": {"lr": 0.005, "batch_size": 80, "epochs": 150, "every": 15, "lr_factor": 0.9},
    },
    "small": {
        "options": {
            "hidden": (128,),
            "deviation": 0.8,
            "hidden_mean": 0.05,
            "last_mean": 0.15,
            "limit": 0.15,
            "last_limit": 0.05,
            "input_noise": 0.3,
        },
        "training": {"lr": 0.003, "batch_size": 50, "epochs": 200, "every": 10, "lr_factor": 0.9},
    },
}


class FastAndDeep(EventExactMethod):
    """First-spike times with closed-form gradients."""

    card = Card(
        name="fast_and_deep",
        title="Fast and energy-efficient neuromorphic deep learning with first-spike times",
        authors="Goeltz, Kriener, Baumbach, Billaudelle, Breitwieser, Cramer, Dold, Kungl, Senn, Schemmel, Meier, Petrovici",
        venue="Nature Machine Intelligence 3:823-835",
        year=2021,
        family="event-exact",
        summary="One spike per neuron at a time that has a closed form (Lambert W or logarithm), with closed-form derivatives.",
        compared_with=("stbp", "eventprop", "multi_spike_exact"),
        baseline="stbp",
        claims=(
            Claim("test_accuracy", "value", 0.9737, "static/mnist", "784-350-10, equal time constants (best of 151: 0.9755)", CHECKPOINT),
            Claim("test_accuracy", "value", 0.9720, "static/mnist", "16x16 pixels, 256-128-10 (best: 0.9747)", CHECKPOINT),
            Claim(
                "spikes",
                "property",
                None,
                "any",
                "at most one spike per neuron and sample",
                "abstract",
                figure="activity.spikes_per_neuron",
                expect="at most 1",
                tested="tests/methods/test_fast_and_deep.py::test_spike_times_are_the_earliest_valid_ones_of_all_prefixes",
            ),
            Claim(
                "saved_bytes",
                "property",
                None,
                "any",
                "state is stored at spikes only, not at every time step",
                "ours, exact",
                "stbp",
                tested="tests/methods/test_fast_and_deep.py::test_report_counts_silent_neurons_and_what_is_stored",
            ),
        ),
        reconstructed="vectorised simulation, sums relative to the last input instead of 1e-6 added to them, clamp of grazing crossings, "
        "window of inputs and end of the simulation, frames of events as spike times, matched network and initial weights; papers' tables "
        "were not found, claims are of the released checkpoints",
    )

    class Options(EventOptions):
        """Neurons, loss and remedies."""

        input_window: float = Field(0.02, description="seconds in which the input spikes arrive", gt=0)
        simulated: float = Field(0.06, description="seconds that the network is simulated", gt=0)
        taus: Literal["equal", "double"] = Field("equal", description="tau_m = tau_s (Lambert W), or tau_m = 2 tau_s (logarithm)")
        tau_s: float = Field(0.01, description="synaptic time constant in seconds", gt=0)
        threshold: float = Field(1.0, description="firing threshold (theta), in units of the leak conductance", gt=0)
        xi: float = Field(0.2, description="time constant of the loss's softmax, in tau_s", gt=0)
        alpha: float = Field(0.005, description="weight of the cost of a late label", ge=0)
        beta: float = Field(1.0, description="time constant of that cost, in tau_s", gt=0)
        bumping: bool = Field(True, description="raise the weights of silent neurons where too many spikes are missing")
        limit: float = Field(0.3, description="bumping: largest fraction of missing spikes of a hidden layer", ge=0, le=1)
        last_limit: float = Field(0.05, description="bumping: the same of the output layer", ge=0, le=1)
        guard: float = Field(0.2, description="largest gradient of a weight; beyond, its neuron is not changed", gt=0)
        input_noise: float = Field(0.0, description="standard deviation of noise on input spike times in training, in tau_s", ge=0)
        hidden_mean: float = Field(0.2, description="mean of the initial weights of hidden layers")
        last_mean: float = Field(0.1, description="mean of the initial weights of the last layer")
        deviation: float = Field(0.2, description="standard deviation of the initial weights", ge=0)

    options: Options

    def layer(self, features_in: int, features_out: int, place: int) -> FirstSpike:
        """Return neurons of one spike."""
        o = self.options
        constants = Constants(o.tau_s * (1 if o.taus == "equal" else 2), o.tau_s)
        made = FirstSpike(features_in, features_out, constants, o.threshold, o.guard, o.simulated).double()
        nn.init.normal_(made.synapse.weight, o.last_mean if place == len(o.hidden) else o.hidden_mean, o.deviation)
        return made

    def phases(self, net: nn.Module) -> Iterator[Phase]:
        """Yield one phase, which remembers which layer was bumped."""
        o = self.options
        yield Phase(step=partial(self.learn, WeightBumping((*[o.limit] * len(o.hidden), o.last_limit)) if o.bumping else None))

    def learn(self, bumping: WeightBumping | None, net: nn.Module, batch: Batch, update: Update) -> Tensor:
        """Train on a batch, or bump weights where it makes too few neurons fire."""
        assert isinstance(net, nn.Sequential)
        times = self.encode(batch.inputs)
        if self.options.input_noise:
            times = (times + self.options.input_noise * self.options.tau_s * torch.randn_like(times)).sort(-1).values
        with Watch(net) as seen:
            loss = self.spike_loss(net(times), batch.targets)
        if bumping is None or not bumping(seen.outputs, [part.synapse.weight for part in net]):
            update.minimise(loss)
        return loss

    def spike_loss(self, output: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of spike times ``[B, classes, 1]``."""
        o = self.options
        return first_spike_gap(first(output), targets, o.tau_s, o.xi, o.alpha, o.beta)

    def answer(self, output: Tensor, instants: Tensor) -> Tensor:
        """Return the scores of first spikes as of each instant, as the softmax of the loss takes them."""
        return first_spike_scores(first(output), instants, self.options.simulated, self.options.xi * self.options.tau_s)

    def report(self, net: nn.Module) -> dict[str, Any]:
        """Return the figures of event-exact methods, and ``stored_floats_per_spike``: three if every slot had a spike."""
        times = self.encode(next(self.task.batches("test", batch_size=REPORTED)).inputs)
        return {**super().report(net), "stored_floats_per_spike": stored_floats_per_spike(net, times)}

    def recipe(self, task: Task) -> dict[str, Any]:
        """Return the settings of release v1.0.0: the 784-350-10 run, or for images of 16x16 and less the 256-128-10 run."""
        run = RUNS["small" if math.prod(task.input_shape) <= 256 else "mnist"]
        training = dict(run["training"])
        every = training.pop("every")
        drops = tuple(epoch / training["epochs"] for epoch in range(every, training["epochs"], every))
        return run["options"] | training | {"optimizer": "adam", "schedule": "drops", "milestones": drops, "augment": False}
