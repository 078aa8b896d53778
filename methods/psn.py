"""PSN: neurons without reset, whose potentials at all steps are one learnable linear map of the input currents.

Variants (``methods/nn/psn.py`` has the equations): ``psn`` has a T x T matrix per layer and uses the future; ``masked`` anneals it to a
causal band of ``order`` inputs, with ``lam = min(8 * epoch / (epochs - 1), 1)``, after which it can run step by step; ``sliding`` shares
one kernel of ``order`` weights over time and takes any length. Everything else is the suite's STBP network, trained by back-propagation.

The neuron is tied to T (psn, masked). Of variant ``psn`` the answers at steps before the last are not causal: they are read-outs of a run
that has already seen all inputs, so its accuracy-versus-time curve is no anytime accuracy (``report``: ``causal``).

Baselines in the same network, with the same surrogate and threshold (tau = 2)::

    lif           h = v + (I - v) / tau,  s = H(h - 1),  v = h (1 - s), the reset detached
    plif          the same, 1 / tau = sigmoid(w) learnt per layer
    lif_no_reset  the same as lif, v = h: a PSN of fixed weights, computed step by step

Networks of the paper (``net``): ``columns``, 1-d convolutions for images that come by columns, the answer a mean over time; ``cifar``,
six convolutions and two poolings, a hidden layer; ``vgg``, for CIFAR10-DVS; ``18`` and ``34``, SEW ResNets with ADD for ImageNet, whose
training begins with the weights of the same network with ReLUs (``ann_share``). ``tet``: the mean of the losses at each step.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from functools import partial
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from harness import plugin
from harness.method import Phase, Prediction, Update
from harness.plugin import Card, Claim, UnfitError, UsageError
from harness.task import Batch, Task
from methods.base import SpikingMethod
from methods.nn.column_net import ColumnNet
from methods.nn.neuron import LIF
from methods.nn.psn import PSN, MaskedPSN, ParallelNeuron, SlidingPSN
from methods.nn.residual import DEPTHS, DeepResNet, ResidualBlock
from methods.nn.running_mean import RunningMean
from methods.nn.scoring import score
from methods.nn.stepping import stepping
from methods.nn.surrogate import Arctan
from methods.nn.synapse import Linear
from methods.nn.tet import tet
from methods.nn.vgg import Plan, Vgg

LOGS = "training logs in the official repository, best test accuracy"
COLUMNS = "columns of the image as time, T=32, 128 channels"
DIGEST = "digest of a later paper"
VGG: Plan = (64, 128, "P", 256, 256, "P", 512, 512, "P", 512, 512, "P")
WIDTHS = {"columns": 128, "cifar": 256}  # channels of each layer
COLUMN_TASKS = ("sequences/scifar10", "sequences/scifar10-jpeg", "sequences/mnist-rows")
HORIZONS = (2, 4, 8, 16, 32, 64)  # steps for which the report says how many parameters a layer would have


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
        compared_with=("stbp",),  # and its own variant=lif, plif, lif_no_reset
        baseline="psn[variant=lif]",
        claims=(
            *(
                Claim(metric, "value", figure, task, setting, source, networks=(f"net={net}",), variant=options and f"psn[{options}]")
                for metric, figure, task, setting, source, net, options in (
                    ("test_accuracy", 0.8845, "sequences/scifar10", f"PSN, {COLUMNS}", LOGS, "columns", ""),
                    ("test_accuracy", 0.8670, "sequences/scifar10", f"sliding PSN, k=32, {COLUMNS}", LOGS, "columns", "variant=sliding"),
                    ("test_accuracy", 0.8581, "sequences/scifar10", f"masked PSN, k=32, {COLUMNS}", LOGS, "columns", "variant=masked"),
                    ("firing_rate", 0.214, "sequences/scifar10", f"PSN, {COLUMNS}", DIGEST, "columns", ""),
                    ("firing_rate", 0.182, "sequences/scifar10", f"sliding PSN, k=32, {COLUMNS}", DIGEST, "columns", "variant=sliding"),
                    ("test_accuracy", 0.9532, "static/cifar10", "PSN, 256 channels, T=4", LOGS, "cifar", ""),
                    ("test_accuracy", 0.7054, "static/imagenet", "SEW ResNet-34, T=4, from ANN weights", LOGS, "34", ""),
                    ("test_accuracy", 0.6763, "static/imagenet", "SEW ResNet-18, T=4, from ANN weights", LOGS, "18", ""),
                    ("test_accuracy", 0.823, "events/cifar10-dvs", "VGG, sliding PSN, k=2, T=4", LOGS, "vgg", "order=2,variant=sliding"),
                    ("test_accuracy", 0.853, "events/cifar10-dvs", "VGG, sliding PSN, k=2, T=8", LOGS, "vgg", "order=2,variant=sliding"),
                    ("test_accuracy", 0.859, "events/cifar10-dvs", "VGG, sliding PSN, k=2, T=10", LOGS, "vgg", "order=2,variant=sliding"),
                )
            ),
            Claim(
                "test_accuracy",
                "difference",
                0.0695,
                "sequences/scifar10",
                f"PSN minus LIF (0.8150), {COLUMNS}",
                LOGS,
                against="psn[variant=lif]",
                instead="stbp",
                networks=("net=columns",),
            ),
            Claim(
                "step_time",
                "property",
                None,
                "any",
                "lower than that of LIF loops, the more so the longer T",
                "abstract",
                against="psn[variant=lif]",
                instead="stbp",
                expect="lower",
            ),
        ),
        reconstructed="behaviour for a single epoch (lam = 1); order is cut to T where the card's 32 does not fit; channels of the VGG; "
        "ann_share, which trains the network with ReLUs where the paper took published weights; TET of ImageNet has no squared error; "
        "frames of CIFAR10-DVS keep the task's size; mixup, cutmix, random erasing and TrivialAugment of the recipes are not there",
    )

    heads = ("classify", "detect", "segment", "regress", "per_step")

    class Options(plugin.Options):
        """Variant of the neuron, network and loss."""

        variant: Literal["psn", "masked", "sliding", "lif", "plif", "lif_no_reset"] = Field(
            "psn", description="full matrix, causal band, or one kernel over time; lif, plif and lif_no_reset are baselines"
        )
        order: int = Field(32, description="past inputs that masked and sliding neurons see (k), the present one included", ge=1)
        backend: Literal["gemm", "conv"] = Field("gemm", description="how sliding neurons are computed: matrix product, or convolution")
        exp_init: bool = Field(True, description="sliding: start at ..., 1/4, 1/2, 1 rather than Kaiming uniform")
        net: Literal["budget", "columns", "cifar", "vgg", "18", "34"] = Field(
            "budget", description="the task's network, or one of the paper's"
        )
        width: int | None = Field(None, description="channels of net=columns and net=cifar; None: the paper's 128 and 256", ge=4)
        tet: bool = Field(False, description="train on the mean of the losses at each step, not on the loss of the mean")
        tet_share: float = Field(0.001, description="weight of the squared error of answers to 1 that goes with tet", ge=0, le=1)
        ann_share: float = Field(0.0, description="epochs with ReLUs for neurons before training, as a share of the epochs", ge=0)

    options: Options

    def __init__(self, task: Task, *args: Any, **kwargs: Any) -> None:
        """Bind to a task; raise UsageError for options that contradict each other or the task."""
        super().__init__(task, *args, **kwargs)
        o = self.options
        space = len(task.input_shape) == 3
        if o.net != "budget" and space == (o.net == "columns"):
            kind, allowed = ("a vector per step", "cifar, vgg, 18, 34") if space else ("images", "columns")
            raise UnfitError(f"psn: net={o.net} is for {kind}, {task.card.name} has {list(task.input_shape)}; allowed: budget, {allowed}")
        if o.width is not None and o.net not in WIDTHS:
            raise UsageError(f"psn: width is of net=columns and net=cifar, not of net={o.net}")
        if o.tet and (task.head.kind != "classify" or task.readout != "mean"):
            raise UnfitError(f"psn: tet asks for one class per sample and the mean over time; {task.card.name} has other answers")
        if task.head.kind == "per_step" and o.variant in ("psn", "masked"):
            why = f"{task.name} asks for an answer at every step, and variant={o.variant} would have seen the steps to come"
            raise UnfitError(f"psn: {why}; allowed: sliding, lif, plif, lif_no_reset")
        if o.ann_share and o.variant not in ("psn", "masked", "sliding"):
            raise UsageError(f"psn: ann_share is for parallel neurons, not for variant={o.variant}; allowed: psn, masked, sliding")

    # Parts ----------------------------------------------------------------------------------------------------------

    def neuron(self, features: int) -> nn.Module:
        """Return the neurons of a layer, made for the method's number of steps."""
        return self.neuron_for(self.steps)

    def neuron_for(self, steps: int) -> nn.Module:
        """Return the neurons of a layer of a network of ``steps`` time steps."""
        o = self.options
        if o.variant == "psn":
            return PSN(steps)
        if o.variant == "masked":
            return MaskedPSN(steps, min(o.order, steps))
        if o.variant == "sliding":
            return SlidingPSN(min(o.order, steps), o.backend, o.exp_init)
        reset: Literal["none", "hard"] = "none" if o.variant == "lif_no_reset" else "hard"
        return LIF(0.5, self.threshold, reset, surrogate=Arctan(2.0), scale_input=True, learnable_leak=o.variant == "plif")

    def readout(self, features_in: int, features_out: int) -> nn.Module:
        """Return the linear read-out; in nets of columns and CIFAR with a hidden layer, the former with a mean over time."""
        if self.options.net not in WIDTHS:
            return super().readout(features_in, features_out)
        hidden = max(1, features_in // 4)
        mean = [RunningMean()] if self.options.net == "columns" and self.task.readout == "last" else []
        return nn.Sequential(Linear(features_in, hidden), self.neuron(hidden), Linear(hidden, features_out), *mean)

    def backbone(self) -> nn.Module:
        """Return the network that ``net`` names; raise UsageError for inputs that are too small for it."""
        net, shape = self.options.net, self.task.input_shape
        width = self.options.width or WIDTHS.get(net, 0)
        try:
            if net == "columns":
                return ColumnNet(shape, self, width)
            if net in ("cifar", "vgg"):
                return Vgg(shape, VGG if net == "vgg" else (*[width] * 3, "P") * 2, self)
        except ValueError as error:
            raise UsageError(f"psn: net={net}: {error}") from None
        if net in DEPTHS:
            return DeepResNet(shape, DEPTHS[net][0], self, partial(ResidualBlock, parts=self, connect="add"))
        return super().backbone()

    # Training -------------------------------------------------------------------------------------------------------

    def phases(self, net: nn.Module) -> Iterator[Phase]:
        """Yield one phase; masked neurons tighten their mask before every epoch. Before it, with ``ann_share``, one with ReLUs."""
        before = round(self.options.ann_share * self.training.epochs)
        if before:
            for neuron in parallel_neurons(net):
                neuron.rectify = True
            yield Phase("ann", step=self.ann_step, epochs=before, predict=self.ann_predict)
            for neuron in parallel_neurons(net):
                neuron.rectify = False
        masked = [module for module in net.modules() if isinstance(module, MaskedPSN)]

        def tighten(epoch: int, epochs: int) -> None:
            for neuron in masked:
                neuron.lam.fill_(mask_strength(epoch, epochs))

        yield Phase(on_epoch=tighten if masked else None)

    def step(self, net: nn.Module, batch: Batch, update: Update) -> Tensor:
        """Back-propagate the loss of the mean over time, or with ``tet`` the mean over time of the losses, and update."""
        if not self.options.tet:
            return super().step(net, batch, update)
        loss = tet(net(self.encode(batch.inputs)), batch.targets, self.loss, self.options.tet_share)
        update.minimise(loss)
        return loss

    def as_ann(self, inputs: Tensor) -> Tensor:
        """Return what the network sees while its neurons are ReLUs: one step of ``inputs [B, ...]`` that have no time, else all."""
        return self.task.encode(inputs, 1)

    def ann_step(self, net: nn.Module, batch: Batch, update: Update) -> Tensor:
        """Train the network whose neurons are ReLUs."""
        loss = self.loss(self.task.final(net(self.as_ann(batch.inputs))), batch.targets)
        update.minimise(loss)
        return loss

    def ann_predict(self, net: nn.Module, inputs: Tensor) -> Prediction:
        """Answer with the network whose neurons are ReLUs."""
        return Prediction.at_every_step(self.task.answer(net(self.as_ann(inputs))))

    def recipe(self, task: Task) -> dict[str, Any]:
        """Return the settings of the official scripts; the harness has no mixup, cutmix, random erasing or TrivialAugment."""
        common = {"optimizer": "sgd", "lr": 0.1, "momentum": 0.9, "schedule": "cosine", "weight_decay": 0.0}
        suite = task.card.name.split("/")[0]
        if suite == "sequences":
            adamw = {"optimizer": "adamw", "lr": 1e-3} if self.given.get("variant") == "sliding" else {}
            net = {"net": "columns"} if task.card.name in COLUMN_TASKS else {}
            return common | adamw | net | {"batch_size": 128, "epochs": 256, "label_smoothing": 0.1, "augment": True}
        classes = task.head.kind == "classify" and len(task.input_shape) == 3
        if suite == "events":
            net = {"net": "vgg", "tet": True} if classes and min(task.input_shape[1:]) >= 16 else {}
            return common | net | {"variant": "sliding", "order": 2, "batch_size": 32, "epochs": 200, "steps": 10}
        if task.card.name == "static/imagenet":
            net = {"net": "18", "tet": True, "tet_share": 0.0}
            parallel = self.given.get("variant", "psn") in ("psn", "masked", "sliding")
            start = {"ann_share": 90 / 320} if parallel else {}  # 90 epochs are usual for the weights that are published
            return common | net | start | {"batch_size": 64, "epochs": 320, "augment": True, "steps": 4}
        net = {"net": "cifar"} if classes else {}
        return common | net | {"batch_size": 128, "epochs": 1024, "augment": True, "steps": 4}

    # Report ---------------------------------------------------------------------------------------------------------

    def report(self, net: nn.Module) -> dict[str, Any]:
        """Return parameters of the neurons, whether answers are causal, how a serial run agrees, and the metric beyond the trained T.

        ``neuron_parameters``: of each layer; ``neuron_parameters_at``: of one layer, by T. Of causal nets ``serial_difference``, the
        largest difference of an output between a serial and the parallel run, and ``serial_agreement``, the share of equal answers.
        ``metric_beyond``: of sliding neurons on validation samples that have no time of their own, with 2 T steps.
        """
        o, neurons = self.options, parallel_neurons(net)
        masks = [float(neuron.lam) for neuron in neurons if isinstance(neuron, MaskedPSN)]
        causal = o.variant != "psn" and all(lam == 1 for lam in masks)
        with torch.random.fork_rng(devices=[]):  # weights are drawn
            by_steps = {str(steps): count(self.neuron_for(steps)) for steps in HORIZONS}
        found: dict[str, Any] = {
            **super().report(net),
            "neuron_parameters": [count(neuron) for neuron in neurons],
            "neuron_parameters_at": by_steps,
            "causal": int(causal),
        }
        if masks:
            found["lam"] = min(masks)
        net.eval()
        if causal:
            x = self.encode(next(self.task.batches("validation", 64)).inputs)
            with torch.no_grad():
                parallel = net(x)
                with stepping(net):
                    serial = torch.cat([net(x[t : t + 1]) for t in range(len(x))])
            found["serial_difference"] = (serial - parallel).abs().max().item()
            if self.task.head.kind == "classify":
                agree = self.task.answer(serial).argmax(-1) == self.task.answer(parallel).argmax(-1)
                found["serial_agreement"] = agree.double().mean().item()
        if o.variant == "sliding" and not self.task.temporal:
            longer = copy.copy(self)
            longer.steps = 2 * self.steps
            found["metric_beyond"] = score(self.task, "validation", partial(longer.predict, net))[0]
        return found


def parallel_neurons(net: nn.Module) -> list[ParallelNeuron]:
    """Return the layers of parallel neurons of ``net``."""
    return [module for module in net.modules() if isinstance(module, ParallelNeuron)]


def count(module: nn.Module) -> int:
    """Return the number of parameters."""
    return sum(p.numel() for p in module.parameters())
