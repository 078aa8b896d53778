"""A CSV file of numbers, one row per time step, read with nothing passed over.

::

    table = read(path)     # ETTh1.csv.gz
    table.columns          # ("HUFL", "HULL", "MUFL", "MULL", "LUFL", "LULL", "OT")
    table.values           # float64 [17420, 7]

The first row is a header if none of its cells is a number. A column that the header calls date, time, datetime or timestamp is left out.
Everything else must be a finite number. Files that end in ``.gz`` are unpacked on the way.
"""

from __future__ import annotations

import csv
import gzip
import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from harness.plugin import DataError

TIMES = ("date", "time", "datetime", "timestamp")


@dataclass(frozen=True)
class Table:
    """The numbers of a file."""

    columns: tuple[str, ...]
    values: np.ndarray  # float64 [rows, columns]


def read(path: Path) -> Table:
    """Return all rows; raise DataError naming file, line and column for a gap, a text, a row of another length or a damaged file."""
    rows = _rows(path)
    line, first = next(rows, (1, []))
    if not first:
        raise DataError(f"{path.name} has no rows; get it again")
    header = _header(first)
    names = header or [f"column {place}" for place in range(1, len(first) + 1)]
    kept = [place for place, name in enumerate(names) if not (header and name.lower() in TIMES)]
    if not kept:
        raise DataError(f"{path.name} has no column of numbers: its header is {','.join(names)}")
    found: list[list[float]] = [] if header else [_numbers(path, line, first, names, kept)]
    found += (_numbers(path, line, row, names, kept) for line, row in rows)
    if not found:
        raise DataError(f"{path.name} has a header and no rows; get it again")
    return Table(tuple(names[place] for place in kept), np.array(found))


def columns(path: Path) -> tuple[str, ...]:
    """Return the names of the columns of numbers, from the first row alone; raise DataError if the file cannot be read."""
    _, first = next(_rows(path), (1, []))
    header = _header(first)
    return tuple(name for name in header if name.lower() not in TIMES) if header else tuple(f"column {n + 1}" for n in range(len(first)))


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield the number of the line and the cells of every row that is not empty."""
    opened = gzip.open if path.name.endswith(".gz") else open
    try:
        with opened(path, "rt", encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file)
            for row in reader:
                if row:
                    yield reader.line_num, row
    except UnicodeDecodeError:
        raise DataError(f"{path.name} is not text in UTF-8; convert it or get it again") from None
    except (OSError, EOFError, zlib.error, csv.Error) as error:  # gzip: not such a file, cut off, damaged
        raise DataError(f"{path.name} cannot be read: {error}; get it again") from None


def _header(row: list[str]) -> list[str]:
    """Return the cells of a first row if none is a number; else nothing."""
    return [] if any(_is_number(cell) for cell in row) else [cell.strip() for cell in row]


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _numbers(path: Path, line: int, row: list[str], names: list[str], kept: list[int]) -> list[float]:
    if len(row) != len(names):
        raise DataError(f"{path.name}, line {line}: {len(row)} cells where there should be {len(names)}; complete the row")
    try:
        found = [float(row[place]) for place in kept]
        if all(map(math.isfinite, found)):
            return found
    except ValueError:
        pass
    for place in kept:
        if not (_is_number(row[place]) and math.isfinite(float(row[place]))):
            what = f"{row[place]!r} is not a finite number" if row[place].strip() else "there is a gap"
            advice = "fill it" if not row[place].strip() else f"a column of times is left out if the header calls it {TIMES[0]}"
            raise DataError(f"{path.name}, line {line}, column {names[place]!r}: {what}; {advice}")
    raise AssertionError("no cell is wrong")
