"""Exact means exact: what becomes of figures that differ."""

from __future__ import annotations

import math

import pytest

from harness.regress.exact import compare
from harness.regress.figures import Figures
from harness.regress.finding import Outcome
from harness.regress.settings import Settings

PLAIN = {"test_accuracy": 0.9, "loss": 0.5, "spikes": 100.0, "saved_bytes": 1000.0}


def statuses(base, head, settings=None, digests=("a", "b")):
    one, other = (Figures({**PLAIN, **values}, digest, "accuracy") for values, digest in zip((base, head), digests, strict=True))
    return {each.metric: each.status for each in compare("case", one, other, settings or Settings())}


def test_equal_figures_and_results_are_the_same():
    assert set(statuses({}, {}, digests=("a", "a")).values()) == {"same"}


@pytest.mark.parametrize(
    ("metric", "value"), [("test_accuracy", 0.899999), ("saved_bytes", 1001), ("spikes", 100.5), ("loss", 0.5 + 1e-12)]
)
def test_a_figure_that_is_worse_by_anything_is_a_regression(metric, value):
    assert statuses({}, {metric: value})[metric] == "worse"


def test_fewer_bytes_with_the_same_results_are_better():
    found = statuses({}, {"saved_bytes": 900}, digests=("a", "a"))
    assert found["saved_bytes"] == "better" and found["results"] == "same"


def test_other_results_with_no_figure_worse_are_a_change():
    assert statuses({}, {"spikes": 90})["results"] == "changed"  # a wrong reset may look like this
    assert statuses({}, {})["results"] == "changed"


def test_other_results_with_more_accuracy_and_no_figure_worse_are_better():
    assert statuses({}, {"test_accuracy": 0.95})["results"] == "better"


def test_a_threshold_lets_pass_what_lies_within_it():
    lenient = Settings({"test_accuracy": 0.02, "saved_bytes": 0.1})
    found = statuses({}, {"test_accuracy": 0.89, "saved_bytes": 1100}, lenient)
    assert found["test_accuracy"] == found["saved_bytes"] == found["results"] == "same"
    assert statuses({}, {"test_accuracy": 0.87}, lenient)["test_accuracy"] == "worse"
    assert statuses({}, {"saved_bytes": 1101}, lenient)["saved_bytes"] == "worse"


def test_the_direction_of_accuracy_is_that_of_the_task():
    one, other = (Figures({"test_accuracy": value}, "a", "perplexity") for value in (10.0, 11.0))
    assert compare("case", one, other, Settings())[0].status == "worse"
    assert compare("case", other, one, Settings())[0].status == "better"


def test_a_figure_that_is_no_number_any_more_is_worse():
    assert statuses({}, {"loss": math.nan})["loss"] == "worse"
    assert statuses({"loss": math.nan}, {})["loss"] == "better"
    assert statuses({"loss": math.nan}, {"loss": math.nan})["loss"] == "same"


def test_bytes_left_behind_where_there_were_none_are_worse():
    assert statuses({"left_bytes": 0}, {"left_bytes": 4})["left_bytes"] == "worse"


def test_a_figure_that_only_one_side_has_is_a_change():
    assert statuses({}, {"state_bytes": 8.0}, digests=("a", "a"))["results"] == "changed"


@pytest.mark.parametrize(
    ("base", "head", "status"), [(None, "it broke", "failed"), ("it broke", None, "new"), ("it broke", "it broke", "unmeasured")]
)
def test_what_one_side_cannot_do(base, head, status):
    (found,) = compare("case", Figures(error=base), Figures(error=head), Settings())
    assert found.status == status and "it broke" in found.note


@pytest.mark.parametrize(("base", "head", "code"), [(None, "broke", 1), ("broke", None, 2), ("broke", "broke", 2), (None, None, 0)])
def test_the_exit_status_follows_from_the_findings(base, head, code):
    sides = [Figures({} if error else PLAIN, "a", "accuracy", error=error) for error in (base, head)]
    assert Outcome({}, {}, compare("case", *sides, Settings())).exit_status == code


def test_what_only_the_head_can_do_passes_if_something_else_was_compared():
    new, equal = (compare("case", Figures(error=error), Figures(), Settings()) for error in ("broke", None))
    assert Outcome({}, {}, new + equal).exit_status == 0


def test_a_change_fails_unless_it_is_only_to_be_reported():
    found = compare("case", Figures(PLAIN, "a", "accuracy"), Figures(PLAIN, "b", "accuracy"), Settings())
    assert Outcome({}, {}, found, settings={"changed": "fail"}).exit_status == 1
    assert Outcome({}, {}, found, settings={"changed": "report"}).exit_status == 0
