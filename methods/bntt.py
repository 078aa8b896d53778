"""BNTT: batch normalisation through time, trained by BPTT, with an early exit that is read off the learned scales.

Every layer is ``synapse (no bias) -> BNTT -> LIF`` (``methods.nn.bntt``). The neuron (threshold 1)::

    u[t] = leak * v[t-1] + BNTT(W s_in[t])     s[t] = 1[u[t] > 1]     v[t] = u[t] - s[t], no gradient through the reset
    ds/du = 0.3 * max(0, 1 - |u - 1|)

Answers are means over time of a linear read-out without bias. Exit: with ``g[l, t]`` the mean over channels of ``gamma``, run only the
steps up to the last one where any layer has ``g >= 0.1``; it is the same for all samples and follows from the parameters alone.

What makes gamma fall is weight decay (analysis: ours): where the loss does not hold it up, SGD with momentum ``m`` and decay ``wd`` shrinks
it as ``exp(-wd * sum of lr / (1 - m))`` over the iterations; about ``exp(-3)`` is wanted. The matched track has no weight decay, so no
exit; for one, set ``gamma_decay`` and train with SGD. Adam undoes it: it divides gradients by their size, so in Adam the decay alone
moves gamma by ``lr`` per iteration whatever its strength, and in AdamW the faintest gradient holds gamma up against the decay (measured).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from harness import plugin
from harness.method import Phase, Prediction
from harness.plugin import Card, Claim, UsageError
from harness.task import Task
from methods.base import SpikingMethod
from methods.nn.bntt import BatchNormThroughTime, exit_step, gamma_table
from methods.nn.neuron import LIF
from methods.nn.surrogate import Triangle
from methods.nn.synapse import Linear
from methods.nn.vgg import Plan, Vgg

Published = tuple[Plan, int, bool]  # plan, fully connected neurons, global pooling
VGG9: Published = ((64, 64, "P", 128, 128, "P", 256, 256, 256, "P"), 1024, False)
VGG11: Published = ((64, "P", 128, "P", 256, 256, "P", 512, 512, "P", 512, 512), 4096, True)


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
        compared_with=("stbp",),
        claims=(
            Claim("test_accuracy", "value", 0.905, "static/cifar10", "VGG-9, T=25", "caption of a figure of the paper"),
            Claim(
                "test_accuracy",
                "difference",
                0.018,
                "static/cifar10",
                "T=25 against surrogate BP, T=100 (88.7 %)",
                "same caption",
                "stbp",
            ),
            Claim(
                "test_accuracy",
                "value",
                0.903,
                "static/cifar10",
                "VGG-9, early exit after 20 of 25 steps",
                "table of a reproduction quoting it",
            ),
            Claim("steps_used", "property", None, "static/cifar10", "inference shortened by about 5 to 20 steps", "abstract"),
            Claim("test_accuracy", "value", 0.966, "sequences/smnist", "fully connected, T=25", "table of a reproduction quoting it"),
        ),
        reconstructed="the official code has no early exit: its rule follows a reproduction, the suffix rule and the decay law are ours; "
        "events enter as frames and detection read-outs have a bias (ours)",
    )

    heads = ("classify", "detect")

    class Options(plugin.Options):
        """Neuron, encoder and exit."""

        leak: float = Field(0.95, description="fraction of the membrane potential kept per step", ge=0, le=1)
        encoder: Literal["task", "signed_poisson"] = Field("task", description="the task's encoding, or the paper's random signed spikes")
        gamma_decay: float | None = Field(None, description="weight decay of gamma; None: that of all parameters, as in the paper", ge=0)
        early_exit: bool = Field(True, description="stop inference when all gammas are small from a step on")
        exit_threshold: float = Field(0.1, description="a layer is silent where its mean gamma is below", ge=0)
        network: Literal["task", "vgg9", "vgg11"] = Field("task", description="the task's backbone, or one of the paper's")

    options: Options

    def __init__(self, task: Task, *args: Any, **kwargs: Any) -> None:
        """Bind to a task; raise UsageError for the random encoder on data that have time steps of their own."""
        super().__init__(task, *args, **kwargs)
        if self.options.encoder == "signed_poisson" and task.temporal:
            raise UsageError(f"bntt: encoder = 'signed_poisson' is for static data; {task.card.name} has a time axis, use encoder = 'task'")

    # Parts ----------------------------------------------------------------------------------------------------------

    def neuron(self, features: int) -> nn.Module:
        """Return LIF neurons with soft, detached reset."""
        return LIF(self.options.leak, self.threshold, "soft", surrogate=Triangle(scale=0.3), strict=True)

    def norm(self, features: int, scale: float = 1.0) -> nn.Module:
        """Return BNTT for the method's number of time steps; ``scale`` is where gamma starts."""
        norm = BatchNormThroughTime(features, self.steps)
        nn.init.constant_(norm.gamma, scale)
        return norm

    def readout(self, features_in: int, features_out: int) -> nn.Module:
        """Return the read-out without bias, so that silence answers nothing."""
        return Linear(features_in, features_out, bias=False)

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
        known = {id(gamma) for gamma in gammas}
        decay = self.training.weight_decay if self.options.gamma_decay is None else self.options.gamma_decay
        return [{"params": [p for p in net.parameters() if id(p) not in known]}, {"params": gammas, "weight_decay": decay}]

    def exit_step(self, net: nn.Module) -> int:
        """Return how many time steps inference takes."""
        return exit_step(gamma_table(net), self.options.exit_threshold) if self.options.early_exit else self.steps

    def predict(self, net: nn.Module, inputs: Tensor) -> Prediction:
        """Run the steps before the exit."""
        return Prediction.at_every_step(self.task.answer(net(self.encode(inputs)[: self.exit_step(net)])))

    def report(self, net: nn.Module) -> dict[str, Any]:
        """Return the exit, the mean gamma of every layer and step, the largest gamma, and what they cost in parameters.

        Main metric on the test split besides: ``metric_all_steps`` without the exit; with the random encoder ``metric_draws``, three more
        draws.
        """
        gammas = [module.gamma.detach() for module in net.modules() if isinstance(module, BatchNormThroughTime)]
        table = gamma_table(net)
        draws = [self._score(net, self.exit_step(net)) for _ in range(3)] if self.options.encoder == "signed_poisson" else []
        return {
            **super().report(net),
            "metric_all_steps": self._score(net, self.steps),
            "metric_draws": draws,
            "exit_step": exit_step(table, self.options.exit_threshold),
            "gamma": table.tolist(),
            "gamma_abs_max": max(gamma.abs().max().item() for gamma in gammas),
            "gamma_parameters": sum(gamma.numel() for gamma in gammas),
        }

    @torch.no_grad()
    def _score(self, net: nn.Module, steps: int) -> float:
        scorer = self.task.scorer()
        for batch in self.task.batches("test"):
            answers = self.task.answer(net(self.encode(batch.inputs)[:steps]))
            scorer.update(answers[-1].float().cpu(), batch.targets.cpu())
        return scorer.compute()[self.task.metric]

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
