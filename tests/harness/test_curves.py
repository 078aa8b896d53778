import csv
import io

import pytest

from harness.report.curves import PATHS, columns, curve_of, render
from harness.report.table import build
from harness.store import Store


@pytest.fixture
def tables(tmp_path, make_record):
    """Return the tables of ``(label, seed, curve, further changes)``."""

    def make(*given):
        store = Store(tmp_path)
        store.prepare()
        for number, (label, seed, curve, *more) in enumerate(given):
            changes = {
                "label": label,
                "spec.seed": seed,
                "accuracy.test_curve": curve,
                "accuracy.test": curve[-1],
                **(more[0] if more else {}),
            }
            store.write(make_record(key=f"{number:04x}", **changes))
        return build(store, extra=PATHS)[0]

    return make


def test_a_curve_is_mean_and_deviation_over_seeds_at_each_step(tables):
    (table,) = tables(("tcl", 0, [0.25, 0.5, 0.75]), ("tcl", 1, [0.75, 0.5, 0.25]))
    curve = curve_of(table.rows[0])
    assert (curve.steps, curve.mean, curve.n) == ([1, 2, 3], [0.5, 0.5, 0.5], 2)
    assert curve.deviation == pytest.approx([0.5**1.5, 0.0, 0.5**1.5])


def test_seeds_with_other_steps_have_no_curve_in_common(tables):
    (table,) = tables(("tcl", 0, [0.5, 0.5]), ("tcl", 1, [0.5, 0.5], {"accuracy.curve_steps": [0, 7]}))
    assert curve_of(table.rows[0]) is None


def test_columns_are_powers_of_two_and_the_last_step_of_every_curve(tables):
    (table,) = tables(("tcl", 0, [0.5] * 6), ("ann", 0, [0.9]))
    assert columns([curve_of(row) for row in table.rows]) == [1, 2, 4, 6]


def test_a_step_that_a_method_does_not_reach_is_empty_and_thinned_curves_keep_their_steps(tables):
    near = {"report": {"steps_to_ann": 8}, "accuracy.curve_steps": [0, 3, 7]}
    found = tables(("tcl", 0, [0.1, 0.2, 0.9], near), ("ann", 0, [0.95]))
    lines = render(found, "github").splitlines()
    assert [cell.strip() for cell in lines[2].strip("|").split("|")] == ["method", "n", "T=1", "T=2", "T=4", "T=8", "steps to ANN"]
    assert [cell.strip() for cell in lines[4].strip("|").split("|")] == ["ann", "1", "95.00", "", "", "", "-"]
    assert [cell.strip() for cell in lines[5].strip("|").split("|")] == ["tcl", "1", "10.00", "", "20.00", "90.00", "8"]


def test_csv_has_a_line_per_step_with_the_values_of_the_records(tables):
    found = list(csv.DictReader(io.StringIO(render(tables(("tcl", 0, [0.125, 1 / 3])), "csv"))))
    assert [(row["method"], row["step"], float(row["value"])) for row in found] == [("tcl", "1", 0.125), ("tcl", "2", 1 / 3)]
