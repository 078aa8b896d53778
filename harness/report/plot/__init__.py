"""Plots of records with matplotlib: accuracy over time steps, against costs, over epochs; memory and time over T, length, depth or batch.

A plot shows what one table shows (``harness.report.table``): one task, device, track and budget, named in its title; the legend says how
many seeds a line or point stands for::

    tables, _ = build(store, extra=CURVES)
    save(over_steps(tables[0]), Path("plots/curves"), ("svg", "png"))

Nothing is drawn on a screen; colours are those of Okabe and Ito, which people with colour-blindness tell apart.
"""

from harness.report.curves import PATHS
from harness.report.pareto import front
from harness.report.plot.against import against
from harness.report.plot.figure import FORMATS, file_name, save
from harness.report.plot.growth import growth
from harness.report.plot.over_steps import over_steps
from harness.report.plot.training import training

CURVES = {**PATHS, "trace": "trace"}  # what ``build`` must read for these plots

__all__ = ["CURVES", "FORMATS", "against", "file_name", "front", "growth", "over_steps", "save", "training"]
