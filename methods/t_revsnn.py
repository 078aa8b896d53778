"""T-RevSNN: T small networks, one per step, coupled by membranes that can be recovered from those of the step after.

Temporal gradients matter at the last neurons of each stage; only these carry a potential from step to step (turn-on), all others are
turned off in time. An image is encoded once; network t makes of it, of the stage below and of the stage above at the step before::

    V_l[t] = Blocks_l(Down_l(V_{l-1}[t]) + Up_l(V_{l+1}[t-1])) + alpha_l * V_l[t-1]

``methods/nn/temporal_reversible.py`` has the network, ``methods/nn/reversible_steps.py`` its training, which keeps x and the last
potentials only: memory that does not depend on T. ``reversible=false`` is the same network and loss by plain back-propagation.

Loss (w = t/T, and 1 more at the last; answers of step t by an exit of its own) and that of event frames (TET)::

    sum over t of w_t * CE_t            (1 - 0.001) * mean over t of CE_t + 0.001 * mean of (outputs - 1)^2

Sizes. The parameters of one network are divided over the steps: for an image, ``division=total`` scales the widths of all stages so that T
networks have, together, as many synaptic operations as 4 (the paper's T) of the budget's widths. So neither operations nor weights grow
with T, and memory falls. With ``division=step`` each has the given widths; then memory is constant and operations grow. Event frames, of
which each network sees another, are of the second kind. Networks are made for T steps.

Limits of the inverse: an error grows like ``|alpha|^-T``. |alpha| is kept above ``alpha_min``: 0.1 (ours); the official code's 0.001, which
avoids a division by zero but not the loss of all digits, is that of the recipe. The carried potentials, and they alone, are in double
precision (ours; ``potential=single`` is the code's). ``report`` has the error, a record the cosine of the gradients to those of plain
back-propagation.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from harness import plugin
from harness.method import Phase, Prediction, Update
from harness.plugin import Card, Claim, UnfitError, UsageError
from harness.task import Batch, Task
from methods.base import SpikingMethod
from methods.nn.backbones import Level
from methods.nn.potential_exit import DenseExit, PotentialExit
from methods.nn.temporal_reversible import Norm, Plan, TemporalReversible
from methods.nn.turn_off import TurnOff

IMAGE_STEM, FRAME_STEM = ((7, 2), (3, 2)), ((3, 2),)
SMALL_STEM = ((3, 1), (3, 2))  # for images of few pixels (ours)
NETS = {  # per network, and the steps for which these are the sizes
    "tiny": Plan((64, 128, 256, 384), (1, 2, 2, 1), IMAGE_STEM, steps=4),
    "small": Plan((96, 192, 384, 512), (1, 2, 2, 1), IMAGE_STEM, steps=4),
    "dvs": Plan((32, 64, 128, 256), (1, 2, 2, 1), FRAME_STEM, steps=8),
}
TET_SHARE, TET_TARGET = 1e-3, 1.0
PAPER = "abstract, and training log of the official repository"
REPORTED = 64  # test samples of the reconstruction error


class TRevSnn(SpikingMethod):
    """A temporal reversible spiking network."""

    card = Card(
        name="t_revsnn",
        title="High-Performance Temporal Reversible Spiking Neural Networks with O(L) Training Memory and O(1) Inference Cost",
        authors="Hu, Yao, Qiu, Chou, Cai, Qiao, Tian, Xu, Li",
        venue="ICML 2024",
        year=2024,
        family="architecture",
        summary="Divide a network over the steps and couple the parts by invertible membranes, so that training keeps the last ones only.",
        compared_with=("spike_driven_transformer", "ottt", "sltt", "rev_snn", "stbp"),  # and its own reversible=false
        baseline="t_revsnn[reversible=false]",
        claims=(
            Claim(
                "test_accuracy",
                "value",
                0.732,
                "static/imagenet",
                "small, 29.8 M parameters, T=4, 300 epochs",
                PAPER,
                networks=("net=small",),
            ),
            Claim(
                "test_accuracy",
                "value",
                0.698,
                "static/imagenet",
                "tiny, 15.2 M parameters, T=4, 300 epochs",
                "summary of the paper",
                networks=("net=tiny",),
            ),
            Claim(
                "cuda_bytes",
                "ratio",
                1 / 8.6,
                "static/imagenet",
                "small, T=4, per image",
                PAPER,
                against="spike_driven_transformer",
                networks=("net=small", "net=8-512"),
            ),
            Claim(
                "epoch_time",
                "ratio",
                0.5,
                "static/imagenet",
                "small, T=4, 8 GPUs",
                PAPER,
                against="spike_driven_transformer",
                networks=("net=small", "net=8-512"),
            ),
            Claim(
                "energy",
                "ratio",
                1 / 1.6,
                "static/imagenet",
                "small, T=4",
                PAPER,
                against="spike_driven_transformer",
                networks=("net=small", "net=8-512"),
            ),
            Claim("energy", "value", 2.8e-3, "static/imagenet", "small, T=4", PAPER, networks=("net=small",)),
            Claim(
                "saved_bytes",
                "property",
                None,
                "any",
                "O(L): constant in T at given widths (division=step)",
                "abstract; here exact",
                variant="t_revsnn[division=step]",
                expect="constant over steps",
            ),
            Claim(
                "synops_dense",
                "property",
                None,
                "any",
                "O(1) in T at fixed total parameters, for images",
                "abstract",
                expect="does not grow over steps",
            ),
            Claim(
                "step_time",
                "property",
                None,
                "any",
                "longer than that of the plain twin, as every level is computed twice",
                "ours",
                against="t_revsnn[reversible=false]",
                expect="higher",
            ),
        ),
        reconstructed="networks for small images, how T divides one network, frame stems of stride 2, the loss for T other than 4, one "
        "function over all steps with losses inside, the recipe's AdamW in place of Lamb, dense tasks; EMA, adaptive gradient clipping, "
        "RandAugment, colour jitter and erasing of the recipe are not there",
    )

    heads = ("classify", "detect", "segment")

    class Options(plugin.Options):
        """Size, numbers at the start, and how to train."""

        reversible: bool = Field(True, description="recover potentials in the backward pass; false: plain back-propagation (twin)")
        net: Literal["task", "tiny", "small", "dvs"] = Field("task", description="widths of the budget, or a net of the paper")
        division: Literal["auto", "total", "step"] = Field(
            "auto", description="T networks have the operations of 4, or each the given widths; auto: total for images, step for frames"
        )
        kernel: int | None = Field(None, description="depthwise kernel; None: 3 for the task's net, 5 for those of the paper", ge=1)
        gamma_init: float = Field(1.0, description="where the blocks' gamma starts: 1 as the code, 0 as the paper (ReZero)")
        alpha_init: float = Field(0.5, description="where the share of a potential that is kept per step starts (alpha)")
        alpha_min: float = Field(0.1, description="least |alpha|; the code's is 0.001", gt=0)
        potential: Literal["auto", "single", "double"] = Field(
            "auto", description="precision of the potentials that are carried, for the inverse; auto: double where reversible"
        )
        split_input: bool = Field(False, description="divide the stem's channels over the networks, rather than show them all to each")
        loss: Literal["auto", "deep", "tet"] = Field("auto", description="weights t/T and the last alone; or TET; auto: TET for frames")
        reparametrise: bool = Field(True, description="fold gamma, standardisation, normalisations and the last exit after training")

    options: Options

    def __init__(self, task: Task, *args: Any, **kwargs: Any) -> None:
        """Bind to a task; raise UsageError for options that do not fit each other or the task."""
        super().__init__(task, *args, **kwargs)
        o, name = self.options, self.card.name
        self.frames = task.temporal or getattr(task.options, "encoding", "direct") != "direct"
        self.dense = task.head.kind != "classify"
        if self.frames and o.split_input:
            raise UnfitError(
                f"{name}: split_input divides the one image that all networks see, not the frames of {task.name}; allowed: false"
            )
        if o.kernel is not None and o.kernel % 2 == 0:
            raise UsageError(f"{name}: kernel = {o.kernel} has no middle; allowed: odd numbers")
        if abs(o.alpha_init) < o.alpha_min:
            raise UsageError(f"{name}: alpha_init = {o.alpha_init} is nearer to 0 than alpha_min = {o.alpha_min}; allowed: at least that")
        if self.dense and o.loss == "tet":
            raise UnfitError(f"{name}: loss = 'tet' is for classes; {task.name} wants {task.head.kind}; allowed: auto, deep")
        self.tet = o.loss == "tet" or (o.loss == "auto" and self.frames and not self.dense)

    @classmethod
    def supports(cls, task: Task) -> str | None:
        """Return why it cannot do ``task``: inputs without space besides the ordinary reasons."""
        if task.budget.backbone.kind == "sequence":
            return "its networks are for images and event frames, one network per step; a sequence has no space and any length"
        return super().supports(task)

    # The network ----------------------------------------------------------------------------------------------------

    def plan(self) -> Plan:
        """Return the sizes of each of the T networks; those of the task have a stage per width of the budget, of strides 2, 4, 8..."""
        o, widths = self.options, self.task.budget.backbone.widths
        small = Plan(widths, (1,) + (2,) * (len(widths) - 1), SMALL_STEM, kernel=3, steps=4)
        plan = small if o.net == "task" else NETS[o.net]
        plan = replace(plan, kernel=o.kernel or plan.kernel, stem=FRAME_STEM if self.frames else plan.stem)
        if o.division == "step" or (o.division == "auto" and self.frames):
            return replace(plan, steps=self.steps)
        return plan.divided(self.steps, self.task.input_shape[1:])

    def neuron(self, features: int) -> nn.Module:
        """Return turn-off neurons, as a head has them."""
        return TurnOff()

    def norm(self, features: int, scale: float = 1.0) -> nn.Module:
        """Return batch normalisation, as a head has it."""
        return Norm(features)

    def exits(self, levels: list[Level]) -> list[nn.Module]:
        """Return an exit per step, the last one spiking; for places in the image one head for all steps."""
        if self.dense:
            return [DenseExit(self.task.head, levels, self)]
        return [PotentialExit(levels[-1].channels, self.task.head.classes, t == self.steps - 1) for t in range(self.steps)]

    def build(self) -> nn.Module:
        """Return the network for T steps."""
        o = self.options
        wide = o.potential == "double" or (o.potential == "auto" and o.reversible)
        numbers = o.gamma_init, o.alpha_init, o.alpha_min, wide
        net = TemporalReversible(self.task.input_shape, self.plan(), self.exits, self.frames, o.split_input, *numbers)
        return net.to(memory_format=torch.channels_last) if self.task.device.type == "cpu" else net

    # Training and inference -----------------------------------------------------------------------------------------

    def phases(self, net: nn.Module) -> Iterator[Phase]:
        """Yield one phase, without weight decay for biases and other vectors; then fold what can be folded."""
        assert isinstance(net, TemporalReversible)
        vectors = [p for p in net.parameters() if p.dim() < 2]
        matrices = [p for p in net.parameters() if p.dim() >= 2]
        yield Phase(parameters=[{"params": matrices}, {"params": vectors, "weight_decay": 0.0}])
        if self.options.reparametrise:
            net.fold()

    def weights(self) -> list[float]:
        """Return the weight of the loss of each step."""
        if self.tet:
            return [1 / self.steps] * self.steps
        last = [0.0] * (self.steps - 1) + [1.0]
        return last if self.dense else [(t + 1) / self.steps + last[t] for t in range(self.steps)]

    def training_loss(self, net: TemporalReversible, batch: Batch, reversible: bool) -> Tensor:
        """Return the loss of all exits that are supervised."""

        def criterion(outputs: Tensor) -> Tensor:
            error = self.loss(outputs[0], batch.targets)
            return (1 - TET_SHARE) * error + TET_SHARE * (outputs - TET_TARGET).square().mean() if self.tet else error

        return net.loss(self.encode(batch.inputs), criterion, self.weights(), reversible)

    def step(self, net: nn.Module, batch: Batch, update: Update) -> Tensor:
        """Back-propagate the losses of the exits, recovering what was not kept, and update."""
        assert isinstance(net, TemporalReversible)
        loss = self.training_loss(net, batch, self.options.reversible)
        update.minimise(loss)
        return loss

    def exact_loss(self, net: nn.Module, batch: Batch) -> Tensor | None:
        """Return the same loss with a graph of all steps: what the recovered potentials leave of its gradient is measured."""
        assert isinstance(net, TemporalReversible)
        return self.training_loss(net, batch, reversible=False) if self.options.reversible else None

    def predict(self, net: nn.Module, inputs: Tensor) -> Prediction:
        """Answer by the exit of each step, the last one counting; of frames by the task's read-out."""
        outputs = net(self.encode(inputs))
        return Prediction.at_every_step(self.task.answer(outputs) if self.tet else outputs)

    @torch.no_grad()
    def report(self, net: nn.Module) -> dict[str, Any]:
        """Return widths, parameters in use, and the limits of the inverse.

        ``reconstruction_error``: largest error of the potentials of each step but the last, ``[T-1]``, recovered from the last step's, of
        ``REPORTED`` test samples; ``potential_max``: their largest size. ``alpha_min`` and ``alpha_mean``: smallest and mean |alpha| of
        each stage. ``parameters_deployed``: those of inference, which asks the last exit only.
        """
        assert isinstance(net, TemporalReversible)
        net.eval()
        errors, largest = net.reconstruction_error(self.encode(next(self.task.batches("test", REPORTED)).inputs))
        idle = {id(p) for module in net.exits[:-1] for p in module.parameters()}
        found: dict[str, Any] = {
            "widths": [level.channels for level in net.levels],
            "parameters_deployed": sum(p.numel() for p in net.parameters() if id(p) not in idle),
            "reconstruction_error": errors,
            "potential_max": largest,
        }
        alphas = [[level.alpha.abs() for level in levels] for levels in list(net.steps)[1:]]
        if alphas:
            stages = [torch.cat(parts) for parts in zip(*alphas, strict=True)]
            found |= {"alpha_min": [a.min().item() for a in stages], "alpha_mean": [a.mean().item() for a in stages]}
        return found

    def recipe(self, task: Task) -> dict[str, Any]:
        """Return the published settings: those of ImageNet on the small net for large images, the DVS net for event frames.

        AdamW stands in for Lamb; the batch size is that of one GPU, its learning rate 2e-3 per 1024 images.
        """
        published = task.head.kind == "classify" and len(task.input_shape) == 3 and min(task.input_shape[1:]) >= 64
        settings = {"optimizer": "adamw", "lr": 1e-3, "weight_decay": 0.01, "epochs": 300, "batch_size": 512, "warm_up": 20}
        settings |= {"schedule": "cosine", "augment": True, "alpha_min": 1e-3}
        if task.head.kind == "classify":
            settings["label_smoothing"] = 0.1
        if published:
            settings["net"] = "dvs" if task.temporal else "small"
        return settings if task.temporal else settings | {"steps": 4}
