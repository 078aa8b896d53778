"""Batches of the training split, in an order that depends on the seed alone, so that every method sees the same.

Data in memory are indexed; a data set that reads files is read ahead by worker processes, into pinned memory where a GPU wants it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from harness.task import Batch, Data, Task

WORKERS = 4  # at most


class Loader:
    """Yields shuffled training batches; one epoch per iteration."""

    def __init__(
        self,
        task: Task,
        batch_size: int,
        seed: int,
        augment: bool = False,
        keep: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        """Prepare; ``keep`` maps the targets ``[N]`` of the split to a mask ``[N]`` of the samples to use."""
        self.task, self.batch_size, self.augment = task, batch_size, augment
        self.order = torch.Generator().manual_seed(seed)
        self.noise = torch.Generator().manual_seed(seed + 1)
        self.data = task.split("train")
        self.index = torch.arange(len(self.data))
        if keep is not None:
            self.index = self.index[keep(targets(self.data)).cpu()]
        if not len(self.index):
            raise ValueError(f"no sample of the training split of {task.name} is left to train on")

    def __len__(self) -> int:
        """Return the number of batches of an epoch."""
        full, rest = divmod(len(self.index), self.batch_size)
        return full + (rest > 1 or (rest == 1 and full == 0))

    def __iter__(self) -> Iterator[Batch]:
        """Yield the batches of one epoch. A last batch of a single sample is left out: batch statistics need two."""
        shuffled = self.index[torch.randperm(len(self.index), generator=self.order)]
        parts = [shuffled[number * self.batch_size : (number + 1) * self.batch_size] for number in range(len(self))]
        for batch in self._read(parts):
            yield self.task.augment(batch, self.noise) if self.augment else batch

    def _read(self, parts: list[Tensor]) -> Iterator[Batch]:
        if isinstance(self.data, Data):
            for index in parts:
                yield self.task.gather("train", index)
            return
        ahead = DataLoader(
            _Indexed(self.data),
            batch_sampler=[index.tolist() for index in parts],
            num_workers=min(WORKERS, max(1, (os.cpu_count() or 1) - 1)),
            collate_fn=_Collate(self.task),
            pin_memory=self.task.device.type == "cuda",
            generator=torch.Generator().manual_seed(0),  # seeds of workers; they draw nothing
        )
        for inputs, answers, index in ahead:
            yield self.task.batch(inputs, answers, index)


def targets(data: Any) -> Tensor:
    """Return all targets ``[N, ...]`` of a split; a data set that is not in memory must have them as ``targets``.

    Raises TypeError if it has not.
    """
    found = getattr(data, "targets", None)
    if found is None:
        raise TypeError(f"{type(data).__name__} has no targets; a method that chooses its training samples needs them as an attribute")
    return torch.as_tensor(found)


class _Indexed(Dataset):
    """A data set whose items know their place."""

    def __init__(self, data: Any) -> None:
        self.data = data

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, place: int) -> tuple[Any, int]:
        return self.data[place], place


class _Collate:
    """Joins samples as the task does; a class, so that it reaches worker processes however these are started."""

    def __init__(self, task: Task) -> None:
        self.join = task.collate

    def __call__(self, found: list[tuple[Any, int]]) -> tuple[Tensor, Tensor, Tensor]:
        samples, places = zip(*found, strict=True)
        return *self.join(list(samples)), torch.tensor(places)
