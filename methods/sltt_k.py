"""SLTT-K: SLTT that differentiates K of the T time steps, drawn anew for every batch; the others run forward only.

::

    S = the first K of a random permutation of 0 .. T-1
    for t in 0 .. T-1:  with gradients and a backward pass if t is in S, else without
    gradient = sum over S of that of L[t]        still divided by T, so its expectation is K/T times SLTT's gradient

The state, the outputs and the running statistics of the normalisation do not depend on S. As the gradient is K/T as large, a short
training from scratch trails SLTT's; the paper's claim on ImageNet is for K = 1 after a first stage with one time step. ``scale_lr`` (ours)
multiplies the learning rate by T/K to make up for it. All else is ``methods/sltt.py``.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Any

import torch
from pydantic import Field

from harness.plugin import Card, Claim, UsageError
from harness.task import Task, Training
from methods.sltt import Sltt

SURVEY = "result table of the paper, as a survey note has it"


class SlttK(Sltt):
    """Spatial learning through time at K random steps."""

    card = Card(
        name="sltt_k",
        title="Towards Memory- and Time-Efficient Backpropagation for Training Spiking Neural Networks",
        authors="Meng, Xiao, Yan, Wang, Lin, Luo",
        venue="ICCV 2023",
        year=2023,
        family="online",
        summary="SLTT that goes backward at K random time steps of each batch only.",
        compared_with=("sltt", "stbp", "ottt"),
        baseline="sltt",
        claims=(
            Claim("test_accuracy", "value", 0.6617, "static/imagenet", "K=1, NF-ResNet-34, T=6", SURVEY, networks=("network=nf_resnet34",)),
            Claim(
                "test_accuracy",
                "difference",
                -0.0002,
                "static/imagenet",
                "K=1, NF-ResNet-34, T=6",
                SURVEY,
                "sltt",
                networks=("network=nf_resnet34",),
            ),
            Claim(
                "test_accuracy",
                "difference",
                -0.0030,
                "static/imagenet",
                "K=1, NF-ResNet-34, T=6",
                SURVEY,
                "sltt[rule=bptt]",
                instead="stbp",
                networks=("network=nf_resnet34",),
            ),
            Claim(
                "total_time",
                "ratio",
                0.479,
                "static/imagenet",
                "K=1, NF-ResNet-34, T=6 (66.90 to 32.03 h)",
                SURVEY,
                "sltt",
                networks=("network=nf_resnet34",),
            ),
            Claim(
                "total_time",
                "ratio",
                0.434,
                "static/imagenet",
                "K=1, NF-ResNet-34, T=6 (73.8 to 32.03 h)",
                SURVEY,
                "sltt[rule=bptt]",
                instead="stbp",
                networks=("network=nf_resnet34",),
            ),
            Claim(
                "backward_time",
                "property",
                None,
                "any",
                "does not depend on T: K backward passes of one step each",
                "abstract",
                expect="constant over steps",
                tested="tests/methods/test_sltt_k.py::test_6_a_batch_takes_k_backward_passes_and_one_update",
            ),
            Claim(
                "saved_bytes", "property", None, "any", "constant in T, where BPTT is linear in T", "abstract", expect="constant over steps"
            ),
        ),
        reconstructed="scale_lr is ours; else as sltt",
    )

    class Options(Sltt.Options):
        """Those of SLTT, and how many steps are differentiated."""

        k: int = Field(1, description="time steps of a batch that are differentiated (K), drawn at random", ge=1)
        scale_lr: bool = Field(False, description="multiply the learning rate of the stage with all T steps by T/K")

    options: Options

    def __init__(self, task: Task, *args: Any, **kwargs: Any) -> None:
        """Bind to a task; raise UsageError for more steps to differentiate than there are, and for the rule that goes through them all."""
        super().__init__(task, *args, **kwargs)
        if self.options.k > self.steps:
            raise UsageError(f"sltt_k: k = {self.options.k} of {self.steps} time steps cannot be drawn; allowed: 1 to {self.steps}")
        if self.options.rule == "bptt":
            raise UsageError("sltt_k: rule = 'bptt' goes through all time steps; use sltt[rule=bptt]")

    def chosen(self, steps: int) -> Collection[int]:
        """Return K of ``steps`` time steps at random; all where there are fewer, in the stage with one."""
        return set(torch.randperm(steps)[: self.options.k].tolist())

    def last_stage(self) -> Training:
        """Return the training settings of the stage with all time steps."""
        training = super().last_stage()
        return replace(training, lr=training.lr * self.steps / self.options.k) if self.options.scale_lr else training

    def recipe(self, task: Task) -> dict[str, Any]:
        """Return SLTT's settings with the paper's K: 4 of 20 steps (DVS-Gesture), 2 of 10 (DVS-CIFAR10), 2 for NF-ResNet-101, else 1."""
        deep = self.given.get("network") == "nf_resnet101" and task.card.name == "static/imagenet"
        wanted = {"events/dvs-gesture": 4, "events/cifar10-dvs": 2}.get(task.card.name, 2 if deep else 1)
        return super().recipe(task) | {"k": min(wanted, task.steps) if task.temporal else wanted}
