"""Training data under seal, or watched: what a method does after it has given its data away cannot touch them, or is counted.

::

    task = sealed(task)                       # reading the training split raises SealedError from now on
    task = with_training_data(task, data)     # other data stand in for it
    with counted(task) as read:               # places of the training samples that are read meanwhile
        ...
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

from harness.task import Data, Task


class SealedError(RuntimeError):
    """Training data were asked for that must not be read any more."""


class Sealed:
    """A split that may not be read: its length, its samples and their classes all raise SealedError."""

    def _refuse(self) -> NoReturn:
        raise SealedError("the training data are sealed: this stage must do without them")

    def __len__(self) -> int:
        """Refuse."""
        self._refuse()

    def __getitem__(self, place: Any) -> NoReturn:
        """Refuse."""
        self._refuse()

    @property
    def inputs(self) -> NoReturn:
        """Refuse."""
        self._refuse()

    @property
    def targets(self) -> NoReturn:
        """Refuse."""
        self._refuse()


class _Counted:
    """A split that notes which of its samples are read."""

    def __init__(self, data: Any, read: set[int]) -> None:
        self.data, self.read = data, read

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, place: Any) -> Any:
        self.read.add(int(place))
        return self.data[place]


@contextmanager
def counted(task: Task) -> Iterator[set[int]]:
    """Note the places of the training samples of ``task`` that are read within the context."""
    read: set[int] = set()
    data = task.split("train")
    task._splits["train"] = _Counted(data, read)
    try:
        yield read
    finally:
        task._splits["train"] = data


def _replaced(task: Task, data: Any) -> Task:
    found = copy.copy(task)
    found._splits = {**task._splits, "train": data}
    return found


def sealed(task: Task) -> Task:
    """Return ``task`` with its training split under seal; validation and test data are those of ``task``, which is left as it is."""
    return _replaced(task, Sealed())


def with_training_data(task: Task, data: Data) -> Task:
    """Return ``task`` with ``data`` as its training split, stored as ``task.prepare`` expects them; ``task`` is left as it is."""
    return _replaced(task, data)
