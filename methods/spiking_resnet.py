"""Spiking ResNet: a residual network whose ReLUs are replaced by spiking neurons, the one after the sum included.

    O = SN(BN(conv(SN(BN(conv(S))))) + shortcut(S))

The sum of branch and shortcut passes one more layer of neurons, so the shortcut is an identity for lucky neurons only (integrate-and-fire,
threshold 1), and its gradient is multiplied by a surrogate derivative in every block: deeper networks learn less. It is what SEW ResNet and
MS-ResNet are compared with, and the same network as ``sew_resnet[connect=vanilla]``: parts, networks and report are those of
``methods/sew_resnet.py``. What is its own are name, claims and recipe (on ImageNet it starts from zero-initialised blocks, SEW does not).

The neurons matter: in a deep stack gradients vanish with leaky ones (``neuron=lif``), not with integrate-and-fire (images, by default).
"""

from __future__ import annotations

from typing import Any, ClassVar

from harness.plugin import Card, Claim
from harness.task import Task
from methods.nn.residual import Connect
from methods.sew_resnet import EVENT_NETS, SewResnet

IMAGENET = {"18": 0.6232, "34": 0.6186, "50": 0.5766, "101": 0.3179, "152": 0.1003}  # depth -> top-1 accuracy
LOGGED = "training logs in the official repository, best epoch"
AS_PUBLISHED = "T=4, zero-initialised blocks"


class SpikingResnet(SewResnet):
    """Neurons after the sum: the baseline of the residual methods."""

    card = Card(
        name="spiking_resnet",
        title="Deep Residual Learning in Spiking Neural Networks (its baseline)",
        authors="Fang, Yu, Chen, Huang, Masquelier, Tian",
        venue="NeurIPS 2021",
        year=2021,
        family="architecture",
        summary="A ResNet with neurons in place of ReLUs, so that residual sums pass neurons; the baseline of SEW and MS-ResNet.",
        compared_with=("stbp",),
        baseline="stbp",
        claims=(
            *(
                Claim(
                    "test_accuracy",
                    "value",
                    top,
                    "static/imagenet",
                    f"Spiking ResNet-{depth}, {AS_PUBLISHED}",
                    LOGGED,
                    networks=(f"net={depth}",),
                )
                for depth, top in IMAGENET.items()
            ),
            Claim(
                "test_accuracy",
                "value",
                0.9097,
                "events/dvs-gesture",
                "7B-Net, T=16",
                "note of a third party that quotes the paper",
                networks=("net=7b",),
            ),
            Claim("test_accuracy", "property", None, "any", "falls with depth, training accuracy too", LOGGED, expect="falls over blocks"),
        ),
        reconstructed="the matched network, as in sew_resnet; recipes but that of ImageNet are those of SEW with this block",
    )

    class Options(SewResnet.Options):
        """Architecture, initialisation and neuron; those of SEW, without a choice of the connection."""

        connect: ClassVar[Connect] = "vanilla"  # type: ignore[misc]  # no field any more

    options: Options

    def recipe(self, task: Task) -> dict[str, Any]:
        """Return the settings of the logs: those of SEW, with zero-initialised blocks; the budget's network where theirs does not fit.

        That is on event frames too small to be halved seven times, and for heads that look at chosen strides.
        """
        settings = super().recipe(task) | {"zero_init": True}
        fits = settings["net"] not in EVENT_NETS or min(task.input_shape[1:]) >= 2 ** len(EVENT_NETS[settings["net"]])
        return settings if fits and not task.head.strides else settings | {"net": "budget"}
