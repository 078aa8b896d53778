"""Time against length: every contender runs, and the table says how much faster."""

from __future__ import annotations

from suites.regression.lengths import MAKERS, main


def test_the_table_has_a_row_for_every_contender_with_ratios_to_psn(capsys):
    main(["--steps", "8", "16", "--rounds", "1"])
    lines = capsys.readouterr().out.splitlines()
    rows = {line.split("|")[1].strip(): line for line in lines if line.startswith("| ") and "psn)" not in line}
    assert set(rows) == set(MAKERS)
    assert rows["psn"].count("x)") == 0 and rows["lif"].count("x)") == 2


def test_without_psn_there_are_no_ratios(capsys):
    main(["--steps", "8", "--rounds", "1", "--without", "psn", "dynamic decay, full gate"])
    assert "x)" not in capsys.readouterr().out
