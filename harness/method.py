"""A method: a way to obtain a trained spiking network for a task. This is the whole contract a plugin fulfils.

The harness owns loops, devices, mixed precision, seeds, data order, progress, time limits and meters. A method says
only what it is about, in up to four places::

    build()    -> the network, an nn.Module that maps inputs [T, B, ...] to outputs [T, B, ...]
    phases(net)-> the stages of training that the harness drives, one after the other
    step(...)  -> what happens to one batch: forward, loss, and a call of ``update.minimise(loss)``
    predict(...)-> the answers of the trained network, at every time step

Most methods start from ``methods.base.SpikingMethod``, which has defaults for all four and smaller hooks (``neuron``,
``norm``, ``conv``, ``backbone``...) for methods that change one part only. When each is called, and whether it is on the clock:

    __init__, build      once, off the clock
    phases               a generator; code between two ``yield`` runs off the step clock, inside the total time
    Phase.step           once per batch, on the clock; its first two calls in each phase (three on CUDA) measure memory instead
    predict              evaluation, off the training clock; its own latency and throughput are measured apart
    report               once, after training, off the clock

How spikes are counted: every module that emits spikes has an attribute ``spike_kind`` ("binary" for exact 0/1 values,
"graded" otherwise), and what it returns is counted.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Protocol

import torch
from torch import Tensor, nn

from harness.plugin import Plugin
from harness.task import Batch, Task, Training

Track = Literal["matched", "recipe"]


@dataclass
class Prediction:
    """Answers of a network to a batch.

    ``outputs [T, B, ...]``: the answer as of each step, that is, what would be answered if the run stopped there.
    ``steps_used [B]``: time steps spent on each sample; the final answer is ``outputs[steps_used - 1]``.
    ``extra``: further figures per sample ``[B]``, averaged and counted in the record (e.g. the exit block).
    """

    outputs: Tensor
    steps_used: Tensor
    extra: dict[str, Tensor] = field(default_factory=dict)

    @classmethod
    def at_every_step(cls, answers: Tensor) -> Prediction:
        """Return a prediction in which every sample used all steps of ``answers [T, B, ...]``."""
        steps, batch = answers.shape[:2]
        return cls(answers, torch.full((batch,), steps, device=answers.device))

    def final(self) -> Tensor:
        """Return the final answers ``[B, ...]``."""
        return self.outputs[self.steps_used - 1, torch.arange(self.outputs.shape[1], device=self.outputs.device)]


class Update(Protocol):
    """How a step changes the weights; the harness hands it to ``Phase.step`` (mixed precision and timing inside)."""

    def zero_grad(self) -> None:
        """Forget gradients."""

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of ``loss``."""

    def apply(self) -> None:
        """Let the optimiser change the weights by the gradients held."""

    def minimise(self, loss: Tensor) -> None:
        """Do the three above: what a method with one backward pass per batch calls."""


Step = Callable[[nn.Module, Batch, Update], Tensor]


@dataclass
class Phase:
    """One stage of training. Every field has a default that suits end-to-end training of the whole network."""

    name: str = "train"
    step: Step | None = None  # called for every batch, returns the loss; None: the method's own ``step``
    epochs: int | None = None  # None: the epochs of the training settings
    parameters: Iterable[Any] | None = None  # parameters, or groups as torch.optim takes them; None: all of the network
    training: Training | None = None  # other training settings for this phase; None: those of the run
    keep: Callable[[Tensor], Tensor] | None = None  # targets [N] -> mask [N] of the samples to train on; None: all
    modules: Iterable[nn.Module] | None = None  # modules in training mode; the others stay in eval mode. None: the network
    predict: Callable[[nn.Module, Tensor], Prediction] | None = None  # for validation after each epoch; None: the method's
    on_epoch: Callable[[int, int], None] | None = None  # called before each epoch with (epoch, epochs)


@dataclass(frozen=True)
class Search:
    """What a setting may be when it is tuned: a range, or some ``choices``."""

    low: float = 0.0
    high: float = 1.0
    log: bool = False  # whether factors count rather than differences
    choices: tuple[Any, ...] = ()

    def suggest(self, trial: Any, name: str) -> Any:
        """Return the value that an Optuna trial takes, a number to three digits."""
        if self.choices:
            return trial.suggest_categorical(name, list(self.choices))
        return float(f"{trial.suggest_float(name, self.low, self.high, log=self.log):.3g}")

    def __str__(self) -> str:
        return "{" + ", ".join(map(str, self.choices)) + "}" if self.choices else f"[{self.low:g}, {self.high:g}]{' (log)' * self.log}"


class Method(Plugin, ABC):
    """A way to obtain a trained spiking network for a task."""

    spikes: ClassVar[Literal["binary", "graded", "none"]] = "binary"  # what its neurons emit
    heads: ClassVar[tuple[str, ...]] = ("classify", "detect")  # kinds of task it can answer
    # What ``spikebench tune`` may choose: training settings and options. The same number of trials for every method.
    search: ClassVar[Mapping[str, Search]] = {"lr": Search(3e-4, 3e-2, log=True)}
    # Why it cannot do a suite at all, by the first part of the task's name; e.g. {"sequences": "the network is for images"}
    cannot: ClassVar[Mapping[str, str]] = {}

    def __init__(
        self,
        task: Task,
        options: Mapping[str, Any] | None = None,
        track: Track = "matched",
        steps: int | None = None,
        training: Mapping[str, Any] | None = None,
    ) -> None:
        """Bind the method to a task; ``options``, ``steps`` and ``training`` override the defaults of the track."""
        parsed = type(self).parse_options(options or {})
        self.given = {name: getattr(parsed, name) for name in options or {}}
        recipe = self.recipe(task) if track == "recipe" else {}
        if task.budget_name != "paper":  # what a run may spend is the budget's to say
            recipe = {key: value for key, value in recipe.items() if key not in ("epochs", "batch_size")}
        known = set(type(self).Options.model_fields)
        super().__init__({**{k: v for k, v in recipe.items() if k in known}, **(options or {})})
        self.task = task
        self.track = track
        base = {k: v for k, v in recipe.items() if k not in known and k != "steps"}
        settings = {**task.budget.training.__dict__, **base, **(training or {})}
        self.training = Training(**settings)
        self.steps: int = self.time_steps(task, steps or recipe.get("steps"))

    # What is decided before anything is built ----------------------------------------------------------------------

    @classmethod
    def supports(cls, task: Task) -> str | None:
        """Return why this method cannot do ``task``, or None if it can. A table shows the reason, never a blank.

        What only some options cannot do, ``__init__`` refuses with ``harness.plugin.UnfitError``: that too leaves out the pair alone.
        """
        suite = task.card.name.split("/")[0]
        if suite in cls.cannot:
            return cls.cannot[suite]
        if task.head.kind not in cls.heads:
            return f"{cls.card.name} answers {', '.join(cls.heads)}, not {task.head.kind}"
        return None

    def time_steps(self, task: Task, asked: int | None) -> int:
        """Return T; ``asked`` is what the user or the recipe wants. Default: the data's own T, else as asked, else the task's."""
        return task.steps if task.temporal else (asked or task.steps)

    def recipe(self, task: Task) -> dict[str, Any]:
        """Return the published settings for the ``recipe`` track: fields of ``Training``, options, and ``steps``.

        Epochs and batch size count in the ``paper`` budget only; the others set their own. ``self.given`` has the options that were set.
        """
        return {}

    # The four places ------------------------------------------------------------------------------------------------

    @abstractmethod
    def build(self) -> nn.Module:
        """Return an untrained network for ``self.task`` and ``self.steps``."""

    def phases(self, net: nn.Module) -> Iterator[Phase]:
        """Yield the stages of training; default: one phase over the whole network."""
        yield Phase()

    @abstractmethod
    def step(self, net: nn.Module, batch: Batch, update: Update) -> Tensor:
        """Train on one batch and return its loss (detached by the harness)."""

    @abstractmethod
    def predict(self, net: nn.Module, inputs: Tensor) -> Prediction:
        """Return the answers to ``inputs [B, ...]``; called in eval mode without gradients."""

    # Helpers and extras ---------------------------------------------------------------------------------------------

    def encode(self, inputs: Tensor) -> Tensor:
        """Return the sequence ``[T, B, ...]`` that the network sees; default: the task's encoding."""
        return self.task.encode(inputs, self.steps)

    def loss(self, output: Tensor, targets: Tensor) -> Tensor:
        """Return the task's loss of answers ``output [B, ...]`` with the label smoothing of the training settings."""
        return self.task.loss(output, targets, self.training.label_smoothing)

    def exact_loss(self, net: nn.Module, batch: Batch) -> Tensor | None:
        """Return the loss, differentiable through all time steps, whose gradient ``step`` approximates; None where ``step`` is exact.

        The record then says how well the two agree, weight by weight (``harness.meters.agreement``).
        """
        return None

    def state_bytes(self, net: nn.Module, inputs: Tensor) -> int | None:
        """Return the bytes that ``net`` carries from step to step for ``inputs [B, ...]``; None where steps cannot be taken singly.

        Called in eval mode, without gradients.
        """
        return None

    def report(self, net: nn.Module) -> dict[str, Any]:
        """Return further figures of the trained network for the record (numbers, or lists and dicts of them)."""
        return {}
