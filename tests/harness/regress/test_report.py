"""The outcome reads the same in a terminal, in Markdown and in JSON, and nothing from outside is taken for markup."""

from __future__ import annotations

import json
import math

import pytest

from harness.regress.finding import Finding, Outcome
from harness.regress.report import document, markdown, terminal

SIDES = {"title": "main (0ac12a9)"}, {"title": "working tree"}
SLOWER = Finding("core lif", "core_time", "timed", "slower", 1e-3, 1.2e-3, "s", 0.03, 0.2, (0.18, 0.22), 1e-5, 1.0, 48)
SAME = Finding("static/digits: stbp", "spikes", "exact", "same", 10.0, 10.0, "", 0.0, 0.0)
LEAK = Finding("core lif", "left_bytes", "exact", "worse", 0, 64, "B", 0.0, math.inf)


def outcome(*findings):
    return Outcome(*SIDES, list(findings))


@pytest.mark.parametrize("show", [terminal, markdown])
def test_what_differs_is_shown_and_what_is_equal_is_counted(show):
    text = show(outcome(SLOWER, SAME))
    assert "core lif" in text and "+20 %" in text and "1.200 ms" in text and "slower" in text
    assert "stbp" not in text and "1 figures that no noise touches are equal" in text


def test_regressions_come_first_and_the_last_line_counts_them():
    text = terminal(outcome(Finding("a", "step_time", "timed", "faster", 1.0, 0.5, "s", 0.05, -0.5), SLOWER))
    assert text.index("slower") < text.index("faster")
    assert text.splitlines()[-1] == "Regression: 1 slower of 2 comparisons."
    assert terminal(outcome(SAME)).splitlines()[-1] == "No regression in 1 comparisons."


def test_a_byte_more_in_a_million_shows():
    found = Finding("a", "saved_bytes", "exact", "worse", 1_000_000, 1_000_001, "B", 0.0, 1e-6)
    assert "1,000,001" in terminal(outcome(found))


def test_what_comes_from_outside_is_text():
    hostile = Finding("<script>x</script> | `a` [b](c)", "spikes", "exact", "worse", 1.0, 2.0, "", 0.0, 1.0, note="| <img src=x>")
    text = markdown(outcome(hostile))
    assert "<script>" not in text and "<img" not in text
    row = next(line for line in text.splitlines() if "script" in line)
    assert row.replace("\\|", "").count("|") == 9  # eight cells, whatever is in them


def test_json_is_strict_and_says_what_fails():
    found = json.loads(document(outcome(SLOWER, SAME, LEAK)), parse_constant=lambda text: pytest.fail(f"{text} is no JSON"))
    assert found["verdict"] == "regression" and found["exit_status"] == 1
    assert [each["failing"] for each in found["findings"]] == [True, False, True]
    assert found["findings"][2]["change"] is None  # from 0 to something


def test_a_comparison_that_could_not_be_made_says_why():
    found = json.loads(document(None, "no such commit"))
    assert found["exit_status"] == 2 and found["reason"] == "no such commit"
    assert "no such commit" in markdown(None, "no such commit")
