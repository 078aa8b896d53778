"""``CoupledMethod``: train a spiking network through an ANN branch that shares its weights and sees its spike counts, layer by layer.

A step runs both branches through the layers (``methods.nn.pair``) and back-propagates the loss of the ANN branch, so nothing is unrolled
over time. In eval mode the same network is the spiking network alone, with folded normalisation. A plugin says what neurons are
(``spiking``), how counts are read out (``count_gain``), and how the ANN branch sees the data (``first_count``).
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from harness.method import Prediction, Update
from harness.task import Batch
from methods.base import SpikingMethod
from methods.nn.heads import Network
from methods.nn.layout import channels_last
from methods.nn.norm import BatchNorm
from methods.nn.pair import Both, Pair, over_time
from methods.nn.paired_neuron import PairedNeuron
from methods.nn.paired_synapse import PairedConv2d, PairedLinear, PairedReadout2d
from methods.nn.scoring import score
from methods.nn.synapse import AvgPool2d


class CoupledMethod(SpikingMethod):
    """A method with a spiking branch and an ANN branch."""

    heads = ("classify", "detect", "segment")
    cannot = {"sequences": "its ANN branch sees spike counts, in which the order of a sequence is lost"}
    fresh: ClassVar[bool] = False  # whether the spiking branch folds statistics that know the batch at hand

    # What a plugin says ---------------------------------------------------------------------------------------------

    @abstractmethod
    def spiking(self, features: int) -> nn.Module:
        """Return the neurons of the spiking branch."""

    @property
    @abstractmethod
    def count_gain(self) -> float:
        """Factor of the counts that a read-out sees."""

    def first_count(self, sequence: Tensor) -> Tensor:
        """Return what the ANN branch sees of the data ``[T, B, ...]`` in place of a count, ``[1, B, ...]``; default: their sum."""
        return sequence[:1] * len(sequence) if sequence.stride(0) == 0 else over_time(sequence)

    # Parts ----------------------------------------------------------------------------------------------------------

    def batch_norm(self, features: int) -> BatchNorm:
        """Return the normalisation that a synapse owns."""
        return BatchNorm(features)

    def neuron(self, features: int) -> nn.Module:
        """Return neurons of both branches."""
        return PairedNeuron(self.spiking(features))

    def norm(self, features: int, scale: float = 1.0) -> nn.Module:
        """Return nothing: synapses normalise."""
        return nn.Identity()

    def conv(self, features_in: int, features_out: int, kernel: int, stride: int = 1, first: bool = False) -> nn.Module:
        """Return a convolution of both branches with its normalisation."""
        return PairedConv2d(features_in, features_out, kernel, stride, self.steps, self.batch_norm(features_out), self.fresh)

    def pool(self, kernel: int) -> nn.Module:
        """Return average pooling of both branches."""
        return Both(AvgPool2d(kernel))

    def readout(self, features_in: int, features_out: int) -> nn.Module:
        """Return the linear read-out of counts."""
        return PairedLinear(features_in, features_out, self.count_gain, self.steps)

    def readout_conv(self, features_in: int, features_out: int) -> nn.Module:
        """Return the read-out of counts at every place."""
        return PairedReadout2d(features_in, features_out, self.count_gain, self.steps)

    # Training and answers -------------------------------------------------------------------------------------------

    def branch(self, net: nn.Module, inputs: Tensor) -> Tensor:
        """Return the answers ``[1, B, ...]`` of the ANN branch to ``inputs [B, ...]``."""
        assert isinstance(net, Network)
        sequence = self.encode(inputs)
        if sequence.dim() == 5 and sequence.device.type == "cpu":
            sequence = channels_last(sequence)
        return net.head(net.backbone(Pair(sequence, self.first_count(sequence))))

    def step(self, net: nn.Module, batch: Batch, update: Update) -> Tensor:
        """Back-propagate the loss of the ANN branch, and update."""
        loss = self.loss(self.branch(net, batch.inputs)[0], batch.targets)
        update.minimise(loss)
        return loss

    @torch.no_grad()
    def report(self, net: nn.Module) -> dict[str, Any]:
        """Return ``branch_validation`` and ``spiking_validation``, the main metric of either branch on the validation split."""
        branch = score(self.task, "validation", lambda inputs: Prediction.at_every_step(self.branch(net, inputs)))[0]
        spiking = score(self.task, "validation", lambda inputs: self.predict(net, inputs))[0]
        return {**super().report(net), "branch_validation": branch, "spiking_validation": spiking}
