"""What several test modules share: a toy task and method, plugin files, records made by hand, and the command line in-process."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from harness import cli
from harness.method import Method, Prediction
from harness.plugin import Card
from harness.record import Record
from harness.task import Backbone, Batch, Budget, Data, Head, Task, TaskCard, Training


class Hits:
    """A scorer that counts right answers."""

    def __init__(self) -> None:
        self.right: list[bool] = []

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        self.right += (outputs.argmax(1) == targets).tolist()

    def compute(self) -> dict[str, float]:
        return {"accuracy": sum(self.right) / len(self.right)}

    def correct(self) -> list[bool]:
        return self.right


class ToyTask(Task):
    """Three features, two classes; 11 training, 4 validation and 6 test samples. The class is the sign of the first feature."""

    card = TaskCard("toy/signs", "Signs", "random numbers", "CC0", "by position", "this file")
    input_shape = (3,)
    steps = 3
    head = Head("classify", classes=2)
    budgets = {"smoke": Budget(Training(epochs=2, batch_size=5, optimizer="sgd", lr=0.1, momentum=0.0), Backbone("conv", (4,)))}
    sizes = {"train": 11, "validation": 4, "test": 6}

    def load(self, split: str) -> Data:
        inputs = torch.randn(self.sizes[split], 3, generator=torch.Generator().manual_seed(len(split)))
        return Data(inputs, (inputs[:, 0] > 0).long())

    def loss(self, output: Tensor, targets: Tensor, label_smoothing: float = 0.0) -> Tensor:
        return nn.functional.cross_entropy(output, targets, label_smoothing=label_smoothing)

    def scorer(self) -> Hits:
        return Hits()

    def augment(self, batch: Batch, generator: torch.Generator) -> Batch:
        return batch._replace(inputs=batch.inputs + torch.rand(batch.inputs.shape, generator=generator))


class ToyMethod(Method):
    """A linear map with dropout and batch normalisation, the same at every step."""

    card = Card("toy", "Toy", "us", "-", 2026, "direct", "A linear map.")

    def build(self) -> nn.Module:
        return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 2))

    def step(self, net: nn.Module, batch: Any, update: Any) -> Tensor:
        loss = self.loss(net(batch.inputs), batch.targets)
        update.minimise(loss)
        return loss

    def predict(self, net: nn.Module, inputs: Tensor) -> Prediction:
        return Prediction.at_every_step(net(inputs).expand(self.steps, -1, -1))


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Networks of tests are too small to share; several threads only wait for each other, for long on a busy machine."""
    torch.set_num_threads(1)


@pytest.fixture
def toy_task() -> type[ToyTask]:
    return ToyTask


@pytest.fixture
def toy_method() -> type[ToyMethod]:
    return ToyMethod


@pytest.fixture
def plugin_file(tmp_path: Path) -> Callable[..., Path]:
    """Write a plugin file and return its path."""

    def write(text: str, name: str = "mine.py") -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text), encoding="utf-8")
        return path

    return write


TINY = '''
"""A task of a few samples, and methods that end in every way."""
import os
import signal
import subprocess
import time
from pathlib import Path

import torch

from harness.plugin import Card
from harness.task import Backbone, Batch, Budget, TaskCard, Training
from methods.base import SpikingMethod
from suites.static_vision import Digits


class Tiny(Digits):
    card = TaskCard(name="tiny/digits", title="A few digits", data="-", licence="-", split="-", source="-")
    budgets = {"smoke": Budget(Training(epochs=1, batch_size=16), Backbone("conv", (4,)), train_samples=64, time_limit=120)}


class Short(Tiny):
    card = TaskCard(name="tiny/short", title="A few digits in little time", data="-", licence="-", split="-", source="-")
    budgets = {"smoke": Budget(Training(epochs=1, batch_size=16), Backbone("conv", (4,)), train_samples=64, time_limit=8)}


class Fine(SpikingMethod):
    card = Card(name="fine", title="-", authors="-", venue="-", year=2026, family="testing", summary="-")

    def act(self, net):
        pass

    def step(self, net, batch, update):
        loss = super().step(net, batch, update)
        changed = self.act(net)
        return loss if changed is None else changed


class Image(Fine):
    card = Card(name="imageless", title="-", authors="-", venue="-", year=2026, family="testing", summary="-")
    cannot = {"tiny": "it has no eyes"}
'''


@pytest.fixture(scope="session")
def tiny() -> str:
    """The text of a plugin file with a tiny task, ``tiny/digits``, and a method, ``fine``; derive from ``Fine`` and override ``act``."""
    return TINY


@pytest.fixture
def make_record() -> Callable[..., Record]:
    """Make a record by hand; dotted names change fields: ``make_record(**{"accuracy.test": 0.5})``."""

    def make(**changes: Any) -> Record:
        plain: dict[str, Any] = {
            "key": "ab12",
            "status": "ok",
            "label": "stbp",
            "spec": {"method": "stbp", "task": "static/digits"},
            "settings": {
                "options": {},
                "training": {"epochs": 1},
                "steps": 4,
                "backbone": {},
                "train_samples": None,
                "time_limit": 60.0,
                "task_version": 1,
                "data_checksum": "0",
                "code_hash": "0",
            },
            "started": "2026-01-01T00:00:00+00:00",
            "duration": 2.0,
            "environment": {
                "git_commit": None,
                "git_dirty": None,
                "versions": {},
                "system": "Linux",
                "cpu": "Some CPU",
                "cores": 2,
                "device": "Some CPU",
                "device_kind": "cpu",
                "cuda": None,
                "threads": 1,
                "deterministic": True,
                "load_average": 0.0,
            },
            "accuracy": {
                "metric": "accuracy",
                "test": 0.5,
                "validation": 0.5,
                "test_metrics": {"accuracy": 0.5},
                "validation_metrics": {"accuracy": 0.5},
                "test_curve": [0.25, 0.5],
                "validation_curve": [0.25, 0.5],
                "steps_used": 4.0,
                "test_samples": 2,
                "items": 2,
                "correct": "80",
            },
            "activity": {"spikes_per_sample": 100.0, "synops_effective": 5000.0},
        }
        for name, value in changes.items():
            *parents, last = name.split(".")
            part = plain
            for parent in parents:
                part = part.setdefault(parent, {})
            part[last] = value
        return Record.model_validate(plain)

    return make


class Outcome(NamedTuple):
    """How a command ended."""

    status: int
    out: str
    err: str


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Outcome]:
    """Run the command line in this process."""
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: str) -> Outcome:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Outcome(ended.value.code, captured.out, captured.err)

    return run
