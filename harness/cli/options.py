"""The application object, and the options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    name="spikebench",
    help="Train spiking neural networks in every way on the same tasks, measured alike.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)

Plugins = Annotated[
    list[Path] | None, typer.Option("--plugin", help="A Python file with further methods, tasks or probes; may be given again.")
]
Results = Annotated[Path, typer.Option("--results", help="Folder of the records.", metavar="DIR")]
Methods = Annotated[
    str, typer.Option("--method", "-m", help="Methods, comma-separated; options in brackets: ottt[update=online]. Default: all.")
]
Tasks = Annotated[str, typer.Option("--task", "-t", help="Tasks, comma-separated: static/digits.")]
Suites = Annotated[str, typer.Option("--suite", help="All tasks of these suites.")]
Families = Annotated[str, typer.Option("--family", help="Only methods of these families.")]
Budget = Annotated[str, typer.Option("--budget", help="smoke (seconds), laptop (minutes) or paper (the published recipe).")]
Track = Annotated[str, typer.Option("--track", help="matched (settings shared by all) or recipe (the method's own).")]
Device = Annotated[str, typer.Option("--device", help="cpu, cuda or cuda:N.")]
Precision = Annotated[str, typer.Option("--precision", help="fp32, bf16 or fp16 (autocast).")]
Set = Annotated[
    list[str] | None, typer.Option("--set", help="key=value: a training setting or an option of the methods; may be given again.")
]
Jobs = Annotated[int, typer.Option("--jobs", "-j", min=1, help="Runs at a time. With more than one, times disturb each other.")]
Threads = Annotated[int | None, typer.Option("--threads", min=1, help="CPU threads of a run. Default: 1 for smoke, else cores / jobs.")]
Force = Annotated[bool, typer.Option("--force", help="Run again what is finished.")]
Against = Annotated[
    str,
    typer.Option(
        "--against",
        help="What to compare with (difference, paired test, ratios): a row, or `own` for the baseline that each method's card names.",
    ),
]
DEFAULT_RESULTS = Path("results/local")
