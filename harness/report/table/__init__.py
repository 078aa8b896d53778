"""Comparison tables from records: rows are methods, columns metrics, cells mean ± standard deviation over seeds.

One table holds one task, device, track, budget and precision only; these are never mixed. Runs of one row differ in nothing but the seed.
Methods whose main metric cannot be told apart share a rank (``harness.statistics``)::

    tables, broken = build(Store("results/reference"), metrics=("test_accuracy", "saved_bytes"))
    print(render(tables, "github"))
"""

from harness.report.formats import FORMATS
from harness.report.table.build import COSTS, DEFAULT_METRICS, ROW, build
from harness.report.table.row import Row
from harness.report.table.summary import Summary, render_summaries, summarise
from harness.report.table.table import GROUP, SPREADS, Table, render

__all__ = [
    "COSTS",
    "DEFAULT_METRICS",
    "FORMATS",
    "GROUP",
    "ROW",
    "SPREADS",
    "Row",
    "Summary",
    "Table",
    "build",
    "render",
    "render_summaries",
    "summarise",
]
