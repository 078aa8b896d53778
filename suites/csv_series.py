"""Any CSV file of series as a classification task, one series per row.

    label,1,2,3,4
    up,0.1,0.4,0.7,0.9
    down,0.8,0.5,0.1,

    spikebench run -t "sequences/csv[path=series.csv]" -m stbp,ann

The first row names the columns. One column holds the class, any text; all others, in the file's order, the values of one series, so
that ``channels=3`` reads x1, y1, z1, x2, y2, z2, ... Rows may end early (their last cells empty or not there): such a series is shorter,
and gets zeros in front. A gap within a row, or a value that is not a number, is an error. Packed files (``.csv.gz``) are read as well.
"""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from pydantic import Field

from harness import plugin
from harness.plugin import DataError, UsageError, did_you_mean
from harness.task import SPLITS, Backbone, Budget, Data, Head, Split, TaskCard, Training
from suites.classification import ClassificationTask
from suites.series import Scale, padded, rank_in_class, resampled
from suites.sources import digest
from suites.splits import interleaved
from suites.ts_format import numbers, read_lines


@dataclass(frozen=True)
class Table:
    """What a file holds: ``series`` of ``[C, L]``, their classes as positions in ``classes``, and the split of each."""

    series: list[np.ndarray]
    labels: np.ndarray
    classes: tuple[str, ...]
    parts: np.ndarray

    @property
    def longest(self) -> int:
        """Steps of the longest series."""
        return max(each.shape[1] for each in self.series)


def read_table(path: Path, label: str, split: str = "", channels: int = 1) -> Table:
    """Read a file whose class column is ``label`` and, if named, whose split column is ``split``.

    Raises DataError naming file, line and column if something cannot be read, and if a class or a split has too few series.
    """
    rows = csv.reader(read_lines(path))
    names = [name.strip() for name in next(rows, [])]
    for wanted in filter(None, (label, split)):
        if names.count(wanted) != 1:
            raise DataError(f"{path.name} has {names.count(wanted)} columns named {wanted!r}; needed: 1{did_you_mean(wanted, set(names))}")
    values = [place for place, name in enumerate(names) if name not in (label, split)]
    series, labels, parts = [], [], []
    for row in rows:
        if not any(cell.strip() for cell in row):
            continue
        where = f"{path.name}, line {rows.line_num}"
        if len(row) > len(names):
            raise DataError(f"{where}: {len(row)} cells, but {len(names)} columns")
        row += [""] * (len(names) - len(row))
        series.append(_series([row[place] for place in values], channels, where))
        labels.append(_cell(row[names.index(label)], label, where))
        if split:
            parts.append(_cell(row[names.index(split)], split, where))
            if parts[-1] not in SPLITS:
                raise DataError(f"{where}, column {split}: {parts[-1]!r} is no split{did_you_mean(parts[-1], SPLITS)}")
    classes = tuple(sorted(set(labels), key=_natural))
    if len(classes) < 2:
        raise DataError(f"{path.name} has {len(classes)} classes in column {label!r}; at least 2 are needed")
    found = np.array([classes.index(each) for each in labels])
    chosen = np.array(parts) if split else _parts(found)
    if absent := [one for one in SPLITS if one not in chosen]:
        raise DataError(f"{path.name} gives no series to {' and '.join(absent)}; " + ("name them" if split else "5 of a class are needed"))
    return Table(series, found, classes, chosen)


def _parts(labels: np.ndarray) -> np.ndarray:
    rank = rank_in_class(labels) % 5
    return np.where(rank == 4, "test", np.where(rank == 3, "validation", "train"))


def _series(cells: list[str], channels: int, where: str) -> np.ndarray:
    while cells and not cells[-1].strip():
        cells.pop()
    if not cells or len(cells) % channels:
        raise DataError(f"{where}: {len(cells)} values are not whole steps of {channels}")
    return numbers(cells, where).reshape(-1, channels).T


def _cell(cell: str, column: str, where: str) -> str:
    if not cell.strip():
        raise DataError(f"{where}, column {column}: nothing in it")
    return cell.strip()


def _natural(label: str) -> tuple[int, float, str]:
    try:
        return (0, float(label), label)
    except ValueError:
        return (1, 0.0, label)


@cache
def _table(path: Path, content: str, label: str, split: str, channels: int) -> Table:
    return read_table(path, label, split, channels)


class CsvSeries(ClassificationTask):
    """The series of a CSV file, ``[B, T, channels]``, normalised per channel by mean and deviation of the training split."""

    class Options(plugin.Options):
        """The file and how to read it."""

        path: str = Field("", description="the file, .csv or .csv.gz")
        label: str = Field("label", description="name of the column that holds the class")
        split: str = Field("", description="name of a column that says train, validation or test; none: by position")
        channels: int = Field(1, ge=1, description="values per step")
        length: int = Field(0, ge=0, le=100_000, description="most steps, longer series are resampled; 0: as many as the longest has")

    card = TaskCard(
        name="sequences/csv",
        title="Series of a CSV file of yours",
        data="the file that the option path names, one series per row",
        licence="that of the file",
        split="a column that the option split names; else of each class, in file order, every fifth test, the one before it validation",
        source="the user",
    )
    temporal = True
    readout = "last"
    budgets = {
        "smoke": Budget(
            Training(epochs=20, batch_size=16, lr=4e-3),
            Backbone("sequence", (32,) * 5),
            train_samples=500,
            validation_samples=500,
            test_samples=500,
            time_limit=300,
        ),
        "laptop": Budget(Training(epochs=60, batch_size=16, lr=4e-3), Backbone("sequence", (64,) * 5), time_limit=1800),
        "paper": Budget(Training(epochs=300, batch_size=32, lr=1e-3), Backbone("sequence", (256,) * 6), time_limit=86400),
    }

    @property
    def table(self) -> Table:
        """The file's content; raise DataError if it cannot be used."""
        if not self.options.path:
            raise UsageError(f"say which file: {self.card.name}[path=FILE.csv]")
        path = Path(self.options.path).expanduser()
        if not path.is_file():
            raise DataError(f"there is no file {self.options.path}; give path=FILE.csv")
        return _table(path.resolve(), digest(path), self.options.label, self.options.split, self.options.channels)

    @property
    def input_shape(self) -> tuple[int, ...]:  # type: ignore[override]
        """Values per step."""
        return (self.options.channels,)

    @property
    def steps(self) -> int:  # type: ignore[override]
        """Steps of a sequence; 0 when no file is named."""
        return self.options.length or (self.table.longest if self.options.path else 0)

    @property
    def head(self) -> Head:  # type: ignore[override]
        """One logit per class of the file; none when no file is named."""
        return Head("classify", classes=len(self.table.classes) if self.options.path else 0)

    def unavailable(self) -> str | None:
        """Return what is wrong with the option or the file, or None."""
        try:
            assert self.table
        except UsageError as error:
            return str(error)
        return None

    def checksum(self) -> str:
        """Return a hash of the file."""
        assert self.table
        return digest(Path(self.options.path).expanduser())[:16]

    def load(self, split: Split) -> Data:
        """Return the series and classes of a split, classes taking turns."""
        table = self.table
        normalised: Callable[[list[np.ndarray]], list[np.ndarray]] = Scale.of(
            [each for each, part in zip(table.series, table.parts, strict=True) if part == "train"]
        )
        places = np.flatnonzero(table.parts == split)
        places = places[interleaved(table.labels[places])]
        series = normalised([table.series[place] for place in places])
        series = [resampled(each, self.steps) if each.shape[1] > self.steps else each for each in series]
        return Data(torch.from_numpy(padded(series, self.steps)), torch.from_numpy(table.labels[places]))
