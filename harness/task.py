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

Shapes: a sample is what the data set holds; a batch of inputs is ``[B, ...]``; ``encode`` turns it into the time-major
sequence ``[T, B, ...]`` that networks see. Networks answer with outputs ``[T, B, ...]``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.utils.data import Subset

from harness.plugin import UsageError, did_you_mean

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
    left, top, right, bottom distances, centre-ness; locations of all ``strides`` joined, row by row).
    """

    kind: Literal["classify", "detect"]
    classes: int
    strides: tuple[int, ...] = ()  # detect: input pixels per location, one level of features each


@dataclass(frozen=True)
class Backbone:
    """The reference network of a budget, built by ``methods.nn.backbones`` from a method's parts."""

    kind: Literal["conv", "sequence"]
    widths: tuple[int, ...]  # channels of the stages (conv) or features of the layers (sequence)


@dataclass(frozen=True)
class Training:
    """How a network is trained. The same for every method in the ``matched`` track."""

    epochs: int
    batch_size: int = 64
    optimizer: Literal["sgd", "adam", "adamw"] = "adam"
    lr: float = 1e-3
    momentum: float = 0.9  # sgd only
    weight_decay: float = 0.0
    schedule: Literal["constant", "cosine", "drops"] = "cosine"  # drops: a tenth after 50, 70 and 90 % of the epochs
    label_smoothing: float = 0.0
    augment: bool = False
    clip_norm: float = 0.0  # largest gradient norm; 0 turns clipping off


@dataclass(frozen=True)
class Budget:
    """What a run may spend: training settings, size of the network, and how much of the data is used."""

    training: Training
    backbone: Backbone
    train_samples: int | None = None  # the first n of the training split; None for all
    time_limit: float = 600.0  # seconds until a run is ended
    target: float | None = None  # value of the main metric that "time to target" waits for


class Batch(NamedTuple):
    """Some samples: ``inputs [B, ...]``, ``targets [B, ...]``, and their positions in the split ``index [B]``."""

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


class Task(ABC):
    """Data + encoding + head + loss + metric + budgets.

    Class attributes: ``card``, ``version`` (raise it when the data or the split rule change), ``input_shape`` (of one
    time step, without T and B), ``steps`` (default number of time steps), ``embedded``, ``temporal`` (True when the data bring their
    own time axis), ``readout`` (how outputs become an answer), ``head``, ``metric`` (main metric of the scorer), ``budgets``.
    """

    card: ClassVar[TaskCard]
    version: ClassVar[int] = 1
    input_shape: tuple[int, ...]
    steps: int
    embedded: bool = False  # True when the data need no download: they come with a package or are generated
    temporal: bool = False  # events and sequences; then time steps mean something and cannot be chosen freely by a method
    readout: Literal["mean", "last"] = "mean"  # answer at step t: mean of outputs 0..t, or the output of step t
    head: Head
    metric: str = "accuracy"
    budgets: ClassVar[dict[str, Budget]]

    def __init__(self, budget: str = "smoke", device: torch.device | str = "cpu") -> None:
        """Bind the task to a budget and a device; raise UsageError for a budget that it does not have."""
        if budget not in self.budgets:
            raise UsageError(f"{self.card.name} has no budget {budget!r}{did_you_mean(budget, self.budgets)}")
        self.budget_name = budget
        self.budget = self.budgets[budget]
        self.device = torch.device(device)
        self._splits: dict[str, Any] = {}

    # What a task must say -------------------------------------------------------------------------------------------

    @abstractmethod
    def load(self, split: Split) -> Any:
        """Return the samples of a split: a ``Data`` in memory or a map-style data set of (input, target) tensors.

        Called once per split and run, off the clock.
        """

    @abstractmethod
    def loss(self, output: Tensor, targets: Tensor, label_smoothing: float = 0.0) -> Tensor:
        """Return the scalar loss of answers ``output [B, ...]`` (after the read-out) to ``targets [B, ...]``."""

    @abstractmethod
    def scorer(self) -> Scorer:
        """Return a fresh accumulator of this task's metrics."""

    # What a task may say --------------------------------------------------------------------------------------------

    @classmethod
    def unavailable(cls) -> str | None:
        """Return why the task cannot run here (a package or data that is missing, and what to do), or None."""
        return None

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

    def split(self, name: Split) -> Any:
        """Return the samples of a split, loaded once; the training split is cut to the budget's ``train_samples``."""
        if name not in self._splits:
            data = self.load(name)
            limit = self.budget.train_samples
            if name == "train" and limit is not None and limit < len(data):
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
            samples = [data[i] for i in index.tolist()]
            inputs, targets = (torch.stack([torch.as_tensor(s[part]) for s in samples]) for part in (0, 1))
        return Batch(inputs.to(self.device), targets.to(self.device), index)

    def answer(self, outputs: Tensor) -> Tensor:
        """Return the answers as of every step ``[T, B, ...]`` of network outputs ``[T, B, ...]`` (the read-out)."""
        if self.readout == "last":
            return outputs
        count = torch.arange(1, len(outputs) + 1, device=outputs.device, dtype=outputs.dtype)
        return outputs.cumsum(0) / count.view(-1, *[1] * (outputs.dim() - 1))

    def final(self, outputs: Tensor) -> Tensor:
        """Return the answer ``[B, ...]`` at the last step of network outputs ``[T, B, ...]``."""
        return outputs[-1] if self.readout == "last" else outputs.mean(0)
