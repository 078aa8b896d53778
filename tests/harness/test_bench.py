"""``spikebench bench`` ends by naming the page it wrote."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.store import Store

bench = pytest.importorskip("harness.commands.bench", reason="needs harness.commands.site")


@pytest.fixture
def finished(monkeypatch, make_record):
    """Let runs end at once with ``status``: what is tested comes after them."""

    def let(status="ok"):
        def execute(planned, folder, *_):
            store = Store(folder)
            store.prepare()
            spec = {"method": "ann", "task": "static/digits"}
            failure = {"message": "-"} if status != "ok" else None
            records = [make_record(key=plan.key, label="ann", spec=spec, status=status, failure=failure) for plan in planned]
            for record in records:
                store.write(record)
            return records

        monkeypatch.setattr(bench, "matrix", lambda: {"static/digits": ["ann"]})
        monkeypatch.setattr(bench, "execute", execute)

    return let


def test_the_last_line_names_the_page_and_it_is_there(command, finished, tmp_path):
    finished()
    outcome = command("bench", "--results", tmp_path)
    *_, last = outcome.out.splitlines()
    assert outcome.status == 0 and last == f"Leaderboard: {tmp_path / 'site' / 'index.html'}"
    assert "ann" in Path(last.removeprefix("Leaderboard: ")).read_text(encoding="utf-8")


def test_a_run_that_fails_makes_it_exit_1_and_the_page_is_named_all_the_same(command, finished, tmp_path):
    finished("error")
    outcome = command("bench", "--results", tmp_path)
    assert outcome.status == 1 and outcome.out.splitlines()[-1].startswith("Leaderboard: ")
