"""Thresholds come from pyproject.toml, and a wrong one is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.plugin import UsageError
from harness.regress.settings import DEFAULT_THRESHOLDS, TIMES, read


def settings(folder, text, **kwargs):
    (folder / "pyproject.toml").write_text(text)
    return read(folder, **kwargs)


def test_defaults_hold_where_nothing_is_said(tmp_path):
    found = read(tmp_path)
    assert found.thresholds == DEFAULT_THRESHOLDS and found.changed == "fail"
    assert found.threshold("saved_bytes") == 0 and found.threshold("core_time") > 0
    assert settings(tmp_path, "[project]\nname = 'x'\n") == found


def test_a_threshold_is_changed_and_the_others_stay(tmp_path):
    found = settings(tmp_path, "[tool.spikebench.regress]\nchanged='report'\n[tool.spikebench.regress.thresholds]\nsaved_bytes = 0.1\n")
    assert found.threshold("saved_bytes") == 0.1 and found.threshold("step_time") == DEFAULT_THRESHOLDS["step_time"]
    assert found.changed == "report"


def test_the_command_line_goes_before_the_file(tmp_path):
    assert settings(tmp_path, "[tool.spikebench.regress]\nchanged='report'\n", changed="fail").changed == "fail"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[tool.spikebench.regress.thresholds]\nsaved_byte = 0.1\n", "saved_bytes"),
        ("[tool.spikebench.regress.thresholds]\nsaved_bytes = -1\n", "saved_bytes is -1"),
        ("[tool.spikebench.regress.thresholds]\nsaved_bytes = true\n", "saved_bytes is True"),
        ("[tool.spikebench.regress]\nchange = 'fail'\n", "changed"),
        ("[tool.spikebench.regress]\nchanged = 'never'\n", "fail or report"),
        ("[tool.spikebench.regress]\nalpha = 2\n", "between 0 and 0.5"),
        ("[tool.spikebench.regress\n", "cannot be read"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(tmp_path, text, told):
    with pytest.raises(UsageError, match=told):
        settings(tmp_path, text)


def test_the_file_of_this_project_names_a_threshold_for_every_time():
    assert set(read(Path(__file__).parents[3]).thresholds) >= set(TIMES)
