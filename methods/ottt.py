"""OTTT: online training through time. Every step is differentiated as soon as it has been computed; nothing is kept of earlier ones.

With the reset detached, back-propagation through a LIF layer has a path through the layers at one step and a path through the leak of the
membrane. OTTT keeps the second only inside a layer, where it becomes a trace of the presynaptic spikes (``methods.nn.traced``)::

    u[t] = leak * (u[t-1] - s[t-1]) + W s_in[t] + b     s[t] = 1[u[t] >= 1]     soft reset
    a[t] = leak * a[t-1] + s_in[t]                       leak = 1 - 1/tau = 0.5
    L[t] = ((1 - alpha) * CE(o[t], y) + alpha * MSE(o[t], onehot(y))) / T
    dW  += delta[t] (outer) a[t]                         delta[t]: error of step t, carried through the layers at step t only

``update=accumulate`` is OTTT_A (one optimiser step per batch), ``update=online`` is OTTT_O (one at every time step). The network has no
normalisation: scaled weight standardisation (``methods.nn.normaliser_free``). The fair baseline is
``stbp[norm=sws,surrogate=sigmoid,reset=soft]``. Networks: the task's backbone; ``vgg``, the paper's for CIFAR and DVS sets;
``nf_resnet``, a small one of NF blocks (``methods.nn.nf_block``). Not here yet: the feedback variant VGG-F, NF-ResNet-34 and the ImageNet
recipe.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from harness import plugin
from harness.method import Update
from harness.plugin import Card, Claim
from harness.task import Batch, Task
from methods.base import SpikingMethod
from methods.nn import normaliser_free
from methods.nn.dropout import SequenceDropout
from methods.nn.neuron import LIF
from methods.nn.nf_block import NormaliserFreeResNet
from methods.nn.one_hot import one_hot_error
from methods.nn.stepping import stepping
from methods.nn.surrogate import Sigmoid
from methods.nn.traced import Traced
from methods.nn.vgg import Plan, Vgg

PLAN: Plan = (64, 128, "P", 256, 256, "P", 512, 512, "P", 512, 512)  # VGG (sWS): channels and poolings


class Ottt(SpikingMethod):
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
            Claim("saved_bytes", "property", None, "any", "constant in T, where BPTT is linear in T", "abstract"),
            Claim("test_accuracy", "difference", 0.0, "static/cifar10", "VGG (sWS), T=6, or above", "abstract", "stbp"),
            Claim(
                "test_accuracy",
                "value",
                0.9352,
                "static/cifar10",
                "OTTT_A, VGG (sWS), T=6, 300 epochs",
                "recollection; 93.58, 93.73 quoted",
            ),
            Claim("test_accuracy", "value", 0.7105, "static/cifar100", "OTTT_A, VGG (sWS), T=6, 300 epochs", "recollection; 71.11 quoted"),
            Claim("test_accuracy", "value", 0.7627, "events/cifar10-dvs", "OTTT_A, VGG (sWS), T=10", "recollection; 76.30 quoted"),
            Claim("test_accuracy", "value", 0.9688, "events/dvs-gesture", "OTTT_A, VGG (sWS), T=20", "quoted by a later paper"),
            Claim("test_accuracy", "value", 0.6515, "static/imagenet", "OTTT_A, NF-ResNet-34, T=6", "quoted by later papers"),
            Claim("test_accuracy", "value", 0.6416, "static/imagenet", "OTTT_O, NF-ResNet-34, T=6", "quoted by later papers"),
        ),
        reconstructed="delay lines (a trace per tap, no error through past inputs) and detection (the task's loss alone) are ours; "
        "three mean accuracies are recollections; Cutout of the recipe is the task's augmentation",
    )

    heads = ("classify", "detect", "segment")

    class Options(plugin.Options):
        """Learning rule, loss and neuron."""

        update: Literal["accumulate", "online"] = Field("accumulate", description="one update per batch (OTTT_A) or per time step (OTTT_O)")
        loss_alpha: float = Field(0.05, description="share of the squared error in the loss of a classifier", ge=0, le=1)
        first_trace: bool = Field(False, description="trace the input of the first synapse (the paper does, its code does not)")
        readout_trace: bool = Field(True, description="trace the input of the read-out, as the paper's code does")
        leak: float = Field(0.5, description="fraction of potential and trace kept per step, 1 - 1/tau", ge=0, lt=1)
        dropout: float = Field(0.0, description="share of neurons silenced for a whole batch in training", ge=0, lt=1)
        network: Literal["task", "vgg", "nf_resnet"] = Field("task", description="the task's, VGG (sWS), or a small NF-ResNet")

    options: Options

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
        """Return a linear read-out, traced by default."""
        return self._traced(normaliser_free.readout(features_in, features_out), self.options.readout_trace)

    def readout_conv(self, features_in: int, features_out: int) -> nn.Module:
        """Return the read-out of a detector, traced by default."""
        return self._traced(normaliser_free.readout_conv(features_in, features_out), self.options.readout_trace)

    def backbone(self) -> nn.Module:
        """Return the network of the options."""
        if self.options.network == "vgg":
            return Vgg(self.task.input_shape, PLAN, self, global_pool=True)
        if self.options.network == "nf_resnet":
            return NormaliserFreeResNet(self.task.input_shape, self.task.budget.backbone.widths, self)
        return super().backbone()

    # Learning rule --------------------------------------------------------------------------------------------------

    def loss(self, output: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of the output of one step, ``[B, ...]``, before the division by T."""
        alpha = self.options.loss_alpha
        loss = super().loss(output, targets)
        if self.task.head.kind != "classify" or alpha == 0:
            return loss
        return (1 - alpha) * loss + alpha * one_hot_error(output, targets)

    def step(self, net: nn.Module, batch: Batch, update: Update) -> Tensor:
        """Go through the steps of a batch once, differentiating each by itself; return the sum of the losses."""
        inputs = self.encode(batch.inputs)
        online = self.options.update == "online"
        total = torch.zeros((), device=inputs.device)
        if not online:
            update.zero_grad()
        with stepping(net, detach=True):
            for now in inputs.split(1):
                if online:
                    update.zero_grad()
                # A copy: what the backward pass keeps is one step then, not a view that holds the whole sequence.
                loss = self.loss(net(now.clone())[0], batch.targets) / len(inputs)
                update.backward(loss)
                if online:
                    update.apply()
                total += loss.detach()
        if not online:
            update.apply()
        return total

    def exact_loss(self, net: nn.Module, batch: Batch) -> Tensor:
        """Return the mean over steps of the losses, through all of time."""
        outputs = net(self.encode(batch.inputs))
        return sum(self.loss(output, batch.targets) for output in outputs.unbind(0)) / len(outputs)

    def recipe(self, task: Task) -> dict[str, Any]:
        """Return the paper's settings; those of CIFAR where a data set has none of its own, and the VGG where it fits."""
        events = task.card.name.startswith("events/")
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
        if task.card.name.endswith("cifar10dvs"):
            settings |= {"dropout": 0.1}
        if task.card.name.endswith("gesture"):
            settings |= {"batch_size": 16, "optimizer": "adam", "lr": 1e-3}
        return settings
