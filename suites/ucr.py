"""Six sets of the UCR and UEA archives of time series, from their ``.ts`` files: real series, short to long, one channel to twelve.

    spikebench run -t sequences/japanese-vowels -m stbp,ann
    spikebench run -t "sequences/acsf1[length=0]" -m stbp      # all 1,460 steps

The archive's own parts are used; validation is every fifth series of each class of the training part, in file order. Values are
normalised per channel by mean and deviation of the training split. With ``length``, series that are longer are resampled to it, so that
every step is the mean of an equal part; series that are shorter get zeros (the mean) in front, so that the last step is the last value.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from pydantic import Field

from harness import plugin
from harness.plugin import DataError
from harness.task import Backbone, Budget, Data, Head, Split, TaskCard, Training
from suites.classification import ClassificationTask
from suites.series import Scale, padded, rank_in_class, resampled
from suites.sources import FileTask, Source
from suites.splits import interleaved
from suites.ts_format import TsFile, read_ts

LICENCE = "none stated for the single sets of the archive; for local use"
SPLIT_RULE = "the archive's train and test parts; validation: of each class every fifth series of the training part, in file order"
ARCHIVE = "H. A. Dau et al., The UCR time series archive, 2019; A. Bagnall et al., The UEA multivariate archive, 2018; "


def source_of(problem: str, train: str, test: str) -> Source:
    """Return the source of a set: the packed files with these SHA-256, or the archive's own folder with whatever its files hold."""
    return Source(
        variants=(
            {f"sequences/ucr/{problem}_TRAIN.ts.gz": train, f"sequences/ucr/{problem}_TEST.ts.gz": test},
            {f"sequences/ucr/{problem}/{problem}_TRAIN.ts": "", f"sequences/ucr/{problem}/{problem}_TEST.ts": ""},
        ),
        advice=f"or unpack {problem}.zip of timeseriesclassification.com into sequences/ucr/{problem}",
    )


@cache
def _read(path: Path, size: int, changed: int) -> TsFile:
    return read_ts(path)


class UcrTask(FileTask, ClassificationTask):
    """A set of the archive; ``problem`` is its name there, ``longest`` the steps of its longest series, ``channels`` their width."""

    temporal = True
    readout = "last"
    problem: ClassVar[str]
    longest: ClassVar[int]
    channels: ClassVar[int] = 1

    class Options(plugin.Options):
        """How long the sequences are."""

        length: int = Field(0, ge=0, le=100_000, description="most steps, longer series are resampled; 0: as many as the longest has")

    @property
    def input_shape(self) -> tuple[int, ...]:  # type: ignore[override]
        """Channels."""
        return (self.channels,)

    @property
    def steps(self) -> int:  # type: ignore[override]
        """Steps of a sequence."""
        return self.options.length or self.longest

    def load(self, split: Split) -> Data:
        """Return the series ``[N, T, C]`` and their classes; raise DataError for a file that is not what it should be."""
        training = self._part("TRAIN")
        chosen = {name: self._chosen(training, name) for name in ("train", "validation")}
        scale = self.scale([training.series[place] for place in chosen["train"]])
        part = self._part("TEST") if split == "test" else training
        if part.classes != training.classes:
            raise DataError(f"{self.problem}: the train and test files name different classes; they are not of one set")
        labels = np.array([part.classes.index(label) for label in part.labels], dtype=np.int64)
        places = np.arange(len(labels)) if split == "test" else chosen[split]
        places = places[interleaved(labels[places])]
        series = scale([part.series[place] for place in places])
        series = [resampled(each, self.steps) if each.shape[1] > self.steps else each for each in series]
        return Data(torch.from_numpy(padded(series, self.steps)), torch.from_numpy(labels[places]))

    def scale(self, training: Sequence[np.ndarray]) -> Callable[[Sequence[np.ndarray]], list[np.ndarray]]:
        """Return what normalises series ``[C, L]``, from those of the training split."""
        return Scale.of(training)

    def _chosen(self, training: TsFile, split: Split) -> np.ndarray:
        held = rank_in_class(np.array(training.labels)) % 5 == 4
        return np.flatnonzero(held if split == "validation" else ~held)

    def _part(self, part: str) -> TsFile:
        found = self.source.require()
        (name,) = [name for name in found.files if f"_{part}." in name]
        status = found.path(name).stat()
        read = _read(found.path(name), status.st_size, status.st_mtime_ns)
        if len(read.classes) != self.head.classes or read.series[0].shape[0] != self.channels:
            raise DataError(
                f"{name} has {len(read.classes)} classes and {read.series[0].shape[0]} channels; "
                f"{self.problem} has {self.head.classes} and {self.channels}: it is another set"
            )
        if (most := max(each.shape[1] for each in read.series)) > self.longest:
            raise DataError(f"{name} has a series of {most} steps; the longest of {self.problem} has {self.longest}: it is another set")
        return read


class Acsf1(UcrTask):
    """Power of a household appliance over time: which of ten kinds it is; resampled to half, ``[B, 730, 1]``."""

    class Options(UcrTask.Options):
        """How long the sequences are."""

        length: int = Field(730, ge=0, le=100_000, description="most steps, longer series are resampled; 0: all 1,460")

    card = TaskCard(
        name="sequences/acsf1",
        title="ACSF1: power of appliances",
        data="UCR archive, ACSF1: 100 + 100 series of 1,460 steps, 10 classes",
        licence=LICENCE,
        split=SPLIT_RULE,
        source=ARCHIVE + "C. Gisler et al., Appliance consumption signature database, 2013",
    )
    source = source_of(
        "ACSF1",
        "ecf7c694e142934f2fadd0fa3d7b03dd9ac32a2c5c4f3d68fb6f793f19c9dfec",
        "1fdcade7d5ff6e51a0c6a82f3893f550b488b6b754a6c645408856308d30eab2",
    )
    problem, longest = "ACSF1", 1460
    readout = "mean"  # an appliance shows what it is at any time
    head = Head("classify", classes=10)
    budgets = {
        "smoke": Budget(Training(epochs=30, batch_size=16, lr=4e-3), Backbone("sequence", (32,) * 5), time_limit=300),
        "laptop": Budget(Training(epochs=100, batch_size=16, lr=4e-3), Backbone("sequence", (64,) * 5), time_limit=1800),
        "paper": Budget(Training(epochs=500, batch_size=16, lr=1e-3), Backbone("sequence", (256,) * 6), time_limit=86400),
    }


class Plaid(UcrTask):
    """An electric signal of an appliance, recorded at 30 kHz and shortened: which of eleven kinds it is; ``[B, 500, 1]``.

    Amplitudes differ a millionfold between appliances, so values are compressed before they are normalised: asinh(x / m), where m is the
    median of absolute values in the training split.
    """

    class Options(UcrTask.Options):
        """How long the sequences are."""

        length: int = Field(500, ge=0, le=100_000, description="most steps, longer series are resampled; 0: all, up to 1,344")

    card = TaskCard(
        name="sequences/plaid",
        title="PLAID: electric signals of appliances",
        data="UCR archive, PLAID: 537 + 537 series of 100 to 1,344 steps, 11 classes",
        licence=LICENCE,
        split=SPLIT_RULE,
        source=ARCHIVE + "J. Gao et al., PLAID: a public dataset of high-resolution electrical appliance measurements, 2014",
    )
    source = source_of(
        "PLAID",
        "d529e4ee6c606d51c47461503708cd799f841e1be42bece6335ec70c186b7440",
        "a34cf20100b3050e0e27f0d0c3b8d24d033938566ad41f914a1ef8cf583960f1",
    )
    problem, longest = "PLAID", 1344
    head = Head("classify", classes=11)
    budgets = {
        "smoke": Budget(Training(epochs=6, batch_size=32, lr=4e-3), Backbone("sequence", (32,) * 5), time_limit=300),
        "laptop": Budget(Training(epochs=40, batch_size=32, lr=4e-3), Backbone("sequence", (64,) * 5), time_limit=1800),
        "paper": Budget(Training(epochs=500, batch_size=32, lr=1e-3), Backbone("sequence", (256,) * 6), time_limit=86400),
    }

    def scale(self, training: Sequence[np.ndarray]) -> Callable[[Sequence[np.ndarray]], list[np.ndarray]]:
        """Return compression and normalisation."""
        middle = np.median(np.abs(np.concatenate(training, axis=1)))

        def compressed(series: Sequence[np.ndarray]) -> list[np.ndarray]:
            return [np.arcsinh(each / middle) for each in series]

        normalised = Scale.of(compressed(training))
        return lambda series: normalised(compressed(series))


class OsuLeaf(UcrTask):
    """The outline of a leaf, distance from its centre along the border: which of six trees it is from; ``[B, 427, 1]``."""

    card = TaskCard(
        name="sequences/osuleaf",
        title="OSULeaf: outlines of leaves",
        data="UCR archive, OSULeaf: 200 + 242 series of 427 steps, 6 classes",
        licence=LICENCE,
        split=SPLIT_RULE,
        source=ARCHIVE + "A. Grandhi, Content-based image retrieval: plant species identification, 2002",
    )
    source = source_of(
        "OSULeaf",
        "bbbb8919fe39ada7b1c926fadfc9a68bf90fa0ab63018dde6aee1b2fcc3bb61e",
        "c3318e4e3824c057c8d5556664cafa83282cc6a12d373a5cb48ed4d1023f84fd",
    )
    problem, longest = "OSULeaf", 427
    head = Head("classify", classes=6)
    budgets = {
        "smoke": Budget(Training(epochs=16, batch_size=16, lr=4e-3), Backbone("sequence", (32,) * 5), time_limit=300),
        "laptop": Budget(Training(epochs=80, batch_size=16, lr=4e-3), Backbone("sequence", (64,) * 5), time_limit=1800),
        "paper": Budget(Training(epochs=500, batch_size=16, lr=1e-3), Backbone("sequence", (256,) * 5), time_limit=86400),
    }


class JapaneseVowels(UcrTask):
    """Twelve cepstral coefficients of two spoken vowels: which of nine men says them; ``[B, 29, 12]``, zeros in front."""

    card = TaskCard(
        name="sequences/japanese-vowels",
        title="JapaneseVowels: speakers by cepstra",
        data="UEA archive, JapaneseVowels: 270 + 370 series of 7 to 29 steps and 12 channels, 9 classes",
        licence=LICENCE,
        split=SPLIT_RULE,
        source=ARCHIVE + "M. Kudo, J. Toyama, M. Shimbo, Multidimensional curve classification using passing-through regions, 1999",
    )
    source = source_of(
        "JapaneseVowels",
        "db1a95abb817aaa4d3ab941ffc48107d1a4dbca63cf30c739b3a72de7c4e7091",
        "b2defceea4a3b652e3807872472d2d333d9246c05fc0cc7bbbe9494d52c70366",
    )
    problem, longest, channels = "JapaneseVowels", 29, 12
    head = Head("classify", classes=9)
    budgets = {
        "smoke": Budget(Training(epochs=20, batch_size=16, lr=4e-3), Backbone("sequence", (64,) * 3), time_limit=300),
        "laptop": Budget(Training(epochs=100, batch_size=16, lr=4e-3), Backbone("sequence", (128,) * 3), time_limit=1800),
        "paper": Budget(Training(epochs=500, batch_size=16, lr=1e-3), Backbone("sequence", (256,) * 3), time_limit=86400),
    }


class BasicMotions(UcrTask):
    """Acceleration and rotation at a wrist: standing, walking, running or playing badminton; ``[B, 100, 6]``."""

    card = TaskCard(
        name="sequences/basic-motions",
        title="BasicMotions: movement at a wrist",
        data="UEA archive, BasicMotions: 40 + 40 series of 100 steps and 6 channels, 4 classes",
        licence=LICENCE,
        split=SPLIT_RULE,
        source=ARCHIVE + "collected by students of the University of East Anglia, 2016",
    )
    source = source_of(
        "BasicMotions",
        "e3b3ee3154a140393fed4f16b8dd99038120b98513cba4a8e7a5e9069c72eb79",
        "b01eb29f843be0c4a00231f85bced5fae0989ee664e42a70881be26f3506357e",
    )
    problem, longest, channels = "BasicMotions", 100, 6
    head = Head("classify", classes=4)
    budgets = {
        "smoke": Budget(Training(epochs=30, batch_size=8, lr=4e-3), Backbone("sequence", (32,) * 4), time_limit=300),
        "laptop": Budget(Training(epochs=150, batch_size=8, lr=4e-3), Backbone("sequence", (64,) * 4), time_limit=1800),
        "paper": Budget(Training(epochs=500, batch_size=8, lr=1e-3), Backbone("sequence", (256,) * 4), time_limit=86400),
    }


class ItalyPowerDemand(UcrTask):
    """Electric power that Italy draws in the 24 hours of a day: October to March, or April to September; ``[B, 24, 1]``."""

    card = TaskCard(
        name="sequences/italy-power-demand",
        title="ItalyPowerDemand: summer or winter",
        data="UCR archive, ItalyPowerDemand: 67 + 1,029 series of 24 steps, 2 classes",
        licence=LICENCE,
        split=SPLIT_RULE,
        source=ARCHIVE + "E. Keogh, L. Wei, X. Xi, S. Lonardi, J. Shieh, S. Sirowy, 2006",
    )
    source = source_of(
        "ItalyPowerDemand",
        "1866cb00faff677de04453d6fddb40c8931e7eb48b50cc927f5a09e1c30d79cb",
        "08b01f45dca76047d4453f09554d5cf1e1ef8430021a76b27fc0264d93431f02",
    )
    problem, longest = "ItalyPowerDemand", 24
    head = Head("classify", classes=2)
    budgets = {
        "smoke": Budget(Training(epochs=40, batch_size=16, lr=4e-3), Backbone("sequence", (32,) * 3), time_limit=300),
        "laptop": Budget(Training(epochs=200, batch_size=16, lr=4e-3), Backbone("sequence", (64,) * 3), time_limit=1800),
        "paper": Budget(Training(epochs=500, batch_size=16, lr=1e-3), Backbone("sequence", (256,) * 3), time_limit=86400),
    }
