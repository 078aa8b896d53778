"""Step costs: ratios to what arithmetic explains."""

import pytest

from harness.registry import Registries
from suites.regression.step_costs import contender, main, measure


def test_operations_and_updates_are_those_of_the_steps_asked_for():
    registries = Registries()
    two, eight = (contender(f"stbp@T={steps}", "static/digits", registries) for steps in (2, 8))
    assert eight.operations == 4 * two.operations and eight.updates == 4 * two.updates > 0


def test_contenders_take_as_many_turns_each():
    registries = Registries()
    found = [contender(name, "static/digits", registries) for name in ("stbp@T=1", "glif[neuron=lif]@T=1")]
    measure(found, rounds=2)
    assert [len(each.times) for each in found] == [2, 2]


def test_the_first_method_is_the_measure(capsys, monkeypatch):
    monkeypatch.setattr("suites.regression.step_costs.ROUNDS", 2)
    main("static/digits", ["stbp@T=1"])
    cells = [cell.strip() for cell in capsys.readouterr().out.splitlines()[-1].strip("|").split("|")]
    assert cells[0] == "stbp@T=1" and cells[2:] == ["1.00"] * 4


def test_an_unknown_method_is_refused():
    with pytest.raises(Exception, match="unknown method"):
        contender("stpb", "static/digits", Registries())
