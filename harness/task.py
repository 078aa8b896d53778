"""A task: data, encoding, head, loss, metric and budgets. Every method meets a task through this interface only.

A task in full::

    class Digits(Task):
        card = TaskCard(name="static/digits", ...)
        input_shape = (1, 8, 8)
        head = Head("classify", classes=10)
        steps = 4
        budgets = {"smoke": Budget(Training(epochs=12), Backbone("conv", (16, 32)))}

        def load(self, split):
            return Data(images, labels)

Shapes: a sample is what the data set holds; a batch of inputs is ``[B, ...]``; ``prepare`` makes numbers of what is stored (bytes of an
image), ``encode`` turns them into the time-major sequence ``[T, B, ...]`` that networks see. Networks answer with outputs ``[T, B, ...]``.

A task may have options, which are a part of its name: ``sequences/adding[length=1024]``, ``static/folder[path=birds]``.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.utils.data import Subset

from harness.plugin import Options, Plugin, UsageError, did_you_mean, written

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")


@dataclass(frozen=True)
class TaskCard:
    """Where the data of a task come from and what is asked of them."""

    name: str  # "suite/name", e.g. "static/digits"
    title: str
    data: str  # what the data are and where they come from
    licence: str  # licence of the data
    split: str  # the rule that makes train, validation and test
    source: str  # paper, page or file that defines the task


@dataclass(frozen=True)
class Head:
    """What the network must answer. ``methods.nn.heads`` builds a module for each kind.

    ``classify``: logits ``[T, B, classes]``. ``detect``: per location ``[T, B, L, 5 + classes]`` (class logits,
    left, top, right, bottom distances, centre-ness; locations of all ``strides`` joined, row by row). ``segment``: logits of every pixel
    ``[T, B, classes, H, W]``. ``per_step``: ``[T, B, classes]`` as for classify, but every step has an answer of its own
    (``readout = "each"``), e.g. the next token. ``regress``: ``[T, B, classes]``, numbers instead of logits: the values of a forecast.
    """

    kind: Literal["classify", "detect", "segment", "per_step", "regress"]
    classes: int  # of regress: how many numbers
    strides: tuple[int, ...] = ()  # detect, segment: input pixels per location, one level of features each


@dataclass(frozen=True)
class Backbone:
    """The reference network of a budget, built by ``methods.nn.backbones`` from a method's parts."""

    kind: Literal["conv", "vgg", "resnet", "sequence"]
    widths: tuple[int, ...]  # channels of the stages (images) or features of the layers (sequence)
    depth: int = 1  # multiplies the layers (or residual blocks) of every stage


@dataclass(frozen=True)
class Training:
    """How a network is trained. The same for every method in the ``matched`` track."""

    epochs: int
    batch_size: int = 64
    optimizer: Literal["sgd", "adam", "adamw"] = "adam"
    lr: float = 1e-3
    momentum: float = 0.9  # sgd only
    weight_decay: float = 0.0
    schedule: Literal["constant", "cosine", "drops", "exponential"] = "cosine"  # see ``lr_share``
    milestones: tuple[float, ...] = (0.5, 0.7, 0.9)  # drops only: after these shares of the epochs the rate falls
    lr_factor: float = 0.1  # drops: by this factor each; exponential: by it after every epoch
    warm_up: int = 0  # epochs in which the rate rises linearly to what the schedule says
    label_smoothing: float = 0.0
    augment: bool = False
    clip_norm: float = 0.0  # largest gradient norm; 0 turns clipping off

    def lr_share(self, epoch: int) -> float:
        """Return the learning rate of ``epoch`` (from 0) over ``lr``.

        With n epochs::

            constant     1
            cosine       (1 + cos(pi * epoch / n)) / 2
            drops        lr_factor ** (number of milestones m with round(m * n) <= epoch)
            exponential  lr_factor ** epoch

        times ``(epoch + 1) / (warm_up + 1)`` in the first ``warm_up`` epochs.
        """
        warming = min(1.0, (epoch + 1) / (self.warm_up + 1))
        if self.schedule == "cosine":
            return warming * (1 + math.cos(math.pi * epoch / self.epochs)) / 2
        if self.schedule == "drops":
            return warming * self.lr_factor ** sum(round(share * self.epochs) <= epoch for share in self.milestones)
        return warming * (self.lr_factor**epoch if self.schedule == "exponential" else 1.0)


@dataclass(frozen=True)
class Budget:
    """What a run may spend: training settings, size of the network, and how much of the data is used."""

    training: Training
    backbone: Backbone
    train_samples: int | None = None  # the first n of the training split; None for all
    validation_samples: int | None = None
    test_samples: int | None = None
    time_limit: float = 600.0  # seconds until a run is ended
    target: float | None = None  # value of the main metric that "time to target" waits for


class Batch(NamedTuple):
    """Some samples: ``inputs [B, ...]``, ``targets [B, ...]``, and their positions in the split ``index [B]``, which stays on the CPU."""

    inputs: Tensor
    targets: Tensor
    index: Tensor


@dataclass(frozen=True)
class Data:
    """A split held in memory. ``targets`` of detection are boxes ``[N, M, 5]`` (class, x1, y1, x2, y2; class -1 pads)."""

    inputs: Tensor
    targets: Tensor

    def __post_init__(self) -> None:
        """Raise ValueError if inputs and targets are not of one length."""
        if len(self.inputs) != len(self.targets):
            raise ValueError(f"{len(self.inputs)} inputs but {len(self.targets)} targets")

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self.inputs)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Return one sample and its target."""
        return self.inputs[index], self.targets[index]


class Scorer(Protocol):
    """Accumulates answers and computes the metrics of a task."""

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        """Add answers ``outputs [B, ...]`` to ``targets [B, ...]``."""

    def compute(self) -> dict[str, float]:
        """Return metric name -> value; the first is the main metric of the task."""

    def correct(self) -> list[bool]:
        """Return for each item (sample, or object in detection) whether it was answered rightly, in data order."""


class Task(Plugin, ABC):
    """Data + encoding + head + loss + metric + budgets.

    Attributes: ``card``, ``version`` (raise it when the data or the split rule change), ``input_shape`` (of one
    time step, without T and B), ``steps`` (default number of time steps), ``embedded``, ``temporal`` (True when the data bring their
    own time axis), ``readout`` (how outputs become an answer), ``head``, ``metric`` (main metric of the scorer, a name of
    ``harness.metrics.TASK_METRICS``), ``budgets``. Those that depend on options or files may be properties. Making a task is cheap and
    touches no data, so that a task whose files are missing can say so (``unavailable``).
    """

    card: ClassVar[TaskCard]  # type: ignore[assignment]  # a card of another kind than a method's
    version: ClassVar[int] = 1
    input_shape: tuple[int, ...]
    steps: int
    embedded: bool = False  # True when the data need no download: they come with a package or are generated
    temporal: bool = False  # events and sequences; then time steps mean something and cannot be chosen freely by a method
    readout: Literal["mean", "last", "each"] = "mean"  # answer at step t: mean of outputs 0..t, or output t; each: all outputs count
    head: Head
    metric: str = "accuracy"
    budgets: ClassVar[dict[str, Budget]]

    def __init__(self, budget: str = "smoke", device: torch.device | str = "cpu", options: Mapping[str, Any] | None = None) -> None:
        """Bind the task to a budget, a device and options; raise UsageError for a budget or an option that it does not have."""
        super().__init__(options)
        if budget not in self.budgets:
            raise UsageError(f"{self.card.name} has no budget {budget!r}{did_you_mean(budget, self.budgets)}")
        self.budget_name = budget
        self.budget = self.budgets[budget]
        self.device = torch.device(device)
        self.warnings: list[str] = []  # what ``load`` passed over, counted, e.g. boxes without area; goes into the record
        self._splits: dict[str, Any] = {}

    # What a task must say -------------------------------------------------------------------------------------------

    @abstractmethod
    def load(self, split: Split) -> Any:
        """Return the samples of a split: a ``Data`` in memory or a map-style data set of (input, target) tensors.

        Called once per split and run, off the clock. A data set that is not in memory is read by worker processes while training.
        Raises ``harness.plugin.DataError``, which names the file, for data that are damaged.
        """

    @abstractmethod
    def loss(self, output: Tensor, targets: Tensor, label_smoothing: float = 0.0) -> Tensor:
        """Return the scalar loss of answers ``output [B, ...]`` (after the read-out) to ``targets [B, ...]``."""

    @abstractmethod
    def scorer(self) -> Scorer:
        """Return a fresh accumulator of this task's metrics."""

    # What a task may say --------------------------------------------------------------------------------------------

    def unavailable(self) -> str | None:
        """Return why the task cannot run here (a package, an option or data that is missing or damaged, and what to do), or None."""
        return None

    def download_size(self) -> str | None:
        """Return how much ``fetch`` would download, e.g. "11 MB"; None if there is nothing that it could."""
        return None

    def fetch(self) -> None:
        """Download the data, verify them and leave them where ``load`` finds them; raise UsageError if that cannot be done."""
        raise UsageError(f"{self.name} has nothing to download: {self.unavailable() or 'its data are here'}")

    def prepare(self, inputs: Tensor) -> Tensor:
        """Return a batch of stored inputs ``[B, ...]``, already on the task's device, as numbers for the network: normalised bytes, say."""
        return inputs

    def collate(self, samples: Sequence[tuple[Any, Any]]) -> tuple[Tensor, Tensor]:
        """Return inputs and targets of some samples of a data set that is not in memory; default: they are stacked."""
        inputs, targets = (torch.stack([torch.as_tensor(sample[part]) for sample in samples]) for part in (0, 1))
        return inputs, targets

    def extrapolations(self) -> dict[str, Task]:
        """Return tasks that the trained network is evaluated on as well, e.g. longer sequences: what to call each -> task; default none."""
        return {}

    def encode(self, inputs: Tensor, steps: int) -> Tensor:
        """Return the time-major sequence ``[T, B, ...]`` of ``inputs [B, ...]``.

        Default: direct coding for static data (the same input at every step, no copy), and ``[B, T, ...]`` to
        ``[T, B, ...]`` for temporal data, whose number of steps is the data's own.
        """
        if self.temporal:
            return inputs.transpose(0, 1).contiguous()
        return inputs.unsqueeze(0).expand(steps, *inputs.shape)

    def augment(self, batch: Batch, generator: torch.Generator) -> Batch:
        """Return a training batch randomly changed (boxes move with their image); called when the training settings say ``augment``."""
        return batch

    def checksum(self) -> str:
        """Return a hash of the data: same data, same text, on every machine."""
        raise NotImplementedError

    # What every task has --------------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """The task's name with the options that differ from their defaults, e.g. ``sequences/adding[length=1024]``."""
        return named(self.card.name, self.options)

    def split(self, name: Split) -> Any:
        """Return the samples of a split, loaded once and cut to as many as the budget says."""
        if name not in self._splits:
            data = self.load(name)
            limit = getattr(self.budget, f"{name}_samples")
            if limit is not None and limit < len(data):
                data = Data(data.inputs[:limit], data.targets[:limit]) if isinstance(data, Data) else Subset(data, range(limit))
            self._splits[name] = data
        return self._splits[name]

    def batches(self, split: Split, batch_size: int = 256, limit: int | None = None) -> Iterator[Batch]:
        """Yield the first ``limit`` samples of a split in order, not augmented, on the task's device."""
        data = self.split(split)
        count = len(data) if limit is None else min(limit, len(data))
        for start in range(0, count, batch_size):
            yield self.gather(split, torch.arange(start, min(start + batch_size, count)))

    def gather(self, split: Split, index: Tensor) -> Batch:
        """Return the samples at positions ``index [B]`` of a split, on the task's device."""
        data = self.split(split)
        if isinstance(data, Data):
            inputs, targets = data.inputs[index], data.targets[index]
        else:
            inputs, targets = self.collate([data[i] for i in index.tolist()])
        return self.batch(inputs, targets, index)

    def batch(self, inputs: Tensor, targets: Tensor, index: Tensor) -> Batch:
        """Return stored samples as a batch on the task's device."""
        return Batch(self.prepare(inputs.to(self.device, non_blocking=True)), targets.to(self.device, non_blocking=True), index)

    def answer(self, outputs: Tensor) -> Tensor:
        """Return the answers as of every step ``[T, B, ...]`` of network outputs ``[T, B, ...]`` (the read-out)."""
        if self.readout != "mean":
            return outputs
        count = torch.arange(1, len(outputs) + 1, device=outputs.device, dtype=outputs.dtype)
        return outputs.cumsum(0) / count.view(-1, *[1] * (outputs.dim() - 1))

    def at_step(self, step: int, answers: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return what to score as the answer of a step: ``answers [B, ...]`` and all targets, or if each counts those of this step."""
        return (answers.unsqueeze(1), targets[:, step : step + 1]) if self.readout == "each" else (answers, targets)

    def final(self, outputs: Tensor) -> Tensor:
        """Return the answer ``[B, ...]`` after the last step of network outputs ``[T, B, ...]``; readout "each": ``[B, T, ...]``."""
        if self.readout == "each":
            return outputs.transpose(0, 1)
        return outputs[-1] if self.readout == "last" else outputs.mean(0)


def named(name: str, options: Options) -> str:
    """Return ``name`` with the options that differ from their defaults in brackets, in alphabetical order."""
    defaults = {key: field.get_default(call_default_factory=True) for key, field in type(options).model_fields.items()}
    changed = {key: value for key, value in options if value != defaults[key]}
    shown = options.model_dump(mode="json")
    return name + (f"[{','.join(f'{key}={written(shown[key])}' for key in sorted(changed))}]" if changed else "")
