"""Commands that run methods: bench, run, scale, tune, data."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from harness.cli.options import (
    DEFAULT_RESULTS,
    Against,
    Budget,
    Device,
    Families,
    Force,
    Jobs,
    Methods,
    Plugins,
    Precision,
    Results,
    Set,
    Suites,
    Tasks,
    Threads,
    Track,
    app,
)
from harness.plugin import UsageError


@app.command(epilog="Example: `spikebench bench` &nbsp; or &nbsp; `spikebench bench --seeds 3 --jobs 2`")
def bench(
    results: Results = DEFAULT_RESULTS,
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="Seeds per method.")] = 1,
    jobs: Jobs = 1,
    threads: Threads = None,
    force: Force = False,
) -> None:
    """Train a handful of methods on the embedded tasks of all suites, and print the leaderboard. No download, no GPU."""
    from harness.commands.bench import bench as work

    work(results, seeds=seeds, jobs=jobs, threads=threads, force=force)


@app.command(
    epilog="Examples: `spikebench run -t static/digits -m ottt,stbp --seeds 3` · "
    '`spikebench run --suite static -m "ottt[update=online]" --set lr=0.01 --dry-run` · killed half-way? The same command continues.'
)
def run(
    task: Tasks = "",
    method: Methods = "",
    suite: Suites = "",
    family: Families = "",
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="Seeds 0 to N-1.")] = 1,
    budget: Budget = "smoke",
    track: Track = "matched",
    device: Device = "cpu",
    precision: Precision = "fp32",
    steps: Annotated[int | None, typer.Option("--steps", "-T", min=1, help="Time steps, where the data leave them open.")] = None,
    jobs: Jobs = 1,
    threads: Threads = None,
    settings: Set = None,
    probe: Annotated[str, typer.Option("--probe", help="Probes to apply to the trained networks, comma-separated.")] = "",
    time_limit: Annotated[
        float | None, typer.Option("--time-limit", min=1, help="Seconds until a run is ended. Default: the budget's.")
    ] = None,
    plugin: Plugins = None,
    results: Results = DEFAULT_RESULTS,
    force: Force = False,
    keep_networks: Annotated[
        bool, typer.Option("--keep-networks", help="Save each trained network in DIR/networks, for torch.load.")
    ] = False,
    against: Against = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the matrix with an estimate, and run nothing.")] = False,
) -> None:
    """Run methods on tasks. What is finished is not run again; what failed is."""
    from harness.commands.run import run as work
    from harness.matrix import Selection
    from harness.spec import parse_settings, split_list

    selection = Selection(
        methods=split_list(method),
        tasks=split_list(task),
        suites=split_list(suite),
        families=split_list(family),
        seeds=seeds,
        track=track,  # type: ignore[arg-type]  # checked by RunSpec
        budget=budget,
        steps=steps,
        device=device,
        precision=precision,  # type: ignore[arg-type]
        threads=threads,
        jobs=jobs,
        settings=parse_settings(settings or []),
        probes=split_list(probe),
        against=against,
    )
    if not (selection.tasks or selection.suites):
        raise UsageError("say what to run on: --task static/digits, or --suite static (`spikebench list tasks` shows all)")
    work(selection, results, plugin or [], time_limit=time_limit, force=force, dry_run=dry_run, keep_networks=keep_networks)


@app.command(
    epilog="Examples: `spikebench scale -t static/digits -m stbp,ottt --over steps --values 2,4,8,16` · "
    "`spikebench scale -t static/digits -m stbp --over depth --values 1,2,4 --format github`"
)
def scale(
    task: Annotated[str, typer.Option("--task", "-t", help="One task.")],
    over: Annotated[str, typer.Option("--over", help="steps (T), batch, length (of tasks that have it as an option) or depth.")],
    values: Annotated[str, typer.Option("--values", help="At least two whole numbers, comma-separated.")],
    method: Methods = "",
    metrics: Annotated[str, typer.Option("--metrics", help="Metrics, comma-separated. Default: memory and step time.")] = "",
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="Seeds 0 to N-1; points are means over them.")] = 1,
    budget: Budget = "smoke",
    track: Track = "matched",
    device: Device = "cpu",
    precision: Precision = "fp32",
    threads: Threads = None,
    settings: Set = None,
    format: Annotated[str, typer.Option("--format", "-f", help="terminal, github or csv.")] = "terminal",
    against: Annotated[str, typer.Option("--against", help="A method to run besides, and to give the others' figures as ratios to.")] = "",
    plugin: Plugins = None,
    results: Results = Path("results/local/scale"),
    force: Force = False,
) -> None:
    """Measure memory and time at several T, batch sizes, lengths or depths, and fit how they grow. What is finished is not run again."""
    import shlex

    from harness.commands.scale import scale as work
    from harness.matrix import Selection
    from harness.spec import parse_settings, split_list

    numbers = split_list(values)
    if not all(number.isdecimal() for number in numbers):
        raise UsageError(f"--values {values!r}: write whole numbers, for example 2,4,8,16")
    selection = Selection(
        methods=split_list(method),
        tasks=split_list(task),
        seeds=seeds,
        track=track,  # type: ignore[arg-type]  # checked by RunSpec
        budget=budget,
        device=device,
        precision=precision,  # type: ignore[arg-type]
        threads=threads,
        settings=parse_settings(settings or []),
        against=against,
    )
    resume = shlex.join(["spikebench", *sys.argv[1:]])
    work(selection, over, [int(n) for n in numbers], split_list(metrics), format, results, plugin or [], resume, force=force)


@app.command(epilog="Example: `spikebench tune -t static/digits -m stbp,ottt --trials 12 --seeds 3`")
def tune(
    task: Tasks,
    method: Annotated[str, typer.Option("--method", "-m", help="Methods, comma-separated; what is set in brackets is not tuned.")],
    trials: Annotated[int, typer.Option("--trials", help="Runs that each method may spend; the first has its defaults.")] = 12,
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="Seeds to run the best settings with.")] = 1,
    budget: Budget = "smoke",
    track: Track = "matched",
    device: Device = "cpu",
    threads: Threads = None,
    settings: Annotated[list[str] | None, typer.Option("--set", help="key=value, not to be tuned; may be given again.")] = None,
    plugin: Plugins = None,
    results: Results = Path("results/local/tune"),
    force: Force = False,
) -> None:
    """Choose settings of methods under an equal number of trials, on validation data only, and run the best."""
    import shlex

    from harness.commands.tune import tune as work
    from harness.matrix import Selection
    from harness.spec import parse_settings, split_list

    selection = Selection(
        methods=split_list(method),
        tasks=split_list(task),
        seeds=seeds,
        track=track,  # type: ignore[arg-type]  # checked by RunSpec
        budget=budget,
        device=device,
        threads=threads,
        settings=parse_settings(settings or []),
    )
    work(selection, trials, results, plugin or [], shlex.join(["spikebench", *sys.argv[1:]]), force=force)


@app.command(epilog="Example: `spikebench data static/mnist,static/cifar10`")
def data(
    task: Annotated[str, typer.Argument(help="Tasks, comma-separated (`spikebench list tasks` shows what each would download).")],
    plugin: Plugins = None,
) -> None:
    """Download and verify the data of tasks. Data that lie in a folder of SPIKEBENCH_DATA are used as they are."""
    from harness.commands.data import fetch as work
    from harness.registry import Registries
    from harness.spec import split_list

    work(split_list(task), Registries(plugin or []))
