"""SCTFA: the membrane potential that is carried over is gated by attention on the layer's own spikes of the step before.

For the spikes ``s`` and the potential ``v`` of a convolution layer (``methods/nn/attentive_lif.py``)::

    A[t] = Sp(s[t-1]) * Ch(s[t-1])        u[t] = leak * A[t] * v[t-1] + norm(conv(x[t]))        s[t] = 1[u[t] > threshold]

``attention``: "fused", the method; "spatial" and "channel", its degraded forms; "none", its baseline. Gates start near 1/2, so A near 1/4:
the leak starts at an eighth in place of a half, and a part of any gain may be a changed leak. Controls (ours): ``attention=none`` with
``leak=0.125``, or with ``learn_leak=true``. With one seed all these start from the same weights.

Matched track: the suite's STBP network, attention in every convolution layer. Recipe track, the example for MNIST-DVS: EventNet, batch
normalisation at each step, threshold 0.8, arctan surrogate, reset not detached, five spiking neurons per class, mean squared error, Adam
with a rate that falls by 5 % an epoch. On event data ``report`` has the main metric under noise events, lost events and missing frames.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from harness import plugin
from harness.method import Prediction
from harness.plugin import Card, Claim, UnfitError, UsageError
from harness.task import Task
from methods.base import SpikingMethod
from methods.nn import corruption
from methods.nn.attentive_lif import AttentiveLIF
from methods.nn.event_net import SMALLEST, EventNet
from methods.nn.neuron import LIF
from methods.nn.one_hot import one_hot_error
from methods.nn.scoring import score
from methods.nn.step_norm import StepBatchNorm
from methods.nn.surrogate import SURROGATES
from methods.nn.synapse import Conv2d
from methods.nn.votes import Votes

STRENGTHS = {"noise": [0.0, 0.02, 0.05, 0.1], "loss": [i / 10 for i in range(10)], "blank": [0.0, 0.2, 0.4, 0.6, 0.8]}
MAP = 8  # places each way of an attention map in a record
ABSTRACT = "abstract; the figures of the paper's body were not read"


class Sctfa(SpikingMethod):
    """Spatial-channel-temporal-fused attention, its degraded forms and its baseline."""

    card = Card(
        name="sctfa",
        title="A Spatial-Channel-Temporal-Fused Attention for Spiking Neural Networks",
        authors="Cai, Sun, Liu, Cui, Wang, Xia, Yao, Guo",
        venue="IEEE TNNLS",
        year=2023,
        family="neuron",
        summary="Gate the carried membrane potential by spatial and channel attention on the layer's spikes of the step before.",
        compared_with=("stbp",),  # and its own attention=none, spatial, channel
        baseline="sctfa[attention=none]",
        claims=(
            Claim(
                "test_accuracy",
                "property",
                None,
                "events/dvs-gesture",
                "significantly higher than attention=none, spatial and channel (also SL-Animals-DVS, MNIST-DVS)",
                ABSTRACT,
                "sctfa[attention=none]",
                expect="higher",
            ),
            Claim(
                "test_accuracy",
                "property",
                None,
                "events/dvs-gesture",
                "falls less with noise events than attention=none",
                ABSTRACT,
                "sctfa[attention=none]",
                expect="higher",
                figure="report.robustness_area.noise",
            ),
            Claim(
                "test_accuracy",
                "property",
                None,
                "events/dvs-gesture",
                "falls less with missing data than attention=none",
                ABSTRACT,
                "sctfa[attention=none]",
                expect="higher",
                figure="report.robustness_area.loss",
            ),
            Claim(
                "parameters",
                "property",
                None,
                "any",
                "2 C (C // 4) + C + 1 more per convolution layer of C channels",
                "ours, exact",
                tested="tests/methods/test_sctfa.py::test_the_report_of_event_data_has_gates_and_robustness_curves",
            ),
            Claim(
                "step_time",
                "property",
                None,
                "any",
                "acceptable complexity and efficiency",
                ABSTRACT,
                "sctfa[attention=none]",
                unmeasured="no figure is stated",
            ),
        ),
        reconstructed="only the official MNIST-DVS example was read: settings for other data, both degraded forms, the protocols of noise "
        "and incomplete data and the two leak controls are ours; the paper picks the best epoch on test data, the suite does not",
    )
    cannot = {"sequences": "attention is over space and channels of convolution layers, the paper gives fully connected layers none"}

    class Options(plugin.Options):
        """Attention, neuron, network and read-out."""

        attention: Literal["fused", "spatial", "channel", "none"] = Field("fused", description="gates on the potential; none: the baseline")
        reduction: int = Field(4, description="channels over hidden units in the channel gate (r)", ge=1)
        leak: float = Field(
            0.5, description="fraction of the potential kept per step before gating; 0.125 with none is a control", gt=0, lt=1
        )
        learn_leak: bool = Field(False, description="control, attention = none: learn the leak of every layer")
        threshold: float = Field(1.0, description="firing threshold (V_th); 0.8 in the paper", gt=0)
        surrogate: Literal["triangle", "arctan"] = Field("triangle", description="derivative that stands in for that of the spike")
        detach_reset: bool = Field(True, description="keep gradients out of the reset; the paper does not")
        norm: Literal["tdbn", "step"] = Field(
            "tdbn", description="normalisation; step: each time step by its own statistics, as in the paper"
        )
        network: Literal["task", "published"] = Field("task", description="the task's backbone, or the net of the paper's example")
        readout: Literal["linear", "population"] = Field(
            "linear", description="linear, or five spiking neurons per class and squared error"
        )
        corrupted: int = Field(256, description="event data: test samples for the robustness curves of the report; 0: none", ge=0)

    options: Options

    def __init__(self, task: Task, *args: Any, **kwargs: Any) -> None:
        """Bind to a task; raise UsageError for options that do not fit it or each other."""
        super().__init__(task, *args, **kwargs)
        o = self.options
        self.threshold = o.threshold
        if o.learn_leak and o.attention != "none":
            raise UsageError(f"sctfa: learn_leak is a control for attention = 'none', not for {o.attention!r}")
        if o.network == "published" and not self._fits(task):
            raise UnfitError(f"sctfa: network = 'published' classifies images of {SMALLEST} pixels a side or more, not {task.card.name}")
        if o.readout == "population" and not self._votes(task):
            raise UnfitError(f"sctfa: readout = 'population' is for classification by mean answers, not for {task.card.name}")

    @staticmethod
    def _fits(task: Task) -> bool:
        return task.head.kind == "classify" and len(task.input_shape) == 3 and min(task.input_shape[1:]) >= SMALLEST

    @staticmethod
    def _votes(task: Task) -> bool:
        return task.head.kind == "classify" and task.readout == "mean"

    # Parts ----------------------------------------------------------------------------------------------------------

    def neuron(self, features: int) -> nn.Module:
        """Return the neurons of a convolution layer."""
        o = self.options
        if o.attention == "none":
            return self.plain_neuron()
        return AttentiveLIF(features, o.attention, o.reduction, o.leak, o.threshold, o.detach_reset, SURROGATES[o.surrogate])

    def plain_neuron(self) -> LIF:
        """Return neurons without attention: those of fully connected layers, and of the baseline."""
        o = self.options
        learn = ("leak",) if o.learn_leak else ()
        return LIF(o.leak, o.threshold, "hard", o.detach_reset, SURROGATES[o.surrogate], strict=True, learn=learn)

    def norm(self, features: int, scale: float = 1.0) -> nn.Module:
        """Return tdBN, or batch normalisation of each step."""
        return StepBatchNorm(features) if self.options.norm == "step" else super().norm(features, scale)

    def conv(self, features_in: int, features_out: int, kernel: int, stride: int = 1, first: bool = False) -> nn.Module:
        """Return a convolution; the published network's have a bias."""
        bias = self.options.network == "published"
        return Conv2d(features_in, features_out, kernel, stride=stride, padding=kernel // 2, bias=bias)

    def readout(self, features_in: int, features_out: int) -> nn.Module:
        """Return the linear read-out, or populations of spiking neurons."""
        if self.options.readout == "population":
            return Votes(features_in, features_out, 5, self.plain_neuron(), bias=True)
        return super().readout(features_in, features_out)

    def backbone(self) -> nn.Module:
        """Return the task's reference backbone or the published network."""
        if self.options.network == "published":
            return EventNet(self.task.input_shape, self, self.plain_neuron())
        return super().backbone()

    # Training -------------------------------------------------------------------------------------------------------

    def loss(self, output: Tensor, targets: Tensor) -> Tensor:
        """Return the task's loss; of a population the squared error to one-hot answers, mean over classes (smoothed if so set)."""
        if self.options.readout != "population":
            return super().loss(output, targets)
        return one_hot_error(output, targets, self.training.label_smoothing)

    def recipe(self, task: Task) -> dict[str, Any]:
        """Return the settings of the MNIST-DVS example, with the task's network and read-out where the example's do not fit."""
        return {
            "threshold": 0.8,
            "surrogate": "arctan",
            "detach_reset": False,
            "norm": "step",
            "network": "published" if self._fits(task) else "task",
            "readout": "population" if self._votes(task) else "linear",
            "schedule": "exponential",
            "lr_factor": 0.95,
            "steps": 20,
            "optimizer": "adam",
            "lr": 1e-3,
            "weight_decay": 0.0,
            "augment": False,
            "epochs": 100,
            "batch_size": 100,
        }

    # Report ---------------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def report(self, net: nn.Module) -> dict[str, Any]:
        """Return parameters of the attention, gates per layer on a test batch, and on event data the robustness curves and their areas.

        ``gates``: for each layer the mean A at each step, over the batch; ``gate_maps``: A over space, mean over the rest, at most 8x8;
        ``attention_backends``: layers by backend. The curves hold the main metric at each of ``strengths``.
        """
        net.eval()
        layers = [module for module in net.modules() if isinstance(module, AttentiveLIF)]
        extra = sum(p.numel() for layer in layers for p in layer.parameters())
        found: dict[str, Any] = {
            **super().report(net),
            "attention_parameters": extra,
            "attention_share": extra / sum(p.numel() for p in net.parameters()),
        }
        if layers:
            spikes: list[Tensor] = []
            hooks = [layer.register_forward_hook(lambda module, args, out: spikes.append(out)) for layer in layers]
            net(self.encode(next(self.task.batches("test", batch_size=64)).inputs))
            for hook in hooks:
                hook.remove()
            gates = [torch.stack([layer.attend(s) for s in out]) for layer, out in zip(layers, spikes, strict=True)]
            found["gates"] = [gate.mean((1, 2, 3, 4)).tolist() for gate in gates]
            found["gate_maps"] = [F.adaptive_avg_pool2d(gate.mean((0, 1, 2))[None], MAP)[0].tolist() for gate in gates]
            found["attention_backends"] = {name: sum(layer.used == name for layer in layers) for name in {layer.used for layer in layers}}
        if self.task.temporal and len(self.task.input_shape) == 3 and self.options.corrupted:
            curves = {kind: [self._score(net, kind, strength) for strength in strengths] for kind, strengths in STRENGTHS.items()}
            found |= {"strengths": STRENGTHS, "robustness": curves}
            found["robustness_area"] = {kind: corruption.area(STRENGTHS[kind], curve) for kind, curve in curves.items()}
        return found

    def _score(self, net: nn.Module, kind: str, strength: float) -> float:
        """Return the main metric on test data damaged so, always by the same random numbers."""
        generator = torch.Generator(self.task.device).manual_seed(0)

        def predict(inputs: Tensor) -> Prediction:
            return Prediction.at_every_step(self.task.answer(net(corruption.kinds[kind](self.encode(inputs), strength, generator))))

        return score(self.task, "test", predict, self.options.corrupted)[0]
