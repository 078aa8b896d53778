"""Real runs in processes of their own: whatever happens to one, a record says so and the others go on."""

import getpass
import json
import os
import platform
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import harness
from harness.engines.local import LocalEngine
from harness.evaluate import evaluate
from harness.failure import describe
from harness.identity import make, plan
from harness.record import Record, read_record
from harness.registry import Registries
from harness.runner import execute
from harness.spec import RunSpec
from harness.store import Store

ROOT = Path(harness.__file__).parents[1]


def card(name):
    return f'card = Card(name="{name}", title="-", authors="-", venue="-", year=2026, family="testing", summary="-")'


ENDINGS = {
    "raises": "raise ValueError('no such luck in ' + __file__)",
    "diverges": "return torch.tensor(float('nan'))",
    "kills_itself": "os.kill(os.getpid(), signal.SIGKILL)",
    "runs_out_of_memory": "raise MemoryError",
    "exits": "subprocess.Popen(['sleep', '300']); os._exit(3)",
    "never_ends": "time.sleep(300)",
    "prints": "print('no end of line', end='', flush=True)",
}


def plugin_text(tiny):
    classes = [
        f"class Ends{n}(Fine):\n    {card(name)}\n\n    def act(self, net):\n        {code}\n"
        for n, (name, code) in enumerate(ENDINGS.items())
    ]
    return "\n\n".join([tiny, *classes])


def is_alive(pid):
    """Return whether a process runs; one that has ended and waits to be collected does not."""
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def wait_for(condition, what, seconds=90):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, f"waited {seconds} s for {what}"
        time.sleep(0.1)


@pytest.fixture(scope="module")
def matrix(tmp_path_factory, tiny):
    """Every ending once, two at a time, in one call of the engine; return the records, the events and the store."""
    folder = tmp_path_factory.mktemp("endings")
    path = folder / "mine.py"
    path.write_text(plugin_text(tiny))
    store = Store(folder / "results")
    store.prepare()
    registries = Registries([path])
    tasks = {name: "tiny/short" if name == "never_ends" else "tiny/digits" for name in [*ENDINGS, "fine"]}
    plans = [plan(RunSpec(method=name, task=task), registries) for name, task in tasks.items()]
    events = []
    records = LocalEngine(store, [path], jobs=2).run(plans, lambda p, event: events.append((p.spec.method, event)))
    return {record.spec.method: record for record in records}, events, store


def test_every_run_has_a_record_whatever_became_of_the_others(matrix):
    records, _, store = matrix
    assert set(records) == {*ENDINGS, "fine"}
    for record in records.values():
        assert store.path(record.key).read_text() == record.model_dump_json()
    assert store.finished(records["fine"].key) and not store.finished(records["raises"].key)
    assert not list(store.folder.glob(".*"))


def test_an_exception_is_an_error_with_its_traceback_and_no_absolute_path(matrix):
    record = matrix[0]["raises"]
    assert record.status == "error"
    assert record.failure.message.startswith("ValueError: no such luck in ")
    assert "Traceback" in record.failure.traceback and "in act" in record.failure.traceback and "mine.py" in record.failure.traceback
    assert not re.search(r"""(^|[\s"'])/\w+/""", record.failure.message + record.failure.traceback)
    assert record.environment is not None and record.accuracy is None


def test_a_loss_that_is_not_a_number_is_diverged(matrix):
    record = matrix[0]["diverges"]
    assert record.status == "diverged"
    assert record.failure.message == "DivergedError: loss is nan in phase 'train', epoch 0, step 0"


def test_a_process_ended_by_a_signal_is_killed_and_the_signal_is_named(matrix):
    record = matrix[0]["kills_itself"]
    assert (record.status, record.failure.signal, record.failure.exit_code) == ("killed", "SIGKILL", None)
    assert record.environment is None and record.duration > 0


def test_a_lack_of_memory_is_told_from_other_errors(matrix):
    assert matrix[0]["runs_out_of_memory"].status == "out_of_memory"


def test_an_exit_without_a_record_is_an_error_with_the_exit_status(matrix):
    """Although a child that it has left behind still holds its output, for which the matrix must not wait."""
    record = matrix[0]["exits"]
    assert (record.status, record.failure.exit_code, record.failure.signal) == ("error", 3, None)
    assert record.failure.message == "exited with status 3 and no record"


def test_a_run_that_does_not_end_is_ended_when_its_time_is_up(matrix):
    record = matrix[0]["never_ends"]
    assert (record.status, record.failure.message, record.failure.signal) == ("timeout", "did not end within 8 s", "SIGKILL")
    assert 8 <= record.duration < 20


def test_a_record_counts_though_the_method_printed_without_ending_its_line(matrix):
    records, _, store = matrix
    assert records["prints"].status == "ok" and records["prints"].accuracy is not None
    assert "no end of line" in store.log_path(records["prints"].key).read_text()


def test_events_tell_how_each_run_goes(matrix):
    events = [event["event"] for method, event in matrix[1] if method == "fine"]
    assert events[0] == "start" and events[-2:] == ["record", "end"]
    assert {"phase", "epoch", "stage"} <= set(events)
    ended = [method for method, event in matrix[1] if event["event"] == "end"]
    assert sorted(ended) == sorted([*ENDINGS, "fine"])


def test_two_runs_go_on_at_once(matrix):
    running = most = 0
    for _, event in matrix[1]:
        running += (event["event"] == "start") - (event["event"] == "end")
        most = max(most, running)
    assert most == 2


HANGS = """

class Hangs(Fine):
    {card}

    def act(self, net):
        here = Path(__file__).parent
        if torch.initial_seed() == 1 and (here / "hang").exists():
            (here / "pid").write_text(str(os.getpid()))
            while True:
                time.sleep(0.05)
"""


@pytest.fixture
def hanging(tmp_path, plugin_file, tiny):
    """Return a function that starts a matrix of two seeds, the second of which hangs while there is a file called ``hang``."""
    path = plugin_file(tiny + HANGS.replace("{card}", card("hangs")))
    (tmp_path / "hang").touch()
    started = []

    def start(*more):
        arguments = ["run", "-t", "tiny/digits", "-m", "hangs", "--seeds", "2", "--plugin", path, "--results", tmp_path / "results", *more]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200"}
        process = subprocess.Popen(
            [sys.executable, "-m", "harness.cli", *map(str, arguments)],
            env=environment,
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # A shell's background jobs ignore interrupts, and hand that on.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
            process.communicate()


def whole_records(folder):
    return {path.name: read_record(path) for path in folder.glob("*.json")}


def test_a_matrix_survives_interrupts_kills_and_failures_and_continues(hanging, tmp_path):
    results, pid_file = tmp_path / "results", tmp_path / "pid"

    def child():
        wait_for(lambda: pid_file.exists() and pid_file.read_text(), "the second seed to hang")
        pid = int(pid_file.read_text())
        pid_file.unlink()
        return pid

    # Ctrl-C: status 130, how to continue, the finished record whole, nothing left running.
    process = hanging()
    pid = child()
    (finished,) = whole_records(results).values()
    assert (finished.spec.seed, finished.status) == (0, "ok")
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Interrupted. Finished records are safe in" in said
    assert "continue with: spikebench run -t tiny/digits -m hangs --seeds 2" in said and "Traceback" not in said
    assert not is_alive(pid)
    assert list(whole_records(results).values()) == [finished]

    # kill -9 of the parent: the run ends itself within seconds, and leaves nothing half-written.
    process = hanging()
    pid = child()
    process.kill()
    _, said = process.communicate(timeout=60)
    assert "1 of 2 runs are finished already" in said
    wait_for(lambda: not is_alive(pid), "the run to follow its parent", seconds=10)
    assert list(whole_records(results).values()) == [finished]
    assert [path.name for path in results.glob(".*")] == []

    # A failure, here written by hand, is tried again by the same command, which now completes.
    key = plan(finished.spec.model_copy(update={"seed": 1}), Registries([tmp_path / "mine.py"])).key
    Store(results).write(finished.model_copy(update={"key": key, "status": "timeout", "accuracy": None}))
    (tmp_path / "hang").unlink()
    process = hanging()
    printed, said = process.communicate(timeout=120)
    assert process.returncode == 0, said
    assert "1 of 2 runs are finished already" in said
    found = whole_records(results).values()
    assert sorted((record.spec.seed, record.status) for record in found) == [(0, "ok"), (1, "ok")]
    assert finished in found
    assert re.search(r"^hangs +2 ", printed, re.MULTILINE)


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    """The record of ``spikebench run -t static/digits -m stbp --set epochs=1``, as it lies on disk."""
    folder = tmp_path_factory.mktemp("smoke")
    done = subprocess.run(
        [sys.executable, "-m", "harness.cli", "run", "-t", "static/digits", "-m", "stbp", "--set", "epochs=1", "--results", "here"]
        + ["--keep-networks"],
        env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "250"},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (path,) = (folder / "here").glob("*.json")
    return done.stdout, path.read_text(), folder


def test_a_run_prints_its_table(smoke):
    assert re.search(r"^stbp\[epochs=1\] +1 ", smoke[0], re.MULTILINE)
    assert "Records: here" in smoke[0]


def test_a_network_that_is_kept_answers_as_the_record_says(smoke):
    record = Record.model_validate_json(smoke[1])
    net = torch.load(smoke[2] / "here" / "networks" / f"{record.key}.pt", weights_only=False)
    registries = Registries()
    method = registries.methods.load("stbp")(registries.tasks.load("static/digits")())
    assert evaluate(method, net, "test").metrics["accuracy"] == record.accuracy.test


def test_every_part_of_a_record_is_filled(smoke):
    record = Record.model_validate_json(smoke[1])
    assert (record.status, record.failure, record.label) == ("ok", None, "stbp[epochs=1]")
    accuracy = record.accuracy
    assert 0.3 < accuracy.test <= 1 and accuracy.test_curve[-1] == accuracy.test and len(accuracy.test_curve) == record.settings.steps
    assert accuracy.test_samples == accuracy.items == 360
    assert bin(int(accuracy.correct, 16)).count("1") == round(accuracy.test * 360)
    memory = record.memory
    assert memory.parameter_bytes >= 4 * memory.parameter_count > 0
    assert memory.optimizer_bytes >= 8 * memory.parameter_count  # Adam keeps two numbers per parameter
    assert memory.saved_bytes > 0 and memory.transient_bytes > 0 and memory.peak_rss_growth_bytes is not None
    assert memory.cuda_peak_bytes is None
    timing = record.time
    assert 0 < timing.step_p10 <= timing.step_median <= timing.step_p90
    assert timing.step_median < timing.epoch_mean == timing.training < timing.total <= record.duration
    assert len(timing.phases[0].total) == record.trace[0].batches - 3  # three steps were measured for memory
    inference = record.inference
    assert inference.latency_median > 0 and inference.throughput > 0 and 3 <= len(inference.latency_samples) <= 10
    activity = record.activity
    assert 0 < activity.firing_rate < 1 and len(activity.layers) >= 2
    assert activity.spikes_per_sample == pytest.approx(sum(layer.spikes_per_sample for layer in activity.layers))
    assert 0 < activity.synops_effective < activity.synops_dense
    assert activity.synops_effective == pytest.approx(activity.synops_ac + activity.synops_mac)
    assert sum(activity.spikes_curve) == pytest.approx(activity.spikes_per_sample) and len(activity.spikes_curve) == record.settings.steps
    assert sum(activity.synops_curve) == pytest.approx(activity.synops_effective) and len(activity.synops_curve) == record.settings.steps
    assert activity.state_bytes == 4 * sum(layer.neurons for layer in activity.layers)  # a potential each
    assert memory.footprint_bytes == memory.parameter_bytes
    assert 0 < timing.measuring < timing.total - timing.training
    environment = record.environment
    assert environment.threads == 1 and environment.device_kind == "cpu" and environment.deterministic
    assert {"python", "torch", "numpy"} <= set(environment.versions)
    assert record.settings.training["epochs"] == 1 and record.settings.data_checksum and record.settings.code_hash


def test_a_record_names_no_host_no_user_and_no_path(smoke):
    _, text, folder = smoke

    def texts(value):
        if isinstance(value, dict):
            for name, inner in value.items():
                yield name
                yield from texts(inner)
        elif isinstance(value, list):
            for inner in value:
                yield from texts(inner)
        elif isinstance(value, str):
            yield value

    found = list(texts(json.loads(text)))
    words = {word for each in found for word in re.split(r"[\s,;:=()]+", each)}
    assert platform.node() not in words and getpass.getuser() not in words
    assert not [each for each in found if re.search(r"(^|[\s\"'=])(/|~/|[A-Z]:\\)\w", each)]
    assert str(folder) not in text and str(Path.home()) not in text and str(ROOT) not in text


def test_the_same_run_again_gives_the_same_accuracy_and_memory(matrix):
    """What is not time is decided by the seed: the two runs that finished differ only in what the method printed."""
    one, two = matrix[0]["fine"], matrix[0]["prints"]
    assert one.accuracy == two.accuracy and one.activity == two.activity
    assert one.memory.saved_bytes == two.memory.saved_bytes and one.memory.parameter_count == two.memory.parameter_count
    assert [trace.loss for trace in one.trace] == [trace.loss for trace in two.trace]


PROBES = """
from harness.plugin import ProbeCard
from harness.probe import Probe


class Counts(Probe):
    card = ProbeCard(name="counts", title="-", authors="-", venue="-", year=2026, family="testing", summary="-")

    def measure(self, method, net):
        return {"weights": float(sum(p.numel() for p in net.parameters()))}


class Picky(Counts):
    card = ProbeCard(name="picky", title="-", authors="-", venue="-", year=2026, family="testing", summary="-")

    def supports(self, method):
        return f"it does not look at {method.card.name}"
"""


BREAKS = """
from harness.plugin import ProbeCard
from harness.probe import Probe


class Breaks(Probe):
    card = ProbeCard(name="breaks", title="-", authors="-", venue="-", year=2026, family="testing", summary="-")

    def measure(self, method, net):
        raise ArithmeticError("no figure")
"""


def test_a_probe_that_fails_leaves_the_run_its_other_figures(plugin_file, tiny):
    registries = Registries([plugin_file(tiny), plugin_file(BREAKS, "breaks.py")])
    spec = RunSpec(method="fine", task="tiny/digits", probes=("breaks",))
    parts = execute(make(spec, registries), spec, registries, time.time(), lambda event: None)
    assert parts["probes"] == {"breaks": {"cannot": "it failed: ArithmeticError: no figure"}}
    assert "the probe breaks failed: ArithmeticError: no figure" in parts["warnings"]
    assert parts["accuracy"].test > 0


def test_figures_of_probes_are_kept_and_a_probe_that_cannot_look_says_why(plugin_file, tiny):
    registries = Registries([plugin_file(tiny), plugin_file(PROBES, "probes.py")])
    spec = RunSpec(method="fine", task="tiny/digits", probes=("counts", "picky"))
    events = []
    parts = execute(make(spec, registries), spec, registries, time.time(), events.append)
    weights = parts["memory"].parameter_count
    assert parts["probes"] == {"counts": {"weights": weights}, "picky": {"cannot": "it does not look at fine"}}
    assert {"event": "stage", "stage": "counts"} in events


WATCHES = """
import torch

from harness.plugin import Options, ProbeCard
from harness.probe import Probe


class Watches(Probe):
    card = ProbeCard(name="watches", title="-", authors="-", venue="-", year=2026, family="testing", summary="-")

    class Options(Options):
        factor: float = 1.0

    def __init__(self, options=None):
        super().__init__(options)
        self.seen = []

    def observe(self, method, net, phase, share):
        torch.rand(100)
        self.seen.append(["" if phase is None else phase.name, share])

    def measure(self, method, net):
        return {"seen": self.seen, "factor": self.options.factor}
"""


def test_a_probe_looks_on_before_training_and_after_every_epoch_and_changes_nothing(plugin_file, tiny):
    registries = Registries([plugin_file(tiny), plugin_file(WATCHES, "watches.py")])
    spec = RunSpec(method="fine", task="tiny/digits")
    probed = spec.model_copy(update={"probes": ("watches[factor=2.5]",)})
    plain, parts = (execute(make(each, registries), each, registries, time.time(), lambda event: None) for each in (spec, probed))
    found = parts["probes"]["watches[factor=2.5]"]
    epochs = len(parts["trace"])
    assert found["factor"] == 2.5
    assert found["seen"] == [["", 0.0], *([trace.phase, (trace.epoch + 1) / epochs] for trace in parts["trace"])]
    assert plain["accuracy"] == parts["accuracy"] and [e.loss for e in plain["trace"]] == [e.loss for e in parts["trace"]]


def test_a_failure_in_this_process_is_described_like_one_in_another(matrix):
    try:
        raise MemoryError
    except MemoryError as error:
        status, failure = describe(error)
    assert status == matrix[0]["runs_out_of_memory"].status
    assert failure.message == matrix[0]["runs_out_of_memory"].failure.message
