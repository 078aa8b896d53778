"""The command line. Thin: each command's work is a function in ``harness/commands/``, imported when it is called."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from harness.plugin import UsageError

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
    budget: Annotated[str, typer.Option("--budget", help="smoke (seconds), laptop (minutes) or paper (the published recipe).")] = "smoke",
    track: Annotated[str, typer.Option("--track", help="matched (settings shared by all) or recipe (the method's own).")] = "matched",
    device: Annotated[str, typer.Option("--device", help="cpu, cuda or cuda:N.")] = "cpu",
    precision: Annotated[str, typer.Option("--precision", help="fp32, bf16 or fp16 (autocast).")] = "fp32",
    steps: Annotated[int | None, typer.Option("--steps", "-T", min=1, help="Time steps, where the data leave them open.")] = None,
    jobs: Jobs = 1,
    threads: Threads = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="key=value: a training setting or an option of the methods; may be given again.")
    ] = None,
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
    budget: Annotated[str, typer.Option("--budget", help="Which network: smoke, laptop or paper.")] = "smoke",
    track: Annotated[str, typer.Option("--track", help="matched or recipe.")] = "matched",
    device: Annotated[str, typer.Option("--device", help="cpu, cuda or cuda:N.")] = "cpu",
    precision: Annotated[str, typer.Option("--precision", help="fp32, bf16 or fp16 (autocast).")] = "fp32",
    threads: Threads = None,
    settings: Annotated[list[str] | None, typer.Option("--set", help="key=value, as for `run`; may be given again.")] = None,
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
    budget: Annotated[str, typer.Option("--budget", help="smoke, laptop or paper.")] = "smoke",
    track: Annotated[str, typer.Option("--track", help="matched or recipe.")] = "matched",
    device: Annotated[str, typer.Option("--device", help="cpu, cuda or cuda:N.")] = "cpu",
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


@app.command(
    "list", epilog="Examples: `spikebench list methods` · `spikebench list tasks` · `spikebench list methods --task detection/digit-scenes`"
)
def list_(
    what: Annotated[str, typer.Argument(help="methods, tasks, probes or metrics")],
    task: Annotated[str, typer.Option("--task", "-t", help="With methods: say which can do this task, and why the others cannot.")] = "",
    format: Annotated[str, typer.Option("--format", "-f", help="terminal or github.")] = "terminal",
    plugin: Plugins = None,
) -> None:
    """List methods, tasks or probes, with where each comes from and why it cannot run here; or the metrics and what they mean."""
    from harness.commands.list import list_plugins as work

    work(what, task, format, plugin or [])


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


@app.command(epilog="Example: `spikebench show 1d603627` (the beginning of a run key, or a file)")
def show(
    record: Annotated[str, typer.Argument(help="Beginning of a run key, or a record file.")], results: Results = DEFAULT_RESULTS
) -> None:
    """Print one record readably."""
    from harness.commands.show import show as work

    work(record, results)


@app.command(
    epilog="Examples: `spikebench table` · `spikebench table -t static/digits --metrics test_accuracy,saved_bytes --format latex` · "
    "`spikebench table --results results/reference --format github`"
)
def table(
    task: Tasks = "",
    method: Methods = "",
    suite: Suites = "",
    metrics: Annotated[str, typer.Option("--metrics", help="Columns, comma-separated. Default: a selection; `all` for every metric.")] = "",
    sort: Annotated[str, typer.Option("--sort", help="Metric to sort by, best first.")] = "test_accuracy",
    format: Annotated[str, typer.Option("--format", "-f", help="terminal, github, latex, csv or html.")] = "terminal",
    spread: Annotated[
        str, typer.Option("--spread", help="What stands beside a mean over seeds: deviation or interval (95 %, bootstrap).")
    ] = "deviation",
    against: Against = "",
    probe: Annotated[str, typer.Option("--probe", help="Show what this probe found instead.")] = "",
    over_steps: Annotated[bool, typer.Option("--over-steps", help="Show accuracy as of each time step instead.")] = False,
    plugin: Plugins = None,
    results: Results = DEFAULT_RESULTS,
) -> None:
    """Print comparison tables of the records: one per task, device, track and budget."""
    from harness.commands.table import table as work
    from harness.spec import split_list

    chosen = (split_list(task), split_list(method), split_list(suite), split_list(metrics))
    work(results, *chosen, sort, format, spread, against, probe, over_steps, plugin or [])


@app.command(epilog="Examples: `spikebench claims --results results/reference` · `spikebench claims -m sltt,ottt --format github`")
def claims(
    method: Methods = "",
    format: Annotated[str, typer.Option("--format", "-f", help="terminal, github, latex, csv or html.")] = "terminal",
    plugin: Plugins = None,
    results: Results = DEFAULT_RESULTS,
) -> None:
    """Print every claim of the papers beside what the records say, with verdict and command. Folders below the results folder are read too."""
    from harness.commands.claims import claims as work
    from harness.spec import split_list

    work(results, split_list(method), format, plugin or [])


@app.command(
    epilog="Examples: `spikebench plot steps -t static/digits` · `spikebench plot pareto --against spikes --results results/reference` · "
    "`spikebench plot training -m stbp,ottt --format png`"
)
def plot(
    kind: Annotated[str, typer.Argument(help="steps (accuracy over time steps), pareto (accuracy against a cost) or training.")],
    task: Tasks = "",
    method: Methods = "",
    suite: Suites = "",
    against: Annotated[str, typer.Option("--against", help="With pareto: the metric that is the cost.")] = "saved_bytes",
    format: Annotated[str, typer.Option("--format", "-f", help="svg, png or pdf, comma-separated.")] = "svg,png",
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write to.")] = Path("results/local/plots"),
    plugin: Plugins = None,
    results: Results = DEFAULT_RESULTS,
) -> None:
    """Draw the records: one figure per task, device, track and budget. Prints the names of the files."""
    from harness.commands.plot import plot as work
    from harness.spec import split_list

    chosen = (split_list(task), split_list(method), split_list(suite))
    work(kind, results, *chosen, against, output, split_list(format), plugin or [])


@app.command("new-method", epilog="Example: `spikebench new-method my_neuron`, edit methods/my_neuron.py, `spikebench check my_neuron`")
def new_method(
    name: Annotated[str, typer.Argument(help="Lower case, letters, digits and underscores.")],
    folder: Annotated[Path | None, typer.Option("--folder", help="Where to write; default: the checkout's methods/, else here.")] = None,
) -> None:
    """Write a new method from a template, and its test."""
    from harness.commands.new_method import new_method as work

    work(name, folder)


@app.command(epilog="Examples: `spikebench check ottt` · `spikebench check mine --plugin mine.py` · `spikebench check --all`")
def check(
    method: Annotated[str, typer.Argument(help="Name of the method, with options in brackets if need be.")] = "",
    everything: Annotated[bool, typer.Option("--all", help="Check every method.")] = False,
    plugin: Plugins = None,
) -> None:
    """Check that a method keeps the contract: shapes, learning, no hidden state, same seed same result, and so on."""
    from harness.commands.check import check as work

    work(method, everything, plugin or [])


def main(arguments: list[str] | None = None) -> Any:
    """Run the command line: exit status 0, 1 (something was found wrong), 2 (cannot be done as asked) or 130 (interrupted)."""
    given = sys.argv[1:] if arguments is None else arguments
    try:
        status = app(given or ["--help"], prog_name="spikebench", standalone_mode=False)
    except UsageError as error:
        _refuse(str(error))
    except KeyboardInterrupt:
        sys.stderr.write("spikebench: interrupted\n")
        sys.exit(130)
    except BrokenPipeError:  # | head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:
        if not hasattr(error, "format_message"):  # only errors of the parser have it; their class depends on typer's version
            raise
        command = getattr(getattr(error, "ctx", None), "command_path", "spikebench")
        _refuse(f"{error.format_message().rstrip('.')} (see {command} --help)")
    sys.exit(status if isinstance(status, int) else 0)


def _refuse(message: str) -> NoReturn:
    """Say in one line why it cannot be done, and exit with status 2."""
    sys.stderr.write(f"spikebench: {' '.join(message.split())}\n")
    sys.exit(2)


if __name__ == "__main__":
    main()
