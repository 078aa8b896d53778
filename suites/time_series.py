"""Time series to forecast: transformer temperatures (ETT), exchange rates, solar power, and any CSV file of the user's.

::

    spikebench run -t "sequences/etth1[window=336,horizon=96]" -m stbp,ann
    spikebench run -t "sequences/series[path=series/mine.csv,target=price]" -m stbp,ann
"""

from __future__ import annotations

from functools import cached_property

from pydantic import Field

from harness.plugin import DataError
from harness.task import TaskCard
from suites.forecast import SHARES_RULE, ForecastTask
from suites.sources import Source, digest
from suites.table_file import columns

FOLDER = "sequences/timeseries"
ETT_COLUMNS = ("HUFL", "HULL", "MUFL", "MULL", "LUFL", "LULL", "OT")
ETT_SPLIT = "in order: 8,640 hours (12 months of 30 days) train, 2,880 validation, 2,880 test; later rows are not used"
ETT_LICENCE = "CC BY-ND 4.0"
ETT_SOURCE = "zhouhaoyi/ETDataset; split and normalisation of Informer (Zhou et al., AAAI 2021)"
ETT_ADVICE = "it is in ETT-small of the repository zhouhaoyi/ETDataset, compressed with gzip"
LSTNET = "LSTNet (Lai et al., SIGIR 2018)"
LSTNET_ADVICE = "it is in the repository laiguokun/multivariate-time-series-data"


class EttTask(ForecastTask):
    """Hourly figures of an electricity transformer: six loads and the oil's temperature."""

    columns = ETT_COLUMNS

    def borders(self, rows: int) -> tuple[int, int, int]:
        """Return the usual borders."""
        return 8640, 8640 + 2880, 8640 + 2 * 2880


class EttH1(EttTask):
    """The first transformer."""

    card = TaskCard(
        name="sequences/etth1",
        title="Electricity transformer 1, hourly, forecast",
        data="17,420 hours of seven figures",
        licence=ETT_LICENCE,
        split=ETT_SPLIT,
        source=ETT_SOURCE,
    )
    source = Source(({f"{FOLDER}/ETTh1.csv.gz": "3c56c865b8f6fc9b760a07f055ff8a993d3cf2a747235dc382b98821ed35f029"},), advice=ETT_ADVICE)


class EttH2(EttTask):
    """The second transformer."""

    card = TaskCard(
        name="sequences/etth2",
        title="Electricity transformer 2, hourly, forecast",
        data="17,420 hours of seven figures",
        licence=ETT_LICENCE,
        split=ETT_SPLIT,
        source=ETT_SOURCE,
    )
    source = Source(({f"{FOLDER}/ETTh2.csv.gz": "a549927e8cd45bd1c20a8ec51529cd037bf6da38fe37c2ba3dc0e9c8446d6cb5"},), advice=ETT_ADVICE)


class Exchange(ForecastTask):
    """Exchange rates, for those who have the file."""

    card = TaskCard(
        name="sequences/exchange",
        title="Exchange rates, daily, forecast",
        data="7,588 days of eight exchange rates",
        licence="not stated",
        split=SHARES_RULE,
        source=LSTNET,
    )
    source = Source(({f"{FOLDER}/exchange_rate.txt.gz": ""}, {f"{FOLDER}/exchange_rate.txt": ""}), advice=LSTNET_ADVICE)
    columns = tuple(f"column {number}" for number in range(1, 9))


class Solar(ForecastTask):
    """Solar power, for those who have the file."""

    card = TaskCard(
        name="sequences/solar",
        title="Solar power in Alabama, every 10 minutes, forecast",
        data="52,560 times of 137 plants",
        licence="not stated",
        split=SHARES_RULE,
        source=LSTNET,
    )
    source = Source(({f"{FOLDER}/solar_AL.txt.gz": ""}, {f"{FOLDER}/solar_AL.txt": ""}), advice=LSTNET_ADVICE)
    columns = tuple(f"column {number}" for number in range(1, 138))


class Series(ForecastTask):
    """A CSV file of the user's, below a folder of ``SPIKEBENCH_DATA`` or with its full path."""

    card = TaskCard(
        name="sequences/series",
        title="Forecast of any table of numbers",
        data="a CSV file that the option path names, one row per time step",
        licence="that of the file",
        split=SHARES_RULE,
        source="the user",
    )

    class Options(ForecastTask.Options):
        """The file, what is seen and what is forecast."""

        path: str = Field("", description="CSV file, perhaps .gz, below a folder of SPIKEBENCH_DATA or with its full path")

    options: Options

    @property
    def source(self) -> Source:  # type: ignore[override]
        """Return the file."""
        return Source(({self.options.path: ""},), advice="the option path names it")

    @cached_property
    def columns(self) -> tuple[str, ...]:  # type: ignore[override]
        """The columns of numbers as the file's first row tells them; one where there is no such file."""
        found = self.source.find() if self.options.path else None
        return columns(found.path(self.options.path)) if found else ("?",)

    def unavailable(self) -> str | None:
        """Return that no file was named, or what is wrong with it, or None."""
        if not self.options.path:
            return "say which file: sequences/series[path=FILE]"
        if problem := super().unavailable():
            return problem
        try:
            self.load("train")
        except DataError as error:
            return str(error)
        return None

    def checksum(self) -> str:
        """Return a hash of the file's content, wherever it lies."""
        return digest(self.source.require().path(self.options.path))[:16]
