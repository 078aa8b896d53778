"""BNTT: batch normalisation through time, trained by BPTT, with an early exit that is read off the learned scales.

Every layer is ``synapse (no bias) -> BNTT -> LIF`` (``methods.nn.bntt``). The neuron (threshold 1)::

    u[t] = leak * v[t-1] + BNTT(W s_in[t])     s[t] = 1[u[t] > 1]     v[t] = u[t] - s[t], no gradient through the reset
    ds/du = 0.3 * max(0, 1 - |u - 1|)

Answers are means over time of a linear read-out without bias. Exit: with ``g[l, t]`` the mean over channels of ``gamma``, run only the
steps up to the last one where any layer has ``g >= 0.1``; it is the same for all samples and follows from the parameters alone. Where every
step has an answer of its own, all steps run. ``norm="bn"`` (one for all steps; at this threshold that is tdBN) and ``"none"`` are the
baselines that differ in nothing else.

What makes gamma fall is weight decay (analysis: ours): where the loss does not hold it up, SGD with momentum ``m`` and decay ``wd`` shrinks
it as ``exp(-wd * sum of lr / (1 - m))`` over the iterations; about ``exp(-3)`` is wanted. The matched track has no weight decay, so no
exit; for one, train with SGD and ``gamma_decay=auto``, which chooses ``wd`` for ``exp(-3)``. Adam undoes it: it divides gradients by their
size, so in Adam the decay alone moves gamma by ``lr`` per iteration whatever its strength, and in AdamW the faintest gradient holds gamma
up against the decay (measured).
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from harness import plugin
from harness.meters.spikes import SpikeMeter
from harness.method import Phase, Prediction
from harness.plugin import Card, Claim, UnfitError, UsageError
from harness.task import Task
from methods.base import SpikingMethod
from methods.nn.bntt import BatchNormThroughTime, decay_exponent, exit_step, gamma_table
from methods.nn.neuron import LIF
from methods.nn.norm import BatchNorm
from methods.nn.scoring import score
from methods.nn.surrogate import Triangle
from methods.nn.synapse import Conv2d, Linear
from methods.nn.vgg import Plan, Vgg

Published = tuple[Plan, int, bool]  # plan, fully connected neurons, global pooling
VGG9: Published = ((64, 64, "P", 128, 128, "P", 256, 256, 256, "P"), 1024, False)
VGG11: Published = ((64, "P", 128, "P", 256, 256, "P", 512, 512, "P", 512, 512), 4096, True)
CAPTION, QUOTED = "caption of a figure of the paper", "table of a reproduction quoting it"


def signed_poisson(inputs: Tensor, steps: int) -> Tensor:
    """Return ``steps`` random sequences of -1, 0, 1 ``[T, ...]`` with mean ``clip(inputs / 2, -1, 1)``."""
    fired = 2 * torch.rand(steps, *inputs.shape, device=inputs.device, dtype=inputs.dtype) <= inputs.abs()
    return inputs.sign() * fired


class Bntt(SpikingMethod):
    """A scale per time step, and an exit when the scales have faded."""

    card = Card(
        name="bntt",
        title="Revisiting batch normalization for training low-latency deep spiking neural networks from scratch",
        authors="Kim, Panda",
        venue="Frontiers in Neuroscience 15:773954",
        year=2021,
        family="normalisation",
        summary="Normalise the currents of every time step by statistics and scales of its own; stop when all scales are small.",
        compared_with=("stbp", "ann2snn"),
        baseline="bntt[norm=bn]",
        claims=(
            Claim("test_accuracy", "value", 0.905, "static/cifar10", "VGG-9, T=25", CAPTION),
            Claim("test_accuracy", "difference", 0.018, "static/cifar10", "T=25 against surrogate BP, T=100 (88.7 %)", CAPTION, "stbp"),
            Claim("test_accuracy", "difference", -0.007, "static/cifar10", "T=25 against conversion, T=1000 (91.2 %)", CAPTION, "ann2snn"),
            Claim("steps_used", "ratio", 0.025, "static/cifar10", "T=25 against conversion, T=1000", CAPTION, "ann2snn"),
            Claim("test_accuracy", "value", 0.903, "static/cifar10", "VGG-9, early exit after 20 of 25 steps", QUOTED),
            Claim(
                "steps_used",
                "property",
                None,
                "static/cifar10",
                "of T=25, inference shortened by about 5 to 20 steps",
                "abstract",
                expect="at most 20",
            ),
            Claim("test_accuracy", "value", 0.966, "sequences/smnist", "fully connected, T=25", QUOTED),
            Claim(
                "test_accuracy",
                "property",
                None,
                "any",
                "robust to random and adversarial noise (no figure read)",
                "abstract",
                unmeasured="records hold no accuracy of it under noise, and the abstract no figure",
            ),
        ),
        reconstructed="the official code has no early exit: its rule follows a reproduction; the suffix rule, the decay law and its "
        "automatic strength are ours, and so are events as frames, the bias of detectors, and gammas of added branches from 1/sqrt(2)",
    )

    class Options(plugin.Options):
        """Neuron, encoder and exit."""

        leak: float = Field(0.95, description="fraction of the membrane potential kept per step", ge=0, le=1)
        encoder: Literal["task", "signed_poisson"] = Field("task", description="the task's encoding, or the paper's random signed spikes")
        norm: Literal["bntt", "bn", "none"] = Field("bntt", description="one per time step, or the baselines: one for all steps, none")
        gamma_decay: Annotated[float, Field(ge=0)] | Literal["auto"] | None = Field(
            None,
            description="weight decay of gamma; None: that of all parameters, as in the paper; auto: idle gammas fall to exp(-3)",
        )
        early_exit: bool = Field(True, description="stop inference when all gammas are small from a step on")
        exit_threshold: float = Field(0.1, description="a layer is silent where its mean gamma is below", ge=0)
        network: Literal["task", "vgg9", "vgg11"] = Field("task", description="the task's backbone, or one of the paper's")

    options: Options

    def __init__(self, task: Task, *args: Any, **kwargs: Any) -> None:
        """Bind to a task; raise UsageError for the random encoder on data that have time, or an automatic decay without SGD."""
        super().__init__(task, *args, **kwargs)
        if self.options.encoder == "signed_poisson" and task.temporal:
            raise UnfitError(f"bntt: encoder = 'signed_poisson' is for static data; {task.card.name} has a time axis, use encoder = 'task'")
        if self.options.gamma_decay == "auto" and self.training.optimizer != "sgd":
            raise UsageError(f"bntt: gamma_decay = 'auto' is by SGD's law, not that of {self.training.optimizer}; allowed: optimizer = sgd")

    # Parts ----------------------------------------------------------------------------------------------------------

    def neuron(self, features: int) -> nn.Module:
        """Return LIF neurons with soft, detached reset."""
        return LIF(self.options.leak, self.threshold, "soft", surrogate=Triangle(scale=0.3), strict=True)

    def norm(self, features: int, scale: float = 1.0) -> nn.Module:
        """Return BNTT for the method's number of time steps, or a baseline; ``scale`` is where gamma starts."""
        if self.options.norm != "bntt":
            return BatchNorm(features, scale, eps=1e-4) if self.options.norm == "bn" else nn.Identity()
        norm = BatchNormThroughTime(features, self.steps)
        nn.init.constant_(norm.gamma, scale)
        return norm

    def readout(self, features_in: int, features_out: int) -> nn.Module:
        """Return the read-out without bias, so that silence answers nothing."""
        return Linear(features_in, features_out, bias=False)

    def readout_conv(self, features_in: int, features_out: int) -> nn.Module:
        """Return the read-out at every location; only that of a detector has a bias, its prior."""
        return Conv2d(features_in, features_out, 1, bias=self.task.head.kind == "detect")

    def backbone(self) -> nn.Module:
        """Return the task's reference backbone or a VGG of the paper."""
        if self.options.network == "task":
            return super().backbone()
        plan, hidden, pooled = VGG9 if self.options.network == "vgg9" else VGG11
        return Vgg(self.task.input_shape, plan, self, global_pool=pooled, hidden=hidden)

    def build(self) -> nn.Module:
        """Return the network, its weights Xavier uniform with gain 2."""
        net = super().build()
        for module in net.modules():
            if isinstance(module, (nn.Linear, nn.Conv1d, nn.Conv2d)):
                nn.init.xavier_uniform_(module.weight, gain=2)
        return net

    def encode(self, inputs: Tensor) -> Tensor:
        """Return the sequence ``[T, B, ...]``, by the encoder of the options."""
        return signed_poisson(inputs, self.steps) if self.options.encoder == "signed_poisson" else super().encode(inputs)

    # Training and inference -----------------------------------------------------------------------------------------

    def phases(self, net: nn.Module) -> Iterator[Phase]:
        """Yield one phase; gamma is a parameter group of its own."""
        yield Phase(parameters=self.parameter_groups(net))

    def parameter_groups(self, net: nn.Module) -> list[dict[str, Any]]:
        """Return the weights and the gammas, which have a decay of their own."""
        gammas = [module.gamma for module in net.modules() if isinstance(module, BatchNormThroughTime)]
        if not gammas:
            return [{"params": list(net.parameters())}]
        known = {id(gamma) for gamma in gammas}
        return [{"params": [p for p in net.parameters() if id(p) not in known]}, {"params": gammas, "weight_decay": self.decay()}]

    def decay(self) -> float:
        """Return the weight decay of gamma."""
        given = self.options.gamma_decay
        if given == "auto":
            return 3 / decay_exponent(self.training, self._updates(), 1.0)
        return self.training.weight_decay if given is None else given

    def _updates(self) -> int:
        """Return the iterations of an epoch; a last batch of a single sample is left out in training."""
        full, rest = divmod(len(self.task.split("train")), self.training.batch_size)
        return full + (rest > 1) or 1

    def exit_step(self, net: nn.Module) -> int:
        """Return how many time steps inference takes."""
        if not self.options.early_exit or self.options.norm != "bntt" or self.task.readout == "each":
            return self.steps
        return exit_step(gamma_table(net), self.options.exit_threshold)

    def predict(self, net: nn.Module, inputs: Tensor) -> Prediction:
        """Run the steps before the exit."""
        return self.answer(net, inputs, self.exit_step(net))

    def answer(self, net: nn.Module, inputs: Tensor, steps: int) -> Prediction:
        """Run the first ``steps`` steps."""
        return Prediction.at_every_step(self.task.answer(net(self.encode(inputs)[:steps])))

    def report(self, net: nn.Module) -> dict[str, Any]:
        """Return the exit, what it saves, and the gammas of every layer and step.

        On the test split, without the exit: ``metric_all_steps`` and ``metric_per_step``, main metric after all steps and after each; for
        up to 256 steps ``spikes_per_step`` per sample, and ``spikes_saved``, the share of them that the exit spares. With the random
        encoder ``metric_draws``, three more draws with the exit, and ``metric_spread``, largest minus smallest. ``gamma`` and
        ``gamma_abs_max``: mean and largest size, ``[layers][T]``. ``gamma_decay_exponent`` (SGD): what the decay law says; an exit needs
        about 3.
        """
        last = self.exit_step(net)
        with SpikeMeter(net) as counted:
            whole, curve = score(self.task, "test", partial(self.answer, net, steps=self.steps))
        spikes = counted.result(len(self.task.split("test"))).curve
        found = {**super().report(net), "exit_step": last, "metric_all_steps": whole, "metric_per_step": curve}
        if spikes is not None:
            found |= {"spikes_per_step": spikes, "spikes_saved": sum(spikes[last:]) / max(sum(spikes), 1e-12)}
        if self.options.encoder == "signed_poisson":
            draws = [score(self.task, "test", partial(self.predict, net))[0] for _ in range(3)]
            found |= {"metric_draws": draws, "metric_spread": max(draws) - min(draws)}
        if self.options.norm == "bntt":
            largest = gamma_table(net, largest=True)
            parameters = sum(module.gamma.numel() for module in net.modules() if isinstance(module, BatchNormThroughTime))
            found |= {"gamma": gamma_table(net).tolist(), "gamma_abs_max": largest.tolist(), "gamma_parameters": parameters}
            if self.training.optimizer == "sgd":
                found["gamma_decay_exponent"] = decay_exponent(self.training, self._updates(), self.decay())
        return found

    def recipe(self, task: Task) -> dict[str, Any]:
        """Return the settings of the official README: those of CIFAR-100 for it, else those of CIFAR-10."""
        hundred = task.card.name.endswith("cifar100")
        fits = task.head.kind == "classify" and len(task.input_shape) == 3 and min(task.input_shape[1:]) >= (16 if hundred else 8)
        settings: dict[str, Any] = {
            "encoder": "task" if task.temporal else "signed_poisson",
            "network": "task",
            "leak": 0.95,
            "steps": 25,
            "epochs": 100,
            "batch_size": 256,
            "optimizer": "sgd",
            "lr": 0.3,
            "momentum": 0.9,
            "weight_decay": 1e-4,
            "schedule": "drops",
            "augment": True,
        }
        if hundred:
            settings |= {"leak": 0.99, "steps": 30, "batch_size": 128}
        if fits:
            settings["network"] = "vgg11" if hundred else "vgg9"
        return settings
