"""Proxy learning: the error of a spiking network goes back through a ReLU network that shares its weights.

For a batch ``x`` with one-hot classes ``Y [B, K]``, shared weights ``W``::

    O_S = SNN(x; W, T)            spike counts of the output neurons, without a graph
    O_A = ANN(x; W)               one pass of ReLU
    L = mean over B, K of (O_S - Y)^2
    dL/dW = J_A(W)^T dL/dO_S      J_A: Jacobian of O_A; dL/dO_S = 2 (O_S - Y) / (B K)

No surrogate and no back-propagation through time, so memory does not grow with T. In code the loss is that of ``O_A - detach(O_A) + O_S``:
exactly ``O_S`` in value, with the gradient of ``O_A``. Counts are not divided by T: one spike of the right neuron is wanted, none of the
others. Neurons: no leak, threshold 2, hard reset to 0. One set of parameters does both passes (``methods.nn.twin``), with running
statistics of its own for each, which are taken in the first epoch only; affine weights of normalisations go on learning.

The answer is ``counts + 0.001 v``: potentials ``v`` of the output neurons break ties (ours). The last evaluation of the official notebook
takes a sample for right whenever the count of its class equals the largest, so that a silent network is always right; ``report`` has that
figure beside the plain argmax and the share of tied maxima.

Source: "Spiking neural networks trained via proxy" (Kheradpisheh, Mirsadeghi and Masquelier, IEEE Access 10, 2022), abstract and notebook.
Pooling in the matched track is the suite's average pooling; the paper's maximum (of spikes: an OR) is ``pool=max``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from harness import plugin
from harness.method import Phase, Prediction, Update
from harness.plugin import Card, Claim, UnfitError
from harness.task import Batch, Task
from methods.base import SpikingMethod
from methods.nn import heads
from methods.nn.counted_network import CountedNetwork
from methods.nn.neuron import LIF, ReLU
from methods.nn.one_hot import one_hot_error
from methods.nn.proxy_net import ProxyNet
from methods.nn.residual import MaxPool2d
from methods.nn.scoring import score
from methods.nn.synapse import Conv2d, Linear
from methods.nn.twin import TwinBatchNorm, TwinNeuron, analog

SETTLING = 1024  # training images that the statistics of the spiking pass are taken from where training had no spikes


class Proxy(SpikingMethod):
    """A spiking network trained through its ReLU twin."""

    card = Card(
        name="proxy",
        title="Spiking neural networks trained via proxy",
        authors="Kheradpisheh, Mirsadeghi, Masquelier",
        venue="IEEE Access 10:70769-70778",
        year=2022,
        family="ANN-coupled",
        summary="Send the error of a spiking network back through a ReLU network of the same weights, without surrogates or time.",
        compared_with=("stbp", "ann2snn", "ann"),
        baseline="stbp",
        claims=(
            Claim(
                "test_accuracy",
                "value",
                0.9456,
                "static/fashion-mnist",
                "T=15 in the notebook, whose last evaluation counts tied maxima as right; whether this figure does is not known",
                "abstract",
            ),
            Claim("test_accuracy", "value", 0.9311, "static/cifar10", "network and T not found", "abstract"),
            Claim("test_accuracy", "property", None, "any", "higher than by surrogate gradients", "abstract", "stbp", expect="higher"),
            Claim(
                "test_accuracy",
                "property",
                None,
                "any",
                "higher than that of converted networks, in far fewer steps",
                "abstract",
                "ann2snn",
                expect="higher",
            ),
            Claim(
                "saved_bytes",
                "property",
                None,
                "any",
                "constant in T: the spiking pass keeps no graph",
                "ours, exact",
                expect="constant over steps",
                tested="tests/methods/test_proxy.py::test_what_is_saved_for_the_backward_pass_does_not_grow_with_time",
            ),
        ),
        reconstructed="the body of the paper was not found: network and T of CIFAR-10, ties broken by potentials, event frames summed for "
        "the ReLU network, segmentation, and training without proxy are ours",
    )
    heads = ("classify", "segment")
    cannot = {"sequences": "the ReLU network sees a sample without time, and the order of a sequence is what it is about"}

    class Options(plugin.Options):
        """Rule, neurons and network."""

        proxy: bool = Field(True, description="put the counts of the spiking network in the loss; false: train the ReLU network by its own")
        threshold: float = Field(2.0, description="firing threshold (theta)", gt=0)
        norm_epochs: int = Field(1, description="epochs after which running statistics of normalisations are frozen; 0: never", ge=0)
        tie: float = Field(1e-3, description="weight of the output neurons' potentials in the answer, which breaks ties; 0: none", ge=0)
        pool: Literal["average", "max"] = Field("average", description="the suite's pooling, or the paper's: the largest, of spikes an OR")
        betas: tuple[float, float] = Field((0.9, 0.999), description="of Adam, when it is the optimiser; the notebook: 0.8/0.99")
        network: Literal["task", "paper"] = Field("task", description="the task's backbone, or that of the notebook")

    options: Options

    def __init__(self, task: Task, *args: Any, **kwargs: Any) -> None:
        """Bind to a task; raise UnfitError for the network of the paper where the task is not to classify images."""
        super().__init__(task, *args, **kwargs)
        if self.options.network == "paper" and (task.head.kind != "classify" or min(task.input_shape[1:]) < 4):
            raise UnfitError(f"proxy: network = 'paper' is to classify images of 4x4 and larger, not for {task.name}; use network = 'task'")

    @classmethod
    def supports(cls, task: Task) -> str | None:
        """Return why the method cannot do ``task``, or None."""
        if task.head.kind == "detect":
            return "its answers are whole numbers of spikes, boxes are real numbers"
        if len(task.input_shape) != 3:
            return cls.cannot["sequences"]
        return super().supports(task)

    # Parts ----------------------------------------------------------------------------------------------------------

    def neuron(self, features: int) -> nn.Module:
        """Return integrate-and-fire neurons with hard reset, and ReLU."""
        return TwinNeuron(LIF(1.0, self.options.threshold, "hard"), ReLU())

    def norm(self, features: int, scale: float = 1.0) -> nn.Module:
        """Return batch normalisation with statistics for each pass."""
        return TwinBatchNorm(features)

    def pool(self, kernel: int) -> nn.Module:
        """Return average or maximum pooling."""
        return MaxPool2d(kernel) if self.options.pool == "max" else super().pool(kernel)

    def readout(self, features_in: int, features_out: int) -> nn.Module:
        """Return the currents of the output neurons, without bias."""
        return Linear(features_in, features_out, bias=False)

    def readout_conv(self, features_in: int, features_out: int) -> nn.Module:
        """Return the currents of the output neurons of every location, without bias."""
        return Conv2d(features_in, features_out, 1, bias=False)

    def backbone(self) -> nn.Module:
        """Return the task's reference backbone or the notebook's."""
        return ProxyNet(self.task.input_shape, self) if self.options.network == "paper" else super().backbone()

    def build(self) -> nn.Module:
        """Return backbone, head and output neurons."""
        backbone = self.backbone()
        net = CountedNetwork(backbone, heads.build(self.task.head, backbone.levels, self), self.options.threshold)
        return net.to(memory_format=torch.channels_last) if self.task.device.type == "cpu" else net

    # Training -------------------------------------------------------------------------------------------------------

    def phases(self, net: nn.Module) -> Iterator[Phase]:
        """Yield one phase, in which running statistics are frozen after the first epoch; without proxy, take those of spikes after it."""
        adam = self.training.optimizer != "sgd"
        group = {"params": list(net.parameters())} | ({"betas": self.options.betas} if adam else {})
        phase = Phase("proxy" if self.options.proxy else "ann", parameters=[group])
        if not self.options.proxy:
            phase.predict = self.predict_ann

        def freeze(epoch: int, epochs: int) -> None:
            if epoch == self.options.norm_epochs > 0:
                phase.modules = ()  # only normalisations know modes

        phase.on_epoch = freeze
        yield phase
        if not self.options.proxy:
            self.settle(net)

    def step(self, net: nn.Module, batch: Batch, update: Update) -> Tensor:
        """Train on one batch: spike counts in the loss, the ReLU network in the gradient."""
        sequence = self.encode(batch.inputs)
        with analog(net):
            output = net(self.still(sequence))[0]
        if self.options.proxy:
            with torch.no_grad():
                counts = net(sequence).sum(0)
            output = (output - output.detach()) + counts
        loss = self.loss(output, batch.targets)
        update.minimise(loss)
        return loss

    def still(self, sequence: Tensor) -> Tensor:
        """Return what the ReLU network sees of ``sequence [T, B, ...]``, ``[1, B, ...]``: the sum of event frames, else the mean."""
        if self.task.temporal:
            return sequence.sum(0, keepdim=True)
        return sequence[:1] if sequence.stride(0) == 0 else sequence.mean(0, keepdim=True)

    def loss(self, output: Tensor, targets: Tensor) -> Tensor:
        """Return the mean squared error of counts ``[B, K, ...]`` to one-hot classes ``[B, ...]``; pixels without a class do not count."""
        counts, classes = _by_class(output, targets)
        return one_hot_error(counts, classes, self.training.label_smoothing) if len(classes) else counts.sum()

    @torch.no_grad()
    def settle(self, net: nn.Module) -> None:
        """Take the running statistics of the spiking pass from training images, for weights that have learnt without spikes."""
        net.eval()
        for module in net.modules():
            if isinstance(module, TwinBatchNorm):
                module.spiking.train()
        for batch in self.task.batches("train", self.training.batch_size, SETTLING):
            net(self.encode(batch.inputs))
        net.eval()

    # Answers --------------------------------------------------------------------------------------------------------

    def predict(self, net: nn.Module, inputs: Tensor) -> Prediction:
        """Return the counts as of every step, ties broken by potentials."""
        counts, potentials = net.counts(self.encode(inputs))  # type: ignore[operator]
        return Prediction.at_every_step(counts + self.options.tie * potentials)

    def predict_ann(self, net: nn.Module, inputs: Tensor) -> Prediction:
        """Return the answers of the ReLU network."""
        with analog(net):
            return Prediction.at_every_step(net(self.still(self.encode(inputs))))

    @torch.no_grad()
    def report(self, net: nn.Module) -> dict[str, Any]:
        """Return, on validation data, what ties do to the accuracy, and how the ReLU network of the same weights does.

        ``argmax_accuracy``: of the plain argmax of counts, where the first of tied classes wins; ``tied_maximum``: share of samples whose
        largest count several classes have; ``tie_as_correct``: accuracy if any of those will do, the notebook's, not to be quoted as one;
        ``agreement``: share of samples that both networks answer alike. Of segmentation the sample is the pixel. ``ann_validation``: main
        metric of the ReLU network.
        """
        rows: list[Tensor] = []
        for batch in self.task.batches("validation", self.training.batch_size):
            counts, potentials = net.counts(self.encode(batch.inputs))  # type: ignore[operator]
            shown, classes = _by_class(counts[-1], batch.targets)
            answers = _by_class(counts[-1] + self.options.tie * potentials[-1], batch.targets)[0].argmax(1)
            twin = _by_class(self.predict_ann(net, batch.inputs).outputs[0], batch.targets)[0].argmax(1)
            rows.append(torch.stack([*ties(shown, classes), answers == twin]))
        argmax, tied, tie_as_correct, agreement = torch.cat(rows, 1).double().mean(1).tolist()
        ann = score(self.task, "validation", lambda inputs: self.predict_ann(net, inputs))[0]
        figures = {"argmax_accuracy": argmax, "tied_maximum": tied, "tie_as_correct": tie_as_correct}
        return {**super().report(net), **figures, "agreement": agreement, "ann_validation": ann}

    def recipe(self, task: Task) -> dict[str, Any]:
        """Return the settings of the notebook (Fashion-MNIST); for other images the task's network, and for digits a rate of ours."""
        grey = task.head.kind == "classify" and not task.temporal and task.input_shape[:1] == (1,) and min(task.input_shape[1:]) >= 28
        settings = {"optimizer": "adam", "weight_decay": 1e-6, "schedule": "constant", "augment": True, "epochs": 100, "batch_size": 100}
        settings |= {"lr": 1e-3 if task.card.name == "static/digits" else 1e-4, "betas": (0.8, 0.99), "steps": 15, "pool": "max"}
        return settings | {"network": "paper" if grey else "task"}


def ties(counts: Tensor, classes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return masks ``[N]`` of counts ``[N, K]`` and classes ``[N]``: right by plain argmax; tied at the maximum; right if any tie is."""
    largest = counts.amax(1)
    tied = (counts == largest[:, None]).sum(1) > 1
    return counts.argmax(1) == classes, tied, counts.gather(1, classes[:, None])[:, 0] == largest


def _by_class(output: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Return the rows ``[N, K]`` of ``output [B, K, ...]`` that have a class, and the classes ``[N]``."""
    if targets.dim() == 1:
        return output, targets.long()
    known = targets < output.shape[1]
    return output.movedim(1, -1)[known], targets[known].long()
