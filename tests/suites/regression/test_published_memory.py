"""The papers' memory ratios: what is compared exists, and a case whose answer is known comes out."""

from __future__ import annotations

import pytest

from harness.registry import Registries
from suites.regression.published_memory import BPTT, PAIRS, Pair, compare, main, make


@pytest.fixture(scope="module")
def registries():
    return Registries()


def ratio(cell: str) -> float:
    return float(cell.rpartition(", ")[2].removesuffix("x"))


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: f"{pair.method} {pair.base}")
def test_both_sides_of_a_pair_can_be_made(pair, registries):
    method = make(pair.method, pair.task, pair.steps, registries)
    assert method.steps == (pair.steps or method.task.steps)
    if pair.base != BPTT:
        assert make(pair.base, pair.task, pair.steps, registries).task.name == method.task.name


def test_one_step_at_a_time_saves_a_fraction_that_shrinks_with_the_steps(registries):
    rows = [compare(Pair("static/digits", "sltt[norm=sws]", BPTT, steps, 100, "4 to 2 GB"), 8, registries) for steps in (4, 8)]
    four, eight = (ratio(row[4]) for row in rows)
    assert 3 < four < 4 and eight == pytest.approx(2 * four, rel=0.05)
    assert rows[0][:4] == ["`sltt[norm=sws]`", BPTT, "`static/digits`, T=4", "4 to 2 GB"] and rows[0][-1].endswith("(N = 100)")


def test_a_method_that_is_not_there_is_named(capsys):
    with pytest.raises(SystemExit):
        main(["--only", "slt_"])
    assert "no method begins with 'slt_'" in capsys.readouterr().err
