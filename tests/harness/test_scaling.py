"""Fits of growth against numpy, and the command that measures."""

import csv
import io
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import linregress, t

from harness.commands.scale import at
from harness.matrix import Selection
from harness.metrics import metric
from harness.plugin import UsageError
from harness.registry import Registries
from harness.report.scaling import Curve, fit, render

X = [1, 2, 4, 8, 16]


def test_the_line_and_its_interval_are_those_of_least_squares():
    y = [3.0, 5.2, 8.9, 17.1, 33.0]
    found = fit(X, y)
    slope, intercept = np.polyfit(X, y, 1)
    assert (found.slope, found.intercept) == pytest.approx((slope, intercept))
    reach = t.ppf(0.975, 3) * linregress(X, y).stderr
    assert (found.low, found.high) == pytest.approx((slope - reach, slope + reach))


@given(st.floats(0.1, 10), st.floats(0, 5))
def test_what_is_on_a_line_is_linear(slope, intercept):
    assert fit(X, [intercept + slope * x for x in X]).verdict == "linear"


@pytest.mark.parametrize(
    ("y", "verdict"),
    [
        ([7, 7, 7, 7, 7], "constant"),
        ([100, 100, 101, 101, 102], "constant"),
        ([x**2 for x in X], "~x^2.00"),
        ([x**0.5 for x in X], "~x^0.50"),
        ([33, 17, 9, 5, 3], "~x^-0.87"),
        ([0, 5, 0, 5, 0], "?"),
    ],
)
def test_what_is_not_is_called_what_it_is(y, verdict):
    assert fit(X, y).verdict == verdict


def test_two_points_have_no_interval_and_one_has_no_line():
    assert np.isnan(fit([1, 2], [1, 2]).low)
    with pytest.raises(ValueError, match="two different values"):
        fit([2, 2], [1, 2])


def curve(label, y):
    return Curve(label, metric("saved_bytes"), X, y)


def test_a_table_has_a_row_per_method_in_one_unit_and_says_how_it_grows():
    text = render([curve("bptt", [1024.0 * x for x in X]), curve("online", [2048.0] * 5)], "steps", "github")
    assert "#### saved for backward [KiB]" in text and "| steps=16" in text
    rows = [line for line in text.splitlines() if line.startswith(("| bptt", "| online"))]
    assert "16.00" in rows[0] and rows[0].rstrip(" |").endswith("linear") and rows[1].rstrip(" |").endswith("constant")


def test_ratios_to_one_of_the_methods_stand_behind_the_figures():
    of = metric("saved_bytes")
    text = render(
        [Curve("a", of, [1, 2], [10.0, 30.0]), Curve("b", of, [1, 2], [40.0, None])], "steps", "github", against={"a": "b", "b": "b"}
    )
    assert "10.00 (0.25x)" in text and text.count("x)") == 1


def test_a_missing_point_is_left_out_of_the_fit():
    assert curve("a", [1.0, None, 4.0, 8.0, None]).fit().slope == pytest.approx(1.0)
    assert curve("a", [1.0, None, None, None, None]).fit() is None
    assert "| -" in render([curve("a", [1.0, None, None, None, None])], "steps", "github")


def test_csv_has_every_point():
    lines = list(csv.DictReader(io.StringIO(render([curve("a", [2.0 * x for x in X])], "steps", "csv"))))
    assert [(float(line["steps"]), float(line["value"])) for line in lines] == [(x, 2.0 * x) for x in X]
    assert float(lines[0]["slope"]) == pytest.approx(2.0)


class TestPoints:
    @pytest.fixture(scope="class")
    def registries(self):
        return Registries()

    def point(self, registries, over, value, task="static/digits", **given):
        return at(Selection(methods=["stbp"], tasks=[task], **given), over, value, registries)

    def test_over_steps_change_the_time_steps_and_nothing_else(self, registries):
        one, two = (self.point(registries, "steps", value) for value in (2, 8))
        assert (one.steps, two.steps) == (2, 8) and one.settings == two.settings and one.samples == two.samples

    def test_over_batch_change_the_batch_and_keep_the_number_of_batches(self, registries):
        one, two = (self.point(registries, "batch", value) for value in (4, 16))
        assert one.settings["batch_size"] == "4" and two.samples == 4 * one.samples

    def test_over_depth_change_the_reference_network(self, registries):
        assert self.point(registries, "depth", 3).depth == 3

    def test_what_the_task_does_not_have_cannot_be_scaled(self, registries):
        with pytest.raises(UsageError, match="brings its own time axis"):
            self.point(registries, "steps", 2, task="sequences/digits-pixels")
        with pytest.raises(UsageError, match=r"static/digits has no option 'length'; tasks that have it: .*sequences/adding"):
            self.point(registries, "length", 2)

    def test_a_budget_or_batch_size_that_is_none_is_refused(self, registries):
        with pytest.raises(UsageError, match="has no budget 'laptp'; did you mean 'laptop'"):
            self.point(registries, "steps", 2, budget="laptp")
        for size in ("many", "0", "1"):
            with pytest.raises(UsageError, match=f"batch_size={size}: must be a whole number of at least 2"):
                self.point(registries, "steps", 2, settings={"batch_size": size})


@pytest.mark.slow
def test_saved_memory_of_back_propagation_through_time_is_linear_in_t_and_that_of_ottt_constant(command, tmp_path):
    outcome = command(
        *("scale", "-t", "static/digits", "-m", "stbp,ottt", "--over", "steps", "--values", "2,4,8", "--metrics", "saved_bytes"),
        *("--set", "batch_size=8", "--format", "csv", "--results", str(tmp_path)),
    )
    assert outcome.status == 0, outcome
    found = {line["method"]: line["verdict"] for line in csv.DictReader(io.StringIO(outcome.out))}
    assert found == {"stbp": "linear", "ottt": "constant"}


@pytest.mark.slow
def test_lengths_are_compared_with_a_method_that_runs_besides_and_not_tried_beyond(command, tmp_path):
    outcome = command(
        *("scale", "-t", "sequences/adding", "-m", "stbp", "--over", "length", "--values", "8,16", "--metrics", "saved_bytes"),
        *("--set", "batch_size=8", "--set", "lr=0.01", "--against", "ann", "--format", "github", "--results", str(tmp_path)),
    )
    assert outcome.status == 0, outcome
    rows = {line.split("|")[1].strip(): line for line in outcome.out.splitlines() if "lr=0.01" in line}
    assert rows["stbp[lr=0.01]"].count("x)") == 2 and "x)" not in rows["ann[lr=0.01]"]
    records = [json.loads(path.read_text()) for path in tmp_path.glob("*.json")]
    assert len(records) == 4 and not any(record["accuracy"]["extrapolation"] for record in records)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--over", "width", "--values", "1,2"), "cannot scale over 'width'; did you mean"),
        (("--over", "steps", "--values", "2"), "--values needs two different whole numbers"),
        (("--over", "steps", "--values", "2,x"), "write whole numbers"),
    ],
)
def test_what_cannot_be_scaled_is_refused_in_one_line(command, tmp_path, arguments, message):
    outcome = command("scale", "-t", "static/digits", "-m", "stbp", *arguments, "--results", str(tmp_path))
    assert outcome.status == 2 and message in outcome.err
