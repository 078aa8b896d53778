"""The command line: whatever is wrong with what it is given, it says so in one line and ends with status 2."""

import re
import sys

import pytest
import torch

from harness.cli import app
from harness.registry import Registries
from harness.store import Store

COMMANDS = sorted(each.name or each.callback.__name__ for each in app.registered_commands)
RUN = ("run", "-t", "static/digits", "-m", "stbp", "--dry-run")


def assert_refused(outcome, message):
    assert outcome.status == 2, outcome
    assert outcome.out == ""
    (line,) = outcome.err.splitlines()
    assert line.startswith("spikebench: ") and re.search(message, line), line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("run",), "say what to run on: --task static/digits, or --suite static"),
        (("run", "-t", "static/digit"), "unknown task 'static/digit'; did you mean 'static/digits'?"),
        ((*RUN, "-m", "otttt"), "unknown method 'otttt'; did you mean 'ottt'?"),
        ((*RUN, "-m", "ottt[update=online"), "is not a method"),
        ((*RUN, "-m", "ottt[updat=online]"), "ottt has no option 'updat'; did you mean 'update'?"),
        ((*RUN, "-m", "ottt[update=never]"), "ottt: option update = 'never'"),
        (("run", "--suite", "statics"), "unknown suite 'statics'; did you mean 'static'?"),
        ((*RUN, "--family", "onlin"), "unknown family 'onlin'; did you mean 'online'?"),
        ((*RUN, "--budget", "smok"), "static/digits has no budget 'smok'; did you mean 'smoke'?"),
        ((*RUN, "--track", "fair"), "track = 'fair': Input should be 'matched' or 'recipe'"),
        ((*RUN, "--precision", "fp8"), "precision = 'fp8': Input should be 'fp32', 'bf16' or 'fp16'"),
        ((*RUN, "--device", "tpu"), "unknown device 'tpu'; allowed: cpu, cuda, cuda:N"),
        ((*RUN, "--device", "mps"), "device 'mps' is not supported; allowed: cpu, cuda, cuda:N"),
        ((*RUN, "--device", ""), "unknown device ''"),
        ((*RUN, "--set", "lr"), "'lr' is not a setting; write key=value"),
        ((*RUN, "--set", "=3"), "'=3' is not a setting"),
        ((*RUN, "--set", "lrr=3"), "--set lrr: no chosen method has such an option .*did you mean 'lr'?"),
        ((*RUN, "--set", "lr=fast"), "--set lr=fast: "),
        ((*RUN, "--set", "epochs=0"), "--set epochs=0: must be above 0"),
        ((*RUN, "--probe", "nothing"), "unknown probe 'nothing'"),
        ((*RUN, "--seeds", "0"), r"'--seeds'.*1 .*\(see spikebench run --help\)"),
        ((*RUN, "--steps", "0"), "'--steps'"),
        ((*RUN, "--jobs", "none"), "'--jobs'"),
        ((*RUN, "--threads", "-1"), "'--threads'"),
        ((*RUN, "--bogus"), "No such option: --bogus"),
        ((*RUN, "--plugin", "gone.py"), "cannot read plugin file gone.py: No such file"),
        (("bench", "--seeds", "x"), "'--seeds'"),
        (("list", "method"), "unknown kind 'method'; did you mean 'methods'?"),
        (("list", "methods", "-t", "static/digit"), "unknown task 'static/digit'"),
        (("list",), "Missing argument"),
        (("show",), "Missing argument"),
        (("show", "gone.json"), "cannot read record gone.json: No such file"),
        (("show", "not a key"), "'not a key' is neither a record file nor the beginning of a run key"),
        (("check",), "say which method to check, or --all"),
        (("check", "--all", "stbp"), "say which method to check, or --all"),
        (("check", "stbb"), "unknown method 'stbb'; did you mean 'stbp'?"),
        (("new-method",), "Missing argument"),
        (("runn",), "No such command 'runn'"),
    ],
    ids=lambda value: " ".join(value[-2:]) if isinstance(value, tuple) else "",
)
def test_what_cannot_be_done_is_refused_in_one_line(command, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert_refused(command(*arguments), message)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("device", ["cuda", "cuda:99"])
def test_a_gpu_that_is_not_there_is_refused(command, monkeypatch, device):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert_refused(command(*RUN, "--device", device), f"device '{device}' is not there: torch finds no CUDA device on this machine")


def test_a_pair_that_cannot_run_is_refused_with_the_reason(command, plugin_file, tiny, tmp_path):
    path = plugin_file(tiny)
    outcome = command("run", "-t", "tiny/digits", "-m", "imageless", "--plugin", path, "--results", tmp_path / "r")
    assert_refused(outcome, "imageless cannot run on tiny/digits: it has no eyes")
    assert not (tmp_path / "r").exists()


def test_a_plugin_that_fails_on_import_is_refused_in_one_line(command, plugin_file, tiny):
    path = plugin_file(tiny + "\nraise RuntimeError('first line\\nsecond line')\n")
    outcome = command("run", "-t", "static/digits", "-m", "fine", "--plugin", path)
    assert_refused(outcome, r"method 'fine' \(.*mine.py:\d+\) cannot be imported: RuntimeError: first line second line$")


def test_a_folder_that_cannot_be_written_is_refused_before_anything_runs(command, tmp_path):
    (tmp_path / "file").touch()
    outcome = command("run", "-t", "static/digits", "-m", "stbp", "--results", tmp_path / "file" / "results")
    assert_refused(outcome, "results folder .* cannot be written: Not a directory; choose another with --results")


@pytest.fixture
def results(tmp_path, make_record):
    """A folder with a good record, ab12, and a truncated one, cd34."""
    store = Store(tmp_path / "results")
    store.prepare()
    text = store.write(make_record(key="ab12", **{"spec.seed": 0})).read_text()
    (store.folder / "cd34.json").write_text(text[:200])
    return store.folder


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--format", "pdf"), "unknown format 'pdf'; allowed: csv, github, html, latex, terminal"),
        (("--format", "late"), "unknown format 'late'; did you mean 'latex'?"),
        (("--metrics", "beauty"), "there is no metric 'beauty'"),
        (("--sort", "spike"), "there is no metric 'spike'; did you mean 'spikes'?"),
        (("-t", "static/digit"), "unknown task 'static/digit'; did you mean 'static/digits'?"),
        (("--results", "gone"), r"results folder gone does not exist; run something first \(`spikebench bench`\)"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_table_that_cannot_be_made_is_refused(command, results, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert_refused(command("table", "--results", results, *arguments), message)


def test_a_table_without_any_record_is_refused(command, tmp_path):
    assert_refused(command("table", "--results", tmp_path), "no record in .* fits")


def test_a_truncated_record_is_refused_by_show(command, results):
    assert_refused(command("show", "cd", "--results", results), "record cd34.json cannot be read: file: Invalid JSON")


def test_an_unknown_key_is_refused_by_show(command, results):
    assert_refused(command("show", "ff", "--results", results), "no record in .* with a key that starts with 'ff'")


def test_the_table_shows_the_good_records_and_tells_of_the_others(command, results):
    outcome = command("table", "--results", results)
    assert outcome.status == 2
    assert "stbp" in outcome.out and "50.00" in outcome.out
    assert outcome.err == "spikebench: 1 unreadable record(s): cd34.json; remove them or run again\n"


def test_the_table_has_every_metric_if_asked(command, results):
    (results / "cd34.json").unlink()
    outcome = command("table", "--results", results, "--metrics", "all", "--format", "csv")
    assert outcome.status == 0 and "synops_dense_std" in outcome.out and "rss_bytes" in outcome.out


def test_show_prints_a_record_and_takes_labels_literally(command, results, make_record):
    failure = {"message": "ValueError: [bold]no[/]", "traceback": "Traceback [/red]"}
    Store(results).write(make_record(key="ee", status="error", label="x[a=[b]]", failure=failure, accuracy=None))
    outcome = command("show", "ee", "--results", results)
    assert outcome.status == 0 and "x[a=[b]]" in outcome.out and "ValueError: [bold]no[/]" in outcome.out and "[/red]" in outcome.out
    outcome = command("show", "ab12", "--results", results)
    assert outcome.status == 0 and "test_accuracy" in outcome.out and "50.00 %" in outcome.out and '"epochs": 1' in outcome.out
    assert command("show", results / "ab12.json").out == outcome.out


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_every_command_shows_an_example(command, name):
    outcome = command(name, "--help")
    assert outcome.status == 0
    assert re.search(rf"Examples?:.*spikebench {name}", " ".join(outcome.out.replace("│", " ").split()))


@pytest.mark.parametrize("arguments", [(), ("--help",), ("-h",)])
def test_the_help_lists_every_command(command, arguments):
    outcome = command(*arguments)
    assert outcome.status == 0
    assert all(name in outcome.out for name in COMMANDS)


def test_every_command_of_the_design_is_there():
    assert {"bench", "run", "list", "show", "table", "new-method", "check"} <= set(COMMANDS)


def test_a_dry_run_shows_the_matrix_and_runs_nothing(command, tmp_path, plugin_file, tiny, monkeypatch):
    import subprocess

    def refuse(*_, **__):
        raise AssertionError("a process was started")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    path, folder = plugin_file(tiny), tmp_path / "results"
    outcome = command(
        "run", "-t", "tiny/digits", "-m", "fine,imageless", "--seeds", "2", "--plugin", path, "--results", folder, "--dry-run"
    )
    assert outcome.status == 0
    assert outcome.out.count("to run, at most 120 s") == 2
    assert outcome.out.count("cannot run: it has no eyes") == 2
    assert "2 of 4 to run" in outcome.out
    assert not folder.exists()


def test_a_dry_run_knows_what_is_finished_and_how_long_it_took(command, tmp_path, make_record):
    from harness.matrix import Selection, plans, specs

    registries = Registries()
    store = Store(tmp_path)
    store.prepare()
    planned = plans(specs(Selection(methods=["stbp"], tasks=["static/digits"]), registries), registries)
    store.write(make_record(key=planned[0].key, duration=8.0))
    arguments = ("run", "-t", "static/digits", "-m", "stbp", "--seeds", "2", "--results", tmp_path, "--dry-run")
    outcome = command(*arguments)
    assert "finished" in outcome.out and "to run, about 8 s" in outcome.out and "1 of 2 to run; about 8 s" in outcome.out
    assert planned[0].key[:8] in outcome.out
    assert "2 of 2 to run" in command(*arguments, "--force").out


def test_nothing_is_run_when_everything_is_finished(command, tmp_path, make_record, monkeypatch):
    from harness.matrix import Selection, plans, specs

    registries = Registries()
    store = Store(tmp_path)
    store.prepare()
    (planned,) = plans(specs(Selection(methods=["ottt"], tasks=["static/digits"]), registries), registries)
    store.write(make_record(key=planned.key))
    same = f"ottt[update={registries.methods.load('ottt').Options().update}]"  # another label, the same run
    outcome = command("run", "-t", "static/digits", "-m", f"ottt,{same}", "--results", tmp_path)
    assert outcome.status == 0
    assert "1 of 1 runs are finished already (--force runs them again)" in outcome.err
    assert "50.00" in outcome.out


def test_lists_show_what_there_is_and_where_it_comes_from(command, plugin_file, tiny):
    path = plugin_file(tiny)
    outcome = command("list", "methods", "--plugin", path)
    assert outcome.status == 0 and "stbp" in outcome.out and "/mine.py:" in outcome.out and "update=" in outcome.out
    outcome = command("list", "methods", "-t", "tiny/digits", "--plugin", path)
    assert "it has no eyes" in outcome.out
    outcome = command("list", "tasks")
    assert "static/digits" in outcome.out and "CC BY 4.0" in outcome.out
    assert command("list", "probes").status == 0


def test_a_new_method_is_a_working_plugin_with_a_test(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    outcome = command("new-method", "my_neuron")
    assert outcome.status == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["my_neuron.py", "test_my_neuron.py"]
    assert "spikebench check my_neuron --plugin my_neuron.py" in outcome.out
    found = Registries([tmp_path / "my_neuron.py"]).methods.load("my_neuron")
    assert found.__name__ == "MyNeuron"
    compile((tmp_path / "test_my_neuron.py").read_text(), "test", "exec")


@pytest.mark.parametrize("name", ["learned_threshold", "my_neuron", "lif"])
def test_a_new_method_keeps_the_contract_as_it_is(command, tmp_path, name):
    assert command("new-method", name, "--folder", tmp_path).status == 0
    from harness import checks

    subject = checks.Subject(name, [tmp_path / f"{name}.py"])
    subject.__dict__["tasks"] = ["static/digits"]
    checks.builds_and_answers_on_every_task(subject)
    checks.gradients_are_finite(subject)


def test_in_a_checkout_a_new_method_goes_where_methods_are(command, tmp_path, monkeypatch):
    (tmp_path / "methods").mkdir()
    (tmp_path / "pyproject.toml").touch()
    monkeypatch.chdir(tmp_path)
    assert command("new-method", "mine").status == 0
    assert (tmp_path / "methods" / "mine.py").is_file() and (tmp_path / "tests" / "methods" / "test_mine.py").is_file()


@pytest.mark.parametrize("name", ["Mine", "my-neuron", "1st", "", "a b", "../up", "class", "ünï", "_mine"])
def test_a_bad_name_for_a_new_method_is_refused(command, tmp_path, name):
    assert_refused(command("new-method", "--folder", tmp_path, "--", name), "cannot be a method's name; use lower-case letters")
    assert not list(tmp_path.iterdir())


def test_a_new_method_overwrites_nothing(command, tmp_path):
    (tmp_path / "test_mine.py").write_text("precious")
    assert_refused(command("new-method", "mine", "--folder", tmp_path), "test_mine.py exists already; nothing was written")
    assert [path.name for path in tmp_path.iterdir()] == ["test_mine.py"]
    assert (tmp_path / "test_mine.py").read_text() == "precious"
    assert_refused(command("new-method", "stbp", "--folder", tmp_path), r"method 'stbp' exists already: methods/stbp.py:\d+")
    (tmp_path / "nn").mkdir()
    assert_refused(command("new-method", "nn", "--folder", tmp_path), "nn exists already; nothing was written")


def test_check_says_what_holds_and_what_fails(command, plugin_file, tiny, monkeypatch):
    from harness import checks
    from harness.commands import check

    monkeypatch.setattr(check, "CHECKS", (checks.claims_can_be_measured, checks.gradients_are_finite))
    bad = tiny.replace('card = Card(name="fine",', 'card = Card(name="stuck",').replace("changed = self.act(net)", "1 / 0")
    outcome = command("check", "stbp")
    assert outcome.status == 0 and outcome.out.count("holds") == 2
    outcome = command("check", "stuck", "--plugin", plugin_file(bad))
    assert outcome.status == 1
    assert "fails" in outcome.out and "ZeroDivisionError: division by zero" in outcome.out


FILED = """
from harness.task import TaskCard
from suites.sources import FileTask, Source
from suites.static_vision import Digits


def download(root):
    (root / "vision").mkdir()
    (root / "vision" / "x").write_text("x")


class Downloaded(FileTask, Digits):
    card = TaskCard(name="tiny/downloaded", title="-", data="-", licence="-", split="-", source="-")
    source = Source(({"vision/x": ""},), download, "1 B")


class Missing(FileTask, Digits):
    card = TaskCard(name="tiny/missing", title="-", data="-", licence="-", split="-", source="-")
    source = Source(({"vision/y": ""},), advice="ask the authors")
"""


class TestData:
    @pytest.fixture
    def plugin(self, plugin_file, tmp_path, monkeypatch):
        (tmp_path / "data").mkdir()
        monkeypatch.setenv("SPIKEBENCH_DATA", str(tmp_path / "data"))
        monkeypatch.setenv("SPIKEBENCH_CACHE", str(tmp_path / "cache"))
        return str(plugin_file(FILED, "filed.py"))

    def test_are_downloaded_once_and_then_ready(self, command, plugin):
        first = command("data", "tiny/downloaded", "--plugin", plugin)
        assert first.status == 0 and "downloading 1 B" in first.out and "ready, checksum" in first.out
        again = command("data", "tiny/downloaded", "--plugin", plugin)
        assert again.status == 0 and "downloading" not in again.out

    def test_that_nothing_downloads_are_said_to_be_missing_with_what_to_do(self, command, plugin):
        outcome = command("data", "tiny/missing", "--plugin", plugin)
        assert outcome.status == 1 and "put vision/y below SPIKEBENCH_DATA; ask the authors" in outcome.err

    def test_are_listed_as_ready_to_download_or_missing(self, command, plugin):
        listed = command("list", "tasks", "--plugin", plugin).out
        assert "would download 1 B" in listed and "no data: put vision/y" in listed and "ready, embedded" in listed

    def test_that_a_task_named_lacks_are_downloaded_before_a_run(self, command, plugin, tmp_path, monkeypatch):
        monkeypatch.setattr("harness.commands.run.execute", lambda planned, *_: [])
        command("run", "-t", "tiny/downloaded", "-m", "ann", "--plugin", plugin, "--results", str(tmp_path / "results"))
        assert (tmp_path / "data" / "vision" / "x").exists()

    def test_that_cannot_be_had_keep_the_run_from_starting(self, command, plugin, tmp_path):
        outcome = command("run", "-t", "tiny/missing", "-m", "ann", "--plugin", plugin, "--results", str(tmp_path / "results"))
        assert outcome.status == 2 and "ann cannot run on tiny/missing: no data: put vision/y below SPIKEBENCH_DATA" in outcome.err


def test_an_error_of_the_program_itself_is_not_disguised(monkeypatch):
    from harness import cli
    from harness.commands import list as listing

    def broken(*_):
        raise ZeroDivisionError("a fault of ours")

    monkeypatch.setattr(listing, "list_plugins", broken)
    monkeypatch.setattr(sys, "argv", ["spikebench", "list", "methods"])
    with pytest.raises(ZeroDivisionError):
        cli.main()
