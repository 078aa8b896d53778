"""``spikebench table`` as a user meets it."""

import json
import re
import subprocess
import sys

import pytest

from harness.store import Store

TORCHLESS = """
import sys
from harness.cli import main
try:
    main(["table", "--results", sys.argv[1], *sys.argv[2:]])
except SystemExit as ended:
    sys.exit("torch" if "torch" in sys.modules else ended.code or 0)
"""


@pytest.fixture
def store(tmp_path, make_record):
    store = Store(tmp_path / "records")
    store.prepare()
    for number, (label, accuracy, spikes) in enumerate((("stbp", 0.5, 9.0), ("ottt", 0.25, 1.0))):
        changes = {"label": label, "spec.method": label, "accuracy.test": accuracy, "activity.spikes_per_sample": spikes}
        store.write(make_record(key=f"{number:04x}", **changes))
    return store


@pytest.mark.parametrize(("sort", "first"), [("test_accuracy", "stbp"), ("spikes", "ottt"), ("accuracy", "ottt")])
def test_any_metric_sorts_in_every_format(command, store, sort, first):
    for style in ("terminal", "github", "latex", "csv", "html"):
        text = command("table", "--results", store.folder, "--sort", sort, "-f", style).out
        assert (text.index("ottt") < text.index("stbp")) == (first == "ottt"), style


def test_the_costs_of_the_pareto_marks_can_be_chosen(command, store):
    given = ("table", "--results", store.folder, "-f", "github", "--metrics", "test_accuracy")
    assert "Pareto" not in command(*given).out  # these records have no memory figures
    assert r"Pareto \*: no other row is at least as good in accuracy and spikes" in command(*given, "--pareto", "spikes").out
    assert "Pareto" not in command(*given, "--pareto", "none").out
    refused = command(*given, "--pareto", "spike")
    assert refused.status == 2 and "there is no metric 'spike'; did you mean 'spikes'?" in refused.err


def test_torch_is_not_imported_where_records_say_it_all(store):
    for more in ((), ("--summary",), ("-t", "static/digits", "-f", "latex"), ("--sort", "spikes", "-f", "csv")):
        done = subprocess.run([sys.executable, "-c", TORCHLESS, store.folder, *more], capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, ""), done


def test_why_a_method_is_absent_is_said_unless_it_is_not_wanted(command, store, make_record):
    changes = {"label": "tcl", "spec.method": "tcl", "spec.task": "events/digits-saccade"}
    store.write(make_record(key="0abc", **{**changes, "label": "stbp", "spec.method": "stbp"}))
    store.write(make_record(key="0def", label="tcl", **{"spec.method": "tcl"}))
    given = ("table", "--results", store.folder)
    assert "tcl: cannot run here: rates need a constant input" in command(*given).out
    assert "cannot run here" not in command(*given, "--no-reasons").out


def test_many_records_say_how_to_get_reasons_instead(command, store, make_record, monkeypatch):
    monkeypatch.setattr("harness.commands.table.MANY", 2)
    store.write(make_record(key="0abc", **{"spec.task": "events/digits-saccade", "label": "tcl", "spec.method": "tcl"}))
    done = command("table", "--results", store.folder)
    assert done.status == 0 and "cannot run here" not in done.out and "with --reasons only" in done.err
    assert "with --reasons only" not in command("table", "--results", store.folder, "--reasons").err


def test_a_list_of_verified_records_that_cannot_be_read_is_told_of_and_marks_nothing(command, store):
    (store.folder / "verified.json").write_text("{")
    done = command("table", "--results", store.folder)
    assert done.status == 0 and "✓" not in done.out
    (line,) = done.err.splitlines()
    assert "verified.json is not a list of verified records" in line


def test_a_summary_shows_suites_and_refuses_what_it_cannot_show(command, store):
    assert command("table", "--results", store.folder, "--summary").out.startswith("suite static, smoke budget")
    refused = command("table", "--results", store.folder, "--summary", "--over-steps")
    assert refused.status == 2 and "--summary shows main metrics and ranks; leave out" in refused.err


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("-t", "static/digit"), "unknown task 'static/digit'; did you mean 'static/digits'?"),
        (("-t", "static/mnist"), "no record in .* fits"),
        (("-m", "sbtp"), "unknown method 'sbtp'; did you mean 'stbp'?"),
        (("--suite", "statics"), "unknown suite 'statics'; did you mean 'static'?"),
        (("--sort", "speed"), "there is no metric 'speed'"),
    ],
)
def test_names_that_fit_nothing_are_refused_with_the_nearest(command, store, given, message):
    done = command("table", "--results", store.folder, *given)
    assert done.status == 2 and done.out == ""
    assert re.search(message, done.err)


def test_broken_records_are_named_beside_the_table(command, store):
    (store.folder / "cut.json").write_text(json.dumps({"schema_version": 1})[:-1])
    done = command("table", "--results", store.folder)
    assert done.status == 2 and "stbp" in done.out and "1 unreadable record(s): cut.json" in done.err
