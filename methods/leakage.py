"""What a trained network tells about its training data: which of them the conversion read, and what its weights say about the classes.

Three attacks, each on copies; the network is left as it is::

    A1  data leak       training images read after the ReLU network was trained, as the method counts them (``training_images_read``);
                        methods trained by back-propagation on real data read them all
    A2  weight copy     the ReLU network of the same weights (``methods.nn.relu_twin``): its accuracy on real test images, and class
                        impressions from it (``methods.nn.impressions``, one-hot labels)
    A3  SNN gradient    the same ascent through the unrolled spiking network and its surrogate gradients

Impressions are judged by an independent ReLU network trained on the real training data (the method ``ann``; share of the impressions that
it takes for their class), and by the cosine of their pixels with the mean training image of their class. Leak = score above chance: one
over the number of classes; for cosines, the mean cosine with the means of the other classes, since all images of one kind look alike.

Attacks and scores are ours, built from the two leaks that the abstract names: "PrivateSNN: Privacy-Preserving Spiking Neural Networks"
(Kim, Venkatesha, Panda, AAAI 2022). Choices of ours: events and sequences are sought as real numbers between the least and the largest of
the training data; an encoding that passes no gradient is passed straight through (a method may say what it encodes on average, as
``rates(inputs)``); of conversion methods, which simulate long, A3 unrolls ``steps`` time steps at most.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from harness import plugin
from harness.evaluate import evaluate
from harness.loop import train
from harness.method import Method
from harness.plugin import Claim, ProbeCard
from harness.probe import Probe
from harness.task import Task
from methods.ann import Ann
from methods.base_conversion import ConversionMethod
from methods.nn.impressions import impressions
from methods.nn.noise import pixels
from methods.nn.relu_twin import SPIKING, relu_twin

Logits = Callable[[Tensor], Tensor]  # prepared inputs [B, ...] -> logits [B, classes], differentiable
REBUILT = "probes.leakage.A2.recognised_leak"  # classes that a judge sees in images rebuilt by the second attack, above chance
RANGE = 256  # training samples that the range of events and sequences is taken from


class Leakage(Probe):
    """Attacks on the privacy of the training data."""

    card = ProbeCard(
        name="leakage",
        title="PrivateSNN: Privacy-Preserving Spiking Neural Networks",
        authors="Kim, Venkatesha, Panda",
        venue="AAAI",
        year=2022,
        family="privacy",
        summary="Which training data a conversion read, and how much of the classes can be rebuilt from the weights, in three attacks.",
        compared_with=("private_snn", "private_snn[encrypt=false]", "ann"),
        claims=(
            Claim(
                "test_accuracy",
                "property",
                None,
                "any",
                "no class features can be rebuilt from encrypted weights",
                "abstract",
                variant="private_snn",
                against="private_snn[encrypt=false]",
                figure=REBUILT,
                expect="lower",
            ),
            Claim(
                "test_accuracy",
                "property",
                None,
                "any",
                "they can from those of a converted network",
                "abstract",
                variant="ann2snn",
                figure=REBUILT,
                expect="at least 0.1",
            ),
        ),
        reconstructed="the attacks and their scores are ours; the abstract names the two leaks and no way to measure them",
        applied_to="private_snn",
    )
    headings: ClassVar[dict[str, str]] = {
        "attack": "attack",
        "score": "score (0 to 1)",
        "chance": "by chance",
        "leak": "leak (above chance)",
        "images_read": "training images read",
    }

    class Options(plugin.Options):
        """How hard the attacks try."""

        impressions: int = Field(3, description="class impressions per class and attack", ge=1)
        iterations: int = Field(150, description="updates of each impression", ge=1)
        lr: float = Field(0.02, description="Adam's rate on pixels", gt=0)
        temperature: float = Field(20.0, description="temperature of the softmax in the ascent", gt=0)
        steps: int = Field(16, description="A3 on conversion methods: time steps unrolled, at most", ge=1)
        test_samples: int = Field(1000, description="A2: real test samples answered, at most", ge=1)
        judge_epochs: int = Field(8, description="epochs of the classifier that judges, at most those of the run", ge=1)
        seed: int = Field(0, description="seed of the judge and of the noise that impressions start from", ge=0)

    options: Options

    def supports(self, method: Method) -> str | None:
        """Return why not: no classes, or weights that make no ReLU network. An untrained network is made and answered with to find out."""
        task = method.task
        if task.head.kind != "classify":
            return f"leakage rebuilds classes; {task.name} asks to {task.head.kind.replace('_', ' ')}"
        with torch.random.fork_rng(), torch.no_grad():
            other = copy.copy(method)
            net = other.build().to(task.device).eval()
            inputs = next(task.batches("validation", 2, 2)).inputs
            try:
                shape = twin_logits(other, relu_twin(net))(inputs).shape
            except (ValueError, RuntimeError, TypeError, AttributeError) as error:
                return f"no ReLU network can be made of its weights: {str(error).splitlines()[0] if str(error) else type(error).__name__}"
        return None if shape == (len(inputs), task.head.classes) else f"its ReLU network answers {list(shape)}"

    def measure(self, method: Method, net: nn.Module) -> dict[str, Any]:
        """Return the figures of the attacks.

        ``chance``: one over the classes. ``A1``: ``reads`` (a text), ``training_images``, and where known ``images_read`` and their share.
        ``A2``: ``accuracy`` of the rebuilt network, ``network_accuracy`` of the one attacked, ``agreement`` of both answers, ``leak``. In
        ``A2`` and ``A3`` (of networks that spike): ``recognised`` by the judge, by class ``recognised_classes``; ``cosine`` and
        ``cosine_chance``; both leaks; ``own``, the share that the attacked network itself takes for their class. ``judge_accuracy``: on
        test data.
        """
        task, chance = method.task, 1 / method.task.head.classes
        with torch.random.fork_rng(), torch.enable_grad():
            torch.manual_seed(self.options.seed)
            judge, accuracy = self._judge(task)
            space = Space.of(task)
            means = class_means(task, space)
            found: dict[str, Any] = {"chance": chance, "A1": data_leak(method), "judge_accuracy": accuracy}
            twin = twin_logits(method, frozen(relu_twin(net)))
            found["A2"] = self._copied(method, net, twin, chance) | self._ascend(task, space, twin, judge, means)
            if any(getattr(module, "spike_kind", None) in SPIKING for module in net.modules()):
                unrolled = copy.copy(method)
                if isinstance(method, ConversionMethod):
                    unrolled.steps = min(method.steps, self.options.steps)
                logits = spiking_logits(unrolled, frozen(copy.deepcopy(net)))
                reason = opaque(logits, space.inputs(torch.rand(4, *space.shape, device=task.device)))
                found["A3"] = {"cannot": reason} if reason else self._ascend(task, space, logits, judge, means)
        return found

    def _judge(self, task: Task) -> tuple[Logits, float]:
        """Return the logits of a classifier trained on the real training data, and its accuracy on test data."""
        method = Ann(task, training={"epochs": min(self.options.judge_epochs, task.budget.training.epochs)})
        net = method.build().to(task.device)
        train(method, net, self.options.seed)
        return (lambda inputs: method.predict(net, inputs).final()), evaluate(method, net, "test", every_step=False).metrics[task.metric]

    @torch.no_grad()
    def _copied(self, method: Method, net: nn.Module, twin: Logits, chance: float) -> dict[str, float]:
        """Return how the rebuilt network answers real test samples."""
        copied = frozen(copy.deepcopy(net))
        right = own = same = seen = 0
        for batch in method.task.batches("test", 64, self.options.test_samples):
            answers, wanted = twin(batch.inputs).argmax(1), method.predict(copied, batch.inputs).final().argmax(1)
            right += int((answers == batch.targets).sum())
            own += int((wanted == batch.targets).sum())
            same += int((answers == wanted).sum())
            seen += len(answers)
        return {"accuracy": right / seen, "leak": right / seen - chance, "network_accuracy": own / seen, "agreement": same / seen}

    def _ascend(self, task: Task, space: Space, logits: Logits, judge: Logits, means: Tensor) -> dict[str, Any]:
        """Return what impressions from ``logits`` tell; ``means [classes, ...]`` are the mean images of the classes."""
        o, count = self.options, task.head.classes
        torch.manual_seed(o.seed)
        classes = torch.arange(count, device=task.device).repeat_interleave(o.impressions)
        labels = F.one_hot(classes, count).float()
        found = impressions(lambda x: logits(space.inputs(x)), labels, space.shape, o.iterations, o.lr, o.temperature).float() / 255
        with torch.no_grad():
            inputs = space.inputs(found)
            recognised = (judge(inputs).argmax(1) == classes).double()
            own = (logits(inputs).argmax(1) == classes).double().mean().item()
            cosines = F.normalize(found.flatten(1), dim=1) @ F.normalize(means.flatten(1), dim=1).T
        cosine = cosines.gather(1, classes[:, None]).mean().item()
        others = (cosines.sum(1, keepdim=True) - cosines.gather(1, classes[:, None])).mean().item() / max(count - 1, 1)
        share = recognised.mean().item()
        return {
            "recognised": share,
            "recognised_leak": share - 1 / count,
            "recognised_classes": recognised.view(count, -1).mean(1).tolist(),
            "cosine": cosine,
            "cosine_chance": others,
            "cosine_leak": cosine - others,
            "own": own,
        }

    @classmethod
    def rows(cls, figures: dict[str, Any]) -> list[dict[str, str | float | None]]:
        """Return a row per attack and score."""
        empty: dict[str, str | float | None] = dict.fromkeys(("score", "chance", "leak", "images_read"))
        rows = [{**empty, "attack": f"A1 {figures['A1']['reads']}", "images_read": figures["A1"].get("images_read")}]
        copied = figures["A2"]
        scores = [("A2 rebuilt ReLU network, test data", copied["accuracy"], figures["chance"], copied["leak"])]
        for name, source in (("A2", "ReLU network"), ("A3", "spiking network")):
            part = figures.get(name, {"cannot": ""})
            if part.get("cannot"):
                rows.append({**empty, "attack": f"{name} not possible: {part['cannot']}"})
            elif "cannot" not in part:
                scores.append(
                    (f"{name} impressions of the {source}, judged", part["recognised"], figures["chance"], part["recognised_leak"])
                )
                scores.append((f"{name} impressions of the {source}, cosine", part["cosine"], part["cosine_chance"], part["cosine_leak"]))
        return rows + [{**empty, "attack": what, "score": score, "chance": by, "leak": leak} for what, score, by, leak in scores]


def data_leak(method: Method) -> dict[str, Any]:
    """Return which training data were read after the ReLU network was trained, as far as is known."""
    total = len(method.task.split("train"))
    read = getattr(method, "training_images_read", None)
    if read is not None:
        reads = "conversion reads training data" if read else "conversion reads no training data"
        return {"reads": reads, "images_read": read, "training_images": total, "share": read / total}
    if isinstance(method, ConversionMethod):
        return {"reads": "conversion reads training data, not counted", "training_images": total}
    return {"reads": "trained by back-propagation on real data", "images_read": total, "training_images": total, "share": 1.0}


def opaque(logits: Logits, inputs: Tensor) -> str | None:
    """Return why no gradient comes from ``logits`` to ``inputs [B, ...]``, or None if one does."""
    inputs = inputs.detach().requires_grad_()
    try:
        (slope,) = torch.autograd.grad(logits(inputs).sum(), inputs, allow_unused=True)
    except RuntimeError as error:
        return f"it cannot be differentiated ({str(error).splitlines()[0]})"
    return None if slope is not None and slope.count_nonzero() else "its neurons pass no gradient"


def frozen(net: nn.Module) -> nn.Module:
    """Return ``net`` in eval mode, its parameters without gradients."""
    return net.eval().requires_grad_(False)


def mean_input(method: Method, inputs: Tensor) -> Tensor:
    """Return what ``method`` encodes static ``inputs [B, ...]`` as, averaged over time: exactly, if the method says so (``rates``)."""
    rates = getattr(method, "rates", None)
    return rates(inputs) if rates is not None else method.encode(inputs).mean(0)


def twin_logits(method: Method, twin: nn.Module) -> Logits:
    """Return the logits of the ReLU network; that of a conversion method, which has no time, sees one step of mean input."""
    if isinstance(method, ConversionMethod):
        return lambda inputs: method.task.final(twin(straight_through(method, mean_input)(inputs).unsqueeze(0)))
    return spiking_logits(method, twin)


def spiking_logits(method: Method, net: nn.Module) -> Logits:
    """Return the final answers of ``net`` as the method reads them, differentiable in the inputs."""
    attacked = copy.copy(method)
    attacked.encode = straight_through(method, lambda method, inputs: method.encode(inputs))  # type: ignore[method-assign, assignment]
    return lambda inputs: attacked.predict(net, inputs).final()


def straight_through(method: Method, encode: Callable[[Method, Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Return the values of ``encode``; where these pass no gradient (random spikes), with that of the inputs themselves, or their rates."""

    def encoded(inputs: Tensor) -> Tensor:
        sequence = encode(method, inputs)
        if not (torch.is_grad_enabled() and inputs.requires_grad):
            return sequence
        if sequence.requires_grad:
            (slope,) = torch.autograd.grad(sequence.sum(), inputs, retain_graph=True, allow_unused=True)
            if slope is not None and slope.count_nonzero():
                return sequence
        plain = mean_input(method, inputs) if hasattr(method, "rates") else inputs
        return sequence.detach() + (plain - plain.detach())

    return encoded


@dataclass(frozen=True)
class Space:
    """Where impressions live: ``shape`` of one in [0, 1], and how it becomes what networks are given, and back."""

    task: Task
    shape: tuple[int, ...]
    low: float
    high: float

    @classmethod
    def of(cls, task: Task) -> Space:
        """Return pixels for images, else the range of the training data."""
        some = next(task.batches("train", RANGE, RANGE)).inputs
        return cls(task, tuple(some.shape[1:]), float(some.min()), float(some.max()))

    @property
    def images(self) -> bool:
        """Whether these are still images."""
        return not self.task.temporal and len(self.shape) == 3

    def inputs(self, x: Tensor) -> Tensor:
        """Return ``x [B, *shape]`` in [0, 1] as prepared inputs."""
        return self.task.prepare(x) if self.images else self.low + (self.high - self.low) * x

    def back(self, inputs: Tensor) -> Tensor:
        """Return prepared inputs as numbers in [0, 1]."""
        return pixels(self.task, inputs) if self.images else (inputs - self.low) / max(self.high - self.low, 1e-12)


@torch.no_grad()
def class_means(task: Task, space: Space) -> Tensor:
    """Return the mean training sample ``[classes, *shape]`` of each class, in [0, 1]; 0 for a class without samples."""
    total = torch.zeros(task.head.classes, *space.shape, device=task.device)
    count = torch.zeros(task.head.classes, device=task.device)
    for batch in task.batches("train"):
        total.index_add_(0, batch.targets, space.back(batch.inputs))
        count += batch.targets.bincount(minlength=task.head.classes)
    return total / count.clamp_min(1).view(-1, *[1] * len(space.shape))
