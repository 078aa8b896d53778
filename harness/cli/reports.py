"""Commands that read records and run nothing: show, table, plot, claims, site, history."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.cli.options import DEFAULT_RESULTS, Against, Methods, Plugins, Results, Suites, Tasks, app


@app.command(epilog="Example: `spikebench show 1d603627` (the beginning of a run key, or a file)")
def show(
    record: Annotated[str, typer.Argument(help="Beginning of a run key, or a record file.")], results: Results = DEFAULT_RESULTS
) -> None:
    """Print one record readably."""
    from harness.commands.show import show as work

    work(record, results)


@app.command(
    epilog="Examples: `spikebench table` · `spikebench table -t static/digits --metrics test_accuracy,saved_bytes --format latex` · "
    "`spikebench table --results results/reference --summary --format github` · `spikebench table --pareto step_time,spikes --sort spikes`"
)
def table(
    task: Tasks = "",
    method: Methods = "",
    suite: Suites = "",
    metrics: Annotated[str, typer.Option("--metrics", help="Columns, comma-separated. Default: a selection; `all` for every metric.")] = "",
    sort: Annotated[str, typer.Option("--sort", help="Metric to sort by, best first; it need not be a column.")] = "test_accuracy",
    format: Annotated[str, typer.Option("--format", "-f", help="terminal, github, latex, csv or html.")] = "terminal",
    spread: Annotated[
        str, typer.Option("--spread", help="What stands beside a mean over seeds: deviation or interval (95 %, bootstrap).")
    ] = "deviation",
    against: Against = "",
    pareto: Annotated[
        str,
        typer.Option("--pareto", help="Costs that Pareto-optimal rows are marked by, comma-separated: optimal in all jointly; or `none`."),
    ] = "saved_bytes",
    probe: Annotated[str, typer.Option("--probe", help="Show what this probe found instead.")] = "",
    over_steps: Annotated[bool, typer.Option("--over-steps", help="Show accuracy as of each time step instead.")] = False,
    summary: Annotated[bool, typer.Option("--summary", help="Show one table per suite instead: all tasks, ranks, mean ranks.")] = False,
    reasons: Annotated[
        bool | None,
        typer.Option("--reasons/--no-reasons", help="Say why methods are absent from a table. Default: for up to 1,000 records."),
    ] = None,
    plugin: Plugins = None,
    results: Results = DEFAULT_RESULTS,
) -> None:
    """Print comparison tables of the records: one per task, device, track and budget."""
    from harness.commands.table import table as work
    from harness.spec import split_list

    chosen = (split_list(task), split_list(method), split_list(suite), split_list(metrics))
    costs = split_list(pareto)
    work(results, *chosen, sort, format, spread, against, costs, probe, over_steps, summary, reasons, plugin or [])


@app.command(
    epilog="Examples: `spikebench plot steps -t static/digits` · `spikebench plot pareto --against spikes --results results/reference` · "
    "`spikebench plot training -m stbp,ottt --format png` · `spikebench plot scaling --results results/reference/scaling --over steps`"
)
def plot(
    kind: Annotated[
        str,
        typer.Argument(
            help="steps (accuracy over time steps), pareto (accuracy against a cost), training, or scaling (memory and time over T...)."
        ),
    ],
    task: Tasks = "",
    method: Methods = "",
    suite: Suites = "",
    against: Annotated[str, typer.Option("--against", help="With pareto: the metric that is the cost.")] = "saved_bytes",
    over: Annotated[
        str, typer.Option("--over", help="With scaling: steps, length, depth or batch, comma-separated. Default: what records allow.")
    ] = "",
    metrics: Annotated[
        str, typer.Option("--metrics", help="With scaling: what is drawn over it, comma-separated.")
    ] = "saved_bytes,step_time",
    format: Annotated[str, typer.Option("--format", "-f", help="svg, png or pdf, comma-separated.")] = "svg,png",
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write to.")] = Path("results/local/plots"),
    plugin: Plugins = None,
    results: Results = DEFAULT_RESULTS,
) -> None:
    """Draw the records: one figure per task, device, track and budget. Prints the names of the files."""
    from harness.commands.plot import plot as work
    from harness.spec import split_list

    chosen = (split_list(task), split_list(method), split_list(suite))
    work(kind, results, *chosen, against, split_list(over), split_list(metrics), output, split_list(format), plugin or [])


@app.command(
    epilog="Examples: `spikebench claims --results results/reference` · `spikebench claims -m sltt,ottt --format github` · "
    "`spikebench claims --verdict 'holds,does not hold'`"
)
def claims(
    method: Annotated[str, typer.Option("--method", "-m", help="Methods and probes, comma-separated. Default: all.")] = "",
    verdict: Annotated[str, typer.Option("--verdict", help="Only claims with these verdicts, comma-separated. Default: all.")] = "",
    format: Annotated[str, typer.Option("--format", "-f", help="terminal, github, latex, csv or html.")] = "terminal",
    plugin: Plugins = None,
    results: Results = DEFAULT_RESULTS,
) -> None:
    """Print every claim of the papers beside what the records say, with verdict and command. Folders below --results are read too."""
    from harness.commands.claims import claims as work
    from harness.spec import split_list

    work(results, split_list(method), split_list(verdict), format, plugin or [])


@app.command(
    epilog="Examples: `spikebench site --results results/reference` · `spikebench site -o public`, then open public/index.html "
    "(no server, no network)"
)
def site(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write to.")] = Path("results/local/site"),
    plugin: Plugins = None,
    results: Results = DEFAULT_RESULTS,
) -> None:
    """Write a leaderboard of static pages: tables, plots, claims, a page per method and run. Folders below --results are read too."""
    from harness.commands.site import site as work

    work(results, output, plugin or [])


@app.command(
    epilog="Examples: `spikebench history test_accuracy -m stbp -t static/digits` · "
    "`spikebench history step_time -m stbp,ottt -t static/digits -o history.svg`"
)
def history(
    metric: Annotated[str, typer.Argument(help="A metric (`spikebench list metrics`).")],
    method: Methods = "",
    task: Tasks = "",
    format: Annotated[str, typer.Option("--format", "-f", help="terminal, github or csv.")] = "terminal",
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Also draw it to this svg, png or pdf file.")] = None,
    results: Results = DEFAULT_RESULTS,
) -> None:
    """Print a metric over the commits that records come from, with change points marked. Folders below --results are read too."""
    from harness.commands.history import history as work
    from harness.spec import split_list

    work(metric, results, split_list(method), split_list(task), format, output)
