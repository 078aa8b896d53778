"""PSN: neurons without reset, whose potentials at all steps are one learnable linear map of the input currents.

Variants (``methods/nn/psn.py`` has the equations): ``psn`` has a T x T matrix per layer and uses the future; ``masked`` anneals it to a
causal band of ``order`` inputs, with ``lam = min(8 * epoch / (epochs - 1), 1)``, after which it can run step by step; ``sliding`` shares
one kernel of ``order`` weights over time and takes any length. Everything else is the suite's STBP network, trained by back-propagation.

The neuron is tied to T (psn, masked). Of variant ``psn`` the answers at steps before the last are not causal: they are read-outs of a run
that has already seen all inputs, so its accuracy-versus-time curve is no anytime accuracy (``report``: ``causal``).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import torch
from pydantic import Field
from torch import nn

from harness import plugin
from harness.method import Phase
from harness.plugin import Card, Claim
from harness.task import Task
from methods.base import SpikingMethod
from methods.nn.psn import PSN, MaskedPSN, ParallelNeuron, SlidingPSN
from methods.nn.stepping import stepping

LOGS = "training logs in the official repository, best test accuracy"
COLUMNS = "columns of the image as time, T=32, 128 channels"


def mask_strength(epoch: int, epochs: int) -> float:
    """Return ``lam`` of ``epoch`` (from 0): linear, 1 from an eighth of the training on."""
    return min(8 * epoch / (epochs - 1), 1.0) if epochs > 1 else 1.0


class Psn(SpikingMethod):
    """The parallel spiking neuron family."""

    card = Card(
        name="psn",
        title="Parallel Spiking Neurons with High Efficiency and Ability to Learn Long-term Dependencies",
        authors="Fang, Yu, Zhou, Chen, Chen, Ma, Masquelier, Tian",
        venue="NeurIPS 2023",
        year=2023,
        family="neuron",
        summary="Drop the reset, so that all steps of a neuron are one learnable matrix product over time.",
        compared_with=("stbp",),
        baseline="stbp",
        claims=(
            Claim("test_accuracy", "value", 0.8845, "sequences/scifar10", f"PSN, {COLUMNS}", LOGS),
            Claim("test_accuracy", "value", 0.8670, "sequences/scifar10", f"sliding PSN, k=32, {COLUMNS}", LOGS),
            Claim("test_accuracy", "value", 0.8581, "sequences/scifar10", f"masked PSN, k=32, {COLUMNS}", LOGS),
            Claim("test_accuracy", "difference", 0.0695, "sequences/scifar10", f"PSN minus LIF (0.8150), {COLUMNS}", LOGS, against="stbp"),
            Claim("test_accuracy", "value", 0.9532, "static/cifar10", "PSN, 256 channels, T=4", LOGS),
            Claim("test_accuracy", "value", 0.7054, "static/imagenet", "SEW ResNet-34, T=4, from ANN weights", LOGS),
            Claim("test_accuracy", "value", 0.859, "events/cifar10-dvs", "VGG, sliding PSN, k=2, T=10", LOGS),
            Claim("step_time", "property", None, "any", "lower than that of LIF loops, the more so the longer T", "abstract"),
        ),
        reconstructed="behaviour for a single epoch (lam = 1); order is cut to T where the card's 32 does not fit",
    )

    heads = ("classify", "detect", "segment", "regress")  # with an answer per step, the full PSN would see the steps to come

    class Options(plugin.Options):
        """Variant of the neuron."""

        variant: Literal["psn", "masked", "sliding"] = Field("psn", description="full matrix, causal band, or one kernel over time")
        order: int = Field(32, description="past inputs that masked and sliding neurons see (k), the present one included", ge=1)
        backend: Literal["gemm", "conv"] = Field("gemm", description="how sliding neurons are computed; conv is linear in T")
        exp_init: bool = Field(True, description="sliding: start at ..., 1/4, 1/2, 1 rather than Kaiming uniform")

    options: Options

    def neuron(self, features: int) -> nn.Module:
        """Return the neurons of a layer, made for the method's number of steps."""
        o = self.options
        if o.variant == "psn":
            return PSN(self.steps)
        if o.variant == "masked":
            return MaskedPSN(self.steps, min(o.order, self.steps))
        return SlidingPSN(min(o.order, self.steps), o.backend, o.exp_init)

    def phases(self, net: nn.Module) -> Iterator[Phase]:
        """Yield one phase; masked neurons tighten their mask before every epoch."""
        masked = [module for module in net.modules() if isinstance(module, MaskedPSN)]

        def tighten(epoch: int, epochs: int) -> None:
            for neuron in masked:
                neuron.lam.fill_(mask_strength(epoch, epochs))

        yield Phase(on_epoch=tighten if masked else None)

    def recipe(self, task: Task) -> dict[str, Any]:
        """Return the settings of the official scripts; TET loss, mixup and cutmix are left out."""
        common = {"optimizer": "sgd", "lr": 0.1, "momentum": 0.9, "schedule": "cosine", "weight_decay": 0.0}
        suite = task.card.name.split("/")[0]
        if suite == "sequences":
            adamw = {"optimizer": "adamw", "lr": 1e-3} if self.given.get("variant") == "sliding" else {}
            return common | adamw | {"batch_size": 128, "epochs": 256, "label_smoothing": 0.1, "augment": True}
        if suite == "events":
            return common | {"variant": "sliding", "order": 2, "batch_size": 32, "epochs": 200, "steps": 10}
        return common | {"batch_size": 128, "epochs": 1024, "augment": True, "steps": 4}

    def report(self, net: nn.Module) -> dict[str, Any]:
        """Return parameters per layer, whether answers are causal, and how many answers of a serial run equal the parallel run's."""
        neurons = [module for module in net.modules() if isinstance(module, ParallelNeuron)]
        masks = [float(neuron.lam) for neuron in neurons if isinstance(neuron, MaskedPSN)]
        causal = self.options.variant != "psn" and all(lam == 1 for lam in masks)
        found: dict[str, Any] = {
            "neuron_parameters": [sum(p.numel() for p in neuron.parameters()) for neuron in neurons],
            "causal": int(causal),
        }
        if masks:
            found["lam"] = min(masks)
        if causal and self.task.head.kind == "classify":
            net.eval()
            x = self.encode(next(self.task.batches("validation", 64)).inputs)
            with torch.no_grad():
                parallel = net(x)
                with stepping(net):
                    serial = torch.cat([net(x[t : t + 1]) for t in range(len(x))])
            agree = self.task.answer(serial).argmax(-1) == self.task.answer(parallel).argmax(-1)
            found["serial_agreement"] = agree.double().mean().item()
        return found
