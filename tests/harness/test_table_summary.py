"""Tables of whole suites: tasks side by side, ranks, and their mean."""

import csv
import io

import pytest

from harness.record import encode_bits
from harness.report.table import build, render_summaries, summarise
from harness.store import Store


@pytest.fixture
def summaries(tmp_path, make_record):
    """Return the summaries of ``(label, task, rate of right answers out of 200, further changes)``."""

    def make(*given):
        store = Store(tmp_path)
        store.prepare()
        for number, (label, task, rate, *more) in enumerate(given):
            bits = [i < 2 * rate for i in range(200)]
            changes = {"label": label, "spec.task": task, "accuracy.test": rate / 100, "accuracy.correct": encode_bits(bits)}
            store.write(make_record(key=f"{number:04x}", **{**changes, "accuracy.items": 200}, **(more[0] if more else {})))
        return summarise(build(store, metrics=("test_accuracy",))[0])

    return make


def test_tasks_stand_side_by_side_with_ranks_and_their_mean(summaries):
    both = [("a", "static/x", 90), ("b", "static/x", 50), ("a", "static/y", 40), ("b", "static/y", 80)]
    (summary,) = summaries(*both, ("a", "static/z", 70))
    heads, lines = summary.cells()
    assert heads == ["method", "n", "x: accuracy [%] ↑", "y: accuracy [%] ↑", "z: accuracy [%] ↑", "tasks", "mean rank ↓"]
    assert lines == [
        ["a", "1", "90.00 (1)", "40.00 (2)", "70.00 (1)", "3/3", "1.33"],
        ["b", "1", "50.00 (2)", "80.00 (1)", "-", "2/3", "1.50"],
    ]
    assert summary.title == "suite static, smoke budget, matched track, on Some CPU (cpu, fp32, threads 1)"


@pytest.mark.parametrize(
    ("name", "other"), [("spec.budget", "paper"), ("spec.track", "recipe"), ("environment.device", "Another"), ("spec.threads", 4)]
)
def test_what_cannot_be_compared_is_never_in_one_summary(summaries, name, other):
    found = summaries(("a", "static/x", 90), ("a", "static/y", 90, {name: other}))
    assert sorted([table.about["task"] for table in each.tables] for each in found) == [["static/x"], ["static/y"]]


def test_suites_have_tables_of_their_own(summaries):
    assert [each.suite for each in summaries(("a", "static/x", 90), ("a", "events/y", 90))] == ["events", "static"]


def test_csv_has_a_line_per_method_and_task_with_all_digits(summaries):
    found = summaries(("a", "static/x", 100 / 3), ("b", "static/x", 90), ("a", "static/y", 40))
    lines = list(csv.DictReader(io.StringIO(render_summaries(found, "csv"))))
    assert [(line["method"], line["task"], line["rank"]) for line in lines] == [
        ("a", "static/x", "2"),
        ("a", "static/y", "1"),
        ("b", "static/x", "1"),
    ]
    assert float(lines[0]["mean"]) == 100 / 3 / 100 and [line["mean_rank"] for line in lines] == ["1.5", "1.5", "1.0"]


@pytest.mark.parametrize("style", ["terminal", "github", "latex", "html"])
def test_every_format_has_title_figures_and_legend(summaries, style):
    text = render_summaries(summaries(("a", "static/x", 90), ("b", "static/x", 50)), style)
    assert "suite static" in text and "90.00 (1)" in text and "in parentheses: the rank on the task" in text
