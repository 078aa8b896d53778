"""Tandem learning: the spiking network runs forward, an ANN that shares its weights and sees its spike counts carries the gradient.

Per layer, T steps, ``theta = 1``, folded weights ``W'``, bias ``b'/T`` (``methods.nn.paired_synapse``)::

    spiking branch   m[t] = leak m[t-1] + W' s[t] + b'/T - theta o[t-1]     o[t] = 1[m[t] >= theta]       c = sum_t o[t]
    ANN branch       z = BN(W c_in + b)                                     forward c, backward that of ReLU(z)

The image is the input current of every step, and its sum over T the first count (of events, that of their frames). The ANN branch of a
layer runs first, with batch statistics, and the spiking branch folds the running statistics that it left: with their momentum of 0.9 they
are near those of the batch. Logits are ``W c + b``, dropout before them; the answer after t steps is ``W (T/t) c_t + b`` (ours).

``progressive``: start from a trained ReLU network and make one layer after another spiking while the others go on training
(``methods.nn.layerwise``); the image then is a pulse at the first step.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from harness import plugin
from harness.method import Phase, Prediction, Update
from harness.plugin import Card, Claim, UnfitError
from harness.task import Batch, Task
from methods.base_coupled import CoupledMethod
from methods.nn.backbones import Level
from methods.nn.conversion import integrate_and_fire
from methods.nn.layer import Layer
from methods.nn.layerwise import Layerwise
from methods.nn.neuron import LIF
from methods.nn.norm import BatchNorm
from methods.nn.pair import BranchDropout
from methods.nn.row import Row
from methods.nn.scoring import score

CIFAR_NET = ((128, 1), (256, 2), (512, 2), (1024, 1), (512, 1))  # channels and strides; 1024 fully connected neurons follow
HIDDEN = 1024
IMAGES = 64  # of a batch from which thresholds are taken


class LateResetLIF(LIF):
    """LIF whose reset by subtraction comes after the leak: ``m[t] = leak m[t-1] + I[t] - theta o[t-1]``, fires at or above ``theta``."""

    def __init__(self, leak: float) -> None:
        """Make a layer of neurons of any shape; at ``leak`` 1 they are ``integrate_and_fire()``, which is faster."""
        super().__init__(leak, 1.0, "soft")

    def _after(self, u: Tensor, s: Tensor) -> Tensor:
        return u - self.threshold / self.leak * s  # the leak of the next step makes it theta


class CountFlatten(nn.Flatten):
    """Space into channels ``[T, B, C * H * W, 1, 1]``, of both branches."""

    def forward(self, x: Any) -> Any:
        """Return the same numbers in one column."""
        return x.flatten(2)[..., None, None]


class Tandem(CoupledMethod):
    """Spike counts in place of activations, layer by layer."""

    card = Card(
        name="tandem",
        title="A Tandem Learning Rule for Effective Training and Rapid Inference of Deep Spiking Neural Networks; "
        "Progressive Tandem Learning for Pattern Recognition with Deep Spiking Neural Networks",
        authors="Wu, Chua, Zhang, Li, Li, Tan; Wu, Xu, Han, Zhou, Zhang, Li, Tan",
        venue="IEEE TNNLS 34(1):446-460, 2023; IEEE TPAMI 44(11), 2022",
        year=2023,
        family="ANN-coupled",
        summary="Run the spiking network forward and back-propagate through an ANN that shares its weights and sees its spike counts.",
        compared_with=("stbp", "proxy", "ann"),
        baseline="stbp",
        claims=(
            Claim(
                "synops",
                "property",
                None,
                "any",
                "at least 10x fewer than other SNNs; frame and event vision",
                "abstract",
                against="stbp",
                expect="lower",
            ),
            Claim(
                "steps_used",
                "property",
                None,
                "any",
                "at least 10x less inference time than other SNNs",
                "abstract",
                unmeasured="time steps are set here, not found",
            ),
            Claim(
                "saved_bytes",
                "property",
                None,
                "any",
                "the same at every T",
                "card, exact",
                expect="constant over steps",
                tested="tests/methods/test_tandem.py::test_what_is_saved_for_the_backward_pass_does_not_depend_on_t",
            ),
        ),
        reconstructed="that the ANN branch of a layer runs first, answers before the last step, detection, segmentation, gammas of 1; of "
        "the progressive variant: replaced layers stay frozen, and all are replaced within the epochs of the run, by equal deadlines",
    )
    fresh = True

    class Options(plugin.Options):
        """Neuron, normalisation and variant."""

        leak: float = Field(1.0, description="fraction of the potential kept per step; 1: IF", gt=0, le=1)
        gamma: Literal["normal", "one"] = Field("normal", description="scales start from N(0, 2), as in the code, or from 1")
        dropout: float = Field(0.2, description="dropout of the last counts before a classifier", ge=0, lt=1)
        net: Literal["task", "cifarnet"] = Field("task", description="the task's backbone, or the network of the code")
        progressive: bool = Field(False, description="layer by layer, from a trained ReLU network")
        ann_share: float = Field(0.5, description="progressive: share of the epochs that train the ReLU network", ge=0, lt=1)
        patience: int = Field(6, description="progressive: epochs without gain after which the next layer is replaced", ge=1)
        percentile: float = Field(99.9, description="progressive: percentile of the activations that T spikes stand for", gt=0, le=100)

    options: Options

    def __init__(self, task: Task, *args: Any, **kwargs: Any) -> None:
        """Bind to a task; raise UsageError for a network or a variant that the task has no use for."""
        super().__init__(task, *args, **kwargs)
        o, image = self.options, task.input_shape
        if o.net == "cifarnet" and (task.head.kind != "classify" or len(image) != 3):
            raise UnfitError(f"tandem: net = 'cifarnet' classifies images, not {task.name} ({task.head.kind}); use net = 'task'")
        if o.progressive and o.net == "task" and task.budget.backbone.kind == "resnet":
            raise UnfitError(f"tandem: progressive needs one threshold per layer, {task.name} has residual sums; use progressive = false")
        self.layerwise: Layerwise | None = None

    # Parts ----------------------------------------------------------------------------------------------------------

    @property
    def count_gain(self) -> float:
        """The read-out sees counts."""
        return 1.0

    def spiking(self, features: int) -> nn.Module:
        """Return neurons of threshold 1."""
        return integrate_and_fire() if self.options.leak == 1 else LateResetLIF(self.options.leak)

    def batch_norm(self, features: int) -> BatchNorm:
        """Return the normalisation of the code."""
        norm = BatchNorm(features, eps=1e-4, momentum=0.9)
        if self.options.gamma == "normal":
            nn.init.normal_(norm.weight, std=2.0)
        return norm

    def readout(self, features_in: int, features_out: int) -> nn.Module:
        """Return the classifier behind its dropout."""
        return nn.Sequential(BranchDropout(self.options.dropout), super().readout(features_in, features_out))

    def backbone(self) -> nn.Module:
        """Return the task's backbone or CifarNet."""
        if self.options.net == "task":
            return super().backbone()
        (channels, height, width), stride, layers = self.task.input_shape, 1, []
        for features, by in CIFAR_NET:
            layers.append(Layer(self.conv(channels, features, 3, by), self.norm(features), self.neuron(features)))
            channels, stride, height, width = features, stride * by, -(-height // by), -(-width // by)
        hidden = Layer(self.conv(channels * height * width, HIDDEN, 1), self.norm(HIDDEN), self.neuron(HIDDEN))
        return Row([*layers, CountFlatten(2), hidden], Level(HIDDEN, (1, 1), max(self.task.input_shape[1:])))

    def encode(self, inputs: Tensor) -> Tensor:
        """Return the sequence ``[T, B, ...]``: the task's, or for still images of the progressive variant a pulse."""
        if not self.options.progressive or self.task.temporal:
            return super().encode(inputs)
        return torch.cat([inputs[None], inputs.new_zeros(1, *inputs.shape).expand(self.steps - 1, *inputs.shape)])

    # The progressive variant ----------------------------------------------------------------------------------------

    def phases(self, net: nn.Module) -> Iterator[Phase]:
        """Yield one phase of tandem learning; or train a ReLU network, then replace its layers while the rest trains."""
        if not self.options.progressive:
            yield Phase()
            return
        o, epochs = self.options, self.training.epochs
        images = [self.encode(next(self.task.batches("train", IMAGES, IMAGES)).inputs)]
        rule = self.layerwise = Layerwise(net, integrate_and_fire, images, o.percentile, self.steps, o.patience)
        ann = round(o.ann_share * epochs)
        yield Phase("ann", step=self.count_step, epochs=ann, predict=self.count_predict)

        def look(epoch: int, epochs: int) -> None:
            found = score(self.task, "validation", partial(self.count_predict, net))[0] if epoch else 0.0
            rule.look(epoch, epochs, found)

        yield Phase("layers", step=self.count_step, epochs=epochs - ann, predict=self.count_predict, on_epoch=look)
        rule.finish()

    def count_step(self, net: nn.Module, batch: Batch, update: Update) -> Tensor:
        """Train the layers that are left on one batch."""
        loss = self.loss(net(self.encode(batch.inputs))[0], batch.targets)
        update.minimise(loss)
        return loss

    def count_predict(self, net: nn.Module, inputs: Tensor) -> Prediction:
        """Return the answers of a network whose read-outs see counts."""
        return Prediction.at_every_step(net(self.encode(inputs)))

    # Record ---------------------------------------------------------------------------------------------------------

    def report(self, net: nn.Module) -> dict[str, Any]:
        """Return both branches' validation metrics; of the progressive variant the spiking one's and the thresholds by layer."""
        if self.layerwise is None:
            return super().report(net)
        spiking = score(self.task, "validation", partial(self.predict, net))[0]
        return {"spiking_validation": spiking, "thresholds": self.layerwise.thresholds}

    def recipe(self, task: Task) -> dict[str, Any]:
        """Return the settings of the released script: CifarNet at T=1; of the progressive variant those of its code, T=16."""
        net = "cifarnet" if task.head.kind == "classify" and len(task.input_shape) == 3 else "task"
        training = {"optimizer": "adam", "lr": 1e-3, "augment": True, "net": net, "epochs": 150}
        if self.given.get("progressive"):
            return training | {"steps": 16, "weight_decay": 1e-5, "batch_size": 512, "schedule": "constant"}
        return training | {"steps": 1, "schedule": "drops", "milestones": (1 / 3, 2 / 3), "lr_factor": 0.1}
