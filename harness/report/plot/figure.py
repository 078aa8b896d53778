"""What all plots share: canvas, line styles, legend, file names, and writing files."""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.metrics import Metric
from harness.report.formats import plain
from harness.report.table import Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

FORMATS = ("svg", "png", "pdf")
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "osD^vP*Xh"
LINES = ("-", "--", "-.", ":")
FEW = 8  # lines; the bands of more would hide each other
LEGEND = 26  # entries that fit into one column of a legend
LETTER = 0.068  # inches of a letter in a legend, on average


def canvas(title: str, beside: Sequence[str] = (), panels: int = 1, below: Sequence[str] = ()) -> tuple[Figure, list[Axes]]:
    """Return a figure with ``panels`` below one title, and room for a legend with these entries ``beside``, or ``below`` each panel."""
    from matplotlib.figure import Figure  # not pyplot: no display and no global state

    columns = math.ceil(len(beside) / LEGEND)
    wide = max(6.8, 1.2 + LETTER * max(map(len, below), default=0))  # inches
    width = wide * panels + columns * (0.7 + LETTER * max(map(len, beside), default=0))
    figure = Figure(figsize=(width, 5.5 + 0.17 * len(below)), layout="constrained")
    figure.suptitle("\n".join(textwrap.wrap(literal(title), int(width * 10))), fontsize=10, x=0.01, ha="left")
    axes = [figure.add_subplot(1, panels, place + 1) for place in range(panels)]
    for each in axes:
        each.grid(alpha=0.3)
    return figure, axes


def styles() -> Iterator[dict[str, Any]]:
    """Yield colour, line style and marker without end; 252 lines differ in at least one of them."""
    number = 0
    while True:
        yield {
            "color": COLOURS[number % len(COLOURS)],
            "linestyle": LINES[number // len(COLOURS) % len(LINES)],
            "marker": MARKERS[number % len(MARKERS)],
        }
        number += 1


def finish(axes: Axes, x: str, y: str) -> None:
    """Name the axes, and put the legend of what they show beside them."""
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    count = len(axes.get_legend_handles_labels()[0])
    if count:
        figure = axes.get_figure()
        figure.legend(loc="outside right upper", fontsize=8, ncols=math.ceil(count / LEGEND))  # type: ignore[union-attr]


def numbered(axis: Axis) -> None:
    """Number a logarithmic axis 1, 2, 5, 10, 20 ... in plain figures."""
    from matplotlib.ticker import LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(base=10, subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(NullFormatter())


def literal(text: str) -> str:
    """Return text as it is: between dollar signs matplotlib would read mathematics, and records are not to be trusted."""
    return plain(text).replace("$", r"\$")


def legend(row: Row) -> str:
    """Return what the legend calls a row: its label and number of seeds."""
    return literal(f"{row.label} (n = {len(row.runs)})")


def named(metric: Metric, unit: str) -> str:
    """Return the name of an axis."""
    return f"{metric.title} [{unit}]" if unit else metric.title


def file_name(kind: str, about: Mapping[str, Any]) -> str:
    """Return a file name (without ending) that tells what the plot of a table ``about`` these things shows."""
    parts = [kind, *(str(about[name]) for name in ("task", "budget", "track", "kind", "precision"))]
    return re.sub(r"[^A-Za-z0-9.=_-]+", "-", "-".join(parts)).strip("-")


def save(figure: Figure, path: Path, formats: Sequence[str]) -> list[Path]:
    """Write ``figure`` as ``path`` with the ending of each format; return the files. The same records give the same bytes in svg."""
    import matplotlib

    path.parent.mkdir(parents=True, exist_ok=True)
    files = [path.with_name(f"{path.name}.{ending}") for ending in formats]
    with matplotlib.rc_context({"svg.hashsalt": "spikebench"}):
        for file in files:
            metadata = {"Date": None} if file.suffix == ".svg" else {"CreationDate": None} if file.suffix == ".pdf" else {}
            figure.savefig(file, dpi=150, metadata=metadata)
    return files
