"""The ``.ts`` text format of the UCR and UEA archives of time series: header lines, then one series per line.

    series, labels = read_ts(Path("JapaneseVowels_TRAIN.ts.gz"))   # [array [12, L], ...], ["1", ...]

A line of data is ``channel:channel:...:label``, the values of a channel separated by commas. Lines that begin with ``#`` are comments,
those with ``@`` are the header, which says how many channels and classes to expect; what contradicts it is an error, and so are missing
values (``?``), text, and series with time stamps (A. Bagnall et al., "The UEA multivariate time series classification archive", 2018).
"""

from __future__ import annotations

import gzip
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from harness.plugin import DataError


@dataclass(frozen=True)
class TsFile:
    """What a file holds: ``series`` of ``[C, L]``, the label of each, and all labels in the header's order."""

    series: list[np.ndarray]
    labels: list[str]
    classes: tuple[str, ...]


def read_ts(path: Path) -> TsFile:
    """Read a file, packed by gzip if its name ends in ``.gz``; raise DataError naming file and line if it is not what it should be."""
    lines = read_lines(path)
    header: dict[str, str] = {}
    found = TsFile([], [], ())
    classes: tuple[str, ...] | None = None
    for number, line in enumerate(lines, 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        where = f"{path.name}, line {number}"
        if line.startswith("@"):
            name, _, value = line[1:].partition(" ")
            header[name.lower()] = value.strip().lower() if name.lower() != "classlabel" else value.strip()
            continue
        if classes is None:
            classes = _classes(header, path)
        series, label = _row(line, where)
        _compare(series, label, header, classes, where)
        if found.series and len(series) != len(found.series[0]):
            raise DataError(f"{where}: {len(series)} channels, the first series has {len(found.series[0])}")
        found.series.append(series)
        found.labels.append(label)
    if not found.series:
        raise DataError(f"{path.name} holds no series; it is empty or cut off, get it again")
    return TsFile(found.series, found.labels, classes or ())


def read_lines(path: Path) -> list[str]:
    """Return the lines of a text file, unpacked if its name ends in ``.gz``; raise DataError if that cannot be done."""
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{path.name} cannot be unpacked ({error}); it is damaged or cut off, get it again") from None
    except OSError as error:
        raise DataError(f"cannot read {path.name}: {error.strerror}") from None
    # Comments name authors in one encoding or another; numbers are ASCII in all of them.
    return content.decode("utf-8", errors="replace").splitlines()


def numbers(cells: list[str], where: str, shape: str = "value") -> np.ndarray:
    """Return the cells as numbers; raise DataError naming the first one that is missing, text or not finite."""
    try:
        values = np.array(cells, dtype=np.float64)
    except ValueError:
        values = None
    if values is not None and np.isfinite(values).all():
        return values
    for place, cell in enumerate(cells, 1):
        try:
            fine = bool(np.isfinite(float(cell)))
        except ValueError:
            fine = False
        if not fine:
            what = "is missing" if cell.strip() in ("", "?") else f"is {cell.strip()[:20]!r}, not a finite number"
            raise DataError(f"{where}: {shape} {place} {what}; fill gaps before use")
    raise DataError(f"{where}: the values cannot be read as numbers")


def _classes(header: dict[str, str], path: Path) -> tuple[str, ...]:
    told, *names = header.get("classlabel", "false").split() or ["false"]
    if told.lower() != "true" or not names:
        raise DataError(f"{path.name}: the header has no line '@classLabel true NAME NAME ...'; only sets with classes can be used")
    if header.get("timestamps") == "true":
        raise DataError(f"{path.name}: series with time stamps (@timeStamps true) cannot be used; resample them to equal steps first")
    return tuple(names)


def _row(line: str, where: str) -> tuple[np.ndarray, str]:
    *channels, label = line.split(":")
    if not channels:
        raise DataError(f"{where}: no ':' between values and class; the line is cut off")
    read = [numbers(channel.split(","), f"{where}, channel {place}") for place, channel in enumerate(channels, 1)]
    if len({len(channel) for channel in read}) > 1:
        raise DataError(f"{where}: its channels have {', '.join(str(len(channel)) for channel in read)} values; one length is needed")
    return np.stack(read), label.strip()


def _compare(series: np.ndarray, label: str, header: dict[str, str], classes: tuple[str, ...], where: str) -> None:
    if label not in classes:
        raise DataError(f"{where}: class {label!r} is unknown; the header allows {', '.join(classes)}")
    expected = header.get("dimensions", "1" if header.get("univariate") == "true" else "")
    if expected.isdigit() and len(series) != int(expected):
        raise DataError(f"{where}: {len(series)} channels, the header says {expected}")
    length = header.get("serieslength", "")
    if header.get("equallength") == "true" and length.isdigit() and series.shape[1] != int(length):
        raise DataError(f"{where}: {series.shape[1]} values, the header says {length}; the line is cut off")
