"""BlocTrain: train a network block by block, deeper blocks on hard classes only, and let easy inputs leave early.

Only one block is unrolled in time at once, which is where memory is saved. For each block b, with classes ``K_b`` (all of them at first)::

    1  earlier blocks are frozen (eval mode, no graph); their spikes are the input
    2  train block b and its classifier on samples with a label in K_b: cross-entropy of a linear map of the features' mean over time
    3  acc_b(c) on the validation split; hard classes K_{b+1} = { c : acc_b(c) < theta }, theta their mean or fixed, at least 2
    4  train the hard-class detector: a logistic regression of "label in K_{b+1}", the positive class weighted by the class ratio

Inference by the chain rule with early exit: ``methods/nn/conditional.py``. Neurons: LIF, leak 0.9, threshold 1, soft reset kept out of the
gradient, arctan surrogate (alpha 2). Blocks: the layers of the matched network, cut into ``blocks`` groups. Every block is trained for as
many epochs as the end-to-end baseline. Only abstract and outline of the paper could be read; steps 2 to 4 and all numbers are ours.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from harness import plugin
from harness.method import Phase, Prediction, Step, Update
from harness.plugin import Card, Claim, UsageError
from harness.task import Batch
from methods.base import SpikingMethod
from methods.nn import block_costs
from methods.nn.conditional import BlockNet, cut, features, hard_classes, log_of
from methods.nn.neuron import LIF
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
        baseline="stbp",
        claims=(
            Claim("saved_bytes", "ratio", 1 / 2.95, "static/cifar10", f"{NET}; training memory, 'up to'", PAPER, "stbp"),
            Claim("synops", "ratio", 1 / 1.89, "static/cifar10", f"{NET}; operations per inference with early exit", PAPER, "stbp"),
            Claim("parameters", "ratio", 1.45, "static/cifar10", f"{NET}; memory overhead, mainly classifier weights", PAPER, "stbp"),
            Claim("test_accuracy", "value", 0.864, "static/cifar10", NET, PAPER),
            Claim("test_accuracy", "value", 0.5821, "static/cifar100", "ResNet-11 SNN in 4 blocks", PAPER),
        ),
        reconstructed="all but: blocks with classifiers trained in turn, hard classes by class-wise accuracy, detectors, early exit",
    )
    heads = ("classify",)
    cannot = {
        "detection": "hard classes and early exit need one class per sample",
        "sequences": "the blocks are cut from a network of images; the reference network of sequences has no stages to cut",
    }

    class Options(plugin.Options):
        """Cut, split and exit rule; all defaults are ours."""

        blocks: int = Field(3, description="blocks that the layers of the network are cut into (B)", ge=1)
        theta: Literal["dynamic"] | Annotated[float, Field(ge=0, le=1)] = Field(
            "dynamic", description="class-wise accuracy below which a class is hard; dynamic: the mean"
        )
        exit: bool = Field(True, description="let easy samples leave early; False: every sample passes all blocks")
        t_cls: float = Field(0.8, description="confidence of the classifier from which a sample may leave", ge=0)
        t_hcd: float = Field(0.5, description="detector's probability of a hard class below which a sample may leave", ge=0, le=1)
        hcd_epochs: int | None = Field(None, description="epochs of training a detector; None: as many as a block", ge=1)
        hcd_prior: Literal["balanced", "training"] = Field(
            "balanced",
            description="shares of hard classes that a detector's probability refers to: one half, as it is trained, or the training set's",
        )

    options: Options

    def neuron(self, features: int) -> nn.Module:
        """Return LIF neurons with leak 0.9 and detached soft reset."""
        return LIF(0.9, self.threshold, "soft", surrogate=Arctan(2.0))

    def build(self) -> nn.Module:
        """Return the blocks of the reference network, the first with a classifier; raise UsageError if it has too few layers."""
        try:
            blocks = cut(self.backbone().stages, self.options.blocks)
        except ValueError as error:
            raise UsageError(f"bloctrain: {error}") from None
        sizes, x = [], torch.zeros(1, 1, *self.task.input_shape)
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
                return
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
            place = torch.full((net.labels,), -1, device=batch.targets.device)
            place[list(net.classes[depth])] = torch.arange(len(net.classes[depth]), device=place.device)
            loss = self.loss(logits, place[batch.targets])
            update.minimise(loss)
            return loss

        return step

    def easy_per_hard(self, classes: tuple[int, ...], hard: tuple[int, ...]) -> float:
        """Return how many training samples of ``classes`` are easy for each one whose class is in ``hard``."""
        targets = self.task.split("train").targets
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

    def class_accuracy(self, net: nn.Module, depth: int) -> dict[int, float]:
        """Return the accuracy of block ``depth``'s own classifier for each class it knows, on the validation split.

        A class without validation samples has accuracy 0: it counts as hard.
        """
        net.eval()
        classes = torch.tensor(net.classes[depth], device=self.task.device)
        right = dict.fromkeys(net.classes[depth], 0)
        seen = dict.fromkeys(net.classes[depth], 0)
        with torch.no_grad():
            for batch in self.task.batches("validation"):
                answers = classes[net.classifiers[depth](features(net.spikes(self.encode(batch.inputs), depth + 1))).argmax(1)]
                for label in right:
                    own = batch.targets == label
                    seen[label] += int(own.sum())
                    right[label] += int((answers[own] == label).sum())
        return {label: right[label] / max(seen[label], 1) for label in right}

    def predict(self, net: nn.Module, inputs: Tensor) -> Prediction:
        """Return ``log P`` as of every step through the blocks trained so far; a sample that leaves early goes no deeper.

        All samples use all time steps: the exit is in depth, ``extra["exit_block"]`` (from 1).
        """
        o = self.options
        probability, left = net.answer(self.encode(inputs), o.t_cls, o.t_hcd, o.exit)
        prediction = Prediction.at_every_step(log_of(probability))
        prediction.extra["exit_block"] = left + 1
        return prediction

    def report(self, net: nn.Module) -> dict[str, Any]:
        """Return hard classes, use of the blocks and accuracy with and without exit on the test split, and the model of costs."""
        net.eval()
        o, training = self.options, self.training
        exits: list[int] = []
        right = {True: 0, False: 0}
        with torch.no_grad():
            for batch in self.task.batches("test"):
                x = self.encode(batch.inputs)
                for early in right:
                    probability, left = net.answer(x, o.t_cls, o.t_hcd, early)
                    right[early] += int((probability[-1].argmax(1) == batch.targets).sum())
                    if early:
                        exits += left.tolist()
        copies = 2 if training.optimizer != "sgd" else int(training.momentum > 0)
        blocks, total = block_costs.measure(net.blocks, net.classifiers, net.detectors, self.task.input_shape, self.steps, net.labels)
        return {
            **super().report(net),
            "classes": [list(classes) for classes in net.classes],
            "accuracy_exit": right[True] / len(exits),
            "accuracy_no_exit": right[False] / len(exits),
            **block_costs.summary(blocks, total, exits, training.batch_size, self.steps, copies),
        }
