"""OTTT: online training through time. Every step is differentiated as soon as it has been computed; nothing is kept of earlier ones.

With the reset detached, back-propagation through a LIF layer has a path through the layers at one step and a path through the leak of the
membrane. OTTT keeps the second only inside a layer, where it becomes a trace of the presynaptic spikes (``methods.nn.traced``)::

    u[t] = leak * (u[t-1] - s[t-1]) + W s_in[t] + b     s[t] = 1[u[t] >= 1]     soft reset
    a[t] = leak * a[t-1] + s_in[t]                       leak = 1 - 1/tau = 0.5
    L[t] = ((1 - alpha) * CE(o[t], y) + alpha * MSE(o[t], onehot(y))) / T
    dW  += delta[t] (outer) a[t]                         delta[t]: error of step t, carried through the layers at step t only

``update=accumulate`` is OTTT_A (one optimiser step per batch), ``update=online`` is OTTT_O (one at every time step). The network has no
normalisation: scaled weight standardisation (``methods.nn.normaliser_free``). The fair baseline is
``stbp[norm=sws,surrogate=sigmoid,reset=soft]``. Loop over steps and loss: ``methods.base_online``. Networks: the task's backbone; ``vgg``,
the paper's for CIFAR and DVS sets; ``vgg_f``, the same with feedback (``methods.nn.feedback_vgg``); ``nf_resnet34``, the paper's for
ImageNet (``methods.nn.nf_resnet``); ``nf_resnet``, a small one of the same blocks.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field
from torch import nn

from harness import plugin
from harness.plugin import Card, Claim, UsageError
from harness.task import Task
from methods.base_online import OnlineMethod
from methods.nn import normaliser_free
from methods.nn.dropout import SequenceDropout
from methods.nn.feedback_vgg import FeedbackVgg
from methods.nn.neuron import LIF
from methods.nn.nf_block import NormaliserFreeResNet
from methods.nn.nf_resnet import DeepNormaliserFreeResNet
from methods.nn.surrogate import Sigmoid
from methods.nn.traced import Traced
from methods.nn.vgg import Plan, Vgg
from methods.nn.weight_standardisation import ScaledConv2d

PLAN: Plan = (64, 128, "P", 256, 256, "P", 512, 512, "P", 512, 512)  # VGG (sWS): channels and poolings


class Ottt(OnlineMethod):
    """Online training with presynaptic traces."""

    card = Card(
        name="ottt",
        title="Online Training Through Time for Spiking Neural Networks",
        authors="Xiao, Meng, Zhang, He, Lin",
        venue="NeurIPS 2022",
        year=2022,
        family="online",
        summary="Differentiate every time step at once, with a trace of the presynaptic spikes in place of the path through time.",
        compared_with=("stbp", "sltt"),
        baseline="stbp[norm=sws,reset=soft,surrogate=sigmoid]",
        claims=(
            Claim(
                "saved_bytes", "property", None, "any", "constant in T, where BPTT is linear in T", "abstract", expect="constant over steps"
            ),
            Claim(
                "test_accuracy",
                "difference",
                0.0,
                "static/cifar10",
                "VGG (sWS), T=6, or above",
                "abstract",
                "stbp[norm=sws,reset=soft,surrogate=sigmoid]",
                instead="stbp",
            ),
            Claim(
                "test_accuracy",
                "value",
                0.9352,
                "static/cifar10",
                "OTTT_A, VGG (sWS), T=6, 300 epochs",
                "recollection; 93.58, 93.73 quoted",
                networks=("network=vgg",),
            ),
            Claim(
                "test_accuracy",
                "value",
                0.7105,
                "static/cifar100",
                "OTTT_A, VGG (sWS), T=6, 300 epochs",
                "recollection; 71.11 quoted",
                networks=("network=vgg",),
            ),
            Claim(
                "test_accuracy",
                "value",
                0.7627,
                "events/cifar10-dvs",
                "OTTT_A, VGG (sWS), T=10",
                "recollection; 76.30 quoted",
                networks=("network=vgg",),
            ),
            Claim(
                "test_accuracy",
                "value",
                0.9688,
                "events/dvs-gesture",
                "OTTT_A, VGG (sWS), T=20",
                "quoted by a later paper",
                networks=("network=vgg",),
            ),
            Claim(
                "test_accuracy",
                "value",
                0.6515,
                "static/imagenet",
                "OTTT_A, NF-ResNet-34, T=6",
                "quoted by later papers",
                networks=("network=nf_resnet34",),
            ),
            Claim(
                "test_accuracy",
                "value",
                0.6416,
                "static/imagenet",
                "OTTT_O, NF-ResNet-34, T=6",
                "quoted by later papers",
                networks=("network=nf_resnet34",),
                variant="ottt[update=online]",
            ),
        ),
        reconstructed="delay lines (a trace per tap, no error through past inputs) and tasks other than classification (the task's loss "
        "alone) are ours; so are the trace of the feedback of VGG-F (as the paper's equations have it), its missing bias, stochastic depth "
        "that scales what is left, and head dropout with one mask for all steps; three mean accuracies are recollections; Cutout of the "
        "recipe is the task's augmentation",
    )

    class Options(plugin.Options):
        """Learning rule, loss and neuron."""

        update: Literal["accumulate", "online"] = Field("accumulate", description="one update per batch (OTTT_A) or per time step (OTTT_O)")
        loss_alpha: float = Field(0.05, description="share of the squared error in the loss of a classifier", ge=0, le=1)
        first_trace: bool = Field(False, description="trace the input of the first synapse (the paper does, its code does not)")
        readout_trace: bool = Field(True, description="trace the input of the read-out, as the paper's code does")
        leak: float = Field(0.5, description="fraction of potential and trace kept per step, 1 - 1/tau", ge=0, lt=1)
        dropout: float = Field(0.0, description="share of neurons silenced for a whole batch in training", ge=0, lt=1)
        network: Literal["task", "vgg", "vgg_f", "nf_resnet", "nf_resnet34"] = Field(
            "task", description="the task's, VGG (sWS), VGG with feedback, a small NF-ResNet, or NF-ResNet-34"
        )
        stochastic_depth: float = Field(0.0, description="nf_resnet34: chance to leave out the last block's branch in training", ge=0, lt=1)
        head_dropout: float = Field(0.0, description="share of the read-out's inputs silenced for a whole batch in training", ge=0, lt=1)

    options: Options

    def __init__(self, task: Task, *args: Any, **kwargs: Any) -> None:
        """Bind to a task; raise UsageError for stochastic depth in a network that has no branches to leave out."""
        super().__init__(task, *args, **kwargs)
        o = self.options
        if o.stochastic_depth and o.network != "nf_resnet34":
            raise UsageError(f"ottt: stochastic_depth = {o.stochastic_depth} is for network = 'nf_resnet34', not for {o.network!r}")

    # Parts ----------------------------------------------------------------------------------------------------------

    def neuron(self, features: int) -> nn.Module:
        """Return LIF neurons with soft, detached reset and sigmoid surrogate."""
        lif = LIF(self.options.leak, self.threshold, "soft", surrogate=Sigmoid(4.0))
        return nn.Sequential(lif, SequenceDropout(self.options.dropout)) if self.options.dropout else lif

    def norm(self, features: int, scale: float = 1.0) -> nn.Module:
        """Return nothing: weights are standardised instead."""
        return nn.Identity()

    def _traced(self, synapse: nn.Module, wanted: bool) -> nn.Module:
        return Traced(synapse, self.options.leak) if wanted else synapse

    def conv(self, features_in: int, features_out: int, kernel: int, stride: int = 1, first: bool = False) -> nn.Module:
        """Return an sWS convolution with a trace."""
        synapse = normaliser_free.conv(features_in, features_out, kernel, stride, first)
        return self._traced(synapse, not first or self.options.first_trace)

    def delay_line(self, features_in: int, features_out: int, taps: int, dilation: int, first: bool = False) -> nn.Module:
        """Return an sWS synapse with delays and traces."""
        synapse = normaliser_free.delay_line(features_in, features_out, taps, dilation, first)
        return self._traced(synapse, not first or self.options.first_trace)

    def readout(self, features_in: int, features_out: int) -> nn.Module:
        """Return a linear read-out, traced by default; that of NF-ResNet-34 starts at zero."""
        linear = normaliser_free.readout(features_in, features_out)
        if self.options.network == "nf_resnet34":
            nn.init.zeros_(linear.weight)
        readout = self._traced(linear, self.options.readout_trace)
        return nn.Sequential(SequenceDropout(self.options.head_dropout), readout) if self.options.head_dropout else readout

    def readout_conv(self, features_in: int, features_out: int) -> nn.Module:
        """Return the read-out of a detector, traced by default."""
        return self._traced(normaliser_free.readout_conv(features_in, features_out), self.options.readout_trace)

    def feedback(self, features_in: int, features_out: int) -> nn.Module:
        """Return the traced feedback of VGG-F, which starts at zero."""
        conv = ScaledConv2d(features_in, features_out, 3, bias=False)
        nn.init.zeros_(conv.weight)
        return self._traced(conv, True)

    def backbone(self) -> nn.Module:
        """Return the network of the options."""
        o, shape = self.options, self.task.input_shape
        if o.network == "vgg":
            return Vgg(shape, PLAN, self, global_pool=True)
        if o.network == "vgg_f":
            return FeedbackVgg(shape, PLAN, self, self.feedback)
        if o.network == "nf_resnet":
            return NormaliserFreeResNet(shape, self.task.budget.backbone.widths, self)
        if o.network == "nf_resnet34":
            return DeepNormaliserFreeResNet(shape, "34", self, o.stochastic_depth, self.task.head.strides)
        return super().backbone()

    # Learning rule --------------------------------------------------------------------------------------------------

    @property
    def updates_every_step(self) -> bool:
        """Whether this is OTTT_O."""
        return self.options.update == "online"

    def recipe(self, task: Task) -> dict[str, Any]:
        """Return the paper's settings; those of CIFAR where a data set has none of its own, and the VGG where it fits."""
        events, name = task.card.name.startswith("events/"), task.card.name
        fits = task.head.kind == "classify" and len(task.input_shape) == 3
        settings: dict[str, Any] = {
            "network": "vgg" if fits else "task",
            "loss_alpha": 0.001 if events else 0.05,
            "steps": 6,
            "epochs": 300,
            "batch_size": 128,
            "optimizer": "sgd",
            "lr": 0.1,
            "momentum": 0.9,
            "weight_decay": 0.0,
            "schedule": "cosine",
            "augment": True,
        }
        if name == "events/cifar10-dvs":
            settings |= {"dropout": 0.1}
        if name == "events/dvs-gesture":
            settings |= {"batch_size": 16, "optimizer": "adam", "lr": 1e-3}
        if name == "static/imagenet":
            settings |= {"network": "nf_resnet34", "loss_alpha": 0.0, "epochs": 100, "batch_size": 256, "weight_decay": 2e-5}
        return settings
