"""Batches of the training split, in an order that depends on the seed alone, so that every method sees the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from harness.task import Batch, Task


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
        data = task.split("train")
        self.index = torch.arange(len(data))
        if keep is not None:
            self.index = self.index[keep(data.targets).cpu()]
        if not len(self.index):
            raise ValueError(f"no sample of the training split of {task.card.name} is left to train on")

    def __len__(self) -> int:
        """Return the number of batches of an epoch."""
        full, rest = divmod(len(self.index), self.batch_size)
        return full + (rest > 1 or (rest == 1 and full == 0))

    def __iter__(self) -> Iterator[Batch]:
        """Yield the batches of one epoch. A last batch of a single sample is left out: batch statistics need two."""
        shuffled = self.index[torch.randperm(len(self.index), generator=self.order)]
        for number in range(len(self)):
            batch = self.task.gather("train", shuffled[number * self.batch_size : (number + 1) * self.batch_size])
            if self.augment:
                batch = self.task.augment(batch, self.noise)
            yield batch
