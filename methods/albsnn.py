"""ALBSNN: only the layers whose binarisation costs least accuracy are binarised, as an estimator says while the network trains.

With ``W`` the latent weight of a layer, n its size, ``B = alpha sign(W)`` and ``g`` the gradient at the weight in use::

    A = |sum g (B - W)|, smoothed       loss error (methods/nn/accuracy_loss.py);   eps = ||W - B||^2 / ||W||^2   weight error
    score = A / n  (score=loss)         predicted loss per weight saved;            score = eps  (score=eps)

Before every epoch between ``warmup`` and ``freeze`` (shares of training) layers are binarised in ascending order of the score, until the
weights take at most ``1 - target`` of their bits (methods/nn/binary_choice.py). Then the set stays, as normalisation has to settle. The
first synapse and the read-out stay in full precision. After training the binarised layers hold signs and alphas only
(methods/nn/local_binary.py), and that is what is tested. Neurons: ``u[t] = leak u[t-1] (1 - s[t-1]) + x[t]``, ``s = 1[u >= 0.5]``,
``ds/du = 1[|u - 0.5| < 0.5]``; T = 1 unless the data have time. Images are classified by a 3x3 convolution to the classes and the mean
over positions (``head=gap``). ``bwo`` (the journal version) flips stored signs, where the loss of the training set falls, whenever the
validation loss has not improved for 3 epochs after ``freeze``, and when training is over (methods/nn/sign_flips.py).

``select=none`` (full precision), ``all`` (every layer binary from the start, first synapse and read-out too), ``random`` and ``largest``
(as many layers as reach ``target``, in random order or largest first, from ``warmup`` on) are the baselines; none of them pays for the
estimator, which works until ``freeze`` only. By loss, layers take turns until then: on static/digits (smoke budget, one seed) A of a layer
was 3.6 to 7.8 times as large while it was binarised as at the choices before and after, so that the next choice was another. ::

    spikebench run -t static/digits -m "albsnn,albsnn[select=none],albsnn[select=all]"
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from harness import plugin
from harness.method import Phase, Update
from harness.plugin import Card, Claim, UnfitError, UsageError
from harness.task import Batch, Split, Task
from methods.base import SpikingMethod
from methods.nn import heads
from methods.nn.gap_head import GapHead
from methods.nn.layer_choice import LayerChoice
from methods.nn.local_binary import (
    LocalBinary,
    LocalBinaryConv2d,
    LocalBinaryDelayLine,
    LocalBinaryLinear,
    local_binary_layers,
    weight_error,
    weights_in_use,
)
from methods.nn.neuron import LIF
from methods.nn.norm import BatchNorm
from methods.nn.sign_flips import Flips, optimise_signs
from methods.nn.surrogate import Rectangle
from methods.nn.vgg import Plan, Vgg

NETS: dict[str, Plan] = {"fashion": (64, 64, "P", 128, 128, "P", 256), "cifar": (128, 128, "P", 256, 256, "P", 512, 512)}
STALLED = 3  # epochs without a better validation loss
PREPRINT, JOURNAL = "preprint, T=1, without BWO; widths not found", "journal version, T=1, with BWO (bwo=true); widths not found"


class Albsnn(SpikingMethod):
    """Adaptive local binarisation."""

    card = Card(
        name="albsnn",
        title="ALBSNN: ultra-low latency adaptive local binary spiking neural network with accuracy loss estimator",
        authors="Pei, Xu, Wu, Liu, Yang",
        venue="Frontiers in Neuroscience 17:1225871 (preprint arXiv 2208.00398)",
        year=2023,
        family="quantised",
        summary="Binarise only the layers where an estimator predicts least loss of accuracy, so that weights take less storage.",
        compared_with=("stbp", "ann"),  # and its own select=none, all, random, largest
        baseline="albsnn[select=none]",
        claims=(
            Claim(
                "test_accuracy",
                "property",
                None,
                "any",
                "equal to that in full precision with over 20 % less storage",
                "abstracts",
                against="albsnn[select=none]",
                expect="not lower",
            ),
            Claim("test_accuracy", "value", 0.9292, "static/fashion-mnist", PREPRINT, "abstract of the preprint"),
            Claim("test_accuracy", "value", 0.9163, "static/cifar10", PREPRINT, "abstract of the preprint"),
            Claim("test_accuracy", "value", 0.6354, "static/cifar100", PREPRINT, "abstract of the preprint"),
            Claim(
                "test_accuracy",
                "value",
                0.9339,
                "static/fashion-mnist",
                JOURNAL,
                "abstract of the journal version",
                variant="albsnn[bwo=true]",
            ),
            Claim(
                "test_accuracy", "value", 0.9212, "static/cifar10", JOURNAL, "abstract of the journal version", variant="albsnn[bwo=true]"
            ),
            Claim(
                "test_accuracy", "value", 0.6955, "static/cifar100", JOURNAL, "abstract of the journal version", variant="albsnn[bwo=true]"
            ),
            Claim("storage_bits", "ratio", 0.8, "any", "over 20 % less storage of weights", "abstracts", "albsnn[select=none]"),
            Claim("steps_used", "property", None, "any", "one time step", "abstracts", expect="equal 1"),
        ),
        reconstructed="no equation of the paper was available: its abstracts fix the parts; estimator, selection, BWO, neuron, widths, "
        "settings, detached reset, detection, segmentation and sequences are ours",
    )

    class Options(plugin.Options):
        """Selection, binary weight optimisation and network."""

        select: Literal["adaptive", "all", "none", "random", "largest"] = Field(
            "adaptive", description="layers to binarise: by the estimator; baselines: every one, none, any, largest first"
        )
        score: Literal["loss", "eps"] = Field("loss", description="adaptive: predicted loss per weight saved, or error of the weight")
        target: float = Field(0.2, description="fraction of the storage of weights to be saved", ge=0, le=1)
        tau_acc: float | None = Field(None, description="adaptive: stop before a layer whose predicted loss error exceeds this", ge=0)
        warmup: float = Field(0.1, description="share of the epochs before the first selection", ge=0, lt=1)
        freeze: float = Field(0.6, description="share of the epochs after which the selection stays", ge=0, le=1)
        bwo: bool = Field(False, description="flip stored signs once training stalls (journal version)")
        bwo_share: float = Field(1e-3, description="bwo: share of a layer's signs that a round flips", gt=0, le=1)
        bwo_rounds: int = Field(20, description="bwo: most rounds at a time; 5 rejected ones end it before", ge=1)
        head: Literal["auto", "gap", "linear"] = Field(
            "auto", description="read-out: global average pooling, or fully connected; auto: gap for classes of images, else the suite's"
        )
        net: Literal["task", "fashion", "cifar"] = Field("task", description="the task's backbone, or a network of the card")
        leak: float = Field(0.5, description="fraction of the membrane potential kept per step (lambda)", ge=0, le=1)
        threshold: float = Field(0.5, description="firing threshold (theta)", gt=0)

    options: Options

    def __init__(self, task: Task, *args: Any, **kwargs: Any) -> None:
        """Bind to a task; raise UsageError for options that contradict each other, UnfitError for a head or net it has no use for."""
        super().__init__(task, *args, **kwargs)
        o, images = self.options, len(task.input_shape) == 3
        self.threshold = o.threshold
        if o.freeze < o.warmup:
            raise UsageError(f"albsnn: freeze = {o.freeze} is before warmup = {o.warmup}; allowed: {o.warmup} to 1")
        if o.bwo and o.select == "none":
            raise UsageError("albsnn: bwo = true needs binarised layers, and select = 'none' has none; use another select")
        places = task.head.kind in ("detect", "segment")
        if (o.head != "auto" and places) or (o.head == "gap" and not images):
            reason = "which answers at every place" if places else f"whose samples {list(task.input_shape)} have no places to average"
            raise UnfitError(f"albsnn: head = {o.head!r} has no use in {task.name}, {reason}; use head = 'auto'")
        if o.net != "task" and (not images or not {2, 4}.issuperset(task.head.strides)):
            raise UnfitError(f"albsnn: net = {o.net!r} is for images and features at strides 2 and 4, not {task.name}; use net = 'task'")
        self.gap = o.head == "gap" or (o.head == "auto" and images and not places)
        if self.gap and self.training.batch_size == 1:
            task.warnings.append("albsnn: with batches of one sample head = 'gap' answers its biases alone; use head = 'linear'")
        self._begin({})

    def _begin(self, layers: dict[str, LocalBinary]) -> None:
        """Forget what an earlier training left; the baselines have an order of their own, or no choice."""
        o = self.options
        by: Any = o.score
        if o.select == "random":
            by = dict(zip(layers, torch.randperm(len(layers)).tolist(), strict=True))
        elif o.select == "largest":
            by = {name: -layer.weight.numel() for name, layer in layers.items()}
        chooses = o.select not in ("all", "none")
        limit = o.tau_acc if o.select == "adaptive" else None
        self.layers, self.weight_errors = layers, dict[str, float]()
        self.choice = LayerChoice(layers if chooses else {}, by, o.target, limit, o.warmup, o.freeze)
        self.flips: list[Flips] = []
        self.best, self.stale = math.inf, 0  # validation loss since the choice stays, and epochs without a better one

    def time_steps(self, task: Task, asked: int | None) -> int:
        """Return the data's own T, or for static data 1 unless more are asked for."""
        return task.steps if task.temporal else (asked or 1)

    # Parts ----------------------------------------------------------------------------------------------------------

    def neuron(self, features: int) -> nn.Module:
        """Return LIF neurons with hard reset, from zero, and the box as surrogate."""
        return LIF(self.options.leak, self.threshold, surrogate=Rectangle(1.0))

    def norm(self, features: int, scale: float = 1.0) -> nn.Module:
        """Return ordinary batch normalisation."""
        return BatchNorm(features, scale)

    def conv(self, features_in: int, features_out: int, kernel: int, stride: int = 1, first: bool = False) -> nn.Module:
        """Return a convolution that can be binarised, and may be unless it is the first."""
        synapse = LocalBinaryConv2d(features_in, features_out, kernel, stride=stride, padding=kernel // 2, bias=False)
        return self._prepared(synapse, protected=first)

    def delay_line(self, features_in: int, features_out: int, taps: int, dilation: int, first: bool = False) -> nn.Module:
        """Return a synapse with delays that can be binarised, and may be unless it is the first."""
        line = LocalBinaryDelayLine(features_in, features_out, taps, dilation, bias=False)
        self._prepared(line.conv, protected=first)
        return line

    def readout(self, features_in: int, features_out: int) -> nn.Module:
        """Return a linear read-out, which is not to be chosen."""
        return self._prepared(LocalBinaryLinear(features_in, features_out), protected=True)

    def readout_conv(self, features_in: int, features_out: int) -> nn.Module:
        """Return the read-out at every location, which is not to be chosen."""
        return self._prepared(LocalBinaryConv2d(features_in, features_out, 1), protected=True)

    def _prepared(self, synapse: LocalBinary, protected: bool) -> LocalBinary:
        synapse.protected, synapse.binary = protected, self.options.select == "all"
        return synapse

    def backbone(self) -> nn.Module:
        """Return the task's reference backbone or a network of the card."""
        return super().backbone() if self.options.net == "task" else Vgg(self.task.input_shape, NETS[self.options.net], self)

    def build(self) -> nn.Module:
        """Return backbone and head."""
        if not self.gap:
            return super().build()
        backbone, classes = self.backbone(), self.task.head.classes
        synapse = self.conv(backbone.levels[-1].channels, classes, 3, first=True)
        net = heads.Network(backbone, GapHead(synapse, self.norm(classes)))
        return net.to(memory_format=torch.channels_last) if self.task.device.type == "cpu" else net

    # Training -------------------------------------------------------------------------------------------------------

    def phases(self, net: nn.Module) -> Iterator[Phase]:
        """Train, selecting before epochs; flip signs if asked for; then keep signs and alphas only."""
        self._begin(local_binary_layers(net))
        groups = self.groups(net)
        yield Phase(parameters=groups, on_epoch=lambda epoch, epochs: self._before(net, groups, epoch, epochs))
        if self.options.bwo:
            self._flip(net)
        self.weight_errors = {name: weight_error(layer.weight).item() for name, layer in self.layers.items()}
        for layer in self.layers.values():
            layer.store()

    def groups(self, net: nn.Module) -> list[dict[str, Any]]:
        """Return the parameters; where weights decay, those of each layer apart, as those that are binarised do not."""
        if not self.training.weight_decay:
            return [{"params": list(net.parameters())}]
        own = [layer.weight for layer in self.layers.values()]
        known = set(map(id, own))
        groups = [{"params": [weight]} for weight in own] + [{"params": [p for p in net.parameters() if id(p) not in known]}]
        self._set_decay(groups)
        return groups

    def _set_decay(self, groups: list[dict[str, Any]]) -> None:
        """Let the weights of full precision decay and no others; the optimiser works with these very groups."""
        decay = self.training.weight_decay
        if decay:
            for layer, group in zip(self.layers.values(), groups, strict=False):
                group["weight_decay"] = 0.0 if layer.binary else decay

    def step(self, net: nn.Module, batch: Batch, update: Update) -> Tensor:
        """Back-propagate the loss of the final answer; the estimator looks at the gradients before they are applied."""
        estimator = self.choice.estimator
        if estimator is None:
            return super().step(net, batch, update)
        with weights_in_use(estimator.layers.values()) as used:
            loss = self.loss(self.task.final(net(self.encode(batch.inputs))), batch.targets)
        for tensor in (loss, *used.values()):
            tensor.retain_grad()
        update.zero_grad()
        update.backward(loss)
        estimator.observe(used, loss.grad)
        update.apply()
        return loss

    def _before(self, net: nn.Module, groups: list[dict[str, Any]], epoch: int, epochs: int) -> None:
        """Choose the layers; once the choice stays, look whether training stalls."""
        stays = self.choice.before(epoch, epochs)
        self._set_decay(groups)
        if self.options.bwo and stays:
            self._look_for_a_stall(net)

    def _look_for_a_stall(self, net: nn.Module) -> None:
        net.eval()
        with torch.no_grad():
            found = [(loss.item() * count, count) for loss, count in self._losses(net, "validation")]
        loss = sum(part for part, _ in found) / sum(count for _, count in found)
        self.best, self.stale = (loss, 0) if loss < self.best else (self.best, self.stale + 1)
        if self.stale >= STALLED:
            self._flip(net)
            self.stale = 0

    def _flip(self, net: nn.Module) -> None:
        net.eval()
        binary = [layer for layer in self.layers.values() if layer.binary]
        o = self.options
        self.flips.append(optimise_signs(binary, lambda: self._losses(net, "train"), o.bwo_share, rounds=o.bwo_rounds))

    def _losses(self, net: nn.Module, split: Split) -> Iterator[tuple[Tensor, int]]:
        for batch in self.task.batches(split, self.training.batch_size):
            yield self.loss(self.task.final(net(self.encode(batch.inputs))), batch.targets), len(batch.inputs)

    def recipe(self, task: Task) -> dict[str, Any]:
        """Return the settings of the card, with a net of its where images are classified; bwo=true is the journal version."""
        small = task.input_shape[0] == 1
        fits = task.head.kind == "classify" and len(task.input_shape) == 3 and min(task.input_shape[1:]) >= 16
        settings = {"optimizer": "adam", "lr": 1e-3, "schedule": "cosine", "weight_decay": 0.0, "batch_size": 128, "steps": 1}
        return settings | {"epochs": 100 if small else 200, "net": ("fashion" if small else "cifar") if fits else "task"}

    # Figures --------------------------------------------------------------------------------------------------------

    def report(self, net: nn.Module) -> dict[str, Any]:
        """Return the storage of the weights of synapses, measured in the tensors that are held, and how layers were chosen.

        ``storage_bits``, by layer ``layer_bits``; ``storage_bits_full``: 32 per weight; ``storage_reduction``: 1 less their ratio;
        ``binarised``: names; ``chosen_by_epoch`` and ``loss_error_by_epoch`` (A): before these epochs; ``weight_error`` (eps): of the
        (latent) weights at the end. With bwo ``flips``: for each time, rounds, signs flipped, and losses of the training set.
        """
        layers = local_binary_layers(net)
        bits = {name: layer.stored_bits() for name, layer in layers.items()}
        full = sum(layer.bits(False) for layer in layers.values())
        found = {
            **super().report(net),
            "storage_bits": sum(bits.values()),
            "storage_bits_full": full,
            "storage_reduction": 1 - sum(bits.values()) / full,
            "layer_bits": bits,
            "binarised": [name for name, layer in layers.items() if layer.stored],
            "chosen_by_epoch": {str(epoch): names for epoch, names in self.choice.chosen.items()},
            "loss_error_by_epoch": {str(epoch): errors for epoch, errors in self.choice.errors.items()},
            "weight_error": self.weight_errors,
        }
        return found | ({"flips": [vars(flips) for flips in self.flips]} if self.options.bwo else {})
