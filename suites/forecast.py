"""Forecasting: from the last ``window`` rows of a table to its next ``horizon`` rows.

The network sees one row per step and answers with all numbers of the forecast at the last. Every column is normalised by mean and
standard deviation of the training rows, and errors are in these units, as in "Informer" (Zhou et al., AAAI 2021). Levels drift from one
split to the next, so what goes in and what is answered are differences from the last row that is seen, as in NLinear ("Are transformers
effective for time series forecasting?", Zeng et al., AAAI 2023); scores are those of the forecast itself. The rows that are forecast
belong to the split, the rows before them may belong to the split before: at the time of the forecast they are known. So no training
sample has a row of the other splits in it, and the figures of validation and test cover all their rows::

    class ETTh1(ForecastTask):
        source = Source(...)
        columns = ("HUFL", ...)

        def borders(self, rows):
            return 8640, 11_520, 14_400
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from harness import plugin
from harness.plugin import DataError, UsageError, did_you_mean
from harness.task import Backbone, Budget, Data, Head, Split, Training
from suites.numeric import Errors, NumericTask
from suites.receptive_field import seeing
from suites.sources import FileTask
from suites.table_file import Table, read
from suites.windows import interleaved, windows

SHARES = (60, 80, 100)  # percent of the rows at which train, validation and test end, after LSTNet (Lai et al., SIGIR 2018)
SHARES_RULE = "in order: the first 60 % of the rows train, the next 20 % validation, the last 20 % test"
BUDGETS = {
    "smoke": Budget(
        Training(epochs=4, batch_size=32, lr=2e-3, clip_norm=1.0),
        Backbone("sequence", (64, 64, 64)),
        train_samples=1600,
        validation_samples=300,
        test_samples=1000,
        time_limit=300,
        target=0.65,
    ),
    "laptop": Budget(
        Training(epochs=6, batch_size=32, lr=1e-3, clip_norm=1.0),
        Backbone("sequence", (128, 128, 128)),
        time_limit=1800,
    ),
    "paper": Budget(
        Training(epochs=100, batch_size=64, lr=1e-4, clip_norm=1.0), Backbone("sequence", (256, 256, 256, 256)), time_limit=86_400
    ),
}


class ForecastErrors(Errors):
    """Errors of forecasts; targets are the last row that is seen and the rows that follow it ``[B, 1 + horizon, columns]``."""

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        """Add answers ``[B, horizon * columns]``, the differences from the last row that is seen."""
        last, wanted = targets[:, :1], targets[:, 1:]
        super().update(outputs.view(wanted.shape) + last, wanted)


class ForecastTask(FileTask, NumericTask):
    """Rows ``[B, window, columns]``, targets ``[B, 1 + horizon, columns]``: the last row that is seen and those that follow.

    A forecast counts as right if it is off by less than half a standard deviation of the training rows in the mean.
    """

    temporal = True
    readout = "last"
    metric = "rrse"
    tolerance = 0.5
    columns: tuple[str, ...]  # of the file, times left out
    budgets = BUDGETS

    class Options(plugin.Options):
        """What is seen and what is forecast."""

        window: int = Field(96, description="rows that are seen", ge=2)
        horizon: int = Field(24, description="rows that are forecast", ge=1)
        target: str = Field("all", description="column that is forecast, or all; all columns are seen")

    options: Options

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Bind as any task; the network has as many layers as seeing the first row from the last takes."""
        super().__init__(*args, **kwargs)
        self.budget = seeing(self.budget, self.steps)

    @property
    def steps(self) -> int:
        """Return the rows that are seen."""
        return self.options.window

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Return the number of columns."""
        return (len(self.columns),)

    @property
    def head(self) -> Head:
        """Return the numbers of a forecast."""
        return Head("regress", classes=self.options.horizon * (len(self.columns) if self.options.target == "all" else 1))

    def borders(self, rows: int) -> tuple[int, int, int]:
        """Return the rows before which train, validation and test end, of so many."""
        train, validation, test = (rows * share // 100 for share in SHARES)
        return train, validation, test

    @cached_property
    def table(self) -> Table:
        """The file's numbers; raises DataError for a file of other columns."""
        path = self.file()
        table = read(path)
        if len(table.columns) != len(self.columns):
            raise DataError(f"{path.name} has {len(table.columns)} columns of numbers, expected {len(self.columns)}")
        return table

    def file(self) -> Path:
        """Return the path of the file; raise DataError if it is missing or damaged."""
        found = self.source.require()
        (name,) = found.files
        return found.path(name)

    @cached_property
    def series(self) -> Tensor:
        """All rows, normalised, ``[rows, columns]``; a column that is constant in training is 0 there, and a warning says so."""
        values = self.table.values
        train = values[: self.borders(len(values))[0]]
        mean, deviation = train.mean(0), train.std(0)
        constant = deviation <= 1e-9 * abs(mean)
        if constant.any():
            names = ", ".join(name for name, still in zip(self.table.columns, constant, strict=True) if still)
            self.warnings.append(f"columns that never change in the training rows, and are only shifted, not scaled: {names}")
            deviation[constant] = 1
        return torch.from_numpy((values - mean) / deviation).float()

    def load(self, split: Split) -> Data:
        """Return the windows of a split, interleaved; raise DataError if there are too few rows, UsageError for an unknown column."""
        window, horizon, target = self.options.window, self.options.horizon, self.options.target
        if target != "all" and target not in self.table.columns:
            raise UsageError(f"{self.card.name} has no column {target!r}{did_you_mean(target, ('all', *self.table.columns))}")
        train, validation, test = self.borders(len(self.table.values))
        start, stop = {"train": (0, train), "validation": (train - window, validation), "test": (validation - window, test)}[split]
        if len(self.table.values) < test:
            raise DataError(f"{self.file().name} has {len(self.table.values)} rows, the split needs {test}; get it again")
        if start < 0 or stop - start < window + horizon:
            raise DataError(
                f"{self.file().name}: the {split} split ends at row {stop} and begins at row {max(start, 0)}, "
                f"too few rows for a window of {window} and a horizon of {horizon}; choose smaller ones or use a longer series"
            )
        part = self.series[start:stop]
        wanted = part if target == "all" else part[:, [self.table.columns.index(target)]]
        inputs, targets = windows(part[:-horizon], window, 1), windows(wanted[window - 1 :], 1 + horizon, 1)
        order = interleaved(len(inputs))
        return Data(inputs[order], targets[order])

    def prepare(self, inputs: Tensor) -> Tensor:
        """Return the rows as differences from the last one."""
        return inputs - inputs[:, -1:]

    def loss(self, output: Tensor, targets: Tensor, label_smoothing: float = 0.0) -> Tensor:
        """Return the mean squared error of the differences ``output [B, horizon * columns]``."""
        return super().loss(output, targets[:, 1:] - targets[:, :1], label_smoothing)

    def scorer(self) -> ForecastErrors:
        """Return an accumulator of errors."""
        return ForecastErrors(self.metric, self.tolerance)
