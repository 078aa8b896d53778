"""DSN: neurons without reset whose decay is computed from the recent input, trained by a parallel scan over time.

Reset makes the state of a neuron a nonlinear function of its input, and keeps it bounded. Here both are up to the decay factor, a sigmoid
of a short causal convolution of the input (``methods/nn/dynamic_decay.py``; k is ``taps``, N is ``levels``)::

    alpha[t] = sigmoid(conv(X[t-k+1 .. t]))^(1/tau)    H[t] = alpha[t] H[t-1] + (1 - alpha[t]) X[t]    S[t] = clip(round(H[t]), 0, N)

The recurrence is linear in H, so that training is parallel over time; inference takes single steps with k numbers of state per neuron. No
parameter depends on T: a trained network runs at any length. Normalisation and everything else are those of the suite's STBP network.

With N above 1 spikes are whole numbers, as published: hardware with binary spikes needs N of them for one of others, N * T steps in all.
What compares with a binary method of T steps is ``levels=1``, or ``levels=N`` at T / N steps; ``report`` names N and N * T. For long memory
take ``tau=1`` or ``gate_bias=2``: as published, alpha is about 1/16 at the start, which is nearly no memory.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from harness import plugin
from harness.energy import joules
from harness.plugin import Card, Claim, UsageError
from harness.task import Task
from methods.base import SpikingMethod
from methods.nn.dynamic_decay import Backend, DynamicDecay
from methods.nn.surrogate import Arctan

DIGEST = "public digest of the paper"
SPEED = "one layer of neurons, sequence length T=16384"
COLUMNS = "columns of the image as time, T=32, the network of psn"
REPORT_SAMPLES = 64


class DynamicDecayMethod(SpikingMethod):
    """Dynamic decay neurons in the suite's networks."""

    card = Card(
        name="dynamic_decay",
        title="Parallel Training in Spiking Neural Networks",
        authors="Huang, Yao, Pan, Lv, Xu, Zheng, Xu, Li",
        venue="arXiv 2602.01133",
        year=2026,
        family="neuron",
        summary="Replace the reset by a decay computed from the recent input, so that training is a parallel scan at any length.",
        compared_with=("stbp", "psn"),
        baseline="psn",
        claims=(
            Claim("step_time", "ratio", round(1 / 25.6, 4), "any", f"{SPEED}; 1/2.2 of sliding PSN", DIGEST, "psn"),
            Claim("forward_time", "ratio", round(1 / 21.7, 4), "any", SPEED, DIGEST, "psn"),
            Claim("backward_time", "ratio", round(1 / 28.0, 4), "any", SPEED, DIGEST, "psn"),
            Claim("test_accuracy", "value", 0.9010, "sequences/scifar10", f"N=4, {COLUMNS}", DIGEST),
            Claim(
                "test_accuracy",
                "value",
                0.8745,
                "sequences/scifar10",
                f"N=1 with arctan (rect: 0.8674), {COLUMNS}",
                DIGEST,
                variant="dynamic_decay[levels=1,surrogate=arctan]",
            ),
            Claim("test_accuracy", "difference", 0.0165, "sequences/scifar10", f"N=4 minus PSN, N=1 (0.8845), {COLUMNS}", DIGEST, "psn"),
            Claim(
                "test_accuracy",
                "difference",
                -0.0100,
                "sequences/scifar10",
                f"N=1 minus PSN (0.8845), {COLUMNS}",
                DIGEST,
                "psn",
                variant="dynamic_decay[levels=1,surrogate=arctan]",
            ),
            Claim("firing_rate", "value", 0.124, "sequences/scifar10", f"N=4, {COLUMNS}", DIGEST),
            Claim("firing_rate", "ratio", round(0.124 / 0.150, 4), "sequences/scifar10", f"over LIF (0.150), {COLUMNS}", DIGEST, "stbp"),
            Claim("firing_rate", "ratio", round(0.124 / 0.214, 4), "sequences/scifar10", f"over PSN (0.214), {COLUMNS}", DIGEST, "psn"),
            Claim("test_accuracy", "value", 0.6821, "static/imagenet", "SEW ResNet-18, N=4", DIGEST),
            Claim("test_accuracy", "value", 0.8530, "events/cifar10-dvs", "VGG, N=4", DIGEST),
            Claim("test_accuracy", "value", 28.50, "sequences/wikitext103", "perplexity, SpikingSSM, N=4 (next best 32.25)", DIGEST),
            Claim(
                "test_accuracy",
                "property",
                None,
                "sequences/wikitext103",
                "trained at 2k steps, stable to 30k (extrapolation)",
                DIGEST,
                tested="tests/methods/test_dynamic_decay.py::test_a_network_trained_at_one_length_is_evaluated_at_up_to_fifteen_times_it",
                unmeasured="accuracy beyond the length of training is in each record, by task: docs/scaling.md",
            ),
        ),
        reconstructed="the paper was not read: equations by a public digest; depthwise gate by its ablation; start of the gate (PyTorch's "
        "default, bias 0) and the options tau=1 and gate_bias ours; optimiser of the recipe as published for psn, on the task's network",
    )
    spikes = "graded"  # modules are "binary" with levels=1

    class Options(plugin.Options):
        """Gate, spikes and how the neurons are computed."""

        gate: Literal["depthwise", "full"] = Field("depthwise", description="a kernel per channel, or one that sees all channels")
        taps: int = Field(4, description="inputs that the gate sees (k), the present one included", ge=1)
        tau: float = Field(0.25, description="decay = sigmoid^(1/tau); 1 remembers more at the start", gt=0)
        gate_bias: float = Field(0.0, description="start of the gate's bias; 2 remembers more at the start")
        levels: int = Field(4, description="largest spike (N); 1: binary", ge=1)
        surrogate: Literal["rect", "arctan"] = Field("rect", description="gradient of rounding; arctan is for levels=1")
        backend: Backend = Field("auto", description="how neurons are computed; auto: native on the CPU, else a scan in log depth")

    options: Options

    def __init__(self, task: Task, *args: Any, **kwargs: Any) -> None:
        """Bind to a task; raise UsageError for a surrogate that integer spikes do not have."""
        super().__init__(task, *args, **kwargs)
        if self.options.surrogate == "arctan" and self.options.levels != 1:
            raise UsageError(f"dynamic_decay: surrogate=arctan is for levels=1, not levels={self.options.levels}; allowed: rect")

    def neuron(self, features: int) -> nn.Module:
        """Return the neurons of a layer."""
        o = self.options
        surrogate = Arctan(2.0) if o.surrogate == "arctan" else None
        return DynamicDecay(features, o.gate, o.taps, o.tau, o.levels, surrogate, o.gate_bias, o.backend)

    def recipe(self, task: Task) -> dict[str, Any]:
        """Return the settings that psn published, here for the task's own network; other tasks than classification have none."""
        if task.head.kind != "classify":
            return {}
        common = {"optimizer": "sgd", "lr": 0.1, "momentum": 0.9, "schedule": "cosine", "weight_decay": 0.0}
        suite = task.card.name.split("/")[0]
        if suite == "sequences":
            return common | {"batch_size": 128, "epochs": 256, "label_smoothing": 0.1, "augment": True}
        if suite == "events":
            return common | {"batch_size": 32, "epochs": 200, "steps": 10}
        scale = {"batch_size": 64, "epochs": 320} if "imagenet" in task.card.name else {"batch_size": 128, "epochs": 1024}
        return common | scale | {"augment": True, "steps": 4}

    @torch.no_grad()
    def report(self, net: nn.Module) -> dict[str, Any]:
        """Return N and N * T, and of some test samples how neurons spike, how long they remember and what they cost.

        ``rate``: mean of S / N, spikes per neuron and virtual step; ``spike_mean``: mean of S; both also layer by layer. ``decay``: mean of
        alpha in each layer. ``neuron_macs``: multiply-accumulates of the neurons per sample, gate included, where LIF has
        ``neuron_macs_lif`` (one per neuron and step), and ``neuron_energy`` (J): neither is in the record's operations and energy.
        """
        layers = [module for module in net.modules() if isinstance(module, DynamicDecay)]
        found: list[tuple[DynamicDecay, float, float, int]] = []  # sum of S, mean of alpha, neuron-steps

        def look(module: DynamicDecay, args: tuple[Tensor, ...], spikes: Tensor) -> None:
            found.append((module, spikes.sum(dtype=torch.float64).item(), module.decay(args[0]).mean().item(), spikes.numel()))

        x = self.encode(next(self.task.batches("test", REPORT_SAMPLES)).inputs)
        hooks = [module.register_forward_hook(look) for module in layers]
        try:
            net.eval()(x)
        finally:
            for hook in hooks:
                hook.remove()
        samples, levels = x.shape[1], self.options.levels
        means = [total / count for _, total, _, count in found]
        mean = sum(total for _, total, _, _ in found) / sum(count for *_, count in found)
        macs = sum(module.macs * count for module, *_, count in found) / samples
        used = [module.used or "" for module in layers]
        return {
            "levels": levels,
            "steps": len(x),
            "virtual_steps": levels * len(x),
            "rate": mean / levels,
            "spike_mean": mean,
            "layers": {"rate": [each / levels for each in means], "spike_mean": means, "decay": [decay for _, _, decay, _ in found]},
            "neuron_macs": macs,
            "neuron_macs_lif": sum(count for *_, count in found) / samples,
            "neuron_energy": joules(0, macs),
            "neuron_backends": {name: used.count(name) for name in dict.fromkeys(used)},
        }
