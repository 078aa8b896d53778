"""Share of zeros in a stream of tensors: exact ones, and those that 16-bit fixed-point numbers would make."""

from __future__ import annotations

from torch import Tensor

LEVELS = 32767  # of a 16-bit number with a sign


class Zeros:
    """Counts values and zeros. Quantised: ``|g| < max|g| / (2 LEVELS)``, the maximum over each tensor that is added."""

    def __init__(self) -> None:
        """Start with none."""
        self.values = self.exact = self.quantised = 0

    def add(self, x: Tensor, repeats: int = 1) -> None:
        """Count ``x`` of any shape, ``repeats`` times."""
        if not x.numel():
            return
        size = x.detach().abs()
        self.values += repeats * size.numel()
        self.exact += repeats * int((size == 0).sum())
        largest = size.max()
        self.quantised += repeats * int(((size < 0.5 * largest / LEVELS) | (size == 0)).sum())

    def merge(self, other: Zeros) -> None:
        """Count what ``other`` has counted."""
        self.values += other.values
        self.exact += other.exact
        self.quantised += other.quantised

    def share(self, quantised: bool = False) -> float | None:
        """Return the share of zeros; None without values."""
        return (self.quantised if quantised else self.exact) / self.values if self.values else None
