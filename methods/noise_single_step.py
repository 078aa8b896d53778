"""Noise-trained single-step network, run for many steps afterwards. Reconstruction from the abstract.

Training at T = 1: every membrane potential gets noise in place of what earlier steps would have left in it; one pass, one spike at most per
neuron, surrogate gradient. Then the same weights run for N steps, nothing is changed. In symbols (``methods.nn.single_step``)::

    training                 u = I + e,  e ~ N(theta/2, theta^2/12)     s = 1[u >= theta]
    test, run=residual       u[t] = v[t-1] + I,  v[0] = theta/2         s[t] = 1[u[t] >= theta]     v[t] = u[t] - theta s[t]
    test, run=injected       N passes of training, averaged

The noise has mean and variance of the residual potential of the multi-step neuron, so a neuron fires in training with about the probability
that is its rate later. Noise of mean 0 has not: the residual shifts the potential by theta/2. Logits are linear and averaged over steps.

"Lossless" means here: with the same noise, N = 1 is the training network to the bit; more steps do not lose accuracy.

Source: "A noise based novel strategy for faster SNN training" (Jiang and Zhang, arXiv 2211.05453), abstract only. All else is ours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from harness import plugin
from harness.method import Phase, Prediction, Update
from harness.plugin import Card, Claim, UsageError
from harness.task import Batch, Task
from methods.base import SpikingMethod
from methods.nn.scoring import score
from methods.nn.single_step import EVEN, Noise, Run, SingleStepNeuron, fit_noise, neurons, running

SWEEP = (1, 2, 4, 8, 16)  # numbers of steps that ``report`` looks at
FIT_IMAGES, FIT_STEPS = 64, 32


class NoiseSingleStep(SpikingMethod):
    """Single-step training with noise, multi-step inference."""

    card = Card(
        name="noise_single_step",
        title="A noise based novel strategy for faster SNN training",
        authors="Jiang, Zhang",
        venue="arXiv 2211.05453; Neural Computation",
        year=2023,
        family="conversion",
        summary="Train at one step with noise for the potential that earlier steps would leave; run the same weights for many steps.",
        compared_with=("stbp", "ann2snn", "ann"),
        baseline="noise_single_step[noise=none]",
        claims=(
            Claim("step_time", "ratio", 0.3, "any", "training time falls by 65 to 75 %; T, data and network not found", "abstract", "stbp"),
            Claim(
                "latency",
                "ratio",
                0.01,
                "any",
                "inference more than 100 times as fast, here read as conversion's long T; data and network not found",
                "abstract",
                "ann2snn",
            ),
            Claim(
                "test_accuracy",
                "property",
                None,
                "any",
                "Gaussian noise makes it higher after conversion (noise=none)",
                "abstract",
                variant="noise_single_step@T=8",
                against="noise_single_step[noise=none]@T=8",
                expect="higher",
            ),
            Claim(
                "test_accuracy",
                "property",
                None,
                "any",
                "conversion from one step to many is lossless",
                "abstract",
                unmeasured="accuracies before and after are in the report of each record: docs/conversion.md",
                tested="tests/methods/test_noise_single_step.py::test_without_noise_the_first_step_is_the_training_network_to_the_bit",
            ),
        ),
        reconstructed="reconstruction from the abstract: neuron, law of the noise, gradients, both ways to run, fit for leaky neurons, "
        "defaults and recipe are ours",
    )
    heads = ("classify", "detect", "segment")
    cannot = {"sequences": "steps are trained each by itself, and the order of a sequence is what it is about"}

    class Options(plugin.Options):
        """Noise, neurons and how they run."""

        noise: Noise = Field("gauss", description="law of the noise in training; none: the ablation")
        run: Run = Field("residual", description="N steps without noise, potentials carried over; or N noisy passes, each by itself")
        grad: Literal["triangle", "density"] = Field(
            "triangle", description="surrogate at the noisy potential, or the derivative of the expected spike"
        )
        mean: float = Field(0.5, description="mean of the noise, over the threshold; 0.5: of the residual potential without leak")
        deviation: float = Field(EVEN, description="its standard deviation, over the threshold; 0.2887: of that residual", gt=0)
        leak: float = Field(1.0, description="fraction of the potential kept per step (beta); below 1, fit the noise", gt=0, le=1)
        fit_noise: Literal["moments", "calibrate"] = Field(
            "moments",
            description="mean and deviation as given; or of each layer's residual on training images, before every epoch but the first",
        )

    options: Options

    def __init__(self, task: Task, *args: Any, **kwargs: Any) -> None:
        """Bind to a task; raise UsageError where the options ask for a density of, or a fit to, noise that there is not."""
        super().__init__(task, *args, **kwargs)
        o = self.options
        for name, value, instead in (("grad", "density", "triangle"), ("fit_noise", "calibrate", "moments")):
            if o.noise == "none" and getattr(o, name) == value:
                raise UsageError(f"noise_single_step: {name} = {value!r} needs noise, and noise = 'none'; use {name} = {instead!r}")

    def neuron(self, features: int) -> nn.Module:
        """Return neurons of both personalities."""
        o, theta = self.options, self.threshold
        return SingleStepNeuron(o.noise, o.run, o.grad, o.leak, theta, o.mean * theta, o.deviation * theta)

    # Training -------------------------------------------------------------------------------------------------------

    def phases(self, net: nn.Module) -> Iterator[Phase]:
        """Yield one phase; the noise may be fitted before its epochs."""
        calibrate = self.options.fit_noise == "calibrate"
        yield Phase(on_epoch=partial(self.calibrate, net) if calibrate else None)

    def calibrate(self, net: nn.Module, epoch: int, epochs: int) -> None:
        """Fit the noise of every layer to its residual on training images; before the first epoch, currents are not normalised yet."""
        if epoch:
            images = next(self.task.batches("train", FIT_IMAGES, FIT_IMAGES)).inputs
            fit_noise(net, self.task.encode(images, FIT_STEPS))

    def step(self, net: nn.Module, batch: Batch, update: Update) -> Tensor:
        """Train on one batch in a single step; frames of events are as many independent ones, whose answers are averaged."""
        loss = self.loss(self.task.final(net(self.task.encode(batch.inputs, 1))), batch.targets)
        update.minimise(loss)
        return loss

    # Figures --------------------------------------------------------------------------------------------------------

    def _run(self, net: nn.Module, run: Run, steps: int, inputs: Tensor) -> Prediction:
        """Return the answers of ``steps`` steps."""
        with running(net, run):
            return Prediction.at_every_step(self.task.answer(net(self.task.encode(inputs, steps))))

    @torch.no_grad()
    def report(self, net: nn.Module) -> dict[str, Any]:
        """Return the noise of every layer, ``[mean, deviation]``, and the main metric on validation data as the number of steps grows.

        ``metric_single_step``: as trained, one noisy step. ``metric_residual``, ``metric_injected``: by the number of steps, 1 to 16 for
        still images, up to those of the data for frames; left out for detection and segmentation, where scoring every step is dear.
        """
        noise = {name: [layer.mean, layer.deviation] for name, layer in neurons(net).items()}
        found: dict[str, Any] = {**super().report(net), "noise": noise}
        if self.task.head.kind != "classify":
            return found

        def curve(run: Run, steps: int) -> list[float]:
            answer: Callable[[Tensor], Prediction] = partial(self._run, net, run, steps)
            return score(self.task, "validation", answer)[1]

        steps = self.steps if self.task.temporal else SWEEP[-1]
        for run in ("residual", "injected"):
            by_step = curve(run, steps)
            found[f"metric_{run}"] = {str(n): by_step[n - 1] for n in SWEEP if n <= len(by_step)}
        found["metric_single_step"] = curve("injected", 1)[0] if not self.task.temporal else found["metric_injected"]["1"]
        return found

    def recipe(self, task: Task) -> dict[str, Any]:
        """Return the card's settings, which are ours; the published ones were not found."""
        if task.card.name.startswith("static/cifar"):
            settings = {"optimizer": "sgd", "lr": 0.1, "momentum": 0.9, "weight_decay": 5e-4, "schedule": "cosine"}
            return settings | {"epochs": 200, "batch_size": 128, "augment": True, "steps": 4}
        return {"optimizer": "adam", "lr": 1e-3, "weight_decay": 1e-4, "batch_size": 64, "steps": 4}
