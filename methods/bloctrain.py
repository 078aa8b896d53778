"""BlocTrain: train a network block by block, deeper blocks on hard classes only, and let easy inputs leave early.

Only one block is unrolled in time at once, which is where memory is saved. For each block b, with classes ``K_b`` (all of them at first)::

    1  earlier blocks are frozen (eval mode, no graph); their spikes are the input
    2  train block b and its classifier on samples with a label in K_b: cross-entropy of a linear map of the features' mean over time
    3  acc_b(c) on the validation split; hard classes K_{b+1} = { c : acc_b(c) < theta }, theta their mean or fixed, at least 2
    4  train the hard-class detector: a logistic regression of "label in K_{b+1}", the positive class weighted by the class ratio

Inference by the chain rule with early exit: ``methods/nn/conditional.py``. Neurons: LIF, leak 0.9, threshold 1, soft reset kept out of the
gradient, arctan surrogate (alpha 2). Blocks: the layers of the matched network, cut into ``blocks`` groups; or those of the paper's
ResNet-9 in 3 and ResNet-11 in 4 blocks (``net``). Every block is trained for as many epochs as the end-to-end baseline. Only abstract and
outline of the paper could be read; steps 2 to 4 and all numbers are ours.

Baselines: ``blocks=1``, end to end; ``exit=False``; ``combine=False``, a block's answer alone. ``thresholds=validation``: the cheapest that
cost held-out accuracy ``tolerance`` at most. Report: the model of ``block_costs`` beside what is measured (``block_meter`` and others).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from harness import plugin
from harness.loader import targets as labels_of
from harness.method import Phase, Prediction, Step, Update
from harness.plugin import Card, Claim, UsageError
from harness.task import Batch, Split, Task
from methods.base import SpikingMethod
from methods.nn import block_costs
from methods.nn.block_meter import measure_training
from methods.nn.block_resnet import WIDTHS, residual_stages
from methods.nn.conditional import BlockNet, Course, cut, features, hard_classes, log_of
from methods.nn.exit_figures import accuracy_by_class, exit_figures, named
from methods.nn.neuron import LIF
from methods.nn.operating_point import OperatingPoint, operating_point
from methods.nn.spike_driven import SpikeDriven
from methods.nn.surrogate import Arctan

PAPER = "abstract of the paper"
NET = "ResNet-9 SNN in 3 blocks"


class BlocTrain(SpikingMethod):
    """Block-wise conditional training and inference."""

    card = Card(
        name="bloctrain",
        title="BlocTrain: Block-Wise Conditional Training and Inference for Efficient Spike-Based Deep Learning",
        authors="Srinivasan, Roy",
        venue="Frontiers in Neuroscience 15:603433",
        year=2021,
        family="block-wise",
        summary="Train blocks one after the other with local classifiers, deeper ones on hard classes only; easy inputs exit early.",
        compared_with=("stbp",),
        baseline="bloctrain[blocks=1]",
        claims=(
            Claim(
                "saved_bytes",
                "ratio",
                1 / 2.95,
                "static/cifar10",
                f"{NET}; training memory, 'up to'",
                PAPER,
                "bloctrain[blocks=1]",
                instead="stbp",
                networks=("net=resnet9",),
            ),
            Claim(
                "synops",
                "ratio",
                1 / 1.89,
                "static/cifar10",
                f"{NET}; operations per inference with early exit",
                PAPER,
                "bloctrain[blocks=1]",
                instead="stbp",
                networks=("net=resnet9",),
            ),
            Claim(
                "parameters",
                "ratio",
                1.45,
                "static/cifar10",
                f"{NET}; memory overhead, mainly classifier weights",
                PAPER,
                "bloctrain[blocks=1]",
                instead="stbp",
                networks=("net=resnet9",),
            ),
            Claim("test_accuracy", "value", 0.864, "static/cifar10", NET, PAPER, networks=("net=resnet9",)),
            Claim(
                "test_accuracy",
                "value",
                0.5821,
                "static/cifar100",
                "ResNet-11 SNN in 4 blocks",
                PAPER,
                variant="bloctrain[blocks=4]",
                networks=("net=resnet11",),
            ),
        ),
        reconstructed="all but: blocks with classifiers trained in turn, hard classes by class-wise accuracy, detectors, early exit, and "
        "the names of the networks",
    )
    heads = ("classify",)
    cannot = {
        "detection": "hard classes and early exit need one class per sample",
        "sequences": "the blocks are cut from a network of images; the reference network of sequences has no stages to cut",
    }

    class Options(plugin.Options):
        """Cut, split and exit rule; all defaults are ours."""

        net: Literal["budget", "resnet9", "resnet11"] = Field("budget", description="the task's network, or one of the paper's")
        blocks: int = Field(3, description="blocks that the layers of the network are cut into (B); 1: end to end", ge=1)
        theta: Literal["dynamic"] | Annotated[float, Field(ge=0, le=1)] = Field(
            "dynamic", description="class-wise accuracy below which a class is hard; dynamic: the mean"
        )
        exit: bool = Field(True, description="let easy samples leave early; False: every sample passes all blocks")
        t_cls: float = Field(0.8, description="confidence of the classifier from which a sample may leave", ge=0)
        t_hcd: float = Field(0.5, description="detector's probability of a hard class below which a sample may leave", ge=0, le=1)
        thresholds: Literal["given", "validation"] = Field(
            "given", description="t_cls and t_hcd as given, or chosen on the validation split after training"
        )
        tolerance: float = Field(0.005, description="accuracy that leaving early may cost where thresholds are chosen", ge=0, le=1)
        combine: bool = Field(True, description="answer by the classifiers of all blocks passed; False: by that of the last one alone")
        hcd_epochs: int | None = Field(None, description="epochs of training a detector; None: as many as a block", ge=1)
        hcd_prior: Literal["balanced", "training"] = Field(
            "balanced",
            description="shares of hard classes that a detector's probability refers to: one half, as it is trained, or the training set's",
        )

    options: Options

    @classmethod
    def supports(cls, task: Task) -> str | None:
        """Return why not: besides the ordinary reasons, events of sensors without pixels."""
        return super().supports(task) or (cls.cannot["sequences"] if task.budget.backbone.kind == "sequence" else None)

    def neuron(self, features: int) -> nn.Module:
        """Return LIF neurons with leak 0.9 and detached soft reset."""
        return LIF(0.9, self.threshold, "soft", surrogate=Arctan(2.0))

    def build(self) -> nn.Module:
        """Return the blocks of the network, the first with a classifier; raise UsageError if it has too few layers, or images too small."""
        o, shape = self.options, self.task.input_shape
        try:
            stages = self.backbone().stages if o.net == "budget" else residual_stages(shape, WIDTHS[o.net], self)
            blocks = cut(stages, o.blocks)
        except ValueError as error:
            raise UsageError(f"bloctrain: {error}") from None
        sizes, x = [], torch.zeros(1, 1, *shape)
        for block in blocks.eval():
            x = block_costs.trace(block, x)[0]
            sizes.append(x.numel())
        return BlockNet(blocks, sizes, self.task.head.classes)

    def phases(self, net: nn.Module) -> Iterator[Phase]:
        """Yield for each block a phase for block and classifier, then one for its detector, each on the block's own classes."""
        assert isinstance(net, BlockNet)
        for depth, block in enumerate(net.blocks):
            net.zero_grad(set_to_none=True)  # gradients of earlier blocks are of no use any more
            classifier = net.classifiers[depth]
            yield Phase(
                name=f"block {depth + 1}",
                step=self.block_step(depth),
                parameters=[*block.parameters(), *classifier.parameters()],
                keep=self.labelled(net.classes[depth]),
                modules=[block, classifier],
            )
            if depth == len(net.blocks) - 1:
                break
            hard = hard_classes(self.class_accuracy(net, depth), self.options.theta)
            if hard == net.classes[depth]:
                net.skip_detector()
            else:
                net.zero_grad(set_to_none=True)
                net.add_detector()
                ratio = self.easy_per_hard(net.classes[depth], hard)
                yield Phase(
                    name=f"detector {depth + 1}",
                    step=self.detector_step(depth, hard, ratio),
                    epochs=self.options.hcd_epochs,
                    parameters=list(net.detectors[depth].parameters()),
                    keep=self.labelled(net.classes[depth]),
                    modules=[net.detectors[depth]],
                )
                if self.options.hcd_prior == "training":
                    # A weight on the positive class multiplies the odds; the chain rule wants those of the data.
                    net.detectors[depth].bias.data -= math.log(ratio)
            net.add_classifier(hard)
        if self.options.thresholds == "validation":
            point = self.best_thresholds(net, self.course(net, "validation"))
            net.thresholds = point.t_cls, point.t_hcd

    @staticmethod
    def labelled(classes: tuple[int, ...]) -> Callable[[Tensor], Tensor]:
        """Return the filter of targets ``[N]`` that keeps samples of ``classes``."""
        return lambda targets: torch.isin(targets, torch.tensor(classes, device=targets.device))

    def block_step(self, depth: int) -> Step:
        """Return the step that trains block ``depth`` and its classifier; the blocks before it leave no graph."""

        def step(net: nn.Module, batch: Batch, update: Update) -> Tensor:
            with torch.no_grad():
                x = net.spikes(self.encode(batch.inputs), depth)
            logits = net.classifiers[depth](features(net.blocks[depth](x)))
            loss = self.loss(logits, self.places(net, depth, batch.targets))
            update.minimise(loss)
            return loss

        return step

    @staticmethod
    def places(net: BlockNet, depth: int, targets: Tensor) -> Tensor:
        """Return where the classes ``targets [B]`` stand in the answers of block ``depth``'s classifier; -1 for those it does not know."""
        place = torch.full((net.labels,), -1, device=targets.device)
        place[list(net.classes[depth])] = torch.arange(len(net.classes[depth]), device=place.device)
        return place[targets]

    def easy_per_hard(self, classes: tuple[int, ...], hard: tuple[int, ...]) -> float:
        """Return how many training samples of ``classes`` are easy for each one whose class is in ``hard``."""
        targets = labels_of(self.task.split("train"))
        positive = int(self.labelled(hard)(targets).sum())
        return (int(self.labelled(classes)(targets).sum()) - positive) / max(positive, 1)

    def detector_step(self, depth: int, hard: tuple[int, ...], ratio: float) -> Step:
        """Return the step that trains the detector of block ``depth`` to find samples of the classes ``hard``, weighted by ``ratio``."""
        is_hard = self.labelled(hard)

        def step(net: nn.Module, batch: Batch, update: Update) -> Tensor:
            with torch.no_grad():
                found = features(net.spikes(self.encode(batch.inputs), depth + 1))
            logit = net.detectors[depth](found)[:, 0]
            weight = torch.tensor(ratio, device=logit.device)
            loss = F.binary_cross_entropy_with_logits(logit, is_hard(batch.targets).to(logit.dtype), pos_weight=weight)
            update.minimise(loss)
            return loss

        return step

    def class_accuracy(self, net: BlockNet, depth: int) -> dict[int, float]:
        """Return the accuracy of block ``depth``'s own classifier by class on the validation split; 0, hence hard, without samples."""
        course, targets = self.course(net, "validation")
        return accuracy_by_class(course.own[depth], targets, net.classes[depth])

    def predict(self, net: nn.Module, inputs: Tensor) -> Prediction:
        """Return ``log P`` as of every step through the blocks trained so far; a sample that leaves early goes no deeper.

        All samples use all time steps: the exit is in depth, ``extra["exit_block"]`` (from 1).
        """
        o = self.options
        probability, left = net.answer(self.encode(inputs), *self.thresholds(net), o.exit, o.combine)
        prediction = Prediction.at_every_step(log_of(probability))
        prediction.extra["exit_block"] = left + 1
        return prediction

    def thresholds(self, net: BlockNet) -> tuple[float, float]:
        """Return the thresholds of classifiers and detectors: those chosen by training, else those given."""
        return net.thresholds or (self.options.t_cls, self.options.t_hcd)

    @torch.no_grad()
    def course(self, net: BlockNet, split: Split) -> tuple[Course, Tensor]:
        """Return what the samples of a split meet in the blocks ``[blocks, N]``, and their classes ``[N]``."""
        net.eval()
        found = [(net.course(self.encode(batch.inputs)), batch.targets) for batch in self.task.batches(split)]
        return Course.join([course for course, _ in found]), torch.cat([targets for _, targets in found])

    def costs(self, net: BlockNet) -> tuple[list[block_costs.BlockCost], block_costs.EndToEndCost]:
        """Return the costs of the blocks, and of the same blocks end to end, by the model."""
        net.eval()
        return block_costs.measure(net.blocks, net.classifiers, net.detectors, self.task.input_shape, self.steps, net.labels)

    def best_thresholds(self, net: BlockNet, held_out: tuple[Course, Tensor]) -> OperatingPoint:
        """Return the thresholds of the highest compute efficiency that cost ``tolerance`` at most on the ``held_out`` samples."""
        blocks, total = self.costs(net)

        def efficiency(exits: Tensor) -> float:
            return block_costs.compute_efficiency(blocks, total, block_costs.reached(exits, len(blocks)))

        return operating_point(*held_out, efficiency, self.options.tolerance)

    def measured(self, net: BlockNet) -> dict[str, Any]:
        """Return what a training step of each block saves and takes, on as many training samples of its classes as a batch has."""
        labels, batches = labels_of(self.task.split("train")), []
        for depth, classes in enumerate(net.classes):
            chosen = self.labelled(classes)(labels).nonzero().flatten()[: self.training.batch_size]
            batch = self.task.gather("train", chosen.cpu())
            batches.append((self.encode(batch.inputs), self.places(net, depth, batch.targets)))
        return measure_training(net, batches, self.loss)

    def recipe(self, task: Task) -> dict[str, Any]:
        """Return the paper's network, by the number of classes, where the images are large enough; the optimiser is ours."""
        net = "resnet11" if task.head.classes >= 100 else "resnet9"
        if len(task.input_shape) != 3 or min(task.input_shape[1:]) >> (len(WIDTHS[net]) + 1) < 1:
            return {"optimizer": "adam", "lr": 1e-2}
        return {"net": net, "blocks": len(WIDTHS[net]), "optimizer": "adam", "lr": 1e-3}

    def report(self, net: nn.Module) -> dict[str, Any]:
        """Return classes of the blocks, their use and answers on the test split, and costs, by the model and measured.

        Per block: ``classes``, held-out accuracy by class (``class_accuracy``). ``operating_point``: test figures with the thresholds that
        the validation split chooses. The others: ``exit_figures``, ``block_costs.summary``, ``measure_training``, ``SpikeDriven``.
        """
        assert isinstance(net, BlockNet)
        training, (blocks, total) = self.training, self.costs(net)
        copies = 2 if training.optimizer != "sgd" else int(training.momentum > 0)
        with SpikeDriven(net.blocks) as counter:
            course, targets = self.course(net, "test")

        def figures(t_cls: float, t_hcd: float) -> dict[str, Any]:
            exits = course.exits(t_cls, t_hcd)
            spikes = counter.end_to_end(net.labels).mean() / counter.block_wise(net.outputs(), exits).mean()
            return {
                **exit_figures(net, course, targets, exits),
                **block_costs.summary(blocks, total, exits, training.batch_size, self.steps, copies),
                "compute_efficiency_spikes": spikes.item(),
            }

        held_out = self.course(net, "validation")
        point = self.best_thresholds(net, held_out)
        chosen = figures(point.t_cls, point.t_hcd)
        shown = ("accuracy_exit", "reached", "compute_efficiency_dense", "compute_efficiency_spikes")
        return {
            **super().report(net),
            "classes": [list(classes) for classes in net.classes],
            "class_accuracy": [named(accuracy_by_class(own, held_out[1], k)) for own, k in zip(held_out[0].own, net.classes, strict=True)],
            **figures(*self.thresholds(net)),
            "operating_point": {**asdict(point), **{name: chosen[name] for name in shown}},
            **self.measured(net),
        }
